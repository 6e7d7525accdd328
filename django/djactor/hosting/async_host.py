"""The host of async types: all turns in one event loop, hundreds at once.

A taker asks the server for as many mailboxes as there is room for; each becomes a task, which runs
its messages one after the other, outside of any transaction.  Their ends go to completers
(``completer.py``).  Room is for handlers that run: one whose end waits for its commit takes none,
up to as many again.

A busy host takes ahead: as many mailboxes more as will get room within a moment, at the pace at
which room was made of late.  So room that is made is filled at once, and does not wait for a trip
to the server.  Nobody waits here for a stranger's slow turn: what gets no room soon is given back.

What always holds: nothing here waits for a clock while there is nothing to do, but for the word to
the server that this process lives.  When the session is lost all turns are cancelled, since others
may run them now.
"""

from __future__ import annotations

import asyncio
import collections
import collections.abc
import itertools
import math
import time
import traceback
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any

import psycopg

from djactor import tracing
from djactor.hosting import calls, logs
from djactor.hosting.classes import Hosted, loads, unchanged_from
from djactor.hosting.committers import Committers, InCommit, TurnGone
from djactor.hosting.completer import Completer, End
from djactor.hosting.context import (
    CLAIM,
    ID,
    PAYLOAD,
    STATE,
    TIME_LIMIT,
    TYPE,
    Reject,
    Row,
    Turn,
)
from djactor.hosting.context import running as current_turn
from djactor.hosting.errors import Failure, TimeLimit, describe
from djactor.hosting.notes import ASYNC_HOST, Notes
from djactor.hosting.session import BACKOFF, AsyncSession, Lost, Options, Outdated
from djactor.hosting.teller import Teller
from djactor.hosting.turns import tell
from djactor.hosting.watchdog import Watchdog

PIECE = 0.100  # seconds: how much of a mailbox is taken at once, as far as that can be told
HOLD = 0.500  # seconds after which the rest of what was taken of a mailbox is given back
AHEAD = 0.004  # seconds, about those that a trip to a busy server takes: so much is taken ahead
SOON = 0.050  # seconds after which what was taken ahead and has got no room is given back
MANY = 50  # turns at once beside which a take for a few mailboxes can wait a little
GATHER = 0.005  # seconds in which a little room may become more, so that a take is worth it
MOST = 100  # messages of a mailbox at once
COMPLETERS = 1  # two were not faster, and took more CPU for smaller commits

_WEIGHT = 0.05  # of the newest in an average
_SWALLOWED = 1.0  # seconds after which a turn that was cancelled is named
_PATIENCE = 5.0  # seconds, for turns that were cancelled because the host ends


