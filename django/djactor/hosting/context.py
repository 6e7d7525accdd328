"""The turn that runs: what a handler can know of it, and do with it.

``current()`` is the turn, in sync and async handlers and in what they call; it is kept in a context
variable, so that tasks and threads that a handler starts by asgiref see it, too.

What always holds:

* In a turn that is sync each call is a statement in the turn's transaction, at once.  In one that
  is async it is remembered, and executed in the transaction that ends the turn; so what only the
  server knows, such as the id of a message that is sent, is not known there.
* When a turn is over its object refuses everything: what a handler has left running cannot act on
  a turn that has ended.
* This module needs nothing but the standard library, since a class may be imported inside
  PostgreSQL, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeVar
from uuid import UUID

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from djactor.options import Handles, M_contra

Execute = Callable[[str, Sequence[Any]], Any]
"""Executes a statement in the turn's transaction; returns what it has found."""

Call = tuple[str, Sequence[Any]]
"""A statement that is executed when the turn ends, and its parameters."""

_T = TypeVar("_T")

PROGRESS_BYTES = 1024  # as the server has it

# What take() returns, in this order; ``names.py`` of the protocol would say the same.
(
    TOKEN,
    CLAIM,
    ID,
    TYPE,
    KEY,
    FIRST,
    STATE,
    EXISTS,
    TURNS,
    FROM_VERSION,
    PAYLOAD,
    HEADERS,
    TRACE_ID,
    KIND,
    META,
    ATTEMPTS,
    WANTS_REPLY,
    SENDER_TYPE,
    SENDER_KEY,
    TIME_LIMIT,
    IN_REPLY_TO,
    PRIORITY,
    CAUSE_ID,
    SENT_AT,
) = range(24)

Row = tuple[Any, ...]
"""One message that was taken; JSON is text in it, a time limit is seconds, a time those of Unix."""


class Committing(Protocol):
    """What runs functions in the transaction that ends a turn."""

    async def enter_commit(self, function: Any, args: Any, kwargs: Any) -> Any:
        """``Turn.in_commit()``."""

    def say(self, turn: Turn, text: str) -> None:
        """``Turn.progress()``, of a turn outside of transactions."""


class Reject(Exception):
    """Raised by a handler: the message is given up at once, without a retry.

    It goes to ``dead_letter`` with the reason ``rejected``, and who asked gets the text.
    """

    sqlstate = "JA003"


