"""Asking: one answer, from sync and async code, and no way to wait for ever."""

import asyncio

import pytest
from django.db import connection, transaction
from django.test import override_settings

import djactor
from djactor.models import Message
from djactor.test import wait_idle

TYPE = "shop.counter"


def test_ask_returns_the_answer():
    assert djactor.actor(TYPE, 1).ask({"add": 2}) == {"n": 2}
    assert djactor.actor(TYPE, 1).ask({"add": 2}) == {"n": 4}


def test_ask_inside_a_transaction_is_refused_and_sends_nothing():
    with transaction.atomic(), pytest.raises(djactor.AskInTransaction, match="before the commit"):
        djactor.actor(TYPE, 1).ask({"add": 2})
    wait_idle()
    assert djactor.actor(TYPE, 1).state() is None


def test_an_error_is_an_answer():
    with pytest.raises(djactor.AskFailed, match="told to fail") as raised:
        djactor.actor(TYPE, 1).ask({"fail": True})
    assert raised.value.error["reason"] == "rejected"


def test_no_answer_in_time_is_an_error_that_names_the_message(paused):
    with pytest.raises(djactor.AskTimeout, match=r"within 0\.2 s") as raised:
        djactor.actor(TYPE, 1).ask({"add": 1}, timeout=0.2)
    assert raised.value.message_id > 0


def ask_many(count):
    async def run():
        answers = await asyncio.gather(
            *(djactor.actor(TYPE, key).aask({"add": key}) for key in range(count))
        )
        return answers, await asyncio.to_thread(listeners)

    return asyncio.run(run())


def listeners():
    from django.db import connections

    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN djactor_reply'"
            )
            return cursor.fetchone()[0]
    finally:
        connections.close_all()


def test_many_wait_on_one_listening_connection():
    answers, connections = ask_many(50)
    assert answers == [{"n": key} for key in range(50)]
    assert connections == 1


@override_settings(DJACTOR={"LISTEN": False})
def test_without_listen_answers_are_polled_for():
    answers, connections = ask_many(10)
    assert answers == [{"n": key} for key in range(10)]
    assert connections == 0


def test_aask_fails_and_times_out_like_ask(paused):
    async def late():
        await djactor.actor(TYPE, 1).aask({"add": 1}, timeout=0.2)

    with pytest.raises(djactor.AskTimeout):
        asyncio.run(late())


def test_what_nobody_waits_for_any_more_expires(paused):
    with pytest.raises(djactor.AskTimeout):
        djactor.actor(TYPE, 1).ask({"add": 1}, timeout=0.1)
    assert Message.objects.get().expires_at is not None
