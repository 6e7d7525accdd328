"""Server-sent events: browsers see states and answers, over one connection to the database."""

import asyncio
import json

from django.db import connection

import djactor
from djactor.sse import answer_events, state_events

TYPE = "shop.counter"
COUNTER = djactor.actor(TYPE, 1)


async def next_event(events):
    """The next one as (event, data); comments are passed over."""
    while True:
        text = (await asyncio.wait_for(anext(events), 20)).decode()
        if not text.startswith(":"):
            lines = dict(line.split(": ", 1) for line in text.strip().split("\n"))
            return lines["event"], json.loads(lines["data"])


def test_a_browser_sees_the_state_now_and_after_each_change():
    async def watch():
        await COUNTER.asend({"add": 1})
        response = state_events(COUNTER)
        assert response["Content-Type"] == "text/event-stream"
        events = aiter(response)
        seen = [await next_event(events)]
        await COUNTER.asend({"add": 2})
        seen.append(await next_event(events))
        await events.aclose()
        return seen

    assert asyncio.run(watch()) == [("state", {"n": 1}), ("state", {"n": 3})]


def test_only_what_is_picked_leaves_and_only_when_it_changes():
    async def watch():
        events = aiter(state_events(COUNTER, lambda state: {"tens": state["n"] // 10}))
        seen = []
        for add in (1, 1, 10):
            await COUNTER.aask({"add": add})
            if add != 1 or not seen:
                seen.append(await next_event(events))
        await events.aclose()
        return seen

    assert asyncio.run(watch()) == [("state", {"tens": 0}), ("state", {"tens": 1})]


def looking():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE query LIKE '%unnest%' AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def test_many_browsers_cost_one_connection():
    async def watch():
        streams = [aiter(state_events(djactor.actor(TYPE, i % 5))) for i in range(40)]
        for key in range(5):
            await djactor.actor(TYPE, key).asend({"add": key})
        seen = await asyncio.gather(*(next_event(stream) for stream in streams))
        from asgiref.sync import sync_to_async

        connections = await sync_to_async(looking)()
        for stream in streams:
            await stream.aclose()
        return seen, connections

    seen, connections = asyncio.run(watch())
    assert seen == [("state", {"n": i % 5}) for i in range(40)]
    assert connections == 1


def test_an_answer_an_error_or_its_absence_is_an_event():
    async def ask(payload, timeout=20.0):
        events = aiter(answer_events(COUNTER, payload, timeout=timeout))
        return await next_event(events)

    assert asyncio.run(ask({"add": 2})) == ("answer", {"n": 2})
    name, error = asyncio.run(ask({"fail": True}))
    assert (name, error["reason"]) == ("error", "rejected")


def test_no_answer_is_an_event_too(paused):
    async def ask():
        return await next_event(aiter(answer_events(COUNTER, {"add": 1}, timeout=0.1)))

    name, message_id = asyncio.run(ask())
    assert name == "timeout"
    assert message_id > 0