class Turn:
    """A turn: one run of a handler for one message."""

    # Most turns leave these as they are.
    calls: list[Call] | None = None  # what is executed at the end
    answer: str | None = None  # what reply() said, as JSON
    over = False  # the handler has returned, or was ended
    settled = False  # its end was committed, or refused
    stopped = False  # stop() was called
    timed_out = False
    cancelled = False  # its message was
    noted: Callable[[BaseException], str] | None = None  # JSON that fail() keeps of an error
    told: Callable[[str], None] | None = None  # is called with how it came out, after the commit
    _execute: Execute | None = None  # None: remember the calls
    _committing: Committing | None = None

    def __init__(self, row: Row, execute: Execute | None = None) -> None:
        self.row = row
        if execute is not None:
            self._execute = execute

    def __repr__(self) -> str:
        return f"<turn of {self.row[TYPE]} {self.row[KEY]}, message {self.row[ID]}>"

    # What is known of it.

    @property
    def actor_type(self) -> str:
        """The type of the actor."""
        return str(self.row[TYPE])

    @property
    def key(self) -> str:
        """The key of the actor."""
        return str(self.row[KEY])

    @property
    def turns(self) -> int:
        """How many turns the actor had when its mail was taken."""
        return int(self.row[TURNS] or 0)

    @property
    def message_id(self) -> int:
        """The id of the message, the same in each attempt: a key for idempotent calls of others."""
        return int(self.row[ID])

    @property
    def kind(self) -> str:
        """``user``, ``reply``, ``error``, ``timer`` or ``down``."""
        return str(self.row[KIND])

    @property
    def meta(self) -> dict[str, Any] | None:
        """What djactor says of a message that it has made itself."""
        return _object(self.row[META])

    @property
    def headers(self) -> dict[str, Any] | None:
        """The headers of the message, which pass on to everything that the turn sends."""
        return _object(self.row[HEADERS])

    @property
    def trace_id(self) -> UUID | None:
        """The trace that the message belongs to."""
        found = self.row[TRACE_ID]
        return found if found is None or isinstance(found, UUID) else UUID(found)

    @property
    def attempts(self) -> int:
        """How many attempts at this message have failed so far."""
        return int(self.row[ATTEMPTS])

    @property
    def wants_reply(self) -> bool:
        """Whether somebody waits for a reply."""
        return bool(self.row[WANTS_REPLY])

    @property
    def in_reply_to(self) -> int | None:
        """For a reply: the message that it answers."""
        found: int | None = self.row[IN_REPLY_TO]
        return found

    @property
    def sender_type(self) -> str | None:
        """The type of the actor that sent the message; None if it was sent from outside."""
        found: str | None = self.row[SENDER_TYPE]
        return found

    @property
    def sender_key(self) -> str | None:
        """The key of the actor that sent the message."""
        found: str | None = self.row[SENDER_KEY]
        return found

    @property
    def priority(self) -> int | None:
        """The priority of the message."""
        found: int | None = self.row[PRIORITY]
        return found

    @property
    def cause_id(self) -> int | None:
        """The message whose turn has sent this one."""
        found: int | None = self.row[CAUSE_ID]
        return found

    @property
    def sent_at(self) -> datetime | None:
        """When the message was sent."""
        found: datetime | float | None = self.row[SENT_AT]
        return datetime.fromtimestamp(found, timezone.utc) if isinstance(found, float) else found

    # What it can do.

    def send(
        self,
        actor_type: str | type[Handles[M_contra]],
        key: str | int | UUID,
        payload: M_contra | None = None,
        *,
        priority: int = 0,
        deliver_at: datetime | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        wants_reply: bool = False,
        coalesce_key: str | None = None,
        coalesce_mode: Literal["keep", "replace", "debounce"] | None = None,
        debounce: timedelta | None = None,
        debounce_limit: timedelta | None = None,
    ) -> int | None:
        """Send a message, with this turn's commit.

        Args:
            actor_type: The type of the actor that gets it: its name, or its registered class.
            key: The key of that actor, of 1 to 512 bytes as text.
            payload: What JSON can hold (``{}`` if None), or a typed message.
            priority: Of the messages that are due, an actor handles the one with the highest first.
            deliver_at: When the message is due, with a time zone (default: now).
            expires_at: From when on it is no longer handled, with a time zone (default: never).
            idempotency_key: A second message to the same actor with this key is not handled.
            headers: What goes on to everything that its turn sends (default: the headers of the
                message being handled).
            wants_reply: Whether the reply comes back to this actor, as a message.
            coalesce_key: Waiting messages to the same actor with this key are merged into one.
            coalesce_mode: ``"replace"`` (the default) takes the place of those that wait,
                ``"keep"`` gives way to them.
            debounce: The message is handled when none with its key has come for that long.
            debounce_limit: How long others put it off, at most.

        Returns:
            The id of the message; None in an async turn, which sends it when it ends.

        Raises:
            TypeError: For a payload or headers that JSON cannot hold, and for a payload that the
                class does not take.
            ValueError: For NaN or an infinity in these, and for a time without a zone.
            LookupError: The class is not registered, or under several names.
        """
        from djactor import messages, tracing
        from djactor.hosting import calls

        name, value = messages.addressed(actor_type, payload)
        headers = tracing.headers(headers)
        found = self._do(
            calls.SEND,
            (
                name,
                calls.key(key),
                calls.dump({} if value is None else value),
                priority,
                calls.when(deliver_at),
                calls.when(expires_at),
                idempotency_key,
                None if headers is None else calls.dump(headers),
                wants_reply,
                coalesce_key,
                coalesce_mode,
                calls.span(debounce),
                calls.span(debounce_limit),
            ),
        )
        return None if found is None else int(found)

    def reply(self, payload: Any, message_id: int | None = None) -> None:
        """Answer a message.

        Args:
            payload: The answer: what JSON can hold.
            message_id: An earlier message, whose reply was deferred (default: the message being
                handled).

        Raises:
            TypeError: For an answer that JSON cannot hold.
            ValueError: For NaN or an infinity in it.
        """
        from djactor.hosting import calls

        text = calls.dump(payload)
        if self._execute is None and message_id is None and self.answer is None:
            self._check()
            self.answer = text  # goes with the state
        else:
            self._do(calls.REPLY, (text, message_id))

    def reply_error(self, error: Any, message_id: int | None = None) -> None:
        """Answer a message by an error.

        Args:
            error: What JSON can hold.
            message_id: As that of ``reply()``.
        """
        from djactor.hosting import calls

        self._do(calls.REPLY_ERROR, (calls.dump(error), message_id))

    def defer_reply(self) -> int:
        """Have this turn end without an answer: a later one gives it.

        Returns:
            The id of the message, for ``reply()`` then.
        """
        from djactor.hosting import calls

        self._do(calls.DEFER_REPLY, ())
        return self.message_id

    def set_timer(
        self,
        name: str,
        after: timedelta | float | None = None,
        payload: Any = None,
        *,
        every: timedelta | float | str | None = None,
        at: datetime | None = None,
        cron: str | None = None,
        time_zone: ZoneInfo | str | None = None,
        catch_up: Literal["once", "skip"] = "once",
    ) -> None:
        """Set a timer of this actor, or replace the one of that name.

        Args:
            name: The timer's name.
            after: Fire that long after now: a timedelta, or seconds.
            payload: What JSON can hold (``{}`` if None), or a typed message.
            every: The period: a timedelta, seconds, or the text of an interval, such as
                ``"1 mon"``, which no timedelta is.
            at: Fire at that time, which has a time zone.
            cron: Five fields, or ``@daily`` and the like, instead of the three above.
            time_zone: Time zone of ``every`` and ``cron`` (default: that of the actor type).
            catch_up: ``"once"`` makes one firing of those that were missed, ``"skip"`` none.

        Raises:
            TypeError: For a payload that JSON cannot hold.
            ValueError: For NaN or an infinity in it, and for a time without a zone.
        """
        from djactor.hosting import calls

        self._do(
            calls.SET_TIMER,
            (
                name,
                calls.span(after),
                calls.dump({} if payload is None else payload),
                calls.period(every),
                calls.when(at),
                cron,
                None if time_zone is None else str(time_zone),
                catch_up,
            ),
        )

    def cancel_timer(self, name: str) -> bool | None:
        """Cancel a timer of this actor.

        Returns:
            Whether there was one; None in an async turn, which cancels it when it ends.
        """
        from djactor.hosting import calls

        found = self._do(calls.CANCEL_TIMER, (name,))
        return None if found is None else bool(found)

    def progress(self, value: Any) -> None:
        """Say how far the turn is; others see it at once, until the turn ends.

        In an async turn the server is told a moment later, and whom it cannot be told of is a
        line in the log: a turn does not fail for its progress.

        Args:
            value: What JSON can hold, in 1,024 bytes at most.

        Raises:
            TypeError: For a value that JSON cannot hold.
            ValueError: For NaN or an infinity in it, and for one that is too long.
        """
        from djactor.hosting import calls

        text = calls.dump(value)
        if len(text.encode()) > PROGRESS_BYTES:
            raise ValueError(f"progress of a turn is limited to {PROGRESS_BYTES} bytes")
        if self._execute is not None:
            self._do(calls.PROGRESS, (text,))
            return
        self._check()
        if self._committing is not None:
            self._committing.say(self, text)

    def stop(self, discard: bool = False) -> None:
        """Remove this actor at the end of the turn.

        Args:
            discard: Whether its waiting mail goes to dead_letter; if not, a fresh actor gets it.
        """
        from djactor.hosting import calls

        self._do(calls.STOP, (discard,))
        self.stopped = True

    def stash(self) -> None:
        """Put this message aside until ``unstash_all()``."""
        from djactor.hosting import calls

        self._do(calls.STASH, ())

    def unstash_all(self) -> None:
        """Have all messages that were put aside handled, in their order."""
        from djactor.hosting import calls

        self._do(calls.UNSTASH_ALL, ())

    def watch(self, actor_type: str, key: str | int | UUID) -> None:
        """Have this actor told, by a message of kind ``down``, when another one stops or fails."""
        from djactor.hosting import calls

        self._do(calls.WATCH, (actor_type, calls.key(key)))

    def unwatch(self, actor_type: str, key: str | int | UUID) -> None:
        """End what ``watch()`` has begun."""
        from djactor.hosting import calls

        self._do(calls.UNWATCH, (actor_type, calls.key(key)))

    def reject(self, reason: str) -> NoReturn:
        """End the turn: the message goes to dead_letter at once.

        Raises:
            Reject: Always.
        """
        raise Reject(reason)

    def execute(self, sql: str, params: Sequence[Any] = ()) -> None:
        """Execute a statement in the transaction of this turn; in an async turn, when it ends.

        Args:
            sql: The statement, with ``%s`` for each parameter.
            params: The parameters.
        """
        self._do(sql, tuple(params))

    async def in_commit(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
        """Run a sync function, which may use the ORM, in the transaction that ends this turn.

        The transaction begins with the first call, and stays open until the handler returns: so
        do what waits for others before.  The function runs in a thread.

        Args:
            function: The function.
            *args: Its arguments.
            **kwargs: Its named arguments.

        Returns:
            What the function returns.  The transaction may still fail after that.

        Raises:
            RuntimeError: In a sync turn, whose transaction is there already.
        """
        self._check()
        if self._committing is None:
            raise RuntimeError(
                "in_commit() is for async handlers; a sync one is in its transaction"
            )
        found: _T = await self._committing.enter_commit(function, args, kwargs)
        return found

    # Inside.

    def tell(self, verdict: str) -> None:
        """Say how the turn came out: ``done``, or what ``fail()`` has answered."""
        told, self.told = self.told, None
        if told is not None:
            told(verdict)

    def _check(self) -> None:
        if self.over:
            raise RuntimeError(
                f"the turn of {self.actor_type} {self.key} for message {self.message_id} is over"
            )

    def _do(self, sql: str, params: Sequence[Any]) -> Any:
        self._check()
        if self._execute is not None:
            return self._execute(sql, params)
        if self.calls is None:
            self.calls = []
        self.calls.append((sql, params))
        return None


def _object(text: Any) -> dict[str, Any] | None:
    if not isinstance(text, str):
        found: dict[str, Any] | None = text
        return found
    loaded: dict[str, Any] | None = json.loads(text)
    return loaded


running: ContextVar[Turn | None] = ContextVar("djactor_turn", default=None)


def turn_or_none() -> Turn | None:
    """The turn that runs here; None outside of turns."""
    turn = running.get()
    return None if turn is None or turn.over else turn


def current() -> Turn:
    """The turn that runs here.

    Raises:
        RuntimeError: None does.
    """
    turn = turn_or_none()
    if turn is None:
        raise RuntimeError("there is no current turn: this does not run in a handler of a host")
    return turn


def in_turn() -> bool:
    """Whether this runs in a turn of a host."""
    return turn_or_none() is not None
