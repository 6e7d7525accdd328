"""The session of a host: it registers, takes mail, says that it is alive.

It goes to the server directly, since the server keeps what was taken for this session; a pooler
that hands sessions around is recognized and refused.  While there is nothing to take the session is
idle, and ``NOTIFY djactor_host`` wakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.types.string import TextLoader

from djactor import listener
from djactor.hosting.classes import Hosted
from djactor.hosting.context import Row
from djactor.hosting.trips import Trips, numbered
from djactor.hosting.turns import COLUMNS

# As long as the server takes to come back, at growing intervals.
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds

_HEARD = 2.0  # seconds in which a session hears a NOTIFY of another one
_PID = "SELECT pg_catalog.pg_backend_pid()"
_KNOWN = """
    SELECT proargnames FROM pg_catalog.pg_proc
    WHERE oid = 'djactor.take(int, int)'::pg_catalog.regprocedure"""
_OPEN = "SELECT djactor.host_open(%s::text[], %s::text, make_interval(secs => %s), %s::text)"
_LISTEN = "LISTEN djactor_host"
_VERSIONS = """
    SELECT name, state_version FROM djactor.actor_type
    WHERE name = ANY (%s::text[]) ORDER BY name"""
_BEAT = "SELECT djactor.heartbeat(%s::bigint)"
_DRAIN = "SELECT djactor.host_drain(%s::bigint)"
_CLOSE = "SELECT djactor.host_close()"


@dataclass(frozen=True)
class Options:
    """How a host is to be.

    Attributes:
        alias: Alias of the database for the turns.
        direct: Alias of the same database without a pooler, for the session.
        concurrency: How many async turns may run at once.
        threads: How many sync turns may run at once.
        grace: How many seconds a turn may go on after a time limit or a SIGTERM.
        lease: For how many seconds the server believes that this process lives without a word.
        version: What the project calls the version of its code.
    """

    alias: str
    direct: str
    concurrency: int = 100
    threads: int = 4
    grace: float = 30.0
    lease: float = 30.0
    version: str = ""


class Lost(Exception):
    """The session is gone, or the server has given its claims to others."""


class Outdated(Exception):
    """The states of a type have another version by now than this process knows."""


def _check_versions(types: Mapping[str, Hosted], rows: Sequence[Any]) -> None:
    """See that states have the versions that they had when this process began.

    Raises:
        Outdated: They have not.
    """
    for name, version in rows:
        if types[name].state_version != version:
            raise Outdated(
                f"the states of actor type {name!r} have version {version} by now, and had"
                f" {types[name].state_version} when this process began"
            )


def _parameters(alias: str) -> dict[str, Any]:
    return listener.parameters(alias, "host") | {"autocommit": True, "prepare_threshold": 0}


def _check_pooler(alias: str) -> None:
    """See that a pooler gives each connection a session of its own, as it does in session mode.

    Only then does a connection hear what its session LISTENs to while it does nothing.

    Raises:
        psycopg.errors.ObjectNotInPrerequisiteState: It hands sessions around.
        psycopg.Error: The server cannot be reached.
    """
    plain = listener.parameters(alias, "host") | {"autocommit": True, "prepare_threshold": None}
    with psycopg.connect(**plain) as session, psycopg.connect(**plain) as other:
        session.execute("LISTEN djactor_probe")
        other.execute("NOTIFY djactor_probe")
        # without a statement, for which any session would do
        socket_ = select.poll()
        socket_.register(session.fileno(), select.POLLIN)
        end = time.monotonic() + _HEARD
        while (left := end - time.monotonic()) > 0:
            socket_.poll(1000 * left)
            session.pgconn.consume_input()
            if session.pgconn.notifies() is not None:
                session.execute("UNLISTEN djactor_probe")
                return
    raise psycopg.errors.ObjectNotInPrerequisiteState(
        f"the database {alias!r} is reached through a pooler that hands sessions around, such as"
        " pgbouncer in transaction mode; a host needs a session of its own: give"
        " --direct-database an alias that goes to the server directly"
    )


def _prepare(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """JSON and UUIDs stay text until somebody asks for them."""
    for name in ("jsonb", "uuid"):
        connection.adapters.register_loader(name, TextLoader)


def _may_be_ours(payload: str, types: Mapping[str, Hosted]) -> bool:
    """Whether a notification may be of mail for these types: it names another one otherwise."""
    name = payload.partition(" ")[2]
    return not name or name in types


def process_name() -> str:
    """This process, as others know it: the end of the machine's name, and its number there."""
    return _process_name()


@lru_cache(1)
def _process_name() -> str:
    return f"{socket.gethostname()[-40:]}:{os.getpid()}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process_name.cache_clear)


