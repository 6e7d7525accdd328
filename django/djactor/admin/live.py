"""What the live page and the pages of mailboxes and timers show, as plain data.

Each function is one statement or two, and the cost of each is bounded: where there may be millions
of rows, the first ``SAMPLE`` are looked at, and the result says so.  Nothing here locks or waits.

A message waits, is to be retried, or is scheduled: due now, due later because it has failed, or
due later because its sender or a timer says so.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import DataError, connections, transaction

from djactor.fields import INTERVAL_FORMAT, Interval, load_payload

SAMPLE = 100_000  # messages looked at, and timers
LETTERS = 10_000  # dead letters looked at
TYPES = 200  # shown on the live page, the busiest
SHOWN = 100  # mailboxes, and timers
PUT_OFFS = 3  # what is put off less often may be over in a moment

# What the charts of the live page may show: spans, and how many seconds each takes.
RANGES = {"hour": (60, 60), "6 hours": (72, 300), "day": (96, 900), "30 days": (120, 21_600)}

# An ask whose reply is to come, its duplicates, and those that were merged wait for nobody's turn.
_MAIL = (
    "(aside IS NULL OR aside NOT IN ('deferred', 'duplicate', 'coalesced', 'held deferred',"
    " 'held duplicate', 'held coalesced'))"
)

_SNAPSHOT = f"""
    WITH sample AS MATERIALIZED (
        SELECT actor_type, greatest(sent_at, deliver_at) AS since, retry_at,
            coalesce(retry_at, deliver_at, '-infinity') <= clock_timestamp() AS due
        FROM djactor.message WHERE {_MAIL} LIMIT %(sample)s),
    letters AS MATERIALIZED (SELECT actor_type FROM djactor.dead_letter LIMIT %(letters)s),
    mail AS (
        SELECT actor_type, count(*) FILTER (WHERE due) AS waiting,
            count(*) FILTER (WHERE NOT due AND retry_at IS NOT NULL) AS retrying,
            count(*) FILTER (WHERE NOT due AND retry_at IS NULL) AS scheduled,
            extract(epoch FROM clock_timestamp() - min(since) FILTER (WHERE due)) AS oldest
        FROM sample GROUP BY actor_type),
    dead AS (SELECT actor_type, count(*) AS letters FROM letters GROUP BY actor_type),
    hosts AS MATERIALIZED (SELECT * FROM djactor.host),
    types AS (
        SELECT t.name, t.hosted,
            (SELECT count(*) FROM hosts h WHERE t.name = ANY(h.types) AND h.state <> 'draining')
                AS hosts,
            coalesce(m.waiting, 0) AS waiting, m.oldest,
            coalesce(m.retrying, 0) AS retrying, coalesce(m.scheduled, 0) AS scheduled,
            coalesce(d.letters, 0) AS letters,
            coalesce(s.handled, 0) AS handled, coalesce(s.failed, 0) AS failed,
            coalesce(s.turns_per_second, 0) AS rate,
            extract(epoch FROM s.wait_p95) AS wait, extract(epoch FROM s.run_p95) AS run,
            extract(epoch FROM t.wait_target) AS target,
            coalesce(s.wait_p95 > t.wait_target, false) AS late,
            t.paused, t.problem, t.paused_reason
        FROM djactor.actor_type t
        LEFT JOIN mail m ON m.actor_type = t.name
        LEFT JOIN dead d ON d.actor_type = t.name
        LEFT JOIN djactor.stat s ON s.actor_type = t.name),
    judged AS (
        SELECT name, hosted, hosts, waiting, oldest, retrying, scheduled, letters, handled, failed,
            rate, wait, run, target, late,
            CASE WHEN paused THEN 'paused' WHEN problem IS NOT NULL THEN 'problem'
                WHEN hosted AND hosts = 0 AND waiting > 0 THEN 'problem'
                ELSE 'running' END AS state,
            coalesce(CASE WHEN paused THEN paused_reason END, problem,
                CASE WHEN NOT hosted THEN '' WHEN hosts = 0 THEN 'hosted by nobody'
                    WHEN hosts = 1 THEN 'hosted' ELSE 'hosted by ' || hosts END) AS note
        FROM types),
    busiest AS (
        SELECT * FROM judged
        ORDER BY state = 'running', waiting + retrying = 0, letters = 0, rate DESC, name
        LIMIT %(types)s),
    workers AS (
        SELECT pid, role::text, state, coalesce(actor_type, '') AS type, message_id AS message,
            extract(epoch FROM clock_timestamp() - since) AS seconds
        FROM djactor.worker ORDER BY pid),
    hosting AS (
        SELECT id::text, pid, name, version, role::text, types, claims, state,
            extract(epoch FROM clock_timestamp() - since) AS seconds,
            extract(epoch FROM lease_until - clock_timestamp()) AS lease
        FROM hosts ORDER BY name, pid)
    SELECT json_build_object(
        'at', extract(epoch FROM clock_timestamp()),
        'held', djactor.held(),
        'waiting', (SELECT coalesce(sum(waiting), 0) FROM mail),
        'retrying', (SELECT coalesce(sum(retrying), 0) FROM mail),
        'scheduled', (SELECT coalesce(sum(scheduled), 0) FROM mail),
        'more', (SELECT count(*) FROM sample) = %(sample)s,
        'oldest', (SELECT max(oldest) FROM mail),
        'letters', (SELECT count(*) FROM letters),
        'more_letters', (SELECT count(*) FROM letters) = %(letters)s,
        'handled', (SELECT coalesce(sum(handled), 0) FROM types),
        'failed', (SELECT coalesce(sum(failed), 0) FROM types),
        'rate', (SELECT coalesce(sum(rate), 0) FROM types),
        'types', coalesce((SELECT json_agg(busiest ORDER BY name) FROM busiest), '[]'),
        'more_types', greatest(0, (SELECT count(*) FROM types) - %(types)s),
        'busy', (SELECT count(*) FROM workers WHERE state = 'busy'),
        'workers', coalesce((SELECT json_agg(workers) FROM workers), '[]'),
        'claims', (SELECT coalesce(sum(claims), 0) FROM hosting),
        'hosts', coalesce((SELECT json_agg(hosting) FROM hosting), '[]'))::text"""

# The latest minute may not be written yet, so it counts when it has been over for ten seconds.
_HISTORY = """
    WITH bounds AS (
        SELECT date_trunc(%(unit)s, clock_timestamp() - interval '10 s', 'UTC') AS until),
    spans AS MATERIALIZED (
        SELECT h.actor_type, (%(spans)s - ceil(extract(epoch FROM b.until - h.at) / %(step)s))::int
            AS span, sum(h.handled) AS handled, sum(h.failed) AS failed,
            extract(epoch FROM djactor.stat_percentile(h.wait, 0.95)) AS wait
        FROM bounds b, djactor.stat_history h
        WHERE h.minutes IN (1, 60) AND h.at < b.until
            AND h.at >= b.until - make_interval(secs => %(spans)s * %(step)s)
        GROUP BY h.actor_type, span),
    busiest AS (
        SELECT actor_type FROM spans GROUP BY actor_type
        ORDER BY sum(handled + failed) DESC, actor_type LIMIT %(types)s),
    types AS (
        SELECT s.actor_type, json_agg(json_build_array(s.span, s.handled, s.failed, s.wait)
            ORDER BY s.span) AS spans
        FROM spans s JOIN busiest USING (actor_type) GROUP BY s.actor_type),
    totals AS (
        SELECT json_build_array(span, sum(handled), sum(failed)) AS total
        FROM spans GROUP BY span ORDER BY span)
    SELECT json_build_object(
        'until', (SELECT extract(epoch FROM until) FROM bounds),
        'all', coalesce((SELECT json_agg(total) FROM totals), '[]'),
        'types', coalesce((SELECT json_object_agg(actor_type, spans) FROM types), '{}'))::text"""

_MAILBOXES = f"""
    SELECT actor_type, actor_key, count(*) AS depth,
        clock_timestamp() - min(greatest(sent_at, deliver_at)) AS age
    FROM (
        SELECT actor_type, actor_key, sent_at, deliver_at, retry_at FROM djactor.message
        WHERE {_MAIL} LIMIT %s) sample
    WHERE deliver_at IS NULL OR deliver_at <= statement_timestamp()
    GROUP BY actor_type, actor_key
    ORDER BY depth DESC, min(greatest(sent_at, deliver_at)), actor_type, actor_key LIMIT %s"""

_PUT_OFF = f"""
    WITH sample AS MATERIALIZED (
        SELECT actor_type, actor_key, sent_at, put_offs, last_error FROM djactor.message
        WHERE {_MAIL} LIMIT %s),
    boxes AS (
        SELECT actor_type, actor_key, clock_timestamp() - min(sent_at) AS age,
            max(put_offs) + coalesce(max(locked.times), 0) AS put_offs,
            CASE WHEN max(locked.times) IS NULL THEN min(last_error)
                ELSE 'another transaction has locked the actor''s row, or a message''s'
            END AS error
        FROM sample LEFT JOIN djactor.put_off_list() locked
            ON locked.type_hash = djactor.name_hash(actor_type)
            AND locked.key_hash = djactor.name_hash(actor_key) AND locked.reason = 'lock'
        WHERE put_offs > 0 OR locked.times > 0
        GROUP BY actor_type, actor_key)
    SELECT * FROM boxes WHERE put_offs >= {PUT_OFFS}
    ORDER BY put_offs DESC, actor_type, actor_key LIMIT %s"""

# How a rule was given, as the server writes it: '1 mon' is not 30 days, nor is '24 hours' a day.
_RULE = """CASE WHEN t.cron IS NOT NULL THEN 'cron ' || t.cron
        WHEN t.every IS NOT NULL THEN 'every ' || t.every ELSE 'once' END AS rule"""

# Python knows no time after the year 9999, and none before the year 1.
_DUE = """greatest('0001-01-02 00:00:00+00', least(t.due_at, '9999-12-30 00:00:00+00')) AS due_at,
        t.due_at - clock_timestamp()"""

_TIMERS = f"""
    SELECT actor_type, actor_key, name, {_DUE} AS remaining, {_RULE},
        to_char(every, '{INTERVAL_FORMAT}') AS every, paused_at, last_outcome
    FROM (SELECT * FROM djactor.timer WHERE %s LIMIT %%s) t
    ORDER BY paused_at IS NOT NULL, t.due_at, actor_type, actor_key, name LIMIT %%s"""

_TIMER = f"""
    SELECT t.actor_type, t.actor_key, t.name, {_DUE} AS remaining, {_RULE}, t.time_zone, zone,
        to_char(t.anchor AT TIME ZONE coalesce(%s, zone), 'YYYY-MM-DD HH24:MI:SS') AS anchor,
        t.every IS NULL AND t.cron IS NULL AS once, t.payload::text AS payload, t.message_id,
        t.catch_up, t.paused_at, t.last_fired_at, t.last_outcome
    FROM djactor.timer t LEFT JOIN djactor.actor_type a ON a.name = t.actor_type, LATERAL (VALUES
        (coalesce(t.time_zone, a.settings ->> 'TimeZone', current_setting('TimeZone')))) z (zone)
    WHERE t.actor_type = %s AND t.actor_key = %s AND t.name = %s"""

_TIMES = """
    SELECT at, at AT TIME ZONE zone AS there,
        extract(epoch FROM at AT TIME ZONE zone - at AT TIME ZONE 'UTC')::int AS ahead
    FROM djactor.timer_next(%s, %s, %s, %s) at, (VALUES (%s::text)) rule (zone)
    WHERE at < '9999-12-30 00:00:00+00'"""

_TRACE = """
    SELECT t.id, t.cause_id, t.actor_type, t.actor_key, t.kind, t.status, t.sent_at, t.finished_at,
        t.wait, t.run, t.error, m.sender_type, m.sender_key, m.meta::text AS meta,
        CASE WHEN pg_column_size(m.payload) <= 10000 THEN m.payload::text END AS payload,
        r.created_at AS answered_at, r.error IS NOT NULL AS answered_badly,
        CASE WHEN r.error IS NULL THEN 'answer' ELSE left(coalesce(r.error ->> 'reason',
            r.error::text), 100) END AS answer,
        receiver.journal IS NULL AS unseen, sender.journal IS NULL AS sender_unseen
    FROM (SELECT * FROM djactor.trace(%s) WITH ORDINALITY ORDER BY sent_at, id LIMIT %s) t
        LEFT JOIN LATERAL (
            SELECT sender_type, sender_key, meta, payload FROM djactor.journal WHERE id = t.id
            UNION ALL
            SELECT sender_type, sender_key, meta, payload FROM djactor.message WHERE id = t.id
            UNION ALL
            SELECT sender_type, sender_key, meta, payload FROM djactor.dead_letter WHERE id = t.id
            LIMIT 1) m ON true
        LEFT JOIN djactor.reply r ON r.message_id = t.id
        LEFT JOIN djactor.actor_type receiver ON receiver.name = t.actor_type
        LEFT JOIN djactor.actor_type sender ON sender.name = m.sender_type
    ORDER BY t.ordinality"""


def snapshot(using: str) -> dict[str, Any]:
    """Types, workers and totals.

    Returns:
        Ages and times in seconds, rates in turns a second; ``more`` is true if more than
        ``SAMPLE`` messages wait.

    Raises:
        DatabaseError: The role may not read the views.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_SNAPSHOT, {"sample": SAMPLE, "letters": LETTERS, "types": TYPES})
        found: dict[str, Any] = json.loads(cursor.fetchone()[0])
        return found


