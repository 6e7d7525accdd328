"""One turn, on a connection of Django's: in a transaction of threads of a host, or of a test."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.db.transaction import TransactionManagementError

from djactor import tracing
from djactor.hosting import context, logs, wire
from djactor.hosting.classes import Hosted, loads, unchanged_from
from djactor.hosting.context import ID, PAYLOAD, TIME_LIMIT, TOKEN, TYPE, Call, Row, Turn

# What take() and drain_take() return, by name; those that a server does not know are None.
COLUMNS = (
    "token",
    "claim",
    "id",
    "actor_type",
    "actor_key",
    "first",
    "state",
    "exists",
    "turns",
    "from_version",
    "payload",
    "headers",
    "trace_id",
    "kind",
    "meta",
    "attempts",
    "wants_reply",
    "sender_type",
    "sender_key",
    "time_limit",
    "in_reply_to",
    "priority",
    "cause_id",
    "sent_at",
)


def in_order(names: Sequence[str], row: Sequence[Any]) -> Row:
    """A row of ``take()`` or ``drain_take()``, in the order of ``COLUMNS``.

    Args:
        names: The names of its columns.
        row: Its values; a time limit is a timedelta, seconds, or None.
    """
    by_name = dict(zip(names, row, strict=True))
    found = [by_name.get(name) for name in COLUMNS]
    limit: Any = found[TIME_LIMIT]
    if hasattr(limit, "total_seconds"):
        found[TIME_LIMIT] = limit.total_seconds()
    return tuple(found)


class OnConnection:
    """Executes what a turn does on Django's connection of the thread."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __call__(self, sql: str, params: Sequence[Any]) -> Any:
        """Execute a statement.

        Returns:
            The first column of its first row, if it returns one.

        Raises:
            DatabaseError: The server refuses it.
        """
        with connections[self.alias].cursor() as cursor:
            cursor.execute(sql, params)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def all(self, calls: Sequence[Call]) -> None:
        """Execute what an async turn has remembered."""
        for sql, params in calls:
            self(sql, params)


@contextlib.contextmanager
def as_current(turn: Turn) -> Iterator[Turn]:
    """Have a turn be the current one for the length of a block, and be over then."""
    token = context.running.set(turn)
    try:
        yield turn
    finally:
        turn.over = True
        context.running.reset(token)


def check_usable(alias: str) -> None:
    """See that a handler has left the transaction as one that can be committed.

    Raises:
        TransactionManagementError: It has been marked for a rollback.
    """
    if connections[alias].needs_rollback:
        raise TransactionManagementError(
            "the handler has left the transaction of its turn marked for a rollback: it caught an"
            " error of the database outside of atomic(), or called set_rollback()"
        )


_classes: dict[tuple[str, type[Any]], Hosted] = {}


def tell(turn: Turn, verdict: str) -> None:
    """Say how a turn came out to who wants to know; the turn is over, whatever that raises."""
    try:
        turn.tell(verdict)
    except Exception:
        with logs.about(turn):
            logs.logger.exception("what waited for the end of the turn has failed")


def turn_of(row: Mapping[str, Any]) -> Turn:
    """The turn of a row of ``drain_take()``, by the names of its columns: for tests."""
    return Turn(in_order(list(row), list(row.values())))


def run_turn(turn: Turn, cls: type[Any], using: str) -> None:
    """Run one turn in the transaction at hand: for tests.

    An async handler runs to its end here, too; what it has remembered is executed after it.

    Args:
        turn: The turn.
        cls: The class of the actor.
        using: The database.

    Raises:
        Exception: What the handler raises, or the server; roll back to a savepoint of before then.
    """
    known = turn.row[TYPE], cls
    if known not in _classes:
        _classes[known] = Hosted(turn.row[TYPE], cls)
    _run_turn(using, _classes[known], turn)


def _run_turn(alias: str, hosted: Hosted, turn: Turn) -> None:
    row = turn.row
    raw = wire.raw_connection(alias)
    execute = OnConnection(alias)
    wire.run(raw, wire.begin_turn(row[TOKEN], row[ID]))
    if not hosted.is_async:
        turn._execute = execute
    tracing.look()
    with as_current(turn), tracing.turn(turn):
        obj = hosted.object_for(row, None)
        message = loads(row[PAYLOAD])
        if hosted.is_async:
            turn._committing = _InCommit(turn, execute)
            answer = async_to_sync(_awaited)(hosted, obj, message)
            execute.all(turn.calls or ())
        else:
            answer = hosted.handle(obj, message)
        state, reply = hosted.ended(obj, answer, unchanged_from(row))
    check_usable(alias)
    if turn.answer is not None:
        if reply is not None:
            execute("SELECT djactor.reply(%s::jsonb)", (turn.answer,))
        else:
            reply = turn.answer
    wire.run(raw, wire.end_turn(state, reply))


async def _awaited(hosted: Hosted, obj: Any, message: Any) -> Any:
    return await hosted.handle(obj, message)


class _InCommit:
    """``in_commit()`` in a test: the transaction is there, and the thread is the test's own."""

    def __init__(self, turn: Turn, execute: OnConnection) -> None:
        self._turn = turn
        self._execute = execute

    async def enter_commit(self, function: Any, args: Any, kwargs: Any) -> Any:
        """``in_commit()``."""
        return await sync_to_async(self._run, thread_sensitive=True)(function, args, kwargs)

    def say(self, turn: Turn, text: str) -> None:
        """``progress()``: the test's transaction is the only one that could see it."""

    def _run(self, function: Any, args: Any, kwargs: Any) -> Any:
        turn = self._turn
        calls, turn.calls = turn.calls, None
        self._execute.all(calls or ())
        turn._execute = self._execute
        try:
            return function(*args, **kwargs)
        finally:
            turn._execute = None


def check_sync(answer: Any, label: str) -> None:
    """See that a handler that is not async has not returned a coroutine.

    Raises:
        TypeError: It has.
    """
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError(f"{label}.handle_message returned a coroutine: make it async def")