class Bell:
    """What one task waits for, and others ring; without a task of its own for each wait."""

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[bool] | None = None

    def ring(self) -> None:
        """Wake who waits, or who will."""
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def still(self) -> None:
        """Forget that it was rung."""
        self._rung = False

    def wake(self) -> None:
        """Wake who waits, and forget that it was rung."""
        self.ring()
        self.still()

    async def wait(self, seconds: float) -> bool:
        """Until it is rung, at most that long.

        Returns:
            Whether it was rung.
        """
        if self._rung:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        handle = loop.call_later(max(0.0, seconds), self._expire, waiter)
        try:
            return await waiter
        finally:
            handle.cancel()
            self._waiter = None

    @staticmethod
    def _expire(waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            waiter.set_result(False)


class Claim:
    """A mailbox that is ours, with the messages of it that were taken."""

    # Most claims leave these as they are.
    dead = False  # not ours any more
    given_up = False  # cancelled, since this host ends or has lost it
    named = False  # in the log, as one that cannot be cancelled
    over = False  # the task has ended, or will not begin
    taken = 0.0  # when, if it was taken ahead
    skip = 0  # a message of it that was cancelled before its turn
    pending = 0  # turns whose ends are not committed yet
    turn: Turn | None = None
    until = math.inf  # the time limit of the turn
    commit: InCommit | None = None  # of the turn, if it has called in_commit()
    task: asyncio.Task[None] | None = None
    _waiter: asyncio.Future[None] | None = None

    def __init__(self, host: AsyncHost, rows: list[Row]) -> None:
        self._host = host
        self.rows = rows
        self.steps = _Steps(host, host._run(self))

    async def enter_commit(self, function: Any, args: Any, kwargs: Any) -> Any:
        """``in_commit()`` of the turn."""
        if self.commit is None:
            turn = self.turn
            assert turn is not None
            self.commit = InCommit(self._host.committers, self, turn)
        return await self.commit(function, args, kwargs)

    def say(self, turn: Turn, text: str) -> None:
        """``progress()`` of the turn."""
        self._host.teller.say(turn, text)

    def settle(self, turn: Turn, verdict: str) -> None:
        """The end of a turn was committed (``done``), or refused; then so are those after it."""
        if turn.settled:
            return
        turn.settled = True
        self.pending -= 1
        if turn.told is not None:
            tell(turn, verdict)
        if verdict != "done":
            self.dead = True
            logs.logger.debug("%r: %s", turn, verdict)
        if self.pending == 0:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
            if self.over:
                self._host._ended(self)

    async def until_settled(self) -> None:
        """Until all turns that have ended are committed."""
        while self.pending:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class _Steps(collections.abc.Coroutine):
    """A coroutine that notes, while it executes a step, for which message that is."""

    __slots__ = ("_coroutine", "_slot", "_words", "message")

    def __init__(self, host: AsyncHost, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._words = host.notes.words
        self._slot = host.slot
        self.message = 0

    def send(self, value: Any) -> Any:
        self._words[self._slot] = self.message
        try:
            return self._coroutine.send(value)
        finally:
            self._words[self._slot] = 0

    def throw(self, *error: Any) -> Any:
        self._words[self._slot] = self.message
        try:
            return self._coroutine.throw(*error)
        finally:
            self._words[self._slot] = 0

    def close(self) -> None:
        self._coroutine.close()

    def where(self) -> str:
        """The stack of what the coroutine waits for."""
        frames: list[traceback.FrameSummary] = []
        coroutine: Any = self._coroutine
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
            if frame is not None and frame.f_code.co_filename != __file__:
                frames += traceback.extract_stack(frame, 1)
            coroutine = getattr(coroutine, "cr_await", None)
        return "".join(traceback.format_list(frames)).rstrip() or "  nowhere"

    def __await__(self) -> Generator[Any, Any, None]:
        return self._coroutine.__await__()


class AsyncHost:
    """The host.

    Attributes:
        claims: The mailboxes that are ours.
        session: Its session.
    """

    def __init__(
        self, options: Options, types: Mapping[str, Hosted], notes: Notes, watchdog: Watchdog
    ) -> None:
        self.options = options
        self.types = types
        self.notes = notes
        self.slot = Notes.slot(0)
        self.claims: set[Claim] = set()
        self.committers = Committers(options.alias, options.threads)
        self.teller = Teller(options)
        self.watchdog = watchdog
        self.draining = False
        self.outdated: Callable[[], None] = lambda: None  # when this process has to begin anew
        self.bell = Bell()
        self.session = AsyncSession(
            options,
            types,
            bell=self._rung,
            asked=self.bell.wake,  # for what has rung until now
            cancelled=self._cancelled,
        )
        self._active = 0  # tasks
        self._next: collections.deque[Claim] = collections.deque()  # taken ahead
        self._looking = False  # at these
        self._pause = PIECE  # between two tasks that end
        self._last_end = 0.0  # of a task
        self._low = max(1, options.concurrency // (20 if options.concurrency <= 200 else 8))
        self._room = Bell()
        self._seconds = PIECE / 5  # that a turn takes
        self._completers = [Completer(options, self._break) for _ in range(COMPLETERS)]
        self._completer = itertools.cycle(self._completers)
        self._tasks: list[asyncio.Task[None]] = []
        self._taker: asyncio.Task[None] | None = None
        self._sweeping = False
        self._beat_at = 0.0  # the next word to the server
        self._least = math.inf  # the shortest time limit

    async def open(self) -> None:
        """Register.

        Raises:
            psycopg.Error: The server cannot be reached, or refuses it.
        """
        await self.session.open()
        for completer in self._completers:
            await completer.connect()
        self.notes.words[ASYNC_HOST] = self.session.host
        self._tasks = [asyncio.create_task(one.run()) for one in self._completers]

    async def serve(self) -> None:
        """Take mail and run turns until ``drain()``."""
        self._taker = asyncio.create_task(self._take_for_ever())
        self._tasks.append(self._taker)
        for task in (await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED))[0]:
            task.result()  # raises what has ended it

    async def drain(self, grace: float) -> None:
        """Take no more mail, let what runs end within the grace, give back the rest."""
        self.draining = True
        self.bell.ring()
        self._room.ring()
        if self._taker is not None:
            await asyncio.wait([self._taker])
        try:
            await self.session.drain()
        except psycopg.Error as error:
            logs.logger.warning("host_drain() failed: %s", error)
        self._let_go(math.inf)
        end = time.monotonic() + grace
        while self.claims and time.monotonic() < end:
            await self.bell.wait(min(self.options.lease / 3, end - time.monotonic()))
            self.bell.still()
            await self._beat()
        await self._cancel()
        for completer in self._completers:
            await completer.finish()
        if self.notes.overdue():
            return  # the end of the process is the end of the session, and the turn is charged
        await self.session.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.committers.close()
        await self.teller.close()

    # Taking.

    async def _take_for_ever(self) -> None:
        failures = 0
        while not self.draining:
            try:
                if failures:
                    await self.session.open()
                    self.notes.words[ASYNC_HOST] = self.session.host
                    logs.logger.info("the session is back")
                    failures = 0
                await self._take()
            except Outdated as error:
                logs.logger.warning("%s", error)
                self.outdated()
                return
            except (psycopg.Error, Lost, OSError) as error:
                logs.logger.warning("the session is lost, connecting anew: %s", str(error).strip())
                self.notes.words[ASYNC_HOST] = 0
                await self.session.close()
                for claim in self.claims:
                    claim.dead = True
                await self._cancel()
                await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
                failures += 1

    async def _take(self) -> None:
        """Take mail as long as the session is there.

        Raises:
            psycopg.Error: It is lost.
            Lost: It is lost.
        """
        session = self.session
        self._beat_at = time.monotonic() + self.options.lease / 3
        while not self.draining:
            room = self._room_now(self._ahead())
            if 0 < room < self._low:
                await asyncio.sleep(GATHER)
                room = self._room_now(self._ahead())
            if room <= 0:
                self._room.still()
                await self._listen(self._room)
                continue
            self.bell.still()
            rows = await self._ask(room)
            while not rows and not self.draining:  # when there is mail, take() has been sent
                if not await self._listen(self.bell, self._room_now(0)):
                    continue
                if not session.is_asking:
                    break
                rows = await self._ask(room)
            if rows:
                self._start(rows)
                for message_id in session.early:
                    self._cancelled(message_id)
                # what ends at once is on its way before the next question: turns run while we
                # sleep once, and completers send their ends while we sleep once more
                await asyncio.sleep(0)
                # among many turns a few mailboxes are not worth a question
                few = len(rows) < self._low and len(self.claims) >= MANY
                await asyncio.sleep(GATHER if few else 0)

    async def _ask(self, room: int) -> list[Row]:
        tracing.look()  # while the server looks for mail, if it has been asked before
        rows = await self.session.take(room, self._messages())
        self._beat_at = time.monotonic() + self.options.lease / 3
        return rows

    async def _break(self) -> None:
        """End the session; the taker opens another one."""
        await self.session.close()
        self._rung()

    def _rung(self) -> None:
        """There may be mail, or the session is lost."""
        self.bell.ring()
        self._room.ring()

    async def _listen(self, bell: Bell, room: int = 0) -> bool:
        """Until somebody rings, the server included, or a word to the server was due.

        If there is room, ``take()`` is under way when the server has told of mail.

        Returns:
            Whether somebody has rung.

        Raises:
            psycopg.Error: The session is lost.
            Lost: It is lost.
        """
        session = self.session
        session.listen(max(0, room), self._messages())
        rung = await bell.wait(self._beat_at - time.monotonic())
        session.listen()
        if rung or session.is_asking:
            return True
        await session.beat()
        self._beat_at = time.monotonic() + self.options.lease / 3
        return False

    async def _beat(self) -> None:
        try:
            await self.session.beat()
        except (psycopg.Error, Lost, AttributeError) as error:
            logs.logger.warning("the session is lost: %s", error)
            for claim in self.claims:
                claim.dead = True

    def _room_now(self, ahead: int) -> int:
        """How many mailboxes to take, if so many are taken ahead."""
        return min(
            self.options.concurrency - self._active + ahead - len(self._next),
            2 * self.options.concurrency - len(self.claims),
        )

    def _ahead(self) -> int:
        """How many mailboxes to take beyond those that there is room for now."""
        if time.monotonic() - self._last_end > SOON:
            return 0
        return min(self.options.concurrency // 2, int(AHEAD / max(self._pause, 1e-5)))

    def _messages(self) -> int:
        """How many messages of a mailbox to take: as many as take a moment."""
        return max(1, min(MOST, int(PIECE / max(self._seconds, 1e-5))))

    def _start(self, rows: list[Row]) -> None:
        parts: list[list[Row]] = []
        last: Any = None
        for row in rows:
            if row[CLAIM] != last:
                last = row[CLAIM]
                part = [row]
                parts.append(part)
            else:
                part.append(row)
        now = time.monotonic()
        for part in parts:
            claim = Claim(self, part)
            self.claims.add(claim)
            if self._active < self.options.concurrency:
                self._begin(claim)
            else:
                claim.taken = now
                self._next.append(claim)
        if self._next and not self._looking:
            self._look_at_next()
        self.watchdog.awake()
        if not self._sweeping:
            self._sweep()

    def _begin(self, claim: Claim) -> None:
        self._active += 1
        claim.task = asyncio.get_running_loop().create_task(claim.steps)

    def _make_room(self) -> None:
        """A task has ended."""
        now = time.monotonic()
        self._pause += _WEIGHT * (min(now - self._last_end, PIECE) - self._pause)
        self._last_end = now
        self._active -= 1
        if self._next and not self.draining:
            self._begin(self._next.popleft())
        self._room.ring()

    def _look_at_next(self) -> None:
        """Give back what was taken ahead too long ago; again while there is some."""
        self._let_go(time.monotonic() - SOON)
        self._looking = bool(self._next)
        if self._looking:
            asyncio.get_running_loop().call_later(SOON / 2, self._look_at_next)

    def _let_go(self, before: float) -> None:
        """Give back what was taken ahead before then."""
        while self._next and self._next[0].taken <= before:
            claim = self._next.popleft()
            claim.steps.close()
            claim.over = True
            self._put(next(self._completer), (claim, Turn(claim.rows[0]), None, None, 0, True))

    # Running.

    async def _run(self, claim: Claim) -> None:
        """The turns of a mailbox, one after the other."""
        rows = claim.rows
        hosted = self.types[rows[0][TYPE]]
        completer = next(self._completer)
        steps, words, slot = claim.steps, self.notes.words, self.slot
        began = first = time.monotonic()
        state: str | None = None  # that the turn before has left
        stopped = False
        try:
            for row in rows:
                if claim.dead:
                    return
                held = state is not None and began - first > HOLD
                if stopped or held or claim.skip == row[ID]:
                    self._put(completer, (claim, Turn(row), None, None, 0, True))
                    return
                claim.turn = turn = Turn(row)
                turn._committing = claim
                limit = row[TIME_LIMIT]
                if limit is not None:
                    claim.until = began + limit
                    if limit < self._least:
                        self._least = limit
                words[slot] = steps.message = row[ID]
                current_turn.set(turn)
                try:
                    with tracing.turn(turn):
                        obj = hosted.object_for(row, state)
                        answer = await hosted.handle(obj, loads(row[PAYLOAD]))
                        before = unchanged_from(row) if state is None else state
                        new, reply = hosted.ended(obj, answer, before)
                    if turn.timed_out:
                        raise TimeLimit
                    if turn.answer is not None:
                        if reply is not None:
                            turn._do(calls.REPLY, (turn.answer, None))
                        else:
                            reply = turn.answer
                    turn.over = True
                    if claim.commit is not None:
                        await claim.commit.end(new, reply)
                except BaseException as error:
                    await self._failed(completer, claim, turn, error)
                    return
                now = time.monotonic()
                if claim.commit is None:
                    self._put(completer, (claim, turn, new, reply, int((now - began) * 1e6), None))
                else:
                    claim.commit = None
                    if turn.told is not None:
                        tell(turn, "done")
                self._seconds += _WEIGHT * (now - began - self._seconds)
                began = now
                stopped = turn.stopped
                if new is not None:
                    state = new
                elif state is None:
                    state = row[STATE] or "{}"
        finally:
            claim.until = math.inf
            claim.over = True
            steps.message = 0
            self._make_room()
            if claim.pending == 0:
                self._ended(claim)

    def _put(self, completer: Completer, end: End) -> None:
        end[0].pending += 1
        completer.put(end)

    async def _failed(
        self, completer: Completer, claim: Claim, turn: Turn, error: BaseException
    ) -> None:
        turn.over = True
        if claim.commit is not None:
            await claim.commit.abort(error)
        if isinstance(error, GeneratorExit):
            raise error
        if claim.dead:
            return
        special: Failure | bool = True
        if turn.timed_out:
            error = TimeLimit(
                f"the turn has taken longer than {turn.row[TIME_LIMIT]:g} s, which is the time"
                " limit of its type"
            ).with_traceback(error.__traceback__)
        if turn.cancelled:
            logs.logger.info("%r: cancelled", turn)
        elif isinstance(error, Reject):
            logs.rejected(turn, error)
            special = describe(error, turn)
        elif not isinstance(error, TurnGone) and not (
            claim.given_up and isinstance(error, asyncio.CancelledError)
        ):
            logs.failed(turn, error)
            special = describe(error, turn)
        self._put(completer, (claim, turn, None, None, 0, special))

    def _ended(self, claim: Claim) -> None:
        """A claim has ended: its task, and the ends of all its turns."""
        self.claims.discard(claim)
        claim.task = claim.turn = None  # or only the collector of garbage would free them
        self._room.ring()
        self.bell.ring()

    # Ending what does not end.

    def _sweep(self) -> None:
        """Cancel the turns whose time is over; again and again while there are turns."""
        self._sweeping = bool(self.claims)
        if not self._sweeping:
            return
        now = time.monotonic()
        for claim in [one for one in self.claims if one.until < now]:
            self._overdue(claim, now)
        pause = max(0.01, min(0.5, self._least / 4))
        asyncio.get_running_loop().call_later(pause, self._sweep)

    def _overdue(self, claim: Claim, now: float) -> None:
        turn, task = claim.turn, claim.task
        if turn is None or task is None or turn.over:
            return
        if not turn.timed_out:
            turn.timed_out = True
            task.cancel()
        elif not claim.named and now > claim.until + _SWALLOWED:
            claim.named = True
            words, slot = self.notes.words, Notes.slot(1)
            words[slot] = turn.message_id
            words[slot + 1] = int((claim.until + self.options.grace) * 1e9)
            with logs.about(turn):
                logs.logger.error(
                    "the handler of %s %s does not end although it was cancelled, message %d;"
                    " its process is given up in %g s. It is at:\n%s",
                    turn.actor_type,
                    turn.key,
                    turn.message_id,
                    self.options.grace,
                    claim.steps.where(),
                )

    def _cancelled(self, message_id: int) -> bool:
        """A message was cancelled: its turn ends here, or does not begin.

        Returns:
            Whether it is here.
        """
        for claim in self.claims:
            turn, task = claim.turn, claim.task
            if turn is not None and turn.message_id == message_id:
                if task is not None and not turn.over:
                    turn.cancelled = True
                    task.cancel()
                return True
            if any(row[ID] == message_id for row in claim.rows):
                claim.skip = message_id
                return True
        return False

    async def _cancel(self) -> None:
        """End all turns at once."""
        tasks = []
        for claim in self.claims:
            if claim.task is not None and not claim.task.done():
                claim.given_up = True
                claim.task.cancel()
                tasks.append(claim.task)
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE)