def _name(kind: str) -> str:
    return f"{process_name()} {kind}"


def _statement(known: Sequence[str]) -> str:
    """The call of ``take()``, whose columns are in our order."""
    columns = []
    for name in COLUMNS:
        if name not in known:
            columns.append(f"NULL AS {name}")
        elif name in ("time_limit", "sent_at"):  # a float is read faster
            columns.append(f"pg_catalog.date_part('epoch', t.{name})")
        else:
            columns.append(f't."{name}"')
    return f"SELECT {', '.join(columns)} FROM djactor.take(%s::int, %s::int) AS t"


class AsyncSession:
    """The session of a host that runs async turns.

    Attributes:
        host: The host's id.
        bell: What is called when the server says that there may be mail, or the session is lost.
        asked: What is called when ``take()`` was sent for that.
        cancelled: What is called with the id of a message that was cancelled; it says whether that
            was found.
        early: Messages that were not, and cancelled since ``take()`` was sent.
    """

    def __init__(
        self,
        options: Options,
        types: Mapping[str, Hosted],
        *,
        bell: Callable[[], None],
        asked: Callable[[], None],
        cancelled: Callable[[int], bool],
    ) -> None:
        self.host = 0
        self.bell = bell
        self.asked = asked
        self.cancelled = cancelled
        self.early: list[int] = []
        self._options = options
        self._types = types
        self._trips: Trips | None = None
        self._take = b""
        self._waits_for: tuple[str, str] | None = None  # arguments of take()

    async def open(self) -> None:
        """Connect and register.

        Raises:
            psycopg.Error: The server cannot be reached, or refuses it; 55000: through a pooler that
                hands sessions around.
            Outdated: This process does not know the states of its types any more.
        """
        await self.close()
        self._waits_for = None
        connection = await psycopg.AsyncConnection.connect(**_parameters(self._options.direct))
        self._trips = Trips(connection, prepares=True, notified=self._notified, lost=self.bell)
        row = await (await connection.execute(_PID, prepare=False)).fetchone()
        if row is not None and row[0] != connection.info.backend_pid:
            await asyncio.to_thread(_check_pooler, self._options.direct)
        await _become_role(connection, self._options.direct)
        _prepare(connection)
        connection.add_notify_handler(lambda notify: self._notified(notify.payload))
        cursor: Any = connection.cursor()
        await cursor.execute(_KNOWN)
        self._take = numbered(_statement((await cursor.fetchone())[0]))
        await cursor.execute(
            _OPEN,
            (list(self._types), _name("async"), self._options.lease, self._options.version),
        )
        self.host = (await cursor.fetchone())[0]
        await cursor.execute(_VERSIONS, (list(self._types),))
        _check_versions(self._types, await cursor.fetchall())
        await cursor.execute(_LISTEN)

    async def take(self, mailboxes: int, messages: int) -> list[Row]:
        """Take mail, by the ``take()`` that is under way if there is one.

        Raises:
            psycopg.Error: The session is lost.
        """
        trips = self._opened()
        if trips.under_way:
            return trips.loaded(await trips.result())
        self.early = []
        return await trips.rows(self._take, str(mailboxes), str(messages))

    @property
    def is_asking(self) -> bool:
        """Whether ``take()`` is under way: the next thing to do is to take."""
        return self._trips is not None and self._trips.under_way

    def listen(self, mailboxes: int = 0, messages: int = 0) -> None:
        """Hear what the server says without a question.

        Args:
            mailboxes: If not 0, the session calls ``take()`` once it hears of mail, for so many
                mailboxes at most.
            messages: ... and so many messages of each.

        Raises:
            psycopg.Error: The session is lost.
        """
        self._waits_for = (str(mailboxes), str(messages)) if mailboxes else None
        self._opened().listen()

    def _opened(self) -> Trips:
        if self._trips is None:
            raise psycopg.OperationalError("the connection is closed")
        return self._trips

    def _notified(self, payload: str) -> None:
        message_id = listener.message_id_of(payload)
        if message_id is not None:
            if not self.cancelled(message_id) and self.is_asking:
                self.early.append(message_id)
        elif not _may_be_ours(payload, self._types):
            pass
        elif self._waits_for is None:
            self.bell()
        else:
            arguments, self._waits_for = self._waits_for, None
            self.early = []
            self._opened().send(self._take, *arguments)
            self.asked()

    async def beat(self) -> None:
        """Say that this process is alive.

        Raises:
            Lost: The server has given its claims to others.
            psycopg.Error: The session is lost.
        """
        if not await self._opened().value(numbered(_BEAT), str(self.host)):
            raise Lost("the server has not heard of this host for too long")

    async def drain(self) -> None:
        """Have ``take()`` find nothing from now on."""
        await self._opened().execute(numbered(_DRAIN), str(self.host))

    async def leave(self) -> None:
        """Give back what is left, unregister and disconnect."""
        with contextlib.suppress(psycopg.Error):
            await self._opened().execute(numbered(_CLOSE))
        await self.close()

    async def close(self) -> None:
        """Disconnect."""
        if self._trips is not None:
            trips, self._trips = self._trips, None
            await trips.close()


