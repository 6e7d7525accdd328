"""Who waits for answers in async code: one connection for each process and database.

A thread of its own LISTENs, reads the answers that are announced, many with one statement, and
hands each to the event loop that waits for it; so it does not matter how many loops there
are, nor how many wait.  Behind a pooler in transaction mode (``DJACTOR["LISTEN"] = False``) the
same thread looks for all answers at growing intervals instead.

What always holds: an announcement is a hint, the row in ``djactor.reply`` is the truth.  What was
sent before the connection LISTENed, or while it was lost, is looked for when the wait
begins, or when the connection is back (``epoch`` tells these cases apart).  The thread ends, and
its connection with it, when all loops that waited are closed, when nobody has waited for a
minute, and by ``close()``: a connection that stays would be in the way of DROP DATABASE.
Who waits sees to it that there is a thread, once a second: one that has died is replaced.
A forked child inherits none of this.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from django.db import connections
from psycopg import sql

from djactor import conf

logger = logging.getLogger("djactor")

_REMEMBERED = 10_000  # announcements that nobody waited for yet
_FIRST_POLL, _LAST_POLL = 0.01, 0.5  # seconds, without LISTEN
_RECONNECT = 1.0  # seconds after a lost connection
_TICK = 1.0  # seconds between two looks at whether anybody still needs us
_LINGER = 60.0  # seconds without a question
_DIGITS = 19  # of a message's id at most

# Not select(), which cannot wait for a descriptor above 1,023; nor one that takes a descriptor.
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.DefaultSelector
)

_ANSWERS = """
    SELECT message_id, payload::text, error::text FROM djactor.reply WHERE message_id = ANY(%s)"""


class Answer(NamedTuple):
    """A row of ``djactor.reply``: one of the two is JSON, the other None."""

    payload: str | None
    error: str | None


class _Waiting(NamedTuple):
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Answer]


class Listener:
    """The answers of one database, for all event loops of this process."""

    def __init__(self, alias: str) -> None:
        self.connected = False
        self.epoch = 0
        self._alias = alias
        self._lock = threading.Lock()
        self._waiting: dict[int, list[_Waiting]] = {}
        self._wanted: set[int] = set()  # of those, the ones that are there or may be
        self._early: OrderedDict[int, None] = OrderedDict()
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._connection: psycopg.Connection[Any] | None = None
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)

    @contextlib.contextmanager
    def expect(self, message_id: int, epoch: int) -> Iterator[asyncio.Future[Answer]]:
        """Wait for a message's answer as long as the block lasts.

        Args:
            message_id: The message.
            epoch: ``self.epoch`` as it was before the message was sent.

        Yields:
            What the answer will be the result of.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        waiting = _Waiting(loop, answer)
        with self._lock:
            self._waiting.setdefault(message_id, []).append(waiting)
            self._loops.add(loop)
            if epoch != self.epoch or message_id in self._early or not conf.get("LISTEN"):
                self._wanted.add(message_id)
                self._ring()
            self._have_thread()
        try:
            yield answer
        finally:
            with self._lock:
                self._waiting[message_id].remove(waiting)
                if not self._waiting[message_id]:
                    del self._waiting[message_id]
                    self._wanted.discard(message_id)
                    self._early.pop(message_id, None)

    def revive(self) -> None:
        """Start the thread anew if it has died; who waits calls this each second."""
        with self._lock:
            self._have_thread()

    def close(self) -> None:
        """End the thread and its connection; who still waits looks for itself, or asks anew."""
        with self._lock:
            thread = self._thread
            self._closing = True
            self._ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * _TICK)

    # Inside, in any thread.

    def _have_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._closing = False
        thread = threading.Thread(
            target=self._run, name=f"djactor-answers-{self._alias}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # there are too many; who waits looks for itself
            logger.warning("no thread to wait for answers: %s", error)
        else:
            self._thread = thread

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # enough has been rung
            self._rope.send(b"!")

    # Inside, in the thread.

    def _run(self) -> None:
        while True:
            try:
                with self._connect() as connection:
                    self._connection = connection
                    self._serve(connection)
            except psycopg.Error as error:
                logger.warning("the connection for answers failed, trying again: %s", error)
            except Exception:
                logger.exception("waiting for answers failed, trying again")
            finally:
                self.connected = False
                self._connection = None
            with self._lock:
                if self._is_over(0.0):
                    self._thread = None
                    self._early.clear()
                    return
            self._sleep(_RECONNECT)

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(**parameters(self._alias, "answers"), autocommit=True)
        become_role(connection, self._alias)
        if conf.get("LISTEN"):
            connection.execute("LISTEN djactor_reply")
        return connection

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        """Hand out answers until nobody wants any more."""
        with self._lock:
            self.epoch += 1
            self._wanted.update(self._waiting)
            self.connected = True
        listens = conf.get("LISTEN")
        pause = _FIRST_POLL
        looked = asked = time.monotonic()
        while True:
            if listens:
                for notify in connection.notifies(timeout=0):
                    self._announced(notify.payload)
            with self._lock:
                every = float(conf.get("POLL_INTERVAL")) if listens else pause
                if self._wanted:
                    pause = _FIRST_POLL
                if self._waiting:
                    asked = time.monotonic()
                    if asked - looked >= every:
                        self._wanted.update(self._waiting)
                elif self._is_over(time.monotonic() - asked):
                    return
                wanted, self._wanted = list(self._wanted), set()
                idle = not self._waiting
                closing = self._closing
            if closing:
                return
            if wanted:
                looked = time.monotonic()
                for message_id, payload, error in connection.execute(_ANSWERS, [wanted]):
                    self._hand_out(message_id, Answer(payload, error))
                pause = min(2 * pause, _LAST_POLL)
            else:
                self._sleep(_TICK if idle else max(0.0, looked + every - time.monotonic()))

    def _is_over(self, idle: float) -> bool:
        if self._closing:
            return True
        return not self._waiting and (
            idle > _LINGER or all(loop.is_closed() for loop in self._loops)
        )

    def _sleep(self, seconds: float) -> None:
        """Until the server says something, somebody rings, or that long."""
        with _Selector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            if self._connection is not None:
                selector.register(self._connection, selectors.EVENT_READ)
            selector.select(seconds)
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(1024):
                pass

    def _announced(self, payload: str) -> None:
        with self._lock:
            for part in payload.split(","):
                message_id = message_id_of(part)
                if message_id is None:
                    continue
                if message_id in self._waiting:
                    self._wanted.add(message_id)
                else:
                    self._early[message_id] = None
                    if len(self._early) > _REMEMBERED:
                        self._early.popitem(last=False)

    def _hand_out(self, message_id: int, answer: Answer) -> None:
        with self._lock:
            all_waiting = list(self._waiting.get(message_id, ()))
        for waiting in all_waiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                waiting.loop.call_soon_threadsafe(_answer, waiting.answer, answer)


def _answer(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def message_id_of(text: str) -> int | None:
    """The message that a notification names; None if that is none.  Anybody may notify."""
    word = text.strip()
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= _DIGITS else None


def parameters(alias: str, purpose: str) -> dict[str, Any]:
    """How Django connects, without what only Django understands.

    In ``pg_stat_activity`` the connection is called after its purpose, unless the project has
    a name for its connections.
    """
    found = {"fallback_application_name": f"djactor {purpose}"}
    found |= connections[alias].get_connection_params()
    for name in ("cursor_factory", "context", "server_side_binding", "pool"):
        found.pop(name, None)
    return found


def become_role(connection: psycopg.Connection[Any], alias: str) -> None:
    """SET ROLE, where the alias has the option ``assume_role``."""
    role = connections[alias].settings_dict["OPTIONS"].get("assume_role")
    if role:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


_all: dict[str, Listener] = {}
_all_lock = threading.Lock()
_inherited: list[dict[str, Listener]] = []  # by a fork; kept, so that nothing closes it


def get(alias: str) -> Listener:
    """Who listens for this database in this process."""
    with _all_lock:
        if alias not in _all:
            _all[alias] = Listener(alias)
        return _all[alias]


def close(alias: str | None = None) -> None:
    """Close the connection to this database, or all; the next ``aask()`` opens it again."""
    with _all_lock:
        found = [of for name, of in _all.items() if alias in (None, name)]
    for listener in found:
        listener.close()


def _forget() -> None:
    global _all, _all_lock
    _inherited.append(_all)
    _all, _all_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