def history(using: str, name: str) -> dict[str, Any]:
    """What was counted in one of ``RANGES``, in spans of equal length.

    Args:
        using: Alias of the database.
        name: Of the range.

    Returns:
        ``step``, the seconds of a span, and ``spans``, their number; ``until``, the end of the
        last; ``all``, a list of ``[span, handled, failed]``, and ``types``, a dict of such lists
        by type, each with the 95th percentile of the wait in seconds.  Spans count from 0; those
        without turns and failures are left out.  Of types only the busiest, ``TYPES`` of them.

    Raises:
        KeyError: There is no such range.
        DatabaseError: The role may not read the history.
    """
    spans, step = RANGES[name]
    unit = "minute" if step < 3600 else "hour"
    with connections[using].cursor() as cursor:
        cursor.execute(_HISTORY, {"spans": spans, "step": step, "unit": unit, "types": TYPES})
        found: dict[str, Any] = json.loads(cursor.fetchone()[0])
    return found | {"spans": spans, "step": step}


def mailboxes(using: str) -> list[dict[str, Any]]:
    """The longest mailboxes, at most ``SHOWN`` of them."""
    return _rows(using, _MAILBOXES, [SAMPLE, SHOWN])


def put_off(using: str) -> list[dict[str, Any]]:
    """The mailboxes that were put off most often, with the reason, at most ``SHOWN`` of them."""
    return _rows(using, _PUT_OFF, [SAMPLE, SHOWN])