class SyncSession:
    """The session of a host that runs sync turns; one thread at a time uses it.

    Attributes:
        host: The host's id.
    """

    def __init__(self, options: Options, types: Mapping[str, Hosted]) -> None:
        self.host = 0
        self._options = options
        self._types = types
        self._connection: psycopg.Connection[Any] | None = None
        self._cursor: Any = None
        self._take = ""
        self._rung = False

    def open(self) -> None:
        """Connect and register.

        Raises:
            psycopg.Error: The server cannot be reached, or refuses it; 55000: through a pooler that
                hands sessions around.
            Outdated: This process does not know the states of its types any more.
        """
        self.close()
        connection = psycopg.connect(**_parameters(self._options.direct))
        self._connection = connection
        row = connection.execute(_PID, prepare=False).fetchone()
        if row is not None and row[0] != connection.info.backend_pid:
            _check_pooler(self._options.direct)
        listener.become_role(connection, self._options.direct)
        _prepare(connection)
        connection.add_notify_handler(lambda notify: self._hear(notify.payload))
        cursor: Any = connection.cursor()
        self._cursor = cursor
        known = cursor.execute(_KNOWN).fetchone()
        self._take = _statement(known[0])
        cursor.execute(
            _OPEN,
            (list(self._types), _name("sync"), self._options.lease, self._options.version),
        )
        self.host = cursor.fetchone()[0]
        _check_versions(self._types, cursor.execute(_VERSIONS, (list(self._types),)).fetchall())
        cursor.execute(_LISTEN)

    def take(self, mailboxes: int, messages: int) -> list[Row]:
        """Take mail.

        Raises:
            psycopg.Error: The session is lost.
        """
        self._rung = False
        self._cursor.execute(self._take, (mailboxes, messages))
        rows: list[Row] = self._cursor.fetchall()
        return rows

    def wait(self, other: int, seconds: float) -> bool:
        """Until the server says something, another descriptor can be read, or so long.

        Returns:
            Whether there may be mail, or the other descriptor can be read.

        Raises:
            psycopg.Error: The session is lost.
        """
        if self._rung or self._connection is None:
            return True
        select_ = select.poll()
        select_.register(self._connection.fileno(), select.POLLIN)
        select_.register(other, select.POLLIN)
        ready = [fd for fd, _ in select_.poll(1000 * max(0.0, seconds))]
        if ready:
            # or the answer to the next question would bring it, and ring once more
            self._connection.pgconn.consume_input()
        while (notify := self._connection.pgconn.notifies()) is not None:
            self._hear(notify.extra.decode(errors="replace"))
        return self._rung or other in ready

    def release(self, tokens: Sequence[int]) -> None:
        """Give claims back."""
        self._cursor.execute("SELECT djactor.release(%s::bigint[])", (list(tokens),))

    def beat(self) -> None:
        """Say that this process is alive.

        Raises:
            Lost: The server has given its claims to others.
            psycopg.Error: The session is lost.
        """
        if not self._cursor.execute(_BEAT, (self.host,)).fetchone()[0]:
            raise Lost("the server has not heard of this host for too long")

    def drain(self) -> None:
        """Have ``take()`` find nothing from now on."""
        self._cursor.execute(_DRAIN, (self.host,))

    def leave(self) -> None:
        """Give back what is left, unregister and disconnect."""
        with contextlib.suppress(psycopg.Error):
            if self._connection is not None and not self._connection.closed:
                self._cursor.execute(_CLOSE)
        self.close()

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def _hear(self, payload: str) -> None:
        if _may_be_ours(payload, self._types):
            self._rung = True


async def _become_role(connection: psycopg.AsyncConnection[Any], alias: str) -> None:
    from django.db import connections
    from psycopg import sql

    role = connections[alias].settings_dict["OPTIONS"].get("assume_role")
    if role:
        await connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


async def connect(options: Options) -> psycopg.AsyncConnection[Any]:
    """A connection for the ends of async turns; it may go through a pooler.

    Raises:
        psycopg.Error: There is none to be had.
    """
    parameters = listener.parameters(options.alias, "host") | {"autocommit": True}
    if options.alias == options.direct:
        parameters["prepare_threshold"] = 0
    connection = await psycopg.AsyncConnection.connect(**parameters)
    await _become_role(connection, options.alias)
    return connection
