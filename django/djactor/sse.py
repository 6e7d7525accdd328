"""Server-sent events: an actor's state, or its answer, in a browser as soon as it is there.

``state_events()`` and ``answer_events()`` are what an async view returns.  For the states one
query in each process looks every ``DJACTOR["STREAM_INTERVAL"]`` seconds at all actors that
somebody watches, on a connection of its own, whatever the number of browsers; it brings
only what has changed.  Who comes between two turns that follow each other quickly sees the
later state: a stream of states, not of messages.

Use ASGI: under WSGI each open page would hold a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from djactor import conf, listener
from djactor.errors import AskFailed, AskTimeout
from djactor.refs import ActorRef

logger = logging.getLogger("djactor")

_HEARTBEAT = 15.0  # seconds; a comment keeps proxies awake, and finds out who has left
_RECONNECT = 1.0  # seconds after a lost connection
_CHANGED = """
    SELECT w.actor_type, w.actor_key, a.turns, a.state::text
    FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS w(actor_type, actor_key, turns)
    JOIN djactor.actor a ON a.actor_type = w.actor_type COLLATE "C"
        AND a.actor_key = w.actor_key COLLATE "C" AND a.turns <> w.turns"""

_all: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, States]] = (
    weakref.WeakKeyDictionary()
)


class _Watcher:
    """One browser: the newest state it has not seen yet."""

    def __init__(self) -> None:
        self.fresh = asyncio.Event()
        self.turns = -1
        self.state = ""

    def tell(self, turns: int, state: str) -> None:
        self.turns, self.state = turns, state
        self.fresh.set()


class States:
    """The states of one database that are watched from one event loop."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._watchers: dict[tuple[str, str], set[_Watcher]] = {}
        self._known: dict[tuple[str, str], tuple[int, str]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watch(self, actor: ActorRef) -> Iterator[_Watcher]:
        """A watcher of this actor, for as long as the block lasts."""
        name = (actor.type, actor.key)
        watcher = _Watcher()
        self._watchers.setdefault(name, set()).add(watcher)
        if name in self._known:
            watcher.tell(*self._known[name])
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())
        try:
            yield watcher
        finally:
            self._watchers[name].discard(watcher)
            if not self._watchers[name]:
                del self._watchers[name]
                self._known.pop(name, None)

    async def _look(self) -> None:
        how = await sync_to_async(listener.parameters)(self._alias)
        while self._watchers:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **how, autocommit=True, prepare_threshold=None
                ) as connection:
                    while self._watchers:
                        await self._once(connection)
                        await asyncio.sleep(float(conf.get("STREAM_INTERVAL")))
            except psycopg.Error as error:
                logger.warning("cannot look at states, trying again: %s", error)
                await asyncio.sleep(_RECONNECT)

    async def _once(self, connection: psycopg.AsyncConnection[Any]) -> None:
        names = list(self._watchers)
        cursor = await connection.execute(
            _CHANGED,
            [
                [name[0] for name in names],
                [name[1] for name in names],
                [self._known.get(name, (-1, ""))[0] for name in names],
            ],
        )
        for actor_type, key, turns, state in await cursor.fetchall():
            watchers = self._watchers.get((actor_type, key))
            if watchers:
                self._known[actor_type, key] = (turns, state)
                for watcher in watchers:
                    watcher.tell(turns, state)


def _states(alias: str) -> States:
    of_loop = _all.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault(alias, States(alias))


def _event(name: str, data: str, number: int | None = None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


def _response(events: AsyncIterator[bytes]) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        events,
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def state_events(
    actor: ActorRef, pick: Callable[[Any], Any] | None = None
) -> StreamingHttpResponse:
    """A stream of events ``state``: the state now, if there is one, and after each change.

    pick  what of the state the browser gets (default: all of it); what has not changed by
          this measure is not sent again

    An event's id is the number of turns.  A state that somebody wrote by hand shows at the
    next turn.
    """

    async def events() -> AsyncIterator[bytes]:
        sent = None
        with _states(actor.using).watch(actor) as watcher:
            while True:
                try:
                    await asyncio.wait_for(watcher.fresh.wait(), _HEARTBEAT)
                except (TimeoutError, asyncio.TimeoutError):
                    yield b": still here\n\n"
                    continue
                watcher.fresh.clear()
                data = watcher.state
                if pick is not None:
                    data = json.dumps(pick(json.loads(data)))
                if data != sent:
                    sent = data
                    yield _event("state", data, watcher.turns)

    return _response(events())


def answer_events(
    actor: ActorRef, payload: Any = None, *, timeout: float = 30.0
) -> StreamingHttpResponse:
    """A stream with the answer to one question: an event ``answer``, ``error`` or ``timeout``.

    The data of ``error`` is the error's JSON, that of ``timeout`` the id of the message.
    """

    async def events() -> AsyncIterator[bytes]:
        yield b": asked\n\n"
        try:
            answer = await actor.aask(payload, timeout=timeout)
        except AskFailed as error:
            yield _event("error", json.dumps(error.error))
        except AskTimeout as error:
            yield _event("timeout", str(error.message_id))
        else:
            yield _event("answer", json.dumps(answer))

    return _response(events())