def timers(using: str, actor_type: str = "", key: str = "") -> list[dict[str, Any]]:
    """The timers that are due next, then those that are paused, at most ``SHOWN`` of them.

    Args:
        using: Alias of the database.
        actor_type: Only timers of actors of this type; empty means all.
        key: Only timers of actors with this key; empty means all.

    Returns:
        Rows, of the ``SAMPLE`` that are looked at if there are many.  ``rule`` is a text: how the
        rule was given.
    """
    conditions, values = ["true"], []
    if actor_type:
        conditions.append("actor_type = %s")
        values.append(actor_type)
    elif key:  # so that the primary key's index will do
        conditions.append("actor_type IN (SELECT name FROM djactor.actor_type)")
    if key:
        conditions.append("actor_key = %s")
        values.append(key)
    found = _rows(using, _TIMERS % " AND ".join(conditions), [*values, SAMPLE, SHOWN])
    return [row | {"every": row["every"] and Interval.parse(row["every"])} for row in found]


def timer(using: str, actor_type: str, key: str, name: str, count: int) -> dict[str, Any] | None:
    """A timer and the next times of its rule.

    Args:
        using: Alias of the database.
        actor_type: The type of its actor.
        key: The key of its actor.
        name: The timer's name.
        count: How many times at most.

    Returns:
        None if there is no such timer.  Beside the columns there are ``rule`` (a text: how it was
        given), ``zone``, ``payload`` as Python has it, and ``times``: dicts of ``at``, and
        ``there``, the text of the same time as clocks in the rule's zone show it.  If the server
        does not know the zone (any more), ``known`` is False, there are no times, and ``anchor``
        is in UTC.
    """
    named = [actor_type, key, name]
    times: list[dict[str, Any]] = []
    try:
        with transaction.atomic(using=using):
            rows = _rows(using, _TIMER, [None, *named])
            if rows:
                times = _rows(using, _TIMES, [*named, count, rows[0]["zone"]])
        known = True
    except DataError as error:
        if getattr(error.__cause__, "sqlstate", None) != "22023":
            raise
        rows, known = _rows(using, _TIMER, ["UTC", *named]), False
    if not rows:
        return None
    return rows[0] | {
        "payload": load_payload(rows[0]["payload"]),
        "known": known,
        "times": [{"at": time["at"], "there": _clock(time)} for time in times],
    }


