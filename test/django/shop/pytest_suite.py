"""What users of pytest-django write."""

import pytest

import djactor

COUNTER = djactor.actor("shop.counter", 1)


@pytest.mark.parametrize("time", range(3))
def test_in_one_transaction(djactor_drain, time):
    COUNTER.send({"add": 3})
    assert djactor_drain() == 1
    assert COUNTER.state() == {"n": 3}


@pytest.mark.parametrize("time", range(3))
def test_with_workers(djactor_workers, time):
    COUNTER.send({"add": 4})
    djactor_workers(30)
    assert COUNTER.state() == {"n": 4}
