"""docs/calling-services.md, testing.md, and docs/django.md on hosted actors: their code, in tests.

The blocks that define actors are ``shop/actors.py``, the last one is in ``shop/tests.py``.
The runner of Django makes the test database, where migrate defines what is registered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = (ROOT / "docs" / "calling-services.md").read_text()
DJANGO = (ROOT / "docs" / "django.md").read_text()
TESTING = (ROOT / "docs" / "testing.md").read_text()
TYPED = DJANGO.split("\n## Typed messages\n")[1].split("\n## ")[0]
HOSTED = DJANGO.split("\n## Hosted actors\n")[1].split("\n## ")[0]

# The service; each test says what it answers.
BANK = '''
class Declined(Exception):
    """The card is."""


async def charge(amount, key, timeout): ...


async def find(key, timeout): ...


async def refund(receipt, key, timeout): ...
'''

TESTS = """
from datetime import timedelta
from unittest import mock

import djactor
from django.test import TestCase
from django.utils import timezone
from djactor.models import DeadLetter

from shop import bank

"""

MORE_TESTS = """


def status():
    return djactor.actor("shop.order", "A1").state()["status"]


class Services(TestCase):
    def test_the_page(self):
        give_up_late()

    def test_a_payment_that_succeeds(self):
        with mock.patch.object(bank, "charge", return_value="receipt 1") as charge:
            djactor.actor("shop.order", "A1").send({"amount": 10})
            drain()
        charge.assert_awaited_once_with(10, key="order-A1", timeout=10)
        self.assertEqual(status(), "paid")
        drain(until=timezone.now() + timedelta(hours=1))
        self.assertEqual(status(), "paid")

    def test_a_card_that_is_declined(self):
        with (
            mock.patch.object(bank, "charge", side_effect=bank.Declined("no")) as charge,
            mock.patch.object(bank, "find", return_value=None),
            mock.patch.object(bank, "refund") as refund,
        ):
            djactor.actor("shop.order", "A1").send({"amount": 10})
            drain()
        charge.assert_awaited_once()
        refund.assert_not_awaited()
        self.assertEqual(status(), "given up")

    def test_a_dead_letter_that_is_redriven_later_charges_nobody(self):
        give_up_late()
        letter = DeadLetter.objects.get(actor_type="shop.payment")
        with mock.patch.object(bank, "charge") as charge:
            letter.redrive()
            drain(on_error="retry")
        charge.assert_not_awaited()
        letter = DeadLetter.objects.get(actor_type="shop.payment")
        self.assertEqual(letter.reason, "rejected")

    def test_the_key_of_a_tip_is_the_id_of_its_message(self):
        with mock.patch.object(bank, "charge", side_effect=[OSError, {"ok": 1}]) as charge:
            number = djactor.actor("shop.tip", "ann").send({"amount": 1})
            drain(on_error="retry", until=timezone.now() + timedelta(minutes=1))
        keys = [call.kwargs["key"] for call in charge.await_args_list]
        self.assertEqual(keys, [f"tip-{number}"] * 2)
"""


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def test_a_payment_that_succeeds_too_late_is_given_back(run_tests: Callable[..., str]) -> None:
    *actors, test = blocks(SERVICES)
    assert len(actors) == 3
    said = run_tests(bank=BANK, actors="\n\n".join(actors), tests=f"{TESTS}{test}{MORE_TESTS}")
    assert "Ran 5 tests" in said


def test_the_first_hosted_actor_and_its_test_are_as_they_stand(
    run_tests: Callable[..., str],
) -> None:
    found = blocks(HOSTED)
    (welcome,) = (block for block in found if "def __init__(self, customer" in block)
    (test,) = (block for block in found if "TestCase" in block)
    imports = (
        "import djactor\nfrom django.core import mail\nfrom django.test import TestCase\n"
        "from djactor.test import drain\n\n\n"
    )
    assert "Ran 1 test" in run_tests(actors=welcome, tests=imports + test)


def test_the_page_on_testing_tests_its_actor(run_tests: Callable[..., str]) -> None:
    actors, *found = blocks(TESTING)
    tests = [block for block in found if "TestCase)" in block]
    assert len(tests) == 7
    imports = "import djactor\nfrom datetime import timedelta\nfrom django.utils import timezone\n"
    imports += "from shop.actors import Signup, SignUp\n\n\n"
    assert "Ran 9 tests" in run_tests(actors=actors, tests=imports + "\n\n".join(tests))


def test_the_typed_actor_does_what_is_said_of_it(run_tests: Callable[..., str]) -> None:
    actors, send = blocks(TYPED)
    (sql,) = re.findall(r"^```sql\n(.*?)^```$", TYPED, flags=re.DOTALL | re.MULTILINE)
    (error,) = re.findall(r"^    (AddItem: .*)$", TYPED, flags=re.MULTILINE)
    tests = f"""
import djactor
from django.db import connection
from django.test import TestCase
from djactor.test import drain
from shop.actors import AddItem, Cart


class Typed(TestCase):
    def test_it(self):
        {send.strip()}
        connection.cursor().execute({sql!r} .replace(";", ""))
        self.assertEqual(drain(), 2)
        self.assertEqual(djactor.actor(Cart, 7).state(), {{"items": {{"x": 4}}}})
        djactor.actor("shop.cart", 7).send({{"@type": "AddItem", "n": "two"}})
        with self.assertRaisesMessage(djactor.Reject, {error!r}):
            drain()
"""
    assert "Ran 1 test" in run_tests(actors=f"import djactor\n\n{actors}", tests=tests)


@pytest.mark.parametrize("block", [*blocks(SERVICES), *blocks(TESTING)])
def test_each_block_of_python_is_python(block: str) -> None:
    compile(block, "docs/calling-services.md or testing.md", "exec")


def test_links_of_the_page_on_testing_lead_somewhere() -> None:
    heads = re.findall(r"^##+ (.*)$", TESTING, flags=re.MULTILINE)
    places = {head.lower().replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TESTING)) <= places
