"""Server-sent events: browsers see states and answers, over one connection to the database."""

import asyncio
import json

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.test import RequestFactory, override_settings
from django.urls import path

import djactor
from djactor import sse
from djactor.sse import answer_events, state_events, type_events

TYPE = "shop.counter"
COUNTER = djactor.actor(TYPE, 1)
PATIENCE = 60  # seconds to wait for what must happen


async def next_event(events):
    """The next one as (event, data); comments are passed over."""
    while True:
        text = (await asyncio.wait_for(anext(events), PATIENCE)).decode()
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


def test_a_number_too_large_for_python_ends_no_stream():
    number = "9" * 5000

    def write():
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE djactor.actor SET state = jsonb_set(state, '{big}', %s::jsonb)", [number]
            )

    async def watch():
        await COUNTER.aask({"add": 1})
        await sync_to_async(write)()
        events = aiter(type_events(TYPE, lambda state: state.get("big")))
        seen = [await anext(events)]
        await djactor.actor(TYPE, 2).aask({"add": 1})
        seen.append(await anext(events))
        await events.aclose()
        return seen

    first, second = asyncio.run(watch())
    assert f'"state": {number}}}' in first.decode()
    assert '"state": null}' in second.decode()


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


def test_a_page_of_many_actors_takes_one_stream():
    async def watch():
        for key in (1, 2):
            await djactor.actor(TYPE, key).aask({"add": key})
        events = aiter(type_events(TYPE, lambda state: state["n"]))
        seen = [await next_event(events) for _ in range(2)]
        await djactor.actor(TYPE, 2).asend({"add": 5})
        seen.append(await next_event(events))
        await djactor.actor(TYPE, 3).asend({"add": 3})  # one that was not there before
        seen.append(await next_event(events))
        late = aiter(type_events(TYPE, lambda state: state["n"]))
        whole = [await next_event(late) for _ in range(3)]
        for stream in (events, late):
            await stream.aclose()
        return seen, whole

    seen, whole = asyncio.run(watch())
    state = "state"
    assert sorted(seen[:2], key=str) == [
        (state, {"key": "1", "state": 1}),
        (state, {"key": "2", "state": 2}),
    ]
    assert seen[2:] == [(state, {"key": "2", "state": 7}), (state, {"key": "3", "state": 3})]
    assert {data["key"]: data["state"] for _, data in whole} == {"1": 1, "2": 7, "3": 3}


def test_an_actor_that_stops_goes_and_may_come_again():
    async def watch():
        await COUNTER.aask({"add": 4})
        events = aiter(type_events(TYPE))
        seen = [await next_event(events)]
        await sync_to_async(stop)(COUNTER)
        seen.append(await next_event(events))
        await COUNTER.aask({"add": 4})
        seen.append(await next_event(events))
        await events.aclose()
        return seen

    there = ("state", {"key": "1", "state": {"n": 4}})
    assert asyncio.run(watch()) == [there, ("gone", {"key": "1"}), there]


def stop(actor):
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.stop_actor(%s, %s)", [actor.type, actor.key])


def test_a_browser_that_comes_again_is_not_told_what_it_knows():
    async def watch():
        await COUNTER.aask({"add": 1})
        stream = aiter(state_events(COUNTER))
        first = await raw_event(stream)
        await stream.aclose()
        again = aiter(state_events(COUNTER, after=first["id"]))
        event = asyncio.ensure_future(raw_event(again))
        await COUNTER.aask({"add": 1})
        seen = await event
        await again.aclose()
        behind = aiter(state_events(COUNTER, after=first["id"]))
        missed = await raw_event(behind)
        await behind.aclose()
        return first["data"], seen["data"], missed["data"]

    assert asyncio.run(watch()) == ('{"n": 1}', '{"n": 2}', '{"n": 2}')


async def raw_event(events):
    while True:
        text = (await asyncio.wait_for(anext(events), PATIENCE)).decode()
        if not text.startswith(":"):
            return dict(line.split(": ", 1) for line in text.strip().split("\n"))


def test_for_a_slow_browser_only_the_newest_state_waits():
    async def watch():
        stream = aiter(state_events(COUNTER))
        await COUNTER.aask({"add": 1})
        first = await next_event(stream)
        quick = aiter(state_events(COUNTER))  # meanwhile nobody reads the other
        await next_event(quick)
        for n in range(2, 7):
            await COUNTER.aask({"add": 1})
            assert await next_event(quick) == ("state", {"n": n})
        second = await next_event(stream)
        for each in (quick, stream):
            await each.aclose()
        return first[1], second[1]

    assert asyncio.run(watch()) == ({"n": 1}, {"n": 6})


def test_a_quiet_stream_says_that_it_is_still_there(monkeypatch):
    monkeypatch.setattr(sse, "_HEARTBEAT", 0.05)

    async def watch():
        stream = aiter(state_events(COUNTER))
        said = [await asyncio.wait_for(anext(stream), PATIENCE) for _ in range(2)]
        await stream.aclose()
        return said

    assert asyncio.run(watch()) == [b": still here\n\n"] * 2


async def stream_view(request):
    return state_events(COUNTER, after=request.headers.get("Last-Event-ID"))


urlpatterns = [path("stream", stream_view)]


@override_settings(ROOT_URLCONF="test_sse", MIDDLEWARE=[])
def test_when_the_browser_has_left_nobody_looks_any_more():
    async def visit():
        await COUNTER.aask({"add": 1})
        scope = {"type": "http", "method": "GET", "path": "/stream", "query_string": b""}
        browser = ApplicationCommunicator(ASGIHandler(), scope | {"headers": []})
        await browser.send_input({"type": "http.request", "body": b""})
        assert (await browser.receive_output(PATIENCE))["status"] == 200
        assert b'{"n": 1}' in (await browser.receive_output(PATIENCE))["body"]
        await browser.send_input({"type": "http.disconnect"})
        await browser.wait(PATIENCE)
        while await sync_to_async(looking)():
            await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(visit(), 2 * PATIENCE))


@override_settings(ROOT_URLCONF="test_sse", MIDDLEWARE=[])
def test_under_wsgi_it_is_refused_instead_of_read_to_its_end():
    response = WSGIHandler()(RequestFactory().get("/stream").environ, lambda *args: None)
    with pytest.raises(ImproperlyConfigured, match="need an ASGI server"):
        list(response)
