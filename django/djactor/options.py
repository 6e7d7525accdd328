"""What the options of sending, asking and scheduling are called, for type checkers.

``send()``, ``ask()``, ``schedule()`` and their kin take these by ``Unpack``, so type checkers find
a misspelt option.  A function of yours that passes options on may take them in the same way::

    def send_later(key: Key, **options: Unpack[SendOptions]) -> int:
        return djactor.actor("shop.counter", key).send({"add": 1}, **options)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

Key: TypeAlias = str | int | UUID
"""An actor's key; an int and a UUID are stored as text."""

CatchUp: TypeAlias = Literal["once", "skip"]
"""What becomes of firings of a timer that were missed."""


class MessageOptions(TypedDict, total=False):
    """Columns of a message that its sender may choose.

    Attributes:
        priority: From -32,768 to 32,767 (default 0); of the messages that are due, an actor
            handles the one with the highest priority first.
        deliver_at: When the message is due; now by default.
        expires_at: From when on it is no longer handled; never by default.
        idempotency_key: A second message to the same actor with this key is not handled.
        headers: JSON object that goes on to everything that the turn sends.
        wants_reply: Whether the reply is kept, as that to an ask is.
    """

    priority: int
    deliver_at: datetime | None
    expires_at: datetime | None
    idempotency_key: str | None
    headers: Mapping[str, Any] | None
    wants_reply: bool


class SendOptions(MessageOptions, total=False):
    """Options of ``ActorRef.send()`` and ``asend()``.

    Attributes:
        delay: How long after now the message is due, instead of ``deliver_at``.
    """

    delay: timedelta | None


class AskOptions(TypedDict, total=False):
    """Options of ``ActorRef.ask()`` and ``aask()``, as those of the same names of ``send()``."""

    priority: int
    idempotency_key: str | None
    headers: Mapping[str, Any] | None


class ScheduleOptions(TypedDict, total=False):
    """Options of ``ActorRef.schedule()``, which explains them, and ``aschedule()``."""

    after: timedelta | str | None
    payload: Any
    every: timedelta | str | None
    at: datetime | str | None
    cron: str | None
    time_zone: ZoneInfo | str | None
    catch_up: CatchUp | None
