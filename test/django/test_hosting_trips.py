"""The trips of async hosts to the server: results, errors, notifications, connections that end."""

import asyncio

import psycopg
import pytest

from djactor import listener
from djactor.hosting.trips import Trips, numbered

LARGE = "x" * 5_000_000  # far more than a socket takes at once
LENGTH = numbered("SELECT length(%s::text)")
NOTIFY = numbered("SELECT pg_notify('trips', %s)")
SLEEP = numbered("SELECT pg_sleep(60)")
NAP = numbered("SELECT pg_sleep(%s)")
DIVIDE = numbered("SELECT 1 / %s::int")
TERMINATE = "SELECT pg_terminate_backend(%s)"


async def tell(sql, *params):
    """Execute a statement by another connection."""

    def execute():
        parameters = listener.parameters("default", "test") | {"autocommit": True}
        with psycopg.connect(**parameters) as connection:
            connection.execute(sql, params)

    await asyncio.to_thread(execute)


@pytest.fixture(params=[True, False], ids=["prepared", "pooled"])
def run(project, request):
    """Runs a coroutine function with trips on a connection of its own."""

    def run(function, **options):
        async def inner():
            parameters = listener.parameters("default", "test") | {"autocommit": True}
            connection = await psycopg.AsyncConnection.connect(**parameters)
            trips = Trips(connection, prepares=request.param, **options)
            try:
                await asyncio.wait_for(function(trips), 60)
            finally:
                await trips.close()

        asyncio.run(inner())

    return run


def test_each_parameter_has_its_number():
    assert numbered("SELECT %s, f(%s)") == b"SELECT $1, f($2)"
    assert numbered("SELECT 1") == b"SELECT 1"


def test_results_come_however_large_the_statement_is(run):
    async def trip(trips):
        assert await trips.value(LENGTH, None) is None
        for text in ("", "é\n", LARGE, "one"):
            assert await trips.value(LENGTH, text) == len(text)
        assert await trips.rows(numbered("SELECT 1 WHERE false")) == []
        rows = await trips.rows(
            numbered("SELECT i, ARRAY['a', i::text] FROM generate_series(1, 2) i")
        )
        assert rows == [(1, ["a", "1"]), (2, ["a", "2"])]
        result = await trips.execute(numbered("SELECT repeat(%s::text, 5000000)"), "x")
        assert result.get_value(0, 0).decode() == LARGE

    run(trip)


def test_an_error_is_raised_and_the_next_trip_goes(run):
    async def trip(trips):
        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await trips.execute(numbered("SELECT 1 / %s::int"), "0")
            with pytest.raises(psycopg.errors.SyntaxError):
                await trips.execute(b"SELEC")
            assert await trips.value(LENGTH, "four") == 4

    run(trip)


def test_psycopg_may_use_the_connection_in_between(run):
    async def trip(trips):
        for text in ("a", "bc"):
            assert await trips.value(LENGTH, text) == len(text)
            cursor = await trips.connection.execute("SELECT %s::int", [7])
            assert await cursor.fetchone() == (7,)
            async with trips.connection.pipeline(), trips.connection.transaction():
                await trips.connection.execute("SELECT 1")

    run(trip)


def test_notifications_are_heard_with_a_trip_and_without(run):
    heard = asyncio.Queue()

    async def trip(trips):
        await trips.connection.execute("LISTEN trips")
        await trips.execute(NOTIFY, "own")
        assert await heard.get() == "own"
        await tell("NOTIFY trips, 'idle'")
        assert await heard.get() == "idle"
        await trips.connection.execute("SELECT 1")
        trips.listen()
        await tell("NOTIFY trips, 'after psycopg'")
        assert await heard.get() == "after psycopg"

    run(trip, notified=heard.put_nowait)


def test_who_waits_is_told_that_the_connection_is_lost(run):
    lost = asyncio.Event()

    async def trip(trips):
        pid = await trips.value(numbered("SELECT pg_backend_pid()"))
        sleeping = asyncio.ensure_future(trips.execute(SLEEP))
        await tell(TERMINATE, pid)
        with pytest.raises(psycopg.OperationalError):
            await sleeping
        assert trips.closed
        assert not lost.is_set()
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError):
                trips.listen()
            with pytest.raises(psycopg.OperationalError):
                await trips.execute(SLEEP)

    run(trip, lost=lost.set)


def test_a_connection_that_is_lost_while_nobody_waits_is_noticed(run):
    lost = asyncio.Event()

    async def trip(trips):
        pid = await trips.value(numbered("SELECT pg_backend_pid()"))
        await tell(TERMINATE, pid)
        await lost.wait()
        assert trips.closed
        with pytest.raises(psycopg.OperationalError, match=r"closed the connection|terminating"):
            trips.listen()

    run(trip, lost=lost.set)


def test_a_statement_may_be_sent_at_once_and_its_result_be_fetched_later(run):
    trips_ = []

    def notified(payload):
        trips_[0].send(LENGTH, payload)

    async def trip(trips):
        trips_.append(trips)
        assert await trips.value(LENGTH, "") == 0
        await trips.connection.execute("LISTEN trips")
        for pause in (0.0, 0.2):  # the result is there when it is fetched, or is not
            trips.listen()
            assert not trips.under_way
            await tell("NOTIFY trips, 'seven'")
            while not trips.under_way:
                await asyncio.sleep(0)
            await asyncio.sleep(pause)
            assert trips.loaded(await trips.result()) == [(5,)]
            assert not trips.under_way
        await trips.execute(DIVIDE, "1")
        trips.send(DIVIDE, "0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await trips.result()
        assert await trips.value(LENGTH, "four") == 4

    run(trip, notified=notified)


def test_a_connection_that_is_lost_before_a_result_is_fetched_is_noticed_at_once_and_then(run):
    lost = asyncio.Event()

    async def trip(trips):
        pid = await trips.value(numbered("SELECT pg_backend_pid()"))
        await trips.execute(NAP, "0")
        trips.send(NAP, "60")
        trips.listen()
        await tell(TERMINATE, pid)
        await lost.wait()
        with pytest.raises(psycopg.errors.AdminShutdown):
            await trips.result()
        assert not trips.under_way

    run(trip, lost=lost.set)


@pytest.mark.parametrize("statement", ["short", "large"])
def test_a_trip_that_is_closed_or_cancelled_ends(run, statement):
    async def start(trips):
        await trips.execute(b"SELECT 1")
        if statement == "short":
            trip = asyncio.ensure_future(trips.execute(SLEEP))
        else:
            trip = asyncio.ensure_future(trips.value(LENGTH, LARGE))
        await asyncio.sleep(0)
        return trip

    async def close(trips):
        trip = await start(trips)
        await trips.close()
        with pytest.raises(psycopg.OperationalError):
            await trip

    async def cancel(trips):
        trip = await start(trips)
        trip.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trip
        assert trips.closed

    run(close)
    run(cancel)