def _clock(time: dict[str, Any]) -> str:
    sign, ahead = "-" if time["ahead"] < 0 else "+", abs(time["ahead"]) // 60
    return f"{time['there']:%Y-%m-%d %H:%M:%S} {sign}{ahead // 60:02}:{ahead % 60:02}"


def type_names(using: str) -> list[str]:
    """The names of the actor types, at most ``TYPES`` of them."""
    rows = _rows(using, "SELECT name FROM djactor.actor_type ORDER BY name LIMIT %s", [TYPES])
    return [row["name"] for row in rows]


def trace(using: str, trace_id: UUID | str, limit: int) -> list[dict[str, Any]]:
    """The messages of a trace as they were sent, causes first, at most ``limit`` of them.

    Returns:
        The columns of ``djactor.trace()``, and for each message its ``payload`` and ``meta`` as
        Python has them (a large payload is None), its sender, the ``answer`` to an ask from outside
        (``answered_at`` is None if there is none), and whether the types of receiver and sender
        keep no journal (``unseen``, ``sender_unseen``).
    """
    found = _rows(using, _TRACE, [trace_id, limit])
    begun: dict[int, datetime] = {}
    for row in found:  # depth first
        # A turn's sends bear the time at which its batch began, which may be before its message.
        begun[row["id"]] = max(row["sent_at"], begun.get(row["cause_id"], row["sent_at"]))
    found.sort(key=lambda row: begun[row["id"]])
    for row in found:
        for name in ("payload", "meta"):
            row[name] = None if row[name] is None else load_payload(row[name])
    return found


def _rows(using: str, sql: str, arguments: list[Any]) -> list[dict[str, Any]]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, arguments)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
