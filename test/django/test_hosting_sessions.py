"""The session of a host: what of all that the server says wakes it, and what it does then."""

import asyncio
import os
import time

import psycopg
import pytest

import djactor
from djactor import listener
from djactor.hosting.async_host import AsyncHost
from djactor.hosting.classes import Hosted
from djactor.hosting.context import TYPE
from djactor.hosting.notes import Notes
from djactor.hosting.session import AsyncSession, Options, SyncSession
from djactor.hosting.watchdog import Watchdog
from hosting_classes import AsyncCounter
from hosting_worker import define, drop, query

OPTIONS = Options("default", "default")
TYPES = {"session.ours": Hosted("session.ours", AsyncCounter)}
MAIL = pytest.mark.parametrize(
    ("payload", "ours"),
    [
        ("mail session.ours", True),
        ("mail session.theirs", False),
        ("mail", True),  # of several types
        ("", True),  # from a server that does not say
    ],
)


@pytest.fixture(autouse=True)
def types(project, fresh):
    names = [*TYPES, "session.theirs"]
    for name in names:
        define(name, "AsyncCounter")
    yield
    for name in names:
        drop(name)


async def tell(*payloads):
    """Notify hosts, one transaction for each."""
    parameters = listener.parameters("admin", "test") | {"autocommit": True}
    async with await psycopg.AsyncConnection.connect(**parameters) as connection:
        for payload in payloads:
            await connection.execute("SELECT pg_notify('djactor_host', %s)", [payload])


class Heard(list):
    """What an async session has said."""

    def __init__(self):
        self.session = AsyncSession(
            OPTIONS,
            TYPES,
            bell=lambda: self.append("bell"),
            asked=lambda: self.append("asked"),
            cancelled=self._cancelled,
        )

    def _cancelled(self, message_id):
        self.append(message_id)
        return message_id < 100

    async def until(self, word):
        while word not in self:
            await asyncio.sleep(0.01)


@pytest.fixture
def run(types):
    """Runs a coroutine function with an open session that has found nothing, and what it says."""

    def run(scene):
        failed = []

        async def inner():
            asyncio.get_running_loop().set_exception_handler(lambda _, said: failed.append(said))
            heard = Heard()
            await heard.session.open()
            try:
                assert await heard.session.take(1, 1) == []
                await asyncio.wait_for(scene(heard.session, heard), 60)
            finally:
                await heard.session.leave()

        asyncio.run(inner())
        assert not failed

    return run


@MAIL
def test_a_sync_host_is_woken_by_mail_of_its_types_only(payload, ours):
    session = SyncSession(OPTIONS, TYPES)
    other, rope = os.pipe()
    try:
        session.open()
        assert session.take(1, 1) == []
        query("SELECT pg_notify('djactor_host', %s)", payload)
        assert session.wait(other, 0.5) == ours
        os.write(rope, b"!")
        assert session.wait(other, 60)
    finally:
        session.leave()
        os.close(other)
        os.close(rope)


def test_a_sync_host_that_is_told_once_asks_once():
    session = SyncSession(OPTIONS, TYPES)
    other, rope = os.pipe()
    try:
        session.open()
        assert session.take(1, 1) == []
        query("SELECT pg_notify('djactor_host', 'mail session.ours')")
        assert session.wait(other, 60)
        assert session.take(1, 1) == []
        assert not session.wait(other, 0)
    finally:
        session.leave()
        os.close(other)
        os.close(rope)


@MAIL
@pytest.mark.parametrize("room", [0, 1])
def test_an_async_host_is_woken_by_mail_of_its_types_only(run, payload, ours, room):
    async def scene(session, heard):
        session.listen(room, room)
        await tell(payload, "1")  # the latter is heard at last
        await heard.until(1)
        assert heard == [*(["asked" if room else "bell"] if ours else []), 1]
        assert session.is_asking == (ours and room > 0)
        assert await session.take(1, 1) == []
        assert not session.is_asking

    run(scene)


ODD = ["", " ", "mail ", "\u00b2", "9" * 5_000, "mail " + "x" * 5_000, "-1", "djactor"]


