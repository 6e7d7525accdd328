"""A transaction of sync turns that begins with the first statement of one of them.

A handler of tasks may send mail for a second and never ask the database.  So its turn begins when
it does, and one that never does ends as an async turn does: by ``complete()``, with all others of
the batch in one statement.  No transaction is open then while it runs, and a failure of others does
not undo it.

The first statement is noticed by a wrapper of Django's connection.  What goes around that (the
driver's own cursors, COPY) is noticed afterwards, by the state of the connection.
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


class End(NamedTuple):
    """The end of a turn that has not asked the database for anything."""

    row: Row
    reply: str | None
    began: float  # by the monotonic clock


class Batch:
    """The turns of one transaction.

    Attributes:
        is_open: Whether the transaction has begun.
        broken: Why the turn that runs could not begin.
    """

    def __init__(self, alias: str) -> None:
        self.is_open = False
        self.broken: BaseException | None = None
        self._alias = alias
        self._raw: psycopg.Connection[Any] = wire.raw_connection(alias)
        self._armed: Row | None = None  # its turn begins with a statement
        self._sql = ""  # what ends the turn before
        self._ends: list[End] = []
        self._told = 0  # so many of them are told to the server in this transaction

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Notice the first statement of each turn that runs in the block."""
        with connections[self._alias].execute_wrapper(self._statement):
            yield

    def arm(self, row: Row) -> None:
        """A turn begins, as soon as it has a statement."""
        self._armed = row
        self.broken = None

    def begin(self, row: Row) -> None:
        """A turn begins now.

        Raises:
            psycopg.Error: It cannot.
        """
        self.broken = None
        sql = self._sql if self.is_open else wire.BEGIN
        self.is_open = True
        self._sql = ""
        if self._told < len(self._ends):  # one of them may be of the same claim
            wire.run(self._raw, sql + _complete(self._ends[self._told :]))
            self._told = len(self._ends)
            sql = ""
        wire.run(self._raw, sql + wire.begin_turn(row[TOKEN], row[ID]))

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
            self._begin_armed()
        if self._armed is None:
            self._sql = wire.end_turn(state, reply)
        else:
            self._armed = None
            self._ends.append(End(row, reply, began))

    def commit(self) -> list[Row]:
        """Commit everything.

        Returns:
            The messages whose ends the server has not taken: their claims have ended.

        Raises:
            psycopg.Error: Nothing is committed.
        """
        if not self.is_open:
            return self.salvage()
        sql, self._sql = self._sql, ""
        refused: list[Row] = []
        left = self._ends[self._told :]
        if left:
            refused = self._complete(left, sql)
            sql = ""
        wire.run(self._raw, sql + "COMMIT")
        return refused

    def salvage(self) -> list[Row]:
        """Commit the turns that had no statement, when the others were undone, or there are none.

        Returns:
            The messages whose ends the server has not taken.

        Raises:
            psycopg.Error: Nothing is committed.
        """
        return self._complete(self._ends)

    @property
    def ended(self) -> list[Row]:
        """The messages of turns that had no statement."""
        return [end.row for end in self._ends]

    def _complete(self, ends: list[End], before: str = "") -> list[Row]:
        if not ends:
            return []
        said = wire.value(self._raw, before + _complete(ends)) or "{}"
        verdicts = said.strip("{}").split(",")
        return [end.row for end, verdict in zip(ends, verdicts, strict=True) if verdict != "done"]

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if self._armed is not None:
            self._begin_armed()
        return execute(sql, params, many, context)

    def _begin_armed(self) -> None:
        row, self._armed = self._armed, None
        assert row is not None
        try:
            self.begin(row)
        except BaseException as error:
            self.broken = error  # whatever the handler makes of it
            raise


def _complete(ends: list[End]) -> str:
    """The statement that ends turns."""
    now = time.monotonic()
    replies = ",".join("NULL" if end.reply is None else _element(end.reply) for end in ends)
    return (
        f"SELECT djactor.complete('{{{','.join(str(end.row[TOKEN]) for end in ends)}}}',"
        f" '{{{','.join(str(end.row[ID]) for end in ends)}}}',"
        f" '{{{','.join(['NULL'] * len(ends))}}}', {wire.literal(f'{{{replies}}}')},"
        f" '{{{','.join(str(int((now - end.began) * 1e6)) for end in ends)}}}');"
    )


def _element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
