"""What ``djactor_status`` and ``djactor_top`` print: types, what waits, workers."""

from __future__ import annotations

from django.db import connections

_TYPES = """
    SELECT t.name, coalesce(w.waiting, 0), w.oldest, coalesce(s.handled, 0), coalesce(s.failed, 0),
        coalesce(s.dead, 0), coalesce(s.turns_per_second, 0),
        CASE WHEN t.paused THEN coalesce('paused: ' || t.paused_reason, 'paused')
            ELSE coalesce(t.problem, '') END
    FROM djactor.actor_type t
    LEFT JOIN (SELECT actor_type, count(*) AS waiting,
            date_trunc('second', now() - min(sent_at)) AS oldest
        FROM djactor.message GROUP BY actor_type) w ON w.actor_type = t.name
    LEFT JOIN djactor.stat s ON s.actor_type = t.name
    ORDER BY t.name"""
_WORKERS = """
    SELECT pid, role::text, state, coalesce(actor_type, ''), coalesce(message_id::text, ''),
        date_trunc('second', clock_timestamp() - since)
    FROM djactor.worker ORDER BY pid"""


def lines(using: str) -> list[str]:
    """The state of the database, as lines of text."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT djactor.held()")
        held = cursor.fetchone()[0]
        cursor.execute(_TYPES)
        types = cursor.fetchall()
        cursor.execute(_WORKERS)
        workers = cursor.fetchall()
    out = []
    if held:
        out += ["This database is held: it is a copy. SELECT djactor.resume() lets it run.", ""]
    out += _table(
        ("type", "waiting", "oldest", "handled", "failed", "dead", "turns/s", ""),
        [(*row[:6], f"{row[6]:,.0f}", row[7]) for row in types],
    )
    out += ["", *_table(("worker", "role", "state", "type", "message", "since"), workers)]
    return out


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    cells = [head, *[tuple("" if value is None else str(value) for value in row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
