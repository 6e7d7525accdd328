"""What the live page and the page of mailboxes show, as plain data.

Each function is one statement, and the cost of each is bounded: where there may be millions of
rows, the first ``SAMPLE`` are looked at, and the result says so.  Nothing here locks or waits.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import connections

SAMPLE = 100_000  # messages looked at
SHOWN = 100  # mailboxes, and timers

_SNAPSHOT = """
    WITH sample AS MATERIALIZED (SELECT actor_type, sent_at FROM djactor.message LIMIT %(sample)s),
    waits AS (
        SELECT actor_type, count(*) AS waiting, extract(epoch FROM now() - min(sent_at)) AS oldest
        FROM sample GROUP BY actor_type),
    types AS (
        SELECT t.name, coalesce(w.waiting, 0) AS waiting, w.oldest,
            coalesce(s.handled, 0) AS handled, coalesce(s.failed, 0) AS failed,
            coalesce(s.dead, 0) AS dead, coalesce(s.turns_per_second, 0) AS rate, t.paused,
            CASE WHEN t.paused THEN 'paused' || coalesce(': ' || t.paused_reason, '')
                ELSE coalesce(t.problem, '') END AS note
        FROM djactor.actor_type t
        LEFT JOIN waits w ON w.actor_type = t.name
        LEFT JOIN djactor.stat s ON s.actor_type = t.name
        ORDER BY t.name),
    workers AS (
        SELECT pid, role::text, state, coalesce(actor_type, '') AS type, message_id AS message,
            round(extract(epoch FROM clock_timestamp() - since)) AS seconds
        FROM djactor.worker ORDER BY pid)
    SELECT json_build_object(
        'at', extract(epoch FROM clock_timestamp()),
        'held', djactor.held(),
        'waiting', (SELECT count(*) FROM sample),
        'more', (SELECT count(*) FROM sample) = %(sample)s,
        'oldest', (SELECT max(oldest) FROM waits),
        'rate', (SELECT coalesce(sum(rate), 0) FROM types),
        'failed', (SELECT coalesce(sum(failed), 0) FROM types),
        'types', coalesce((SELECT json_agg(types) FROM types), '[]'),
        'workers', coalesce((SELECT json_agg(workers) FROM workers), '[]'))::text"""

_MAILBOXES = """
    SELECT actor_type, actor_key, count(*) AS depth, min(sent_at) AS oldest
    FROM (SELECT actor_type, actor_key, sent_at FROM djactor.message LIMIT %s) sample
    GROUP BY actor_type, actor_key ORDER BY depth DESC, oldest LIMIT %s"""

_TIMERS = """
    SELECT actor_type, actor_key, name, due_at, every FROM djactor.timer ORDER BY due_at LIMIT %s"""

_TRACE = """
    SELECT id, cause_id, actor_type, actor_key, kind, status, sent_at, wait, run, error
    FROM djactor.trace(%s) ORDER BY sent_at, id LIMIT %s"""


def snapshot(using: str) -> dict[str, Any]:
    """Types, workers and totals; ``more`` is true if more than ``SAMPLE`` messages wait.

    Ages are in seconds.  Errors: DatabaseError, for a role that may not read the views.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_SNAPSHOT, {"sample": SAMPLE})
        return json.loads(cursor.fetchone()[0])


def mailboxes(using: str) -> list[dict[str, Any]]:
    """The longest mailboxes, at most ``SHOWN`` of them."""
    return _rows(using, _MAILBOXES, [SAMPLE, SHOWN])


def timers(using: str) -> list[dict[str, Any]]:
    """The timers that are due next, at most ``SHOWN`` of them."""
    return _rows(using, _TIMERS, [SHOWN])


def trace(using: str, trace_id: object, limit: int) -> list[dict[str, Any]]:
    """The messages of a trace as they were sent, at most ``limit`` of them."""
    return _rows(using, _TRACE, [trace_id, limit])


def _rows(using: str, sql: str, arguments: list[object]) -> list[dict[str, Any]]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, arguments)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
