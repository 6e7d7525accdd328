"""``actor(type, key)``: a name to send to and to ask, from sync and async code.

Sending is an insert on the connection of the database alias, so it is committed or rolled
back with what surrounds it; there is no need for ``transaction.on_commit``.  Asking is
sending and waiting for the answer, so the message must be committed at once: inside
``atomic()`` it is refused.  Who waits holds no snapshot and no lock on the server.  A schedule is a
timer of the actor that is set from here; it, too, comes with the commit of what surrounds it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Generic, Literal, TypeAlias, cast, overload
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.utils import Error as DatabaseError
from django.db.utils import InterfaceError, OperationalError

from djactor import cluster, conf, messages, schedules, tracing
from djactor.exceptions import AskFailed, AskInTransaction, AskTimeout
from djactor.fields import dump_payload, load_payload, normalise_key
from djactor.hosting.context import in_turn
from djactor.options import (
    AskOptions,
    Handles,
    Key,
    M_contra,
    RuleOptions,
    ScheduleOptions,
    SendOptions,
)
from djactor.registry import name_of

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

_Class: TypeAlias = type[Any]
_LOOK = 1.0  # seconds between two looks of our own, while nobody listens for us


def set_debounce(
    columns: dict[str, Any], debounce: timedelta | None, limit: timedelta | None
) -> None:
    """Say ``debounce`` and ``debounce_limit`` by the columns of a message.

    Raises:
        ValueError: They are not positive, or contradict the other options.
    """
    for name, span in (("debounce", debounce), ("debounce_limit", limit)):
        if span is not None and (not isinstance(span, timedelta) or span <= timedelta(0)):
            raise ValueError(f"{name} is a positive timedelta, not {span!r}")
    if debounce is None:
        raise ValueError("debounce_limit needs debounce")
    if limit is not None and limit < debounce:
        raise ValueError("debounce_limit must not be less than debounce")
    if columns.get("deliver_at") is not None:
        raise ValueError("give only one of debounce, delay and deliver_at")
    if columns.get("coalesce_mode") not in (None, "debounce"):
        raise ValueError(f"debounce is no option of coalesce_mode {columns['coalesce_mode']!r}")
    if columns.get("coalesce_key") is None:
        raise ValueError("debounce needs a coalesce_key")
    now = datetime.now(timezone.utc)
    columns["coalesce_mode"] = "debounce"
    columns["deliver_at"] = now + debounce
    if limit is not None:
        columns["coalesce_until"] = now + limit


@dataclass(frozen=True)
class ActorRef(Generic[M_contra]):
    """The name of an actor; the actor itself need not exist yet.

    Attributes:
        type: The name of its type.
        key: Its key.
        using: Alias of the database.
        cls: The class, if it was named by that: what is sent is of a type that the class takes.
    """

    type: str
    key: str
    using: str
    cls: _Class | None = field(default=None, compare=False, repr=False)

    def send(self, payload: M_contra | None = None, **options: Unpack[SendOptions]) -> int:
        """Send a message, as part of the transaction at hand.

        Args:
            payload: What JSON can hold (``{}`` if None); dates, UUIDs and Decimals become strings,
                an object of a dataclass or of a pydantic model its fields and ``@type``.
            **options: ``priority``, ``deliver_at`` or ``delay``, ``expires_at``,
                ``idempotency_key``, ``headers``, ``wants_reply``; ``coalesce_key``,
                ``coalesce_mode``, ``debounce``, ``debounce_limit``; ``trace_id``: see
                ``SendOptions``.

        Returns:
            The id of the message.

        Raises:
            TypeError: For a payload that JSON cannot hold, or that the class does not take, and an
                option that does not exist.
            ValueError: For NaN, an infinity or a cycle in the payload; for a negative ``delay``,
                or one beside ``deliver_at``; for a ``debounce`` that is not positive, or beside
                one of these; for a ``trace_id`` that is no UUID.
            UnknownActorType: Nobody has defined the type.
            MailboxFull: The actor has as much mail as its type allows.
        """
        from djactor.models import Message

        message = Message(**self._fields(payload, options))
        message.save(using=self.using)
        return message.pk

    async def asend(self, payload: M_contra | None = None, **options: Unpack[SendOptions]) -> int:
        """``send()`` for async code."""
        return await sync_to_async(self.send)(payload, **options)

    def send_many(self, payloads: Iterable[M_contra], **options: Unpack[SendOptions]) -> list[int]:
        """Send messages in one statement, as part of the transaction at hand.

        Args:
            payloads: As those of ``send()``; the actor handles them in this order.
            **options: As those of ``send()``, the same for all; an ``idempotency_key`` would make
                them one message.

        Returns:
            The ids of the messages, in the order of the payloads.

        Raises:
            TypeError: As by ``send()``.
            ValueError: As by ``send()``, and for an ``idempotency_key``.
            UnknownActorType: As by ``send()``.
            MailboxFull: As by ``send()``; none of them was sent.
        """
        from djactor.models import Message

        if options.get("idempotency_key") is not None:
            raise ValueError("messages with the same idempotency_key would be one message")
        sent = [Message(**self._fields(payload, options)) for payload in payloads]
        return [one.pk for one in Message.objects.using(self.using).bulk_create(sent)]

    async def asend_many(
        self, payloads: Iterable[M_contra], **options: Unpack[SendOptions]
    ) -> list[int]:
        """``send_many()`` for async code."""
        return await sync_to_async(self.send_many)(payloads, **options)

    def ask(
        self,
        payload: M_contra | None = None,
        *,
        timeout: float = 5.0,
        **options: Unpack[AskOptions],
    ) -> Any:
        """Send a message, committed at once, and wait for the answer.

        Args:
            payload: As that of ``send()``.
            timeout: How long to wait, in seconds.  The message expires then, too, unless a worker
                has begun it.
            **options: ``headers``, ``priority``, ``idempotency_key``, ``coalesce_key``,
                ``coalesce_mode``: as those of ``send()``.  An ask that is merged into another
                message gets its answer.

        Returns:
            The answer, as Python has its JSON.

        Raises:
            AskInTransaction: Nobody would see the message, so nothing was sent.
            AskTimeout: No answer came in time; the outcome is unknown.
            AskFailed: The answer is an error.
            TypeError: As by ``send()``.
            ValueError: As by ``send()``.
            UnknownActorType: As by ``send()``.
            MailboxFull: As by ``send()``.
        """
        message_id = self._send_ask(payload, timeout, **options)
        return self._answer(message_id, timeout, timeout)

    async def aask(
        self,
        payload: M_contra | None = None,
        *,
        timeout: float = 5.0,
        **options: Unpack[AskOptions],
    ) -> Any:
        """``ask()`` for async code: waits without holding a thread or a connection.

        Args:
            payload: As that of ``ask()``.
            timeout: How long to wait, in seconds.
            **options: As those of ``ask()``.

        Returns:
            The answer, as Python has its JSON.

        Raises:
            AskInTransaction: As by ``ask()``, and so are all other errors.
            AskTimeout: No answer came in time; the outcome is unknown.
            AskFailed: The answer is an error.
        """
        from djactor import listener

        answers = listener.get(self.using)
        epoch = answers.epoch
        message_id = await sync_to_async(self._send_ask)(payload, timeout, **options)
        end = time.monotonic() + timeout  # not before the message expires
        with answers.expect(message_id, epoch) as answer:
            while not answer.done():
                left = max(0.0, end - time.monotonic())
                await asyncio.wait([answer], timeout=min(left, _LOOK))
                if not answer.done() and (left == 0.0 or not answers.connected):
                    answers.revive()
                    try:
                        return await sync_to_async(self._answer)(message_id, 0.0, timeout)
                    except AskTimeout:
                        if left == 0.0:
                            raise
        found = answer.result()
        if found.error is not None:
            raise AskFailed(message_id, load_payload(found.error))
        return None if found.payload is None else load_payload(found.payload)

    def state(self) -> Any:
        """The state after the last committed turn, or None for an actor that had none yet."""
        from djactor.models import Actor

        found = Actor.objects.using(self.using).filter(actor_type=self.type, actor_key=self.key)
        return found.values_list("state", flat=True).first()

    async def astate(self) -> Any:
        """``state()`` for async code."""
        return await sync_to_async(self.state)()

    def erase(self) -> dict[str, int]:
        """Delete all that is kept about the actor, as part of the transaction at hand.

        State, mail, timers, watches, dead letters, replies, idempotency keys and journal go; the
        turn that runs is waited for.  Who waits for an answer gets an error (``stopped``).

        Returns:
            How many rows were deleted, for each table of djactor.

        Raises:
            UnknownActorType: Nobody has defined the type.
            DatabaseError: The role may not act for the type's owner.
        """
        with connections[self.using].cursor() as cursor:
            cursor.execute(
                "SELECT table_name, deleted FROM djactor.erase(%s, %s)", [self.type, self.key]
            )
            return {str(name): int(deleted) for name, deleted in cursor.fetchall()}

    async def aerase(self) -> dict[str, int]:
        """``erase()`` for async code."""
        return await sync_to_async(self.erase)()

    def schedule(
        self, name: str, *, payload: M_contra | None = None, **rule: Unpack[RuleOptions]
    ) -> datetime:
        """Set a timer of the actor, or change it, as part of the transaction at hand.

        A timer that has the same rule already keeps its next firing.

        Args:
            name: The timer's name; the actor has one timer of each name.
            payload: As that of ``send()``.
            **rule: ``after``, ``every`` and ``at``, or ``cron``; ``time_zone``, ``catch_up``: see
                ``ScheduleOptions``.

        Returns:
            When the timer fires next.

        Raises:
            TypeError: For a value that cannot be converted, a payload that the class does not take,
                and an option that does not exist.
            ValueError: For a payload that is not JSON, and for a time without a zone.
            UnknownActorType: Nobody has defined the type.
            DatabaseError: The server refuses the rule, or the role may not set timers here.
        """
        options = cast(ScheduleOptions, {**rule, "payload": self._outgoing(payload)})
        said = schedules.arguments(options)
        with connections[self.using].cursor() as cursor:
            cursor.execute(*schedules.statement(self.type, self.key, name, said))
            due: datetime = cursor.fetchone()[0]
            return due

    def unschedule(self, name: str) -> bool:
        """End a timer, with a firing that is in the mailbox already.

        Returns:
            Whether there was such a timer.

        Raises:
            DatabaseError: The role may not end timers here.
        """
        return bool(schedules.call(self.using, "unschedule", self.type, self.key, name))

    def run_now(self, name: str) -> int:
        """Have a timer fire now, even if it is paused; its rule stays as it is.

        Returns:
            The id of the message.

        Raises:
            UnknownTimer: The actor has no such timer.
        """
        return int(schedules.call(self.using, "run_now", self.type, self.key, name))

    def pause_timer(self, name: str) -> None:
        """Keep a timer from firing until ``resume_timer()``.

        Raises:
            UnknownTimer: The actor has no such timer.
        """
        schedules.call(self.using, "pause", self.type, self.key, name)

    def resume_timer(self, name: str) -> None:
        """Have a paused timer go on with the next time of its rule.

        Raises:
            UnknownTimer: The actor has no such timer.
        """
        schedules.call(self.using, "resume", self.type, self.key, name)

    def timer_next(self, name: str, count: int = 1) -> list[datetime]:
        """When a timer fires next.

        Args:
            name: The timer's name.
            count: How many times at most.

        Returns:
            The times, the soonest first; none if the timer is paused or does not exist.
        """
        return schedules.next_times(self.using, self.type, self.key, name, count)

    async def aschedule(
        self, name: str, *, payload: M_contra | None = None, **rule: Unpack[RuleOptions]
    ) -> datetime:
        """``schedule()`` for async code."""
        return await sync_to_async(self.schedule)(name, payload=payload, **rule)

    async def aunschedule(self, name: str) -> bool:
        """``unschedule()`` for async code."""
        return await sync_to_async(self.unschedule)(name)

    async def arun_now(self, name: str) -> int:
        """``run_now()`` for async code."""
        return await sync_to_async(self.run_now)(name)

    async def apause_timer(self, name: str) -> None:
        """``pause_timer()`` for async code."""
        await sync_to_async(self.pause_timer)(name)

    async def aresume_timer(self, name: str) -> None:
        """``resume_timer()`` for async code."""
        await sync_to_async(self.resume_timer)(name)

    async def atimer_next(self, name: str, count: int = 1) -> list[datetime]:
        """``timer_next()`` for async code."""
        return await sync_to_async(self.timer_next)(name, count)

    def _fields(self, payload: Any, options: SendOptions) -> dict[str, Any]:
        columns: dict[str, Any] = {**options}
        delay = columns.pop("delay", None)
        if delay is not None:
            if not isinstance(delay, timedelta) or delay < timedelta(0):
                raise ValueError(f"delay is a timedelta that is not negative, not {delay!r}")
            if columns.get("deliver_at") is not None:
                raise ValueError("give delay or deliver_at, not both")
            columns["deliver_at"] = datetime.now(timezone.utc) + delay
        debounce = columns.pop("debounce", None)
        limit = columns.pop("debounce_limit", None)
        if debounce is not None or limit is not None:
            set_debounce(columns, debounce, limit)
        trace_id = columns.pop("trace_id", None)
        if trace_id is not None:
            columns["trace_id"] = _uuid(trace_id)
        return {
            "actor_type": self.type,
            "actor_key": self.key,
            "payload": {} if payload is None else self._outgoing(payload),
            **columns,
        }

    def _outgoing(self, payload: Any) -> Any:
        return payload if self.cls is None else messages.outgoing(self.cls, payload)

    def _send_ask(
        self,
        payload: Any,
        timeout: float,
        *,
        headers: Mapping[str, Any] | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
        coalesce_key: str | None = None,
        coalesce_mode: str | None = None,
    ) -> int:
        connection = connections[self.using]
        if in_turn():
            raise AskInTransaction(
                f"ask() of {self.type} {self.key} inside a turn: no turn waits for another actor."
                " Use send(wants_reply=True) of the turn; the reply comes as a message of its own."
            )
        if in_transaction(self.using):
            raise AskInTransaction(
                f"ask() of {self.type} {self.key} inside a transaction would wait for ever:"
                " nobody sees the message before the commit."
                " Ask outside atomic(), or send() and look at the answer later; with"
                " ATOMIC_REQUESTS the view needs @transaction.non_atomic_requests."
            )
        headers = tracing.headers(headers)
        with connection.cursor() as cursor:
            # The server's clock decides when the ask expires, as it does when that has passed.
            cursor.execute(
                """
                SELECT djactor.send(%s, %s, %s::jsonb, wants_reply => true,
                    expires_at => clock_timestamp() + make_interval(secs => %s),
                    headers => %s::jsonb, priority => %s, idempotency_key => %s,
                    coalesce_key => %s, coalesce_mode => %s)""",
                [
                    self.type,
                    self.key,
                    dump_payload({} if payload is None else self._outgoing(payload)),
                    timeout,
                    None if headers is None else dump_payload(headers),
                    priority,
                    idempotency_key,
                    coalesce_key,
                    coalesce_mode,
                ],
            )
            return int(cursor.fetchone()[0])

    def _answer(self, message_id: int, wait: float, timeout: float) -> Any:
        """Wait for the answer.

        Args:
            message_id: The message that was asked.
            wait: How long to wait, in seconds.
            timeout: How long the caller waits in all, in seconds: what AskTimeout tells.

        Raises:
            AskTimeout: No answer came, or an error ended the wait, such as a lost connection.
            AskFailed: The answer is an error.
            DatabaseError: Any other error.
        """
        connection = connections[self.using]
        end = time.monotonic() + wait
        piece = wait
        while True:
            began = time.monotonic()
            left = max(0.0, end - began)
            try:
                with connection.cursor() as cursor:
                    # The function of that name would hold a snapshot until it returns.
                    cursor.execute(
                        "CALL djactor.wait_reply(%s, make_interval(secs => %s), NULL)",
                        [message_id, min(left, piece)],
                    )
                    text = cursor.fetchone()[0]
                return None if text is None else load_payload(text)
            except DatabaseError as error:
                cause: Any = error.__cause__
                state = getattr(cause, "sqlstate", None)
                if state == "JA002":
                    detail = cause.diag.message_detail
                    raise AskFailed(message_id, load_payload(detail) if detail else None) from error
                lost = state == "JA001" or isinstance(error, OperationalError | InterfaceError)
                if not lost:
                    raise
                if state == "57014":
                    limit = statement_timeout(self.using)
                    if 0.0 < limit <= time.monotonic() - began:  # else somebody has cancelled it
                        piece = limit / 2
                        continue
                if state != "JA001" and not connection.is_usable():
                    connection.close()  # so that the next statement finds a new one
                if state != "JA001" or left <= piece:
                    failed = self._attempts(message_id)
                    raise AskTimeout(message_id, timeout, *failed) from error

    def _attempts(self, message_id: int) -> tuple[int | None, str | None]:
        """How many attempts have failed, and why the last one; None if that cannot be known."""
        try:
            with connections[self.using].cursor() as cursor:
                cursor.execute(
                    "SELECT attempts, last_error FROM djactor.message WHERE id = %s", [message_id]
                )
                waiting = cursor.fetchone()
                if waiting is not None:
                    return int(waiting[0]), waiting[1]
                cursor.execute(
                    "SELECT error::text FROM djactor.reply WHERE message_id = %s", [message_id]
                )
                answered = cursor.fetchone()
        except DatabaseError:
            return None, None
        if answered is None or answered[0] is None:
            return None, None
        error = AskFailed(message_id, load_payload(answered[0])).error
        return error["attempts"], error["last_error"]


def _uuid(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise TypeError(f"trace_id is a UUID or its text, not {value!r}")
    try:
        return UUID(value)
    except ValueError:
        raise ValueError(f"trace_id is no UUID: {value!r}") from None


def statement_timeout(alias: str) -> float:
    """After how many seconds the server cancels a statement of ours; 0.0 means never."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT setting::float8 / 1000 FROM pg_catalog.pg_settings"
            " WHERE name = 'statement_timeout'"
        )
        return float(cursor.fetchone()[0])


