"""``in_commit()``: sync functions, with the ORM, in the transaction that ends an async turn.

A few threads do it, each with its own connection of Django's.  A turn has a thread for itself from
its first call of ``in_commit()`` until it ends, since a transaction belongs to its connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connections, transaction

from djactor.hosting import wire
from djactor.hosting.context import ID, TOKEN, Call, Turn
from djactor.hosting.errors import ENDED
from djactor.hosting.turns import OnConnection, check_usable

if TYPE_CHECKING:
    from djactor.hosting.async_host import Claim


class TurnGone(Exception):
    """The turn cannot be ended any more: it runs again elsewhere, or its message was cancelled."""


class Committers:
    """The threads.

    Attributes:
        open: The transactions that are open, and since when (monotonic clock).
    """

    def __init__(self, alias: str, count: int) -> None:
        self.alias = alias
        self.open: dict[Turn, float] = {}
        self._left = count
        self._free: list[ThreadPoolExecutor] = []
        self._room = asyncio.Condition()

    async def get(self) -> ThreadPoolExecutor:
        """A thread, as soon as there is one."""
        async with self._room:
            await self._room.wait_for(lambda: self._free or self._left)
            if self._free:
                return self._free.pop()
            self._left -= 1
            return ThreadPoolExecutor(1, "djactor-commit")

    async def put_back(self, thread: ThreadPoolExecutor) -> None:
        """Let others have it."""
        async with self._room:
            self._free.append(thread)
            self._room.notify()

    async def close(self) -> None:
        """Close the connections of the threads that nobody has."""
        loop = asyncio.get_running_loop()
        for thread in self._free:
            await loop.run_in_executor(thread, connections.close_all)
            thread.shutdown(wait=False)
        self._free.clear()


class InCommit:
    """The transaction of one turn."""

    def __init__(self, committers: Committers, claim: Claim, turn: Turn) -> None:
        self._committers = committers
        self._claim = claim
        self._turn = turn
        self._thread: ThreadPoolExecutor | None = None
        self._begun = False
        self._atomic: Any = None
        self._execute = OnConnection(committers.alias)

    @property
    def is_open(self) -> bool:
        """Whether the handler has called ``in_commit()``."""
        return self._thread is not None

    async def __call__(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Run a function in the transaction, which begins now if it has not begun.

        Raises:
            TurnGone: The turn cannot be ended any more.
            Exception: What the function raises.
        """
        turn = self._turn
        if self._thread is None:
            await self._claim.until_settled()  # what ended before must be committed before
            if self._claim.dead:
                raise TurnGone("the turn runs again")
            self._thread = await self._committers.get()
            self._committers.open[turn] = time.monotonic()
        calls, turn.calls = turn.calls, None
        context = contextvars.copy_context()
        return await self._in_thread(context.run, self._call, calls, function, args, kwargs)

    async def end(self, state: str | None, reply: str | None) -> None:
        """End the turn and commit.

        Raises:
            Exception: The server refuses it; nothing was committed.
        """
        try:
            await self._in_thread(self._end, state, reply)
        finally:
            await self._leave()

    async def abort(self, error: BaseException) -> None:
        """Roll everything back."""
        try:
            await self._in_thread(self._rollback, error)
        finally:
            await self._leave()

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _leave(self) -> None:
        thread, self._thread = self._thread, None
        self._committers.open.pop(self._turn, None)
        if thread is not None:
            await self._committers.put_back(thread)

    # In the thread.

    def _begin(self) -> None:
        alias = self._committers.alias
        self._atomic = transaction.atomic(using=alias, durable=True)
        try:
            self._atomic.__enter__()
        except BaseException:
            self._atomic = None
            connections[alias].close()
            raise
        try:
            row = self._turn.row
            raw = wire.raw_connection(alias)
            wire.run(raw, wire.BEGIN + wire.begin_turn(row[TOKEN], row[ID]))
        except psycopg.Error as error:
            self._rollback(error)
            if error.sqlstate in ENDED:
                self._claim.dead = True
                raise TurnGone(error.diag.message_detail or str(error)) from error
            raise

    def _call(
        self,
        calls: list[Call] | None,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        turn = self._turn
        if not self._begun:
            self._begun = True
            self._begin()
        if self._atomic is None:
            raise TurnGone("the transaction of this turn has failed")
        self._execute.all(calls or ())
        turn._execute = self._execute
        try:
            return function(*args, **kwargs)
        finally:
            turn._execute = None

    def _end(self, state: str | None, reply: str | None) -> None:
        alias = self._committers.alias
        if self._atomic is None:
            raise TurnGone("the transaction of this turn has failed")
        try:
            self._execute.all(self._turn.calls or ())
            check_usable(alias)
            wire.run(wire.raw_connection(alias), wire.end_turn(state, reply) + "COMMIT")
        except BaseException as error:
            self._rollback(error)
            raise
        atomic, self._atomic = self._atomic, None
        atomic.__exit__(None, None, None)  # runs what waits for the commit

    def _rollback(self, error: BaseException) -> None:
        if self._atomic is None:
            return
        atomic, self._atomic = self._atomic, None
        alias = self._committers.alias
        try:
            atomic.__exit__(type(error), error, error.__traceback__)
        finally:
            connection = connections[alias]
            if not connection.is_usable():
                connection.close()
