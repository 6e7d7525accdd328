"""Trips of an async host to the server: a statement goes, its result comes.

A host executes few statements, and these all the time.  A cursor of psycopg does for each what it
has to do for any, and waits with a timer and a reader of the socket that are new each time: most of
what such a trip costs this process.  Here statements are prepared once, their parameters are texts,
and the reader of the socket stays.  It hears notifications, too.

What always holds: one statement is under way at a time, from when it is sent until somebody has
its result.  A statement may be sent without a wait, by who hears a notification, so that nothing
comes between the two.  Who has something else to do with the connection takes it from
``connection`` while nothing is under way: psycopg waits for the socket itself then, and the reader
comes back with the next trip.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def numbered(sql: str) -> bytes:
    """A statement with ``%s`` for each parameter, as ``Trips`` have it."""
    first, *others = sql.split("%s")
    return (first + "".join(f"${i}{other}" for i, other in enumerate(others, 1))).encode()


class Trips:
    """The trips on one connection."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        prepares: bool,
        notified: Callable[[str], None] | None = None,
        lost: Callable[[], None] | None = None,
    ) -> None:
        """Begin.

        Args:
            connection: The connection, in autocommit mode.
            prepares: Whether the server's session stays the same, so that statements can be
                prepared in it.
            notified: What is called with the payload of each notification.
            lost: What is called when the connection is lost while no statement is under way.
        """
        self._connection = connection
        self._pgconn = connection.pgconn
        self._prepares = prepares
        self._prepared: dict[bytes, bytes] = {}
        self._notified = notified
        self._lost = lost
        self._fileno = -1  # of the socket that our reader is at
        self._transformer = Transformer(connection)
        self._waiter: asyncio.Future[None] | None = None
        self._expected = False  # the result of what was sent, or more of it
        self._under_way = False
        self._results: list[Any] = []
        self._error: psycopg.Error | None = None  # how it was lost

    @property
    def connection(self) -> psycopg.AsyncConnection[Any]:
        """The connection, for what psycopg does on it."""
        self._leave_socket()
        return self._connection

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, or lost."""
        return self._connection.closed

    @property
    def under_way(self) -> bool:
        """Whether a statement was sent whose result nobody has yet."""
        return self._under_way

    def send(self, sql: bytes, *params: str | None) -> None:
        """Send a statement, which has been executed before if it is to be prepared.

        Raises:
            psycopg.Error: The connection is lost.
        """
        values = [None if one is None else one.encode() for one in params]
        if self._prepares:
            self._pgconn.send_query_prepared(self._prepared[sql], values)
        else:
            self._pgconn.send_query_params(sql, values)
        self._sent()

    async def execute(self, sql: bytes, *params: str | None) -> Any:
        """Execute a statement.

        Args:
            sql: The statement, of ``numbered()``.
            params: The parameters, without NUL characters.

        Returns:
            Its result, as libpq has it.

        Raises:
            psycopg.Error: The server refuses it, or the connection is lost.
        """
        if self._prepares and sql not in self._prepared:
            name = b"djactor_%d" % len(self._prepared)
            self._pgconn.send_prepare(name, sql)
            self._sent()
            await self.result()
            self._prepared[sql] = name
        self.send(sql, *params)
        return await self.result()

    async def rows(self, sql: bytes, *params: str | None) -> list[tuple[Any, ...]]:
        """Execute a statement that returns rows.

        Returns:
            The rows, with values as cursors of the connection have them.

        Raises:
            psycopg.Error: As for ``execute()``.
        """
        return self.loaded(await self.execute(sql, *params))

    def loaded(self, result: Any) -> list[tuple[Any, ...]]:
        """The rows of a result, with values as cursors of the connection have them."""
        if not result.ntuples:
            return []
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    async def value(self, sql: bytes, *params: str | None) -> Any:
        """Execute a statement that returns one value.

        Raises:
            psycopg.Error: As for ``execute()``.
        """
        return (await self.rows(sql, *params))[0][0]

    def listen(self) -> None:
        """Hear notifications until the next trip, and in between.

        Raises:
            psycopg.Error: The connection is lost.
        """
        if self.closed:
            raise self._error or psycopg.OperationalError("the connection is closed")
        if self._fileno < 0:
            self._fileno = self._pgconn.socket
            asyncio.get_running_loop().add_reader(self._fileno, self._readable)
            self._look()  # at what psycopg has read

    async def close(self) -> None:
        """Disconnect."""
        if self._waiter is not None:
            self._end(psycopg.OperationalError("the connection is closed"))
        self._leave_socket()
        with contextlib.suppress(psycopg.Error):
            await self._connection.close()

    # Reading.

    def _readable(self) -> None:
        """There is something to read."""
        try:
            self._pgconn.consume_input()
            self._look()
        except psycopg.Error as error:
            self._end(error)

    def _look(self) -> None:
        """Look at what was read."""
        pgconn = self._pgconn
        while self._expected and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is not None:
                self._results.append(result)
                continue
            self._expected = False
            _wake(self._waiter)
        while (notify := pgconn.notifies()) is not None:
            if self._notified is not None:
                self._notified(notify.extra.decode(errors="replace"))

    def _leave_socket(self) -> None:
        if self._fileno >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fileno)
            loop.remove_writer(self._fileno)
            self._fileno = -1

    def _end(self, error: psycopg.Error) -> None:
        """The connection is lost, or will be closed."""
        self._leave_socket()
        self._error = (self._said() if self._under_way else None) or error
        if self._waiter is None:
            if self._lost is not None:
                self._lost()
        elif not self._waiter.done():
            self._waiter.set_exception(self._error)

    # A statement.

    def _sent(self) -> None:
        self._results = []
        self._expected = self._under_way = True

    async def result(self) -> Any:
        """The result of the statement that was sent.

        Raises:
            psycopg.Error: As for ``execute()``.
        """
        try:
            self.listen()
            while self._pgconn.flush():  # it is larger than what the socket takes
                await self._until_writable()
            self._look()
            if self._expected:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        except asyncio.CancelledError:
            self._leave_socket()
            self._pgconn.finish()  # nobody would read the result
            raise
        finally:
            self._expected = self._under_way = False
            self._waiter = None
        error = self._said()
        if error is not None:
            raise error
        return self._results[-1]

    async def _until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        loop.add_writer(self._fileno, _wake, waiter)
        await waiter  # if that fails the socket is left
        loop.remove_writer(self._fileno)

    def _said(self) -> psycopg.Error | None:
        """The error that the server has answered, if it has."""
        for result in self._results:
            if result.status not in _FINE:
                return psycopg.errors.error_from_result(result, encoding="utf-8")
        return None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
