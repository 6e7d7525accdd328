"""How the admin's pages write times, spans, names and JSON: short, with units, never too long.

Pure functions; ``static/djactor/live.js`` writes spans in the same way.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from djactor.fields import Interval, PayloadEncoder

JSON_LIMIT = 100_000  # characters of indented JSON on a page
NAME_LIMIT = 60  # characters of a key or an error in a list


def duration(span: timedelta | float | None) -> str:
    """``7 µs``, ``5.2 ms``, ``12.3 s``, ``4 min 12 s``, ``3 h 4 min``, ``2 d 3 h``; None is empty.

    Args:
        span: A timedelta or seconds; a negative one counts as nothing, and months stay months.
    """
    if span is None:
        return ""
    if isinstance(span, Interval):
        return str(span)
    seconds = max(0.0, span.total_seconds() if isinstance(span, timedelta) else float(span))
    if seconds < 60:
        for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
            if seconds >= size:
                number = seconds / size
                return (
                    f"{number:.1f}".removesuffix(".0") + f" {unit}"
                    if number < 100
                    else (f"{number:.0f} {unit}")
                )
        return "0 s"
    whole = int(seconds)
    for unit, size, lesser, of in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return _both(whole // size, unit, whole % size // of, lesser)
    return _both(whole // 60, "min", whole % 60, "s")


def clock(value: datetime | None) -> SafeString | str:
    """A time to the second, in the current time zone; the rest is in the tooltip.

    All times of all pages are written by this, but for those in the zone of a timer's rule.
    """
    if value is None:
        return ""
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(),
        local.strftime("%Y-%m-%d %H:%M:%S.%f %Z"),
        local.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _both(most: int, unit: str, rest: int, lesser: str) -> str:
    return f"{most:,} {unit} {rest} {lesser}" if rest else f"{most:,} {unit}"


def count(number: float) -> str:
    """``14,913``; what is below a hundred and no whole number gets one decimal place."""
    return f"{number:,.1f}" if number < 100 and number != int(number) else f"{number:,.0f}"


def shortened(text: str, limit: int = NAME_LIMIT) -> str:
    """The text on one line, at most so many characters, with an ellipsis if that cuts it."""
    line = " ".join(text.split()) or text
    return line if len(line) <= limit else line[: limit - 1] + "…"


def first_line(text: str) -> str:
    """The first line of an error, without its traceback."""
    return shortened(text.lstrip().split("\n", 1)[0], 2 * NAME_LIMIT)


def pretty(value: object) -> tuple[str, int]:
    """JSON, indented.

    Returns:
        At most ``JSON_LIMIT`` characters of it, and how many are left off.
    """
    text = json.dumps(value, cls=PayloadEncoder, indent=2, ensure_ascii=False, sort_keys=True)
    return text[:JSON_LIMIT], max(0, len(text) - JSON_LIMIT)
