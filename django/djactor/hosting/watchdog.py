"""A thread that looks after the others: the event loop, and turns that hold a transaction open.

It says which handler blocks the event loop, and where; and which turn keeps its transaction open
for longer than a second.  It sleeps while no turn runs.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from djactor.hosting import logs
from djactor.hosting.context import Turn
from djactor.hosting.notes import Notes

if TYPE_CHECKING:
    from djactor.hosting.async_host import AsyncHost, Claim

LONG = 1.0  # seconds
_LOOK = 0.1  # seconds between two looks
_IDLE = 10  # looks without anything to see, after which it sleeps


class Holder(Protocol):
    """Who may have transactions of turns open."""

    def is_busy(self) -> bool:
        """Whether turns run."""

    def open_turns(self) -> Iterator[tuple[Turn, float, int | None]]:
        """The turns with an open transaction, since when, and in which thread if it runs there."""


class Watchdog:
    """The thread."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.async_host: AsyncHost | None = None
        self.holders: list[Holder] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._event = threading.Event()
        self._asked = math.inf  # when the loop was asked for a sign
        self._named = False
        self._warned: set[Turn] = set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look after this loop, which runs in this thread, and the rest."""
        self._loop = loop
        self._loop_thread = threading.get_ident()
        threading.Thread(target=self._run, name="djactor-watchdog", daemon=True).start()

    def awake(self) -> None:
        """Say that turns run."""
        if not self._event.is_set():
            self._event.set()

    def _run(self) -> None:
        while True:
            self._event.wait()
            self._event.clear()
            idle = 0
            while idle < _IDLE:
                time.sleep(_LOOK)
                idle = 0 if self._busy() else idle + 1
                try:
                    self._look()
                except Exception:
                    logs.logger.exception("the watchdog has failed")
            self._asked = math.inf
            self._warned.clear()

    def _busy(self) -> bool:
        host = self.async_host
        return bool(host is not None and host.claims) or any(one.is_busy() for one in self.holders)

    def _look(self) -> None:
        now = time.monotonic()
        if self.async_host is not None and self.async_host.claims:
            self._look_at_loop(now, self.async_host)
        for holder in self.holders:
            for turn, since, thread in holder.open_turns():
                if now - since > LONG and turn not in self._warned:
                    self._warned.add(turn)
                    self._say_open(turn, now - since, thread)

    def _look_at_loop(self, now: float, host: AsyncHost) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        if self._asked == math.inf:
            self._asked = now
            self._named = False
            self._loop.call_soon_threadsafe(self._sign)
        elif now - self._asked > LONG:
            message = self.notes.words[Notes.slot(0)]
            claim = self._claim(host, message)
            if not self._named:
                self._named = True
                self._say_blocked(claim, now - self._asked)
            if claim is not None and claim.until < now:
                # It cannot be cancelled while it does not wait: the supervisor is told
                until = int((claim.until + host.options.grace) * 1e9)
                self.notes.words[Notes.slot(0) + 1] = until

    def _sign(self) -> None:
        """The loop's: it is alive."""
        self._asked = math.inf
        self.notes.words[Notes.slot(0) + 1] = 0

    @staticmethod
    def _claim(host: AsyncHost, message: int) -> Claim | None:
        for claim in list(host.claims):
            if message and claim.steps.message == message:
                return claim
        return None

    def _say_blocked(self, claim: Claim | None, seconds: float) -> None:
        where = _stack(self._loop_thread)
        turn = None if claim is None else claim.turn
        if turn is None:
            logs.logger.warning(
                "the event loop is blocked for %.1f s, by none of the turns. It is at:\n%s",
                seconds,
                where,
            )
            return
        with logs.about(turn):
            logs.logger.warning(
                "the handler of %s %s blocks the event loop for %.1f s, message %d: all other turns"
                " of this process wait. Await, or use asyncio.to_thread(). It is at:\n%s",
                turn.actor_type,
                turn.key,
                seconds,
                turn.message_id,
                where,
            )

    @staticmethod
    def _say_open(turn: Turn, seconds: float, thread: int | None) -> None:
        with logs.about(turn):
            logs.logger.warning(
                "the turn of %s %s keeps its transaction open for %.1f s, message %d%s",
                turn.actor_type,
                turn.key,
                seconds,
                turn.message_id,
                "" if thread is None else f". It is at:\n{_stack(thread)}",
            )


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "  nowhere"
    return "".join(traceback.format_stack(frame)).rstrip()
