"""Server-sent events: an actor's state, or its answer, in a browser as soon as it is there.

``state_events()`` (one actor), ``type_events()`` (all of a type), ``answer_events()`` and
``progress_events()`` (how far a turn is) are what an async view returns.  For the states each
process looks every ``DJACTOR["STREAM_INTERVAL"]`` seconds at what somebody watches, with one
query for all single actors and one for each type, on a connection of its own, whatever the
number of browsers; they bring only what has changed.  Who comes between two turns that follow
each other quickly sees the later state: a stream of states, not of messages.  Progress has a
connection and one query likewise.

A browser opens six connections to a site, streams included: a page with many actors takes one
``type_events()``.  All of it wants ASGI: under WSGI each open page would hold a worker, so the
responses refuse to be served there.

A browser that is slow, or away, costs nothing: for each actor only the newest state waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.http import StreamingHttpResponse

from djactor import cluster, conf, listener
from djactor.actors import ActorRef
from djactor.exceptions import AskFailed, AskTimeout
from djactor.fields import dump_payload, load_payload

logger = logging.getLogger("djactor")

_HEARTBEAT = 15.0  # seconds; a comment keeps proxies awake, and finds out who has left
_STILL_HERE = b": still here\n\n"
_RECONNECT = 1.0  # seconds after a lost connection
# An actor that was stopped and began anew has another id.
_CHANGED = """
    SELECT w.actor_type, w.actor_key, a.id, a.turns, a.state::text
    FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])
        AS w(actor_type, actor_key, id, turns)
    JOIN djactor.actor a ON a.actor_type = w.actor_type COLLATE "C"
        AND a.actor_key = w.actor_key COLLATE "C" AND (a.id, a.turns) <> (w.id, w.turns)"""
_CHANGED_OF_TYPE = """
    SELECT coalesce(a.actor_key, w.actor_key), a.id, a.turns, a.state::text
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS w(actor_key, id, turns)
    FULL JOIN (SELECT * FROM {actor} WHERE actor_type = %s) a
        ON a.actor_key = w.actor_key COLLATE "C"
    WHERE (a.id, a.turns) IS DISTINCT FROM (w.id, w.turns)"""

_PROGRESS = """
    SELECT w.id, djactor.progress_of(w.id)::text, m.id IS NOT NULL
    FROM unnest(%s::bigint[]) AS w(id) LEFT JOIN djactor.message m ON m.id = w.id"""

# What is watched: an actor's type and key, or a type and None: all actors of it.
_Scope = tuple[str, str | None]

_all: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, States]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True)
class _Seen:
    """An actor's state as it was looked at."""

    id: int
    turns: int
    state: str

    @property
    def event_id(self) -> str:
        """What a browser says as Last-Event-ID when it comes again."""
        return f"{self.id}.{self.turns}"


_UNSEEN = _Seen(-1, -1, "")


class _Watcher:
    """One browser: what it has not seen yet, by key; None for an actor that is gone."""

    def __init__(self, known: dict[str, _Seen]) -> None:
        self._fresh = asyncio.Event()
        self._news: dict[str, _Seen | None] = {}
        for key, seen in known.items():
            self.tell(key, seen)

    def tell(self, key: str, seen: _Seen | None) -> None:
        self._news[key] = seen
        self._fresh.set()

    async def news(self) -> dict[str, _Seen | None]:
        """What there is to tell; empty if that has been nothing for a while."""
        try:
            await asyncio.wait_for(self._fresh.wait(), _HEARTBEAT)
        except (TimeoutError, asyncio.TimeoutError):
            return {}
        self._fresh.clear()
        news, self._news = self._news, {}
        return news