def in_transaction(alias: str) -> bool:
    """Whether a statement on this connection would be part of a transaction."""
    connection = connections[alias]
    return bool(connection.in_atomic_block or not connection.get_autocommit())


def cancel(
    message_id: int, *, running: bool = False, using: str | None = None
) -> Literal["waiting", "running", "gone"]:
    """Take a message back, as part of the transaction at hand; its asker gets an error.

    Args:
        message_id: What ``send()`` has returned.
        running: Whether a turn that handles it is broken off: its transaction is rolled back.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``; in a cluster the node that
            the id names).

    Returns:
        Where the message was: ``"gone"`` if it is no longer there, since it was handled, given up
        or cancelled before.

    Raises:
        DatabaseError: The role may not act for the type's owner.
    """
    alias = using or cluster.alias_of_id(message_id, conf.get("DATABASE"))
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT djactor.cancel(%s, %s)", [message_id, running])
        where: Literal["waiting", "running", "gone"] = cursor.fetchone()[0]
        return where


async def acancel(
    message_id: int, *, running: bool = False, using: str | None = None
) -> Literal["waiting", "running", "gone"]:
    """``cancel()`` for async code."""
    return await sync_to_async(cancel)(message_id, running=running, using=using)


@overload
def actor(actor_type: str, key: Key, *, using: str | None = None) -> ActorRef[Any]: ...


@overload
def actor(
    actor_type: type[Handles[M_contra]], key: Key, *, using: str | None = None
) -> ActorRef[M_contra]: ...


def actor(actor_type: str | type[Any], key: Key, *, using: str | None = None) -> ActorRef[Any]:
    """The actor of this type and key, which need not exist yet.

    Args:
        actor_type: The name of its type, or its class, which is registered; then type checkers know
            what may be sent to it.
        key: Its key: a str, an int or a UUID, of 1 to 512 bytes as text.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Raises:
        TypeError: For a key of another Python type, bool included.
        ValueError: For a key that is empty or too long.
        LookupError: The class is not registered, or under several names.
    """
    alias = using or conf.get("DATABASE")
    if isinstance(actor_type, str):
        return ActorRef(actor_type, normalise_key(key), alias)
    return ActorRef(name_of(actor_type), normalise_key(key), alias, actor_type)