def test_no_notification_harms_a_host(run):
    async def scene(session, heard):
        for payload in ODD:  # anybody may notify
            session.listen()
            await tell(payload, "1")
            await heard.until(1)
            assert set(heard) <= {"bell", 1}
            heard.clear()
        assert await session.take(1, 1) == []

    run(scene)
    session = SyncSession(OPTIONS, TYPES)
    other, rope = os.pipe()
    try:
        session.open()
        for payload in ODD:
            query("SELECT pg_notify('djactor_host', %s)", payload)
            session.wait(other, 0.1)
            assert session.take(1, 1) == []
    finally:
        session.leave()
        os.close(other)
        os.close(rope)


def test_an_async_host_that_waits_has_asked_once_it_is_told(run):
    async def scene(session, heard):
        session.listen(1, 1)
        await djactor.actor("session.ours", 1).asend({"add": 1})
        await heard.until("asked")
        await tell("mail session.ours", "1")
        await heard.until(1)  # while the rows are there, or on their way
        assert heard.count("asked") == 1
        assert "bell" in heard  # there may be more
        (row,) = await session.take(7, 7)
        assert row[TYPE] == "session.ours"
        await session.beat()
        assert await session.take(1, 1) == []

    run(scene)


def test_cancels_of_what_is_not_here_are_kept_while_mail_is_on_its_way(run):
    async def scene(session, heard):
        await tell("101")
        session.listen(1, 1)
        await heard.until(101)
        await tell("mail session.ours", "2", "102")  # 2 is here
        await heard.until(102)
        assert await session.take(1, 1) == []
        assert session.early == [102]
        session.listen(1, 1)
        await tell("103", "mail session.ours", "104")  # nothing is asked when it hears of 103
        await heard.until(104)
        assert await session.take(1, 1) == []
        assert session.early == [104]
        assert await session.take(1, 1) == []
        assert session.early == []

    run(scene)


def test_a_session_that_is_lost_while_it_asks_says_so(run):
    async def scene(session, heard):
        session.listen(1, 1)
        lock = await psycopg.AsyncConnection.connect(**listener.parameters("admin", "test"))
        async with lock:
            # take() waits
            await lock.execute("LOCK TABLE djactor.message IN ACCESS EXCLUSIVE MODE")
            await tell("mail session.ours")
            await heard.until("asked")
            await lock.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'djactor host'"
            )
            await heard.until("bell")
        with pytest.raises(psycopg.OperationalError):
            await session.take(1, 1)
        assert not session.is_asking
        await session.open()
        assert await session.take(1, 1) == []

    run(scene)


class Waiting:
    """A host in this process that waits for mail, once ``serve()`` has returned."""

    def __init__(self):
        notes = Notes()
        self.host = AsyncHost(OPTIONS, TYPES, notes, Watchdog(notes))
        self.asks = 0
        self._serving = None
        self._take = self.host.session.take
        self.host.session.take = self._counted

    async def _counted(self, *room):
        self.asks += 1
        return await self._take(*room)

    async def serve(self):
        await self.host.open()
        self._serving = asyncio.create_task(self.host.serve())
        while self.asks == 0 or self.host.session.is_asking:
            await asyncio.sleep(0.01)

    async def drain(self, grace):
        await self.host.drain(grace)
        await asyncio.wait([self._serving])


def test_an_async_host_that_is_told_once_asks_once():
    async def scene():
        waiting = Waiting()
        await waiting.serve()
        for asks in (2, 3):
            await tell("mail session.ours")
            await asyncio.sleep(0.5)
            assert waiting.asks == asks
        await waiting.drain(30)

    asyncio.run(scene())


def test_what_a_host_has_asked_for_is_handled_although_it_drains():
    async def scene():
        waiting = Waiting()
        host = waiting.host
        asked = asyncio.Event()

        def drains():
            host.draining = True
            host.bell.wake()
            asked.set()

        host.session.asked = drains
        await waiting.serve()
        await djactor.actor("session.ours", 1).asend({"add": 1})
        await asked.wait()
        began = time.monotonic()
        await waiting.drain(30)
        return time.monotonic() - began

    assert asyncio.run(scene()) < 20
    assert djactor.actor("session.ours", 1).state()["n"] == 1
    assert query("SELECT count(*) FROM djactor.host") == [(0,)]
