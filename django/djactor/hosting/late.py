"""A transaction of sync turns, in which each turn begins with its first statement.

A handler may compute or send mail for a second and never ask the database.  So its turn begins when
it does, and one that never does ends as an async turn does: by ``complete()``, with all others of
the batch in one statement.  No transaction is open then while it runs, and a failure of others does
not undo it.

A transaction that holds locks for which somebody waits ends with the turn that runs.  The server is
asked every ten milliseconds whether somebody does.

The first turn that begins does so by a trip to the server of its own.  The others save that trip:
what ends the turn before and begins the next goes ahead of the next one's first statement.  When
that raises nobody can tell which of the two has failed.  So the transaction is undone, whatever the
handler makes of it, and each turn runs again as the first one of a transaction.

A statement is noticed by a wrapper of Django's connection.  What goes around that (the driver's own
cursors, COPY) is noticed by the driver's ``wait()``, and what goes around the driver afterwards, by
the state of the connection.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from django.db import connections

from djactor.hosting import wire
from djactor.hosting.context import ID, TOKEN, Row

SHORT = 0.010  # seconds between two questions whether somebody waits for the transaction's locks
LONG = 0.050  # seconds after which it ends anyway, but for its last turn
_SHOWN = 500  # characters ahead of a statement; pg_stat_activity shows 1,024 by default


class End(NamedTuple):
    """The end of a turn that has not asked the database for anything."""

    row: Row
    state: str | None
    reply: str | None
    began: float  # by the monotonic clock


class Batch:
    """The turns of one transaction.

    Attributes:
        is_open: Whether the transaction has begun.
        broken: Why the turn that runs could not begin.
        ends: The ends of turns that had no statement.
        waited_for: Whether another session was found to wait for a lock of the transaction.
    """

    def __init__(self, alias: str, longest: float = LONG) -> None:
        """Begin.

        Args:
            alias: The database.
            longest: After so many seconds it is over.
        """
        self.is_open = False
        self.broken: BaseException | None = None
        self.waited_for = False
        self._alias = alias
        self._longest = longest
        self._looked = 0.0  # when it was asked whether somebody waits
        self._raw: psycopg.Connection[Any] = wire.raw_connection(alias)
        self._armed: Row | None = None  # its turn begins with a statement
        self._left: tuple[str | None, str | None] | None = None  # by the last turn that has begun
        self._ahead = ""  # goes with the next statement
        self.ends: list[End] = []
        self._told = 0  # so many of them are told to the server in this transaction

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Notice the first statement of each turn that runs in the block."""
        setattr(self._raw, "wait", self._wait)  # noqa: B010  # of this connection only
        try:
            with connections[self._alias].execute_wrapper(self._statement):
                yield
        finally:
            delattr(self._raw, "wait")

    def arm(self, row: Row) -> None:
        """A turn begins, as soon as it has a statement."""
        self._armed = row
        self.broken = None

    def end(self, row: Row, state: str | None, reply: str | None, began: float) -> None:
        """The handler of a turn has returned.

        Raises:
            psycopg.Error: Its turn could not begin.
        """
        if self.broken is not None:
            raise self.broken
        if self._armed is not None and (
            connections[self._alias].run_on_commit
            or (not self.is_open and not wire.is_idle(self._raw))
        ):
            self._begin()
        if self._ahead:
            self._go_ahead()
        if self._armed is None:
            self._left = state, reply
        else:
            self._armed = None
            self.ends.append(End(row, state, reply, began))

    def is_over(self, since: float, now: float) -> bool:
        """Whether it should be committed before another turn begins.

        Args:
            since: When it began, by the monotonic clock.
            now: The present time.

        Raises:
            psycopg.Error: The connection is lost.
        """
        if now - max(since, self._looked) < SHORT:
            return False
        self._looked = now
        if now - since >= self._longest:
            return True
        if self.is_open:
            self.waited_for = wire.value(self._raw, wire.WAITED_FOR) == "t"
        return self.waited_for

    def commit(self) -> list[Row]:
        """Commit everything.

        Returns:
            The messages whose ends the server has not taken: their claims have ended.

        Raises:
            psycopg.Error: Nothing is committed.
        """
        if not self.is_open:
            return complete(self._raw, self.ends)
        assert self._left is not None
        sql = wire.end_turn(*self._left)
        refused: list[Row] = []
        ends = self.ends[self._told :]
        if ends:
            refused = complete(self._raw, ends, sql)
            sql = ""
        wire.run(self._raw, sql + "COMMIT")
        return refused

    # Beginning.

    def _begin(self) -> None:
        """The armed turn begins: with the next statement, if only a turn has to end before."""
        row, self._armed = self._armed, None
        assert row is not None
        token, message = row[TOKEN], row[ID]
        left, self._left = self._left, None
        ends = self.ends[self._told :]  # one of them may be of the same claim
        self._told += len(ends)
        if left and not ends:
            self._ahead = wire.next_turn(token, message, *left)
            return
        self.is_open = True
        self._ahead = (
            (wire.end_turn(*left) if left else wire.BEGIN)
            + (_complete(ends) if ends else "")
            + wire.begin_turn(token, message)
        )
        self._go_ahead()

    def _go_ahead(self) -> None:
        """Execute what is ahead by itself."""
        sql, self._ahead = self._ahead, ""
        try:
            wire.run(self._raw, sql)
        except BaseException as error:
            self.broken = error  # whatever the handler makes of it
            raise

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """What Django's connection has around each statement."""
        if self._armed is not None:
            self._begin()
        if not self._ahead:
            return execute(sql, params, many, context)
        cursor = context["cursor"].cursor
        if many or not self._takes_several(sql, cursor):
            self._go_ahead()
            return execute(sql, params, many, context)
        ahead, self._ahead = self._ahead, ""
        if params is not None:  # the driver takes a percent sign for itself then
            ahead = ahead.replace("%", "%%")
        try:
            found = execute(ahead + sql, params, many, context)
        except BaseException as error:
            self.broken = error  # whatever the handler makes of it
            raise
        cursor.nextset()  # to the result of the handler's statement
        return found

    def _takes_several(self, sql: Any, cursor: Any) -> bool:
        """Whether a statement can have another one ahead, and would still be found in a log."""
        return (
            isinstance(sql, str)
            and isinstance(cursor, psycopg.ClientCursor)
            and not isinstance(cursor, psycopg.ServerCursor)
            and not connections[self._alias].queries_logged
            and len(self._ahead) < _SHOWN
        )

    def _wait(self, *args: Any, **kwargs: Any) -> Any:
        """``wait()`` of the driver's connection."""
        if self._armed is not None:
            self._begin()
        if self._ahead:
            self._go_ahead()
        return type(self._raw).wait(self._raw, *args, **kwargs)


def complete(raw: psycopg.Connection[Any], ends: list[End], before: str = "") -> list[Row]:
    """End turns that had no statement.

    Args:
        raw: The driver's connection.
        ends: Their ends.
        before: Statements that go ahead.

    Returns:
        The messages whose ends the server has not taken.

    Raises:
        psycopg.Error: Nothing is done.
    """
    if not ends:
        return []
    said = wire.value(raw, before + _complete(ends)) or "{}"
    verdicts = said.strip("{}").split(",")
    return [end.row for end, verdict in zip(ends, verdicts, strict=True) if verdict != "done"]


def _complete(ends: list[End]) -> str:
    """The statement that ends turns."""
    now = time.monotonic()
    states = wire.literal(f"{{{','.join(wire.element(end.state) for end in ends)}}}")
    replies = wire.literal(f"{{{','.join(wire.element(end.reply) for end in ends)}}}")
    return (
        f"SELECT djactor.complete('{{{','.join(str(end.row[TOKEN]) for end in ends)}}}',"
        f" '{{{','.join(str(end.row[ID]) for end in ends)}}}', {states}, {replies},"
        f" '{{{','.join(str(int((now - end.began) * 1e6)) for end in ends)}}}');"
    )
