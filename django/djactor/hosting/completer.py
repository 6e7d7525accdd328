"""The ends of async turns: whatever has ended meanwhile goes with the next commit.

A completer has a connection of its own.  While one commit is under way the ends of further turns
gather, and go with the next one; so a busy host has hundreds in a commit, and an idle one waits for
nothing.  What a turn wants done (messages, timers, statements) goes between ``begin_turn()`` and
``end_turn()``, pipelined, with the others' ends in the same transaction.

What always holds: the ends of one claim go through one completer, in their order; a failure is
reported after everything that ended before.  An error of a commit of many is followed by one commit
for each, so it is the failure of the turn that has caused it alone.  Statements of turns go through
one completer of a process: two transactions that lock the same rows, each in the order of its
turns, would deadlock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from djactor.hosting import logs
from djactor.hosting.context import ID, TOKEN, Turn
from djactor.hosting.errors import ENDED, Failure, describe
from djactor.hosting.session import BACKOFF, Options, connect
from djactor.hosting.trips import Trips, numbered
from djactor.hosting.wire import element

if TYPE_CHECKING:
    from djactor.hosting.async_host import Claim

MOST = 1000  # ends in one commit

_COMPLETE = (
    "SELECT djactor.complete(%s::bigint[], %s::bigint[], %s::jsonb[], %s::jsonb[], %s::bigint[])"
)
_COMPLETE_ALONE = numbered(_COMPLETE)
_BEGIN = "SELECT djactor.begin_turn(%s::bigint, %s::bigint)"
_END = "CALL djactor.end_turn(%s::jsonb, %s::jsonb)"
_FAIL = numbered(
    "SELECT djactor.fail(%s::bigint, %s::bigint, %s::text, %s::text, %s::text, %s::jsonb)"
)
_RELEASE = numbered("SELECT djactor.release(%s::bigint[])")

End = tuple["Claim", Turn, "str | None", "str | None", int, "Failure | bool | None"]
"""Claim, turn, state, reply, microseconds, and a failure; True: give the claim back."""


class Completer:
    """Ends turns, one commit after the other."""

    def __init__(self, options: Options, broken: Callable[[], Awaitable[None]]) -> None:
        self._options = options
        self._broken = broken  # ends the session, and all claims with it
        self._ends: list[End] = []
        self._bell = asyncio.Event()
        self._busy = False
        self._trips: Trips | None = None

    def put(self, end: End) -> None:
        """Have a turn ended."""
        self._ends.append(end)
        self._bell.set()

    async def run(self) -> None:
        """End turns until cancelled."""
        try:
            while True:
                if not self._ends:
                    self._bell.clear()
                    await self._bell.wait()
                part, self._ends = self._ends[:MOST], self._ends[MOST:]
                self._busy = True
                await self._end_all(part)
                self._busy = False
        finally:
            self._busy = False
            await self._disconnect()

    async def finish(self) -> None:
        """Wait until everything that was put has been ended."""
        while self._ends or self._busy:
            await asyncio.sleep(0.002)

    async def connect(self) -> None:
        """Connect, if that has not been done.

        Raises:
            psycopg.Error: There is no connection to be had.
        """
        if self._trips is None:
            connection = await connect(self._options)
            self._trips = Trips(connection, prepares=self._prepares())

    async def _disconnect(self) -> None:
        if self._trips is not None:
            trips, self._trips = self._trips, None
            await trips.close()

    def _connected(self) -> Trips:
        if self._trips is None:
            raise psycopg.OperationalError("the connection is closed")
        return self._trips

    async def _end_all(self, ends: list[End]) -> None:
        """End these, whatever becomes of the connection meanwhile."""
        tried = 0
        while ends:
            try:
                await self.connect()
                await self._end(ends)
                return
            except psycopg.Error as error:
                if not self._lost():
                    await self._give_back(ends, error)
                    return
                logs.logger.warning(
                    "the connection for commits is lost, connecting anew: %s", str(error).strip()
                )
            except Exception as error:
                await self._give_back(ends, error)
                return
            await self._disconnect()
            ends = [end for end in ends if not end[1].settled]
            if tried:
                await asyncio.sleep(BACKOFF[min(tried, len(BACKOFF)) - 1])
            tried += 1

    async def _give_back(self, ends: list[End], error: BaseException) -> None:
        """Something unforeseen: the turns run again, elsewhere or here."""
        ends = [end for end in ends if not end[1].settled]
        logs.logger.error("ending %d turns failed, they run again", len(ends), exc_info=error)
        await self._disconnect()
        try:
            await self.connect()
            await self._release(ends)
        except psycopg.Error:
            logs.logger.exception("claims cannot be given back: the session is opened anew")
            await self._broken()
        for claim, turn, *_ in ends:
            claim.settle(turn, "released")

    async def _end(self, ends: list[End]) -> None:
        plain: list[End] = []
        acting: list[End] = []
        others: list[End] = []
        acts: set[Claim] = set()
        for end in ends:
            claim, turn, _, _, _, special = end
            if claim.dead:
                claim.settle(turn, "stale")
            elif special is not None:
                others.append(end)
            elif turn.calls is None and claim not in acts:
                plain.append(end)
            else:
                acting.append(end)
                acts.add(claim)
        if acting:
            await self._act(plain, acting)
        elif plain:
            await self._complete(plain)
        released: list[End] = []
        for end in others:
            claim, turn, _, _, _, special = end
            if claim.dead:
                claim.settle(turn, "stale")
            elif isinstance(special, Failure):
                await self._fail(end, special, None)
            else:
                released.append(end)
        if released:
            await self._release(released)
            for claim, turn, *_ in released:
                claim.settle(turn, "released")

    # Turns that leave a state and a reply.

    async def _complete(self, ends: list[End]) -> None:
        try:
            verdicts = await self._completed(ends)
        except psycopg.Error as error:
            if self._lost():
                raise
            if len(ends) > 1:
                for end in ends:
                    await self._complete([end])
            else:
                await self._failed_at_commit(ends[0], error)
            return
        for end, verdict in zip(ends, verdicts, strict=True):
            end[0].settle(end[1], verdict)

    async def _completed(self, ends: list[End]) -> Sequence[str]:
        verdicts: Sequence[str] = await self._connected().value(_COMPLETE_ALONE, *_arrays(ends))
        return verdicts

    # Turns that do something besides.

    async def _act(self, plain: list[End], acting: list[End]) -> None:
        """All of them in one transaction; if that fails, each in its own."""
        connection = self._connected().connection
        cursor = connection.cursor()
        try:
            async with connection.pipeline(), connection.transaction():
                first: Any = connection.cursor()
                if plain:
                    await first.execute(_COMPLETE, _arrays(plain), prepare=self._prepares())
                for end in acting:
                    await self._begin(cursor, end)
                    await self._do_and_end(cursor, end)
            verdicts = (await first.fetchone())[0] if plain else ()
        except psycopg.Error as error:
            if self._lost():
                raise
            logs.logger.debug("%d turns are ended one by one: %s", len(acting), error)
            if plain:
                await self._complete(plain)
            for end in acting:
                await self._act_alone(end)
            return
        for end, verdict in zip(plain, verdicts, strict=True):
            end[0].settle(end[1], verdict)
        for claim, turn, *_ in acting:
            claim.settle(turn, "done")

    async def _begin(self, cursor: Any, end: End) -> None:
        row = end[1].row
        await cursor.execute(_BEGIN, (row[TOKEN], row[ID]), prepare=self._prepares())

    async def _do_and_end(self, cursor: Any, end: End) -> None:
        _, turn, state, reply, _, _ = end
        prepare = self._prepares()
        for sql, params in turn.calls or ():
            await cursor.execute(sql, params, prepare=prepare)
        await cursor.execute(_END, (state, reply), prepare=prepare)

    async def _act_alone(self, end: End) -> None:
        claim, turn = end[0], end[1]
        connection = self._connected().connection
        if claim.dead:
            claim.settle(turn, "stale")
            return
        cursor = connection.cursor()
        begun = False
        try:
            async with connection.transaction():
                await self._begin(cursor, end)
                begun = True
                async with connection.pipeline():
                    await self._do_and_end(cursor, end)
        except psycopg.Error as error:
            if self._lost():
                raise
            if not begun and error.sqlstate in ENDED:
                claim.settle(turn, error.diag.message_detail or "stale")
            else:
                await self._failed_at_commit(end, error)
            return
        claim.settle(turn, "done")

    # Turns that failed, and claims that are given back.

    async def _failed_at_commit(self, end: End, error: psycopg.Error) -> None:
        await self._fail(end, describe(error, end[1])._replace(context=None), error)

    async def _fail(self, end: End, failure: Failure, error: BaseException | None) -> None:
        claim, turn = end[0], end[1]
        verdict = await self._connected().value(
            _FAIL, str(turn.row[TOKEN]), str(turn.row[ID]), *failure
        )
        if error is not None and verdict in ("gone", "locked"):  # cancelled, or about to be
            logs.logger.info("%r: %s", turn, verdict)
        elif error is not None:
            logs.failed(turn, error, verdict)
        claim.settle(turn, verdict)

    async def _release(self, ends: Sequence[End]) -> None:
        tokens = ",".join(str(turn.row[TOKEN]) for _, turn, *_ in ends)
        await self._connected().execute(_RELEASE, f"{{{tokens}}}")

    def _lost(self) -> bool:
        return self._trips is None or self._trips.closed

    def _prepares(self) -> bool:
        """Whether statements can be prepared: not through a pooler."""
        return self._options.alias == self._options.direct


def _arrays(ends: Sequence[End]) -> tuple[str, str, str, str | None, str]:
    """The arguments of ``complete()``, as texts of arrays."""
    tokens = []
    messages = []
    states = []
    replies = []
    usecs = []
    any_reply = False
    for _, turn, state, reply, usec, _ in ends:
        row = turn.row
        tokens.append(row[TOKEN])
        messages.append(row[ID])
        states.append(element(state))
        replies.append(element(reply))
        any_reply |= reply is not None
        usecs.append(usec)
    return (
        "{{{}}}".format(",".join(map(str, tokens))),
        "{{{}}}".format(",".join(map(str, messages))),
        "{{{}}}".format(",".join(states)),
        "{{{}}}".format(",".join(replies)) if any_reply else None,
        "{{{}}}".format(",".join(map(str, usecs))),
    )
