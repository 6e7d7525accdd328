"""Who waits for an answer in async code: one LISTENing connection for each process, fanned out.

What always holds: the connection LISTENs before the question is sent, so no announcement is
missed; those of questions not yet known here are remembered for a while.  An announcement is
a hint, the row in ``djactor.reply`` is the truth: who waits looks there once more from time
to time, and behind a pooler in transaction mode (``DJACTOR["LISTEN"] = False``) only
there, at growing intervals.

One ``Replies`` belongs to one event loop and one database alias.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.db import connections

from djactor import conf

logger = logging.getLogger("djactor")

_REMEMBERED = 10_000  # announcements that nobody waited for yet
_FIRST_POLL, _LAST_POLL = 0.01, 0.5  # seconds, without LISTEN
_RECONNECT = 1.0  # seconds after a lost connection

_all: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Replies]] = (
    weakref.WeakKeyDictionary()
)


class Answered:
    """One question's wait."""

    def __init__(self, replies: Replies, announced: bool) -> None:
        self._replies = replies
        self._event = asyncio.Event()
        self._poll = _FIRST_POLL
        if announced:
            self._event.set()

    def announce(self) -> None:
        """The answer is there, it is said."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when it is time to look for the answer, after ``seconds`` at the latest."""
        if self._replies.listening:
            pause = float(conf.get("POLL_INTERVAL"))
        else:
            pause, self._poll = self._poll, min(2 * self._poll, _LAST_POLL)
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._event.wait(), min(seconds, pause))
        self._event.clear()


class Replies:
    """The announcements of one database, for one event loop."""

    def __init__(self, alias: str) -> None:
        self.listening = False
        self._alias = alias
        self._waiting: dict[int, Answered] = {}
        self._early: OrderedDict[int, None] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """LISTEN, unless that is done or not wanted."""
        if not conf.get("LISTEN"):
            return
        if self._task is None or self._task.done():
            self._ready.clear()
            self._task = asyncio.get_running_loop().create_task(self._listen())
        await self._ready.wait()

    @contextlib.contextmanager
    def expect(self, message_id: int) -> Iterator[Answered]:
        """Wait for this message's answer as long as the block lasts."""
        answered = Answered(self, message_id in self._early)
        self._waiting[message_id] = answered
        try:
            yield answered
        finally:
            del self._waiting[message_id]
            self._early.pop(message_id, None)

    def _announce(self, payload: str) -> None:
        for part in payload.split(","):
            if not part.strip().isdigit():
                continue
            message_id = int(part)
            if message_id in self._waiting:
                self._waiting[message_id].announce()
            else:
                self._early[message_id] = None
                if len(self._early) > _REMEMBERED:
                    self._early.popitem(last=False)

    async def _listen(self) -> None:
        how = await sync_to_async(parameters)(self._alias)
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **how, autocommit=True
                ) as connection:
                    await connection.execute("LISTEN djactor_reply")
                    self.listening = True
                    self._ready.set()
                    async for notify in connection.notifies():
                        self._announce(notify.payload)
            except psycopg.Error as error:
                logger.warning("cannot listen for answers, polling meanwhile: %s", error)
            finally:
                self.listening = False
                self._ready.set()
            await asyncio.sleep(_RECONNECT)


def parameters(alias: str) -> dict[str, Any]:
    """How Django connects, without what only Django understands."""
    found = connections[alias].get_connection_params()
    for name in ("cursor_factory", "context", "prepare_threshold", "server_side_binding"):
        found.pop(name, None)
    return found


async def get(alias: str) -> Replies:
    """The announcements of this database in the running loop, LISTENing."""
    of_loop = _all.setdefault(asyncio.get_running_loop(), {})
    replies = of_loop.setdefault(alias, Replies(alias))
    await replies.start()
    return replies
