"""What the options of sending, asking and scheduling are called, for type checkers.

``send()``, ``ask()``, ``schedule()`` and their kin take these by ``Unpack``, so type checkers find
a misspelt option.  A function of yours that passes options on may take them in the same way::

    def send_later(key: Key, **options: Unpack[SendOptions]) -> int:
        return djactor.actor("shop.counter", key).send({"add": 1}, **options)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    M_contra = TypeVar("M_contra", contravariant=True, default=Any)
else:  # not all versions of Python know defaults
    from typing import TypeVar

    M_contra = TypeVar("M_contra", contravariant=True)

Key: TypeAlias = str | int | UUID
"""An actor's key; an int and a UUID are stored as text."""

CoalesceMode: TypeAlias = Literal["keep", "replace", "debounce"]
"""How a message goes with those of its ``coalesce_key`` that wait already."""

CatchUp: TypeAlias = Literal["once", "skip"]
"""What becomes of firings of a timer that were missed."""


class Handles(Protocol[M_contra]):
    """A class whose objects handle messages of a type, or of a union of types."""

    def handle_message(self, message: M_contra, /) -> Any:
        """Handle a message."""


class ServerSetting(NamedTuple):
    """Instead of a span of time: that of a setting of the server when the type is defined.

    Attributes:
        name: The name of the setting, such as ``"djactor.reply_retention"``.
    """

    name: str


class MessageOptions(TypedDict, total=False):
    """What the sender of a message may choose, mostly by a column of it.

    Attributes:
        priority: From -32,768 to 32,767 (default 0); of the messages that are due, an actor
            handles the one with the highest priority first.
        deliver_at: When the message is due; now by default.
        expires_at: From when on it is no longer handled; never by default.
        idempotency_key: A second message to the same actor with this key is not handled.
        headers: JSON object that goes on to everything that the turn sends.
        wants_reply: Whether the reply is kept, as that to an ask is.
        coalesce_key: Waiting messages to the same actor with this key are merged into one.
        coalesce_mode: How the message goes with those that wait already: it takes their place
            (``"replace"``, the default), gives way to them (``"keep"``), or replaces them and waits
            for its ``deliver_at`` (``"debounce"``).
        debounce: The message is handled when no other one of its ``coalesce_key`` has come for that
            long; instead of ``deliver_at``.
        debounce_limit: With ``debounce``: how long it is put off by others, at most.
    """

    priority: int
    deliver_at: datetime | None
    expires_at: datetime | None
    idempotency_key: str | None
    headers: Mapping[str, Any] | None
    wants_reply: bool
    coalesce_key: str | None
    coalesce_mode: CoalesceMode | None
    debounce: timedelta | None
    debounce_limit: timedelta | None


class SendOptions(MessageOptions, total=False):
    """Options of ``ActorRef.send()`` and ``asend()``.

    Attributes:
        delay: How long after now the message is due, instead of ``deliver_at``.
        trace_id: The trace that the message, and all that it causes, belongs to, such as the id of
            a request: a UUID, or its text.  By default that of the transaction, or of the turn.
    """

    delay: timedelta | None
    trace_id: UUID | str | None


class AskOptions(TypedDict, total=False):
    """Options of ``ActorRef.ask()`` and ``aask()``, as those of the same names of ``send()``."""

    priority: int
    idempotency_key: str | None
    headers: Mapping[str, Any] | None
    coalesce_key: str | None
    coalesce_mode: Literal["keep", "replace"] | None


class TypeOptions(TypedDict, total=False):
    """Options of an actor type, those of ``djactor.define_actor_type()``, which has the defaults.

    Attributes:
        initial_state: Attributes that a new actor has when ``__init__`` runs.
        state_version: The version of the state that the handler reads and writes.
        upgrade_handler: A function of the database that upgrades an older state; of no use to a
            hosted type.
        max_attempts: How often a message is tried.
        backoff: How long after a failure; twice as long after each further one.
        backoff_max: How long at most.
        retry_order: Whether what follows a message that failed is held, or skips it.
        on_exhausted: What becomes of a message, or of its actor, after the last attempt.
        handler_timeout: How long a turn may take.
        batch_size: How many turns may share a transaction; of no use to a hosted type.
        concurrency: How many actors may have a turn at once; None means any number.
        mailbox_limit: How much mail may wait for an actor; None means any amount.
        on_full: What becomes of a message to a mailbox that is full.
        breaker_failures: So many failures within ``breaker_window`` pause the type; None: none do.
        breaker_window: See ``breaker_failures``.
        journal: How long handled messages are kept; None: not at all.
        owner: The role that the type belongs to.
        settings: What turns see of TimeZone, search_path and so on.
        stateless: Whether turns leave no state, so that its actors have no rows: for tasks.
        idle_ttl: How long an actor without a turn, mail and timers lives; None: for ever.
        rate: At most so many turns begin in so long a time: ``"100/min"``, ``"10/30 s"``; units are
            s, min, h and day.  None means any number.
        rate_by: The rate counts for each value of a header (``"header:tenant"``), or of the key up
            to a separator (``"key:-"``).  None: for the whole type.
        fair_by: Such values take turns, however much mail each has.  None: they do not.
        wait_target: How long 95 of 100 messages are to wait at most; where they wait longer, the
            live page shows it in red.  None: no target.
    """

    initial_state: Any
    state_version: int
    upgrade_handler: str | None
    max_attempts: int
    backoff: timedelta
    backoff_max: timedelta
    retry_order: Literal["hold", "skip"]
    on_exhausted: Literal["dead_letter", "suspend"]
    handler_timeout: timedelta
    batch_size: int | None
    concurrency: int | None
    mailbox_limit: int | None
    on_full: Literal["raise", "dead_letter"]
    breaker_failures: int | None
    breaker_window: timedelta
    journal: timedelta | None
    owner: str
    settings: Mapping[str, Any] | None
    stateless: bool
    idle_ttl: timedelta | None
    rate: str | None
    rate_by: str | None
    fair_by: str | None
    wait_target: timedelta | None


class RuleOptions(TypedDict, total=False):
    """The rule of a timer.

    Attributes:
        after: Fire that long after now, and count from then on: a timedelta, or a str that
            PostgreSQL reads.
        every: The period: a timedelta, whose days are days of the calendar, or a str such as
            ``"1 mon"`` or ``"24 hours"``.  It counts from ``at``, else from the end of ``after``,
            else from now.
        at: Fire at that time: a datetime with a time zone, or a str.
        cron: Five fields, or ``@daily`` and the like, instead of ``after``, ``every`` and ``at``.
        time_zone: Time zone of ``every`` and ``cron`` (default: that of the actor type).
        catch_up: ``"once"``, the default, makes one firing of those that were missed; ``"skip"``
            none.
    """

    after: timedelta | str | None
    every: timedelta | str | None
    at: datetime | str | None
    cron: str | None
    time_zone: ZoneInfo | str | None
    catch_up: CatchUp | None


class ScheduleOptions(RuleOptions, total=False):
    """Options of ``ActorRef.schedule()``, ``aschedule()`` and the operation ``Schedule``.

    Attributes:
        payload: What JSON can hold (``{}`` if None).
    """

    payload: Any
