"""How far a turn is: progress() in hosted turns, who sees it, and browsers."""

import asyncio

import psycopg
import pytest
from django.db import connection

import djactor
from djactor import listener
from djactor.models import DeadLetter
from djactor.sse import progress_events
from djactor.test import wait_idle
from hosting_worker import query, serving
from waiting import until

TYPES = {
    "host.reporter": ("Reporter", {"max_attempts": 1}),
    "host.areporter": ("AsyncReporter", {"max_attempts": 1}),
}
BOTH = pytest.mark.parametrize("reporter", list(TYPES))


@pytest.fixture(scope="module")
def worker(project):
    with serving(project, TYPES) as running:
        yield running


def progress_of(message_id):
    return query("SELECT djactor.progress_of(%s)::text", message_id)[0][0]


@BOTH
def test_others_see_how_far_a_turn_is_until_it_ends(worker, reporter):
    message_id = djactor.actor(reporter, 1).send({"done": 2, "sleep": 2})
    until(lambda: progress_of(message_id) == '{"done": 2}')
    wait_idle(30)
    assert progress_of(message_id) is None
    assert query("SELECT count(*) FROM djactor.progress") == [(0,)]


def test_what_is_too_long_is_refused(worker):
    djactor.actor("host.areporter", 1).send({"done": 1, "sleep": 0, "long": True})
    wait_idle(30)
    assert "limited to 1024 bytes" in DeadLetter.objects.get().error


def test_listeners_are_told_of_async_turns(worker):
    connection.ensure_connection()
    with psycopg.connect(**listener.parameters("default", "test"), autocommit=True) as listening:
        listening.execute("LISTEN djactor_progress")
        message_id = djactor.actor("host.areporter", 1).send({"done": 2, "sleep": 1})
        (told,) = listening.notifies(timeout=30, stop_after=1)
        assert told.payload == str(message_id)
    wait_idle(30)


@BOTH
def test_a_browser_follows_a_message(worker, reporter):
    async def run():
        message_id = await djactor.actor(reporter, 1).asend({"done": 3, "sleep": 2})
        events = [event async for event in progress_events(message_id)]
        return message_id, [event.decode() for event in events]

    message_id, events = asyncio.run(asyncio.wait_for(run(), 60))
    assert events[-2:] == [
        'event: progress\ndata: {"done": 3}\n\n',
        f"event: gone\ndata: {message_id}\n\n",
    ]
    assert len(events) <= 3
