"""A turn without a database: ``djactor.test.Turn``, for unit tests of a class.

The object is made, and the message read, as a host does it; what the handler does with its turn is
written down instead of being sent to the server.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

from asgiref.sync import async_to_sync

from djactor.actors import ActorRef, set_debounce
from djactor.captured import Sent, options_of
from djactor.fields import normalise_key
from djactor.hosting import calls, context, turns
from djactor.hosting.classes import Hosted
from djactor.options import Key
from djactor.registry import name_of, registered
from djactor_python import check_class

_ids = itertools.count(1)


@dataclass(frozen=True)
class Timer:
    """A timer that a turn has set.

    Attributes:
        name: Its name.
        after: How long after the turn it fires, if that was said.
        payload: The payload of its message, as JSON has it.
        rule: What else was said: ``every``, ``at``, ``cron``, ``time_zone``, ``catch_up``.
    """

    name: str
    after: timedelta | None
    payload: Any
    rule: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Handled:
    """What a turn has done.

    Attributes:
        state: The state that it leaves, as JSON has it; None after ``stop()``.
        reply: The reply to the message, as JSON has it; None if there is none.
        error: What ``reply_error()`` has answered.
        sends: What it has sent, in this order.
        timers: The timers that it has set, by their names.
        cancelled: The names of the timers that it has cancelled.
        replies: Replies to earlier messages, by their ids; ``errors`` are those of
            ``reply_error()``.
        errors: See ``replies``.
        deferred: Whether ``defer_reply()`` was called; so for ``stopped``, ``stashed`` and
            ``unstashed``.
        stopped: See ``deferred``.
        stashed: See ``deferred``.
        unstashed: See ``deferred``.
        watched: The actors that it watches, each as type and key.
        unwatched: Those that it watches no longer.
        executed: The statements of ``execute()``, each with its parameters.
    """

    state: dict[str, Any] | None = None
    reply: Any = None
    error: Any = None
    sends: list[Sent] = field(default_factory=list)
    timers: dict[str, Timer] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    replies: dict[int, Any] = field(default_factory=dict)
    errors: dict[int, Any] = field(default_factory=dict)
    deferred: bool = False
    stopped: bool = False
    stashed: bool = False
    unstashed: bool = False
    watched: list[tuple[str, str]] = field(default_factory=list)
    unwatched: list[tuple[str, str]] = field(default_factory=list)
    executed: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)


class Turn:
    """An actor without a database; each ``handle()`` is a turn of it.

    Attributes:
        state: The state after the last turn, as JSON has it; None before the first one.
        turns: How many turns it had.
    """

    def __init__(
        self,
        cls: type[Any],
        key: Key = 1,
        *,
        state: Mapping[str, Any] | None = None,
        from_version: int | None = None,
    ) -> None:
        """Make one.

        Args:
            cls: The class of the actor.
            key: Its key.
            state: The state of an actor that is there already; without it the first turn makes
                a new one.
            from_version: The version of ``state``, if the class has to upgrade it.

        Raises:
            TypeError: The class cannot be that of an actor, or the key not one.
            ValueError: The key is empty or too long.
        """
        check_class(cls)
        try:
            self._name = name_of(cls)
        except LookupError:
            self._name = cls.__name__
        one = registered().get(self._name)
        options = {} if one is None else one.options
        self._initial = options.get("initial_state") or {}
        self._hosted = Hosted(self._name, cls, stateless=bool(options.get("stateless")))
        self._key = normalise_key(key)
        self._from_version = from_version
        self.state: dict[str, Any] | None = None if state is None else _json(dict(state))
        self.turns = 0

    def handle(self, message: Any = None, **about: Any) -> Handled:
        """Have the actor handle a message; an async handler runs to its end.

        Args:
            message: A typed message, or what JSON can hold (``{}`` if None).
            **about: What ``current()`` tells of the message: ``kind``, ``meta``, ``headers``,
                ``attempts``, ``wants_reply``, ``sender_type``, ``sender_key``, ``priority``,
                ``in_reply_to``, ``message_id``.

        Returns:
            What the turn has done.  The state is kept for the next one.

        Raises:
            Reject: The handler has, or the message is none that the class takes.
            Exception: What else the handler raises; the state is as it was before.
            TypeError: There is no such thing to tell of a message.
        """
        if self._hosted.is_async:
            return async_to_sync(self.ahandle)(message, **about)
        turn = _Turn(self._row(message, about), False)
        with turn.in_place_of_sends(), turns.as_current(turn):
            obj = self._hosted.object_for(turn.row, None)
            return self._end(turn, obj, self._hosted.handle(obj, turn.payload))

    async def ahandle(self, message: Any = None, **about: Any) -> Handled:
        """``handle()`` in async tests."""
        if not self._hosted.is_async:
            return self.handle(message, **about)
        turn = _Turn(self._row(message, about), True)
        with turn.in_place_of_sends(), turns.as_current(turn):
            obj = self._hosted.object_for(turn.row, None)
            return self._end(turn, obj, await self._hosted.handle(obj, turn.payload))

    def _row(self, message: Any, about: Mapping[str, Any]) -> context.Row:
        known = {
            "message_id": next(_ids),
            "kind": "user",
            "meta": None,
            "headers": None,
            "attempts": 0,
            "wants_reply": False,
            "sender_type": None,
            "sender_key": None,
            "priority": 0,
            "in_reply_to": None,
        }
        wrong = about.keys() - known.keys()
        if wrong:
            raise TypeError(f"a message has no {', '.join(sorted(wrong))}")
        known.update(about)
        for name in ("meta", "headers"):
            known[name] = None if known[name] is None else calls.dump(known[name])
        state = self._initial if self.state is None else self.state
        columns = {
            **known,
            "id": known["message_id"],
            "token": 0,
            "claim": 0,
            "actor_type": self._name,
            "actor_key": self._key,
            "first": True,
            "state": calls.dump(state),
            "exists": self.state is not None,
            "turns": self.turns,
            "from_version": self._from_version,
            "payload": calls.dump({} if message is None else message),
            "trace_id": uuid.uuid4(),
            "time_limit": None,
            "cause_id": None,
            "sent_at": datetime.now(timezone.utc),
        }
        return turns.in_order(list(columns), list(columns.values()))

    def _end(self, turn: _Turn, obj: Any, answer: Any) -> Handled:
        turns.check_sync(answer, self._hosted.label)
        state, reply = self._hosted.ended(obj, answer, None)
        done = turn.handled
        if reply is not None:
            done.reply = json.loads(reply)
        self.state = None if done.stopped or state is None else json.loads(state)
        done.state = None if self.state is None else _json(self.state)
        self.turns = 0 if done.stopped else self.turns + 1
        self._from_version = None
        return done


class _Turn(context.Turn):
    """The turn that the handler sees: writes down what it does."""

    def __init__(self, row: context.Row, is_async: bool) -> None:
        super().__init__(row)
        self.payload = json.loads(row[context.PAYLOAD])
        self.handled = Handled()
        self._is_async = is_async
        self._committing = None if not is_async else _InCommit()

    def in_place_of_sends(self) -> Any:
        """Have ``djactor.actor(...).send()`` be one of the turn, for the length of a block."""

        def send(ref: ActorRef[Any], payload: Any = None, **options: Any) -> int:
            columns: dict[str, Any] = ref._fields(payload, options)  # type: ignore[arg-type]
            text = calls.dump(columns["payload"])
            given = {"priority": 0, "wants_reply": False} | columns
            return self._sent(ref.type, ref.key, json.loads(text), options_of(given))

        def send_many(ref: ActorRef[Any], payloads: Any, **options: Any) -> list[int]:
            return [send(ref, one, **options) for one in payloads]

        return mock.patch.multiple(ActorRef, send=send, send_many=send_many)

    def reply(self, payload: Any, message_id: int | None = None) -> None:
        """Answer a message."""
        self._do(calls.REPLY, (calls.dump(payload), message_id))

    def set_timer(
        self, name: str, after: timedelta | float | None = None, payload: Any = None, **rule: Any
    ) -> None:
        """Set a timer of this actor, or replace the one of that name."""
        super().set_timer(name, after, payload, **rule)
        if after is not None and not isinstance(after, timedelta):
            after = timedelta(seconds=after)
        text = calls.dump({} if payload is None else payload)
        self.handled.timers[name] = Timer(name, after, json.loads(text), rule)

    def _sent(self, name: str, key: str, payload: Any, options: dict[str, Any]) -> int:
        number = next(_ids)
        if self.headers is not None:  # they pass on
            options.setdefault("headers", self.headers)
        self.handled.sends.append(Sent(name, key, payload, options, number))
        return number

    def _do(self, sql: str, params: Sequence[Any]) -> Any:
        self._check()
        done = self.handled
        if sql == calls.SEND:
            number = self._sent(params[0], params[1], json.loads(params[2]), _options(params))
            return None if self._is_async else number
        if sql in (calls.REPLY, calls.REPLY_ERROR):
            answer, message_id = json.loads(params[0]), params[1]
            kept = done.replies if sql == calls.REPLY else done.errors
            if message_id is not None and message_id != self.message_id:
                kept[message_id] = answer
            elif sql == calls.REPLY:
                done.reply = answer
            else:
                done.error = answer
        elif sql == calls.DEFER_REPLY:
            done.deferred = True
        elif sql == calls.CANCEL_TIMER:
            done.cancelled.append(params[0])
            found = done.timers.pop(params[0], None) is not None
            return None if self._is_async else found
        elif sql == calls.STOP:
            done.stopped = True
        elif sql == calls.STASH:
            done.stashed = True
        elif sql == calls.UNSTASH_ALL:
            done.unstashed = True
        elif sql == calls.WATCH:
            done.watched.append((params[0], params[1]))
        elif sql == calls.UNWATCH:
            done.unwatched.append((params[0], params[1]))
        elif sql != calls.SET_TIMER:
            done.executed.append((sql, tuple(params)))
        return None


class _InCommit:
    """``in_commit()``: the function runs at once, and in the thread of the test."""

    def say(self, turn: context.Turn, text: str) -> None:
        """``progress()``: nobody else is there to see it."""

    async def enter_commit(self, function: Any, args: Any, kwargs: Any) -> Any:
        """``in_commit()``."""
        return function(*args, **kwargs)


def _options(params: Sequence[Any]) -> dict[str, Any]:
    """Those of a send, from the parameters of its statement."""
    priority, deliver_at, expires_at, idempotency_key, headers, wants_reply, *coalesce = params[3:]
    coalesce_key, coalesce_mode, *spans = coalesce
    columns = {
        "priority": priority,
        "deliver_at": None if deliver_at is None else datetime.fromisoformat(deliver_at),
        "expires_at": None if expires_at is None else datetime.fromisoformat(expires_at),
        "idempotency_key": idempotency_key,
        "headers": None if headers is None else json.loads(headers),
        "wants_reply": wants_reply,
        "coalesce_key": coalesce_key,
        "coalesce_mode": coalesce_mode,
    }
    if spans != [None, None]:  # as text: so many microseconds
        debounce, limit = (span and timedelta(microseconds=int(span.split()[0])) for span in spans)
        set_debounce(columns, debounce, limit)
    return options_of(columns)


def _json(value: dict[str, Any]) -> dict[str, Any]:
    """A copy, as it would come back from the database.

    Raises:
        TypeError: JSON cannot hold it.
        ValueError: JSON cannot hold it.
    """
    copy: dict[str, Any] = json.loads(calls.dump(value))
    return copy
