"""Rules of timers, from what Python has to what the server's ``schedule()`` takes.

``ActorRef``, ``Timer`` and the migration operations share this.  Values are converted here, and not
judged: which rules there are, and what of them goes together, is the server's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connections

from djactor.fields import Interval, dump_payload
from djactor.options import ScheduleOptions


def span(name: str, value: object) -> str | None:
    """A span of time as text that PostgreSQL reads; a str is that already.

    Days of a timedelta are days of the calendar, and so are its hours from 24 on, since Python
    makes days of those.  Months of an ``Interval`` stay months.

    Args:
        name: The name of the argument, for the error.
        value: A timedelta, a str or None.

    Raises:
        TypeError: For any other value.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, timedelta):
        raise TypeError(
            f"{name} is a timedelta, or a str such as '1 mon', not {type(value).__name__}"
        )
    months, rest = (value.months, value.rest) if isinstance(value, Interval) else (0, value)
    parts = {
        "months": months,
        "days": rest.days,
        "seconds": rest.seconds,
        "microseconds": rest.microseconds,
    }
    return " ".join(f"{n} {unit}" for unit, n in parts.items() if n) or "0 seconds"


def zone(value: object) -> str | None:
    """The name of a time zone.

    Raises:
        TypeError: For a value without a name that the server would know.
    """
    if value is None or isinstance(value, str):
        return value
    if value is timezone.utc:
        return "UTC"
    if isinstance(value, ZoneInfo) and value.key:
        return value.key
    raise TypeError(f"time_zone is a ZoneInfo, or a name such as 'Europe/Berlin', not {value!r}")


def moment(value: object) -> str | None:
    """A time as text that PostgreSQL reads; a str is that already.

    Raises:
        TypeError: For a value that is neither.
        ValueError: For a datetime without a time zone under USE_TZ.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, datetime):
        raise TypeError(f"at is a datetime, or a str, not {type(value).__name__}")
    if value.tzinfo is not None:
        return value.astimezone(timezone.utc).isoformat()
    if settings.USE_TZ:
        raise ValueError(f"at is a datetime with a time zone, not {value!r}")
    return value.isoformat()


# For each of ScheduleOptions: its type in SQL, and the value that is sent.
_CONVERTERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "after": ("interval", lambda value: span("after", value)),
    "payload": ("jsonb", dump_payload),
    "every": ("interval", lambda value: span("every", value)),
    "at": ("timestamptz", moment),
    "cron": ("text", lambda value: value),
    "time_zone": ("text", zone),
    "catch_up": ("text", lambda value: value),
}


def arguments(rule: ScheduleOptions) -> dict[str, tuple[str, Any]]:
    """The arguments of ``djactor.schedule()`` for a rule.

    Returns:
        By the name of each argument that is given: how SQL writes it, and its value.

    Raises:
        TypeError: For a value that cannot be converted, and an option that does not exist.
        ValueError: For a payload that is not JSON, and for a time without a zone.
    """
    given: Mapping[str, object] = rule
    wrong = given.keys() - _CONVERTERS.keys()
    if wrong:
        raise TypeError(f"a schedule has no option {min(wrong)!r}")
    return {
        name: (f"%s::{sql}", convert(given[name]))
        for name, (sql, convert) in _CONVERTERS.items()
        if given.get(name) is not None
    }


def statement(
    actor_type: str, actor_key: str, name: str, rule: dict[str, tuple[str, Any]]
) -> tuple[str, list[Any]]:
    """The SELECT that schedules, and its parameters."""
    said = ["%s", "%s", "%s", *(f"{argument} => {sql}" for argument, (sql, _) in rule.items())]
    values = [actor_type, actor_key, name, *(value for _, value in rule.values())]
    return f"SELECT djactor.schedule({', '.join(said)})", values


def call(using: str, function: str, actor_type: str, actor_key: str, name: str) -> Any:
    """Call a function of djactor for one timer.

    Raises:
        UnknownTimer: The actor has no such timer.
        DatabaseError: The role may not do it.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT djactor.{function}(%s, %s, %s)", [actor_type, actor_key, name])
        return cursor.fetchone()[0]


def next_times(
    using: str, actor_type: str, actor_key: str, name: str, count: int
) -> list[datetime]:
    """When a timer fires next, at most ``count`` times; empty if it is paused or missing."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT djactor.timer_next(%s, %s, %s, %s)", [actor_type, actor_key, name, count]
        )
        return [at for (at,) in cursor.fetchall()]
