"""The host of sync types: threads that run turns in transactions of Django's connection.

One thread at a time leads: it asks the server for mail, or waits until there is some, and lets
another one lead when it has got some itself.  So a message is run by the thread that has taken it.

Threads are for turns that wait.  They share one interpreter, so that turns that compute are slower
in several threads than in one: each thread waits for the others after each trip to the server,
batches are over after a few turns, and commits are many.  So while turns run the leader takes no
mail before it has seen, for a moment, that they leave the interpreter free.  A thread whose
turns had no statements, and that waits for their commit, does.  If there was more mail than a
thread could take, it asks for the rest itself when it is done, by the session of the leader that
waits for it: going on is cheaper than to wake another thread with another connection.  As many
threads go on as the leader has seen leave the interpreter free.

Turns share a transaction as inside turns do, from their first statement on (``late.py``).  It ends
after 50 ms, but for its last turn, and sooner if somebody waits for its locks or if there is no
more mail.  There are no savepoints: when a turn fails, all that were in the transaction are undone,
and each runs again in one of its own.  A type that has failed is not batched for a while, nor one
with a turn that has lasted, and one with ``batch_size => 1`` never.

Nobody waits for a stranger's turn: when one lasts, the leader gives back the mailboxes that its
thread has taken and not begun with.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import psycopg
from django.conf import settings
from django.db import connections, reset_queries, transaction

from djactor import tracing
from djactor.hosting import logs, turns, wire
from djactor.hosting.classes import Hosted, loads, unchanged_from
from djactor.hosting.context import (
    CLAIM,
    ID,
    KEY,
    PAYLOAD,
    STATE,
    TIME_LIMIT,
    TOKEN,
    TYPE,
    Reject,
    Row,
    Turn,
    running,
)
from djactor.hosting.errors import CANCELLED, ENDED, describe, sqlstate_of
from djactor.hosting.late import LONG, SHORT, Batch, End, complete
from djactor.hosting.notes import SYNC_HOST, Notes
from djactor.hosting.session import BACKOFF, Lost, Options, Outdated, SyncSession
from djactor.hosting.watchdog import Watchdog

HOLD = 0.100  # seconds after which the rest of what was taken is given back
MOST = 100  # messages at once
LOOK = 0.020  # seconds for which the leader looks at the turns that run
FREE = 0.4  # of the time: a thread more may run while those that run compute less than that
CAREFUL = 5.0  # seconds for which a type that has failed, or lasted, is not batched
STEADY = 60.0  # seconds without a turn that lasts, after which batches are long

_WEIGHT = 0.05  # of the newest turn in the average
_FIRST_SLOT = 2  # of the notes
_PARALLEL = not getattr(sys, "_is_gil_enabled", lambda: True)()


class SyncHost:
    """The host.

    Attributes:
        session: Its session; who holds ``lead`` uses it.
        changed: Notified when a thread ends what it has taken; its lock guards what the threads
            have left.
        careful: Until when turns of a type are not batched.
        hurried: Until when batches are short, since somebody has waited for one, or a turn has
            lasted: the next one that does would keep all that its batch has locked before.
        seconds: How long a turn takes, about.
    """

    def __init__(
        self, options: Options, types: Mapping[str, Hosted], notes: Notes, watchdog: Watchdog
    ) -> None:
        self.options = options
        self.types = types
        self.notes = notes
        self.watchdog = watchdog
        self.session = SyncSession(options, types)
        self.lead = threading.Lock()
        self.changed = threading.Condition()
        self.draining = False
        self.outdated: Callable[[], None] = lambda: None  # when this process has to begin anew
        self.careful: dict[str, float] = {}
        self.seconds = SHORT
        self.hurried = 0.0
        self._mailboxes = 1  # in the last take that found some
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._rope, False)
        self._running = 0  # threads that have mail
        self._wide = 1  # so many threads may go on, by the leader's last look
        self._standing_by = False  # the leader waits for those, and leaves the session alone
        self._borrowed = False  # the session: another thread asks for mail
        self._more = False  # mail than the last take was to find
        self._waiting = False
        self._failures = 0
        self._beat = 0.0
        self._threads = [_Thread(self, number) for number in range(options.threads)]
        watchdog.holders.append(self)

    def open(self) -> None:
        """Register.

        Raises:
            psycopg.Error: The server cannot be reached, or refuses it.
        """
        self.session.open()
        self.notes.words[SYNC_HOST] = self.session.host

    def start(self) -> None:
        """Take mail and run turns until ``drain()``."""
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._beat_for_ever, name="djactor-beat", daemon=True).start()

    def drain(self, grace: float) -> None:
        """Take no more mail, let what runs end within the grace, give back the rest."""
        self.draining = True
        self.ring()
        end = time.monotonic() + grace
        with self.lead:
            try:
                self.session.drain()
            except (psycopg.Error, AttributeError) as error:
                logs.logger.warning("host_drain() failed: %s", error)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if self.notes.overdue():
            return  # the end of the process is the end of the session, and the turn is charged
        with self.lead:
            self.session.leave()

    def ring(self) -> None:
        """Wake who waits for mail."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rope, b"!")
        with self.changed:
            self.changed.notify_all()

    # For the watchdog.

    def is_busy(self) -> bool:
        """Whether turns run."""
        return any(thread.turn is not None for thread in self._threads)

    def open_turns(self) -> Iterator[tuple[Turn, float, int | None]]:
        """The turns that run in a transaction, since when, and in which threads."""
        for thread in self._threads:
            turn, batch = thread.turn, thread.batch
            if turn is not None and batch is not None and batch.is_open:
                yield turn, thread.began, thread.ident

    # Taking; in any of the threads.

    def take(self) -> list[Row]:
        """Messages for one thread; waits for them.

        Returns:
            None once the host drains.
        """
        with self.lead:
            while not self.draining:
                try:
                    if self._failures:
                        self.open()
                        logs.logger.info("the session is back")
                        self._failures = 0
                    return self._take()
                except Outdated as error:
                    logs.logger.warning("%s", error)
                    self.draining = True
                    self.outdated()
                except (psycopg.Error, Lost, OSError) as error:
                    self._lost(error)
        return []

    def _take(self) -> list[Row]:
        while not self.draining:
            self._wait_for_room()
            rows = self._ask()
            if rows:
                with self.changed:
                    self._running += 1
                return rows
            self._waiting = True
            rung = look_again = False
            while not (rung or look_again or self.draining):
                look_again = any(thread.not_begun() for thread in self._threads)
                left = LOOK if look_again else self._beat - time.monotonic()
                rung = self.session.wait(self._bell, left)
                self._beat_if_due()
            self._waiting = False
            with contextlib.suppress(BlockingIOError):
                while os.read(self._bell, 1024):
                    pass
        return []

    def _ask(self) -> list[Row]:
        """Ask for as much mail as a batch is likely to handle: a short one, unless more waits."""
        length = self.longest() if self._more else SHORT
        fit = min(MOST, int(length / max(self.seconds, 1e-5)) or 1)
        rows = self.session.take(fit, max(1, fit // self._mailboxes))
        self._more = len(rows) >= fit
        self._beat = time.monotonic() + self.options.lease / 3
        if rows:
            tracing.look()
            self._mailboxes = len({row[CLAIM] for row in rows})
            self.watchdog.awake()
        return rows

    def longest(self) -> float:
        """For how many seconds a batch may last at present."""
        return SHORT if time.monotonic() < self.hurried else LONG

    def _wait_for_room(self) -> None:
        """Until no turn runs, or those that run leave the interpreter free."""
        since = time.monotonic()
        used = time.process_time()
        while True:
            with self.changed:
                if not self._borrowed and (self.draining or not self._running):
                    return
                self._standing_by = True
                self.changed.wait(LOOK)
                self._standing_by = False
                if self._borrowed:
                    continue
            now = time.monotonic()
            if now - since < LOOK:
                continue
            share = (time.process_time() - used) / (now - since)
            since = now
            used = time.process_time()
            tokens = [token for thread in self._threads for token in thread.let_go(now - LOOK)]
            if tokens:
                self.session.release(tokens)
            if _PARALLEL or share < FREE:
                self._wide = self._running + 1
                return
            self._wide = max(1, self._wide - 1)
            self._beat_if_due()

    def _beat_if_due(self) -> None:
        if time.monotonic() >= self._beat:
            self.session.beat()
            self._beat = time.monotonic() + self.options.lease / 3

    def _lost(self, error: BaseException) -> None:
        logs.logger.warning("the session is lost, connecting anew: %s", str(error).strip())
        self.notes.words[SYNC_HOST] = 0
        self.session.close()
        pause = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        if not self.draining:
            time.sleep(pause)

    def ended(self) -> list[Row]:
        """A thread has ended what it has taken: its mailboxes may have more mail.

        Returns:
            More messages for this thread.
        """
        with self.changed:
            self._running -= 1
            goes_on = (
                self._more
                and self._standing_by
                and self._running < self._wide
                and not self.draining
            )
            if goes_on:
                self._borrowed = True
            else:
                self.changed.notify_all()
        if goes_on:
            return self._ask_on()
        if self._waiting:
            self.ring()
        return []

    def _ask_on(self) -> list[Row]:
        """Ask for mail by the session that was borrowed, and return it."""
        rows: list[Row] = []
        try:
            with contextlib.suppress(psycopg.Error):  # the leader will see it, too
                rows = self._ask()
        finally:
            with self.changed:
                self._borrowed = False
                if rows:
                    self._running += 1
                else:
                    self.changed.notify_all()
        return rows

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """In the block a thread waits for the commit of the last that it has taken."""
        with self.changed:
            self._running -= 1
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self._running += 1

    def give_back(self, tokens: Sequence[int]) -> None:
        """Release claims by the session, since their own connection has failed."""
        with self.lead:
            try:
                self.session.release(tokens)
            except (psycopg.Error, AttributeError) as error:
                self._lost(error)

    def _beat_for_ever(self) -> None:
        """Say that this process is alive while all threads run turns."""
        while not self.draining:
            time.sleep(self.options.lease / 6)
            if time.monotonic() < self._beat or not self.lead.acquire(blocking=False):
                continue  # or somebody leads, who does it
            try:
                if not self._failures:
                    self.session.beat()
                    self._beat = time.monotonic() + self.options.lease / 3
            except (psycopg.Error, Lost, OSError, AttributeError) as error:
                self._lost(error)
            finally:
                self.lead.release()


class _Thread(threading.Thread):
    """Runs turns.

    Attributes:
        turn: The one that runs.
        began: When it began.
        rest: The messages that were taken and not begun with.
    """

    def __init__(self, host: SyncHost, number: int) -> None:
        super().__init__(name=f"djactor-{number}", daemon=True)
        self.host = host
        self.turn: Turn | None = None
        self.began = 0.0
        self._alias = host.options.alias
        self._slot = Notes.slot(_FIRST_SLOT + number)
        self._execute = turns.OnConnection(self._alias)
        self._states: dict[int, str] = {}  # by claim: what the turn before has left
        self._turns: list[Turn] = []  # of the present transaction
        self.rest: deque[Row] = deque()
        self._begun: set[int] = set()  # claims of which a turn has begun
        self._kept: dict[int, tuple[End, Turn]] = {}  # by message: of turns that need not run again
        self._ended: set[int] = set()  # claims that are not ours any more
        self._in_turn = False  # begin_turn() has succeeded, or will be called
        self.batch: Batch | None = None

    def run(self) -> None:
        host = self.host
        rows: list[Row] = []
        while rows or not host.draining:
            rows = rows or host.take()
            if rows:
                try:
                    self._run(rows)
                except Exception:
                    logs.logger.exception("a thread has failed; what it had runs again")
                    with host.changed:
                        self.rest.clear()
                    self._drop(rows)
                    time.sleep(BACKOFF[0])
                rows = host.ended()
            if settings.DEBUG:
                reset_queries()
        connections.close_all()

    def _run(self, rows: list[Row]) -> None:
        began = time.monotonic()
        self._states.clear()
        self._ended.clear()
        self._begun.clear()
        self._kept.clear()
        with self.host.changed:
            self.rest.extend(rows)
        while self.rest:
            if self._begun and (self.host.draining or time.monotonic() - began > HOLD):
                with self.host.changed:
                    left = [row for row in self.rest if row[CLAIM] not in self._ended]
                    self.rest.clear()
                self._drop(left)
                return
            tried, error = self._together(self._next)
            if error is None:
                continue
            if not tried:
                raise error  # there is no connection
            if len(tried) == 1:
                self._failed(tried[0], error)
                continue
            logs.logger.debug("%d turns run one by one: %s", len(tried), error)
            for row in tried:
                self._states.pop(row[CLAIM], None)
            for row in tried:
                if row[CLAIM] not in self._ended:
                    self._again(row)

    def _next(self, since: float) -> Row | None:
        """The next message; None if there is none for a batch that has begun then (0: not yet)."""
        if since and self.rest and self._is_over(since):
            return None
        with self.host.changed:
            while self.rest:
                row = self.rest[0]
                if row[CLAIM] not in self._ended:
                    if since and self._is_alone(row[TYPE]):
                        return None
                    self._begun.add(row[CLAIM])
                    self.rest.popleft()
                    return row
                self.rest.popleft()
        return None

    def _is_over(self, since: float) -> bool:
        """Whether the batch that has begun then should end."""
        assert self.batch is not None
        now = time.monotonic()
        over = self.batch.is_over(since, now)
        if self.batch.waited_for:
            self.host.hurried = max(self.host.hurried, now + CAREFUL)
        return over

    def let_go(self, before: float) -> list[int]:
        """Forget mailboxes that are not begun with, if the turn that runs has begun before then.

        Returns:
            Tokens of their claims, which the caller gives back.
        """
        with self.host.changed:
            if self.turn is None or self.began > before:
                return []
            tokens = self._not_begun()
            kept = [row for row in self.rest if row[CLAIM] not in tokens]
            self.rest.clear()
            self.rest.extend(kept)
        return list(tokens.values())

    def not_begun(self) -> bool:
        """Whether there are mailboxes that are not begun with."""
        with self.host.changed:
            return bool(self._not_begun())

    def _not_begun(self) -> dict[int, int]:
        return {row[CLAIM]: row[TOKEN] for row in self.rest if row[CLAIM] not in self._begun}

    def _together(
        self, next_row: Callable[[float], Row | None]
    ) -> tuple[list[Row], BaseException | None]:
        """Run turns in one transaction, as many as there are for it.

        Returns:
            Those that it has begun (none: there is no connection), and what has undone them all.
        """
        alias = self._alias
        tried: list[Row] = []
        committed = False
        since = 0.0
        self._turns.clear()
        self.batch = None
        try:
            self._in_turn = False
            with transaction.atomic(using=alias, durable=True):
                self.batch = batch = Batch(alias, self.host.longest())
                with batch.watching():
                    while (row := next_row(since)) is not None:
                        tried.append(row)
                        since = since or time.monotonic()
                        batch.arm(row)
                        self._in_turn = True
                        self._turn(row, batch)
                        if self._is_alone(row[TYPE]):
                            break
                    refused = self._commit(batch)
                    committed = True
                    self._refused(refused)
        except BaseException as error:
            if not committed:
                return self._undone(tried, error)
            logs.logger.exception("what waited for the commit has failed")
        self._tell_done(tried)
        return tried, None

    def _commit(self, batch: Batch) -> list[Row]:
        """Commit; returns the messages whose ends the server has not taken.

        If no turn of the batch had a statement others run meanwhile, since such turns compute and
        wait for nothing, as a rule: Python would be idle.
        """
        if batch.is_open or self.rest:
            return batch.commit()
        with self.host.committing():
            return batch.commit()

    def _undone(
        self, tried: list[Row], error: BaseException
    ) -> tuple[list[Row], BaseException | None]:
        """A transaction has failed: which turns are undone, and by what."""
        batch, self.batch = self.batch, None
        if batch is None:
            return tried, error
        if batch.broken is not None:
            self._in_turn = False
            error = batch.broken
        # who comes after an undone turn of the same claim cannot end before that has run again
        ends = {end.row[ID]: end for end in batch.ends}
        undone: set[int] = set()
        free: list[End] = []
        for row in tried:
            end = ends.get(row[ID])
            if end is None:
                undone.add(row[CLAIM])
            elif row[CLAIM] not in undone:
                free.append(end)
            elif self.host.types[row[TYPE]].stateless:
                self._kept[row[ID]] = end, next(one for one in self._turns if one.row is row)
        if not self._salvage(free):
            return tried, error
        committed = {end.row[ID] for end in free}
        left = [row for row in tried if row[ID] not in committed]
        return (left, error) if left else (tried, None)

    def _salvage(self, ends: list[End]) -> bool:
        """Commit the ends of turns that had no statement; returns whether that was possible."""
        try:
            self._refused(complete(wire.raw_connection(self._alias), ends))
        except Exception as error:
            logs.logger.debug("%d turns run again: %s", len(ends), error)
            return False
        self._tell_done([end.row for end in ends])
        return True

    def _again(self, row: Row) -> None:
        """A turn that was undone with others: it runs again, or ends as it has ended."""
        end, turn = self._kept.pop(row[ID], (None, None))
        if end is not None and turn is not None:
            self._turns[:] = [turn]
            if self._salvage([end]):
                return
        _, error = self._together(_only(row))
        if error is not None:
            self._failed(row, error)

    def _refused(self, rows: list[Row]) -> None:
        """The server has not taken the ends of these, since their claims have ended."""
        self._ended.update(row[CLAIM] for row in rows)
        for turn in self._turns:
            if any(turn.row is row for row in rows):
                turn.told = None

    def _tell_done(self, rows: list[Row]) -> None:
        ids = {row[ID] for row in rows}
        for turn in self._turns:
            if turn.told is not None and turn.row[ID] in ids:
                turns.tell(turn, "done")

    def _turn(self, row: Row, batch: Batch) -> None:
        """Run a handler, and end its turn."""
        hosted = self.host.types[row[TYPE]]
        claim = row[CLAIM]
        self.turn = turn = Turn(row, self._execute)
        self._turns.append(turn)
        self.began = began = time.monotonic()
        words, slot = self.host.notes.words, self._slot
        limit = row[TIME_LIMIT]
        words[slot + 1] = (
            0 if limit is None else int((began + limit + self.host.options.grace) * 1e9)
        )
        words[slot] = row[ID]
        token = running.set(turn)
        try:
            before = self._states.get(claim)
            with tracing.turn(turn):
                obj = hosted.object_for(row, before)
                answer = hosted.handle(obj, loads(row[PAYLOAD]))
                if answer is not None and not isinstance(answer, dict):
                    turns.check_sync(answer, hosted.label)
                state, reply = hosted.ended(
                    obj, answer, unchanged_from(row) if before is None else before
                )
            turns.check_usable(self._alias)
        finally:
            turn.over = True
            words[slot] = 0
            running.reset(token)
            self.turn = None
        host = self.host
        lasted = time.monotonic() - began
        host.seconds += _WEIGHT * (lasted - host.seconds)
        if lasted > HOLD:
            host.careful[row[TYPE]] = time.monotonic() + CAREFUL
            host.hurried = time.monotonic() + STEADY
        if state is not None:
            self._states[claim] = state
        elif before is None:
            self._states[claim] = row[STATE] or "{}"
        batch.end(row, state, reply, began)

    def _is_alone(self, name: str) -> bool:
        """Whether turns of a type get transactions of their own, always or for the time being."""
        if self.host.types[name].alone:
            return True
        until = self.host.careful.get(name)
        if until is None:
            return False
        if until < time.monotonic():
            self.host.careful.pop(name, None)
            return False
        return True

    def _failed(self, row: Row, error: BaseException) -> None:
        """A turn has failed alone."""
        self._ended.add(row[CLAIM])
        if not self._in_turn and sqlstate_of(error) in ENDED:
            logs.logger.debug("%s %s: %s", row[TYPE], row[KEY], error)
            return  # the claim has ended, and nobody is to blame
        turn = next((one for one in self._turns if one.row is row), None) or Turn(row)
        failure = wire.fail(row[TOKEN], row[ID], *describe(error, turn))
        if sqlstate_of(error) in CANCELLED:  # what fail() says tells whether the message was
            verdict = self._tell(failure, [row[TOKEN]])
            if verdict in ("gone", "locked"):
                logs.logger.info("%r: cancelled", turn)
            else:
                self.host.careful[row[TYPE]] = time.monotonic() + CAREFUL
                logs.failed(turn, error, verdict or "")
        else:
            self.host.careful[row[TYPE]] = time.monotonic() + CAREFUL
            if isinstance(error, Reject):
                logs.rejected(turn, error)
            else:
                logs.failed(turn, error)
            verdict = self._tell(failure, [row[TOKEN]])
        if turn.told is not None and verdict is not None:
            turns.tell(turn, verdict)

    def _drop(self, rows: list[Row]) -> None:
        """Give claims back."""
        tokens = list({row[CLAIM]: row[TOKEN] for row in rows}.values())
        if tokens:
            self._tell(wire.release(tokens), tokens)

    def _tell(self, sql: str, tokens: list[int]) -> str | None:
        """Execute a statement, outside of turns; if that cannot be, give the claims back.

        Returns:
            What it has returned.
        """
        for _ in range(2):
            try:
                return wire.value(wire.raw_connection(self._alias), sql)
            except Exception as error:
                logs.logger.warning("%s: %s", sql[:60], str(error).strip())
                with contextlib.suppress(Exception):
                    connections[self._alias].close()
        self.host.give_back(tokens)
        return None


def _only(row: Row) -> Callable[[float], Row | None]:
    """What gives one message to a transaction of its own."""
    return lambda since: None if since else row