class States:
    """The states of one database that are watched from one event loop."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._watchers: dict[_Scope, set[_Watcher]] = {}
        self._known: dict[_Scope, dict[str, _Seen]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watch(self, scope: _Scope) -> Iterator[_Watcher]:
        """A watcher of this actor, or of these, for as long as the block lasts."""
        watcher = _Watcher(self._known.setdefault(scope, {}))
        self._watchers.setdefault(scope, set()).add(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())
        try:
            yield watcher
        finally:
            self._watchers[scope].discard(watcher)
            if not self._watchers[scope]:
                del self._watchers[scope], self._known[scope]

    async def _look(self) -> None:
        how = await sync_to_async(listener.parameters)(self._alias, "states")
        while self._watchers:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **how, autocommit=True
                ) as connection:
                    while self._watchers:
                        await self._at_actors(connection)
                        for scope in list(self._watchers):
                            if scope[1] is None:
                                await self._at_type(connection, scope)
                        await asyncio.sleep(float(conf.get("STREAM_INTERVAL")))
            except psycopg.Error as error:
                logger.warning("cannot look at states, trying again: %s", error)
                await asyncio.sleep(_RECONNECT)

    async def _at_actors(self, connection: psycopg.AsyncConnection[Any]) -> None:
        known = {
            scope: self._known[scope].get(scope[1], _UNSEEN)
            for scope in self._watchers
            if scope[1] is not None
        }
        if not known:
            return
        cursor = await connection.execute(
            _CHANGED,
            [
                [scope[0] for scope in known],
                [scope[1] for scope in known],
                [seen.id for seen in known.values()],
                [seen.turns for seen in known.values()],
            ],
        )
        for actor_type, key, *seen in await cursor.fetchall():
            self._tell((actor_type, key), key, _Seen(*seen))

    async def _at_type(self, connection: psycopg.AsyncConnection[Any], scope: _Scope) -> None:
        from djactor.models import Actor

        known = self._known.get(scope, {})
        cursor = await connection.execute(
            _CHANGED_OF_TYPE.format(actor=Actor._meta.db_table),
            [
                list(known),
                [seen.id for seen in known.values()],
                [seen.turns for seen in known.values()],
                scope[0],
            ],
        )
        for key, actor_id, turns, state in await cursor.fetchall():
            self._tell(scope, key, None if actor_id is None else _Seen(actor_id, turns, state))

    def _tell(self, scope: _Scope, key: str, seen: _Seen | None) -> None:
        if scope not in self._watchers:
            return  # the last one has left meanwhile
        if seen is None:
            self._known[scope].pop(key, None)
        else:
            self._known[scope][key] = seen
        for watcher in self._watchers[scope]:
            watcher.tell(key, seen)


def _states(alias: str) -> States:
    of_loop = _all.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault(alias, States(alias))


class _Follower:
    """One browser that follows a message: what its turn has said last, and whether it is gone."""

    def __init__(self) -> None:
        self.fresh = asyncio.Event()
        self.said: str | None = None
        self.gone = False


class Followed:
    """The messages of one database whose progress is followed from one event loop."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._followers: dict[int, set[_Follower]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def follow(self, message_id: int) -> Iterator[_Follower]:
        """A follower of this message, for as long as the block lasts."""
        follower = _Follower()
        self._followers.setdefault(message_id, set()).add(follower)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())
        try:
            yield follower
        finally:
            self._followers[message_id].discard(follower)
            if not self._followers[message_id]:
                del self._followers[message_id]

    async def _look(self) -> None:
        how = await sync_to_async(listener.parameters)(self._alias, "progress")
        while self._followers:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **how, autocommit=True
                ) as connection:
                    while self._followers:
                        cursor = await connection.execute(_PROGRESS, [list(self._followers)])
                        for message_id, said, there in await cursor.fetchall():
                            self._tell(message_id, said, not there)
                        await asyncio.sleep(float(conf.get("STREAM_INTERVAL")))
            except psycopg.Error as error:
                logger.warning("cannot look at progress, trying again: %s", error)
                await asyncio.sleep(_RECONNECT)

    def _tell(self, message_id: int, said: str | None, gone: bool) -> None:
        for follower in self._followers.get(message_id, ()):
            if gone or (said is not None and said != follower.said):
                follower.said = said if said is not None else follower.said
                follower.gone = gone
                follower.fresh.set()


_followed: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Followed]] = (
    weakref.WeakKeyDictionary()
)


def _event(name: str, data: str, event_id: str | None = None) -> bytes:
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


def _picked(seen: _Seen, pick: Callable[[Any], Any] | None) -> str:
    return seen.state if pick is None else dump_payload(pick(load_payload(seen.state)))


class EventStream(StreamingHttpResponse):
    """A response of server-sent events, for servers that speak ASGI."""

    def __iter__(self) -> Iterator[bytes]:
        """Refused, since Django would read the endless stream to its end.

        Raises:
            ImproperlyConfigured: Always.
        """
        raise ImproperlyConfigured(
            "server-sent events need an ASGI server (uvicorn, daphne, hypercorn) in front of"
            " get_asgi_application(): under WSGI each browser would occupy a worker for good."
        )


def _response(events: AsyncIterator[bytes]) -> EventStream:
    return EventStream(
        events,
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def state_events(
    actor: ActorRef, pick: Callable[[Any], Any] | None = None, *, after: str | None = None
) -> EventStream:
    """A stream of events ``state``: the state now, if there is one, and after each change.

    A state that somebody wrote by hand shows at the next turn.

    Args:
        actor: Whose state.
        pick: What of the state the browser gets (default: all of it).  A change that does not
            change this is not sent.
        after: The id of the last event that the browser has seen, if it has come again:
            ``request.headers.get("Last-Event-ID")``.  That state is not sent once more.
    """

    async def events() -> AsyncIterator[bytes]:
        sent = None
        using = actor.using
        if cluster.on():
            using = await sync_to_async(cluster.alias_of_key)(actor.key, using)
        with _states(using).watch((actor.type, actor.key)) as watcher:
            while True:
                news = await watcher.news()
                if not news:
                    yield _STILL_HERE
                for seen in filter(None, news.values()):
                    data = _picked(seen, pick)
                    if data != sent and (sent is not None or seen.event_id != after):
                        yield _event("state", data, seen.event_id)
                    sent = data

    return _response(events())


def type_events(
    actor_type: str, pick: Callable[[Any], Any] | None = None, *, using: str | None = None
) -> EventStream:
    """A stream of the states of all actors of a type: all that there are, then what changes.

    The data of an event ``state`` is ``{"key": ..., "state": ...}``, that of an event ``gone``,
    for an actor that has stopped, ``{"key": ...}``.  Each look reads the type's rows: meant for
    types of hundreds or some thousands of actors, not of millions.

    Args:
        actor_type: The name of the type.
        pick: What of a state the browser gets, as in ``state_events()``.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).
    """

    async def events() -> AsyncIterator[bytes]:
        sent: dict[str, str] = {}
        with _states(using or conf.get("DATABASE")).watch((actor_type, None)) as watcher:
            while True:
                news = await watcher.news()
                if not news:
                    yield _STILL_HERE
                for key, seen in news.items():
                    if seen is None:
                        sent.pop(key, None)
                        yield _event("gone", json.dumps({"key": key}))
                        continue
                    data = _picked(seen, pick)
                    if data != sent.get(key):
                        sent[key] = data
                        yield _event("state", f'{{"key": {json.dumps(key)}, "state": {data}}}')

    return _response(events())


def answer_events(actor: ActorRef, payload: Any = None, *, timeout: float = 30.0) -> EventStream:
    """A stream with the answer to one question: an event ``answer``, ``error`` or ``timeout``.

    The data of ``error`` is ``AskFailed.error`` as JSON, that of ``timeout`` the id of the message.

    Args:
        actor: Whom to ask.
        payload: The question, as of ``ActorRef.ask()``.
        timeout: How long to wait, in seconds.
    """

    async def events() -> AsyncIterator[bytes]:
        yield b": asked\n\n"
        try:
            answer = await actor.aask(payload, timeout=timeout)
        except AskFailed as error:
            yield _event("error", dump_payload(error.error))
        except AskTimeout as error:
            yield _event("timeout", str(error.message_id))
        else:
            yield _event("answer", dump_payload(answer))

    return _response(events())


def progress_events(message_id: int, *, using: str | None = None) -> EventStream:
    """A stream of what the turn of a message says by ``progress()``: events ``progress``.

    It ends with an event ``gone``, whose data is the id of the message, once the message was
    handled, given up or cancelled.  While the message waits for its turn, or its next attempt,
    nothing comes.

    Args:
        message_id: What ``send()`` has returned, after its commit.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).
    """

    async def events() -> AsyncIterator[bytes]:
        alias = using or conf.get("DATABASE")
        of_loop = _followed.setdefault(asyncio.get_running_loop(), {})
        sent = None
        with of_loop.setdefault(alias, Followed(alias)).follow(message_id) as follower:
            while not follower.gone:
                try:
                    await asyncio.wait_for(follower.fresh.wait(), _HEARTBEAT)
                except (TimeoutError, asyncio.TimeoutError):
                    yield _STILL_HERE
                    continue
                follower.fresh.clear()
                if follower.said is not None and follower.said != sent:
                    sent = follower.said
                    yield _event("progress", sent)
        yield _event("gone", str(message_id))

    return _response(events())
