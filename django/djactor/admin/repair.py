"""What somebody who repairs things looks at, as plain data: failures, and the life of an actor.

Each function is one statement or two, and the cost of each is bounded, as in ``live``: of dead
letters the latest ``LETTERS`` are looked at, and of a journal the latest ``ENTRIES`` of the actor's
type, since it has no index for keys.  JSON that is larger than ``JSON_BYTES`` is not read.

Dead letters are a group if type, reason and error are the same.  The error counts by its first
line, with numbers left out: ``order # is not paid``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.db import DatabaseError, connections, transaction
from django.db.models.expressions import RawSQL

from djactor import conf
from djactor.fields import load_payload

if TYPE_CHECKING:
    from djactor.models import DeadLetter

LETTERS = 20_000  # dead letters looked at
GROUPS = 100  # shown
ENTRIES = 10_000  # rows of a type's journal that are looked at
EVENTS = 50  # of each kind, in the life of an actor
JSON_BYTES = 10_000  # as stored, that is, compressed

# The first line of an error, which may have a traceback; and the same without its numbers, and
# without what is made of digits and letters as UUIDs are.  As bytes both are compared quickest.
_LINE = """split_part(left(coalesce(error, ''), 500), E'\\n', 1) COLLATE "C" AS line"""
_SAME = """regexp_replace(line, '[0-9a-f]*[0-9][0-9a-f-]*', '#', 'g') COLLATE "C" AS same_error"""

_LATEST = f"""
    SELECT *, {_SAME} FROM (
        SELECT id, actor_type, actor_key, reason, sqlstate, failed_at, {_LINE}
        FROM djactor.dead_letter ORDER BY failed_at DESC LIMIT %(sample)s) letter"""

_GROUPS = f"""
    WITH latest AS MATERIALIZED ({_LATEST})
    SELECT actor_type, reason, same_error AS error, count(*) AS letters,
        count(DISTINCT actor_key) AS actors, min(sqlstate) AS sqlstate,
        min(failed_at) AS first_at, max(failed_at) AS last_at,
        CASE WHEN min(line) = max(line) THEN min(line) ELSE same_error END AS line
    FROM latest GROUP BY actor_type, reason, same_error
    ORDER BY max(failed_at) DESC, count(*) DESC, actor_type, reason, same_error LIMIT {GROUPS}"""

_IN_GROUP = f"""
    SELECT id FROM ({_LATEST}) latest
    WHERE actor_type = %(actor_type)s AND reason = %(reason)s AND same_error = %(error)s"""

_SAME_ERROR_IDS = f"""
    SELECT id FROM ({_LATEST % {"sample": "%s"}}) latest WHERE same_error = %s"""

_BRIEF = f"CASE WHEN pg_column_size(payload) <= {JSON_BYTES} THEN payload::text END AS payload"

# Python knows no time after the year 9999, and none before the year 1.
_FIRST, _LAST = "'0001-01-02 00:00:00+00'", "'9999-12-30 00:00:00+00'"

# The mailbox's indexes are by hashes, which differ where names do, but for one case in 2^64.
_IN_MAILBOX = """djactor.name_hash(actor_type) = djactor.name_hash(%(actor_type)s)
        AND djactor.name_hash(actor_key) = djactor.name_hash(%(key)s)
        AND actor_type = %(actor_type)s AND actor_key = %(key)s"""

_EVENTS = {
    "timer": f"""
        SELECT greatest(least(due_at, {_LAST}), {_FIRST}) AS at, name, NULL::bigint AS id,
            CASE WHEN paused_at IS NOT NULL THEN 'paused' ELSE 'set' END AS outcome, {_BRIEF},
            CASE WHEN cron IS NOT NULL THEN 'cron ' || cron
                WHEN every IS NOT NULL THEN 'every ' || every ELSE 'once' END AS detail,
            NULL::interval AS run, due_at - clock_timestamp() AS remaining
        FROM djactor.timer WHERE actor_type = %(actor_type)s AND actor_key = %(key)s
        ORDER BY due_at LIMIT {EVENTS}""",
    "message": f"""
        SELECT least(coalesce(retry_at, greatest(sent_at, deliver_at)), {_LAST}) AS at,
            kind AS name, id, CASE WHEN aside IS NOT NULL THEN aside
                WHEN retry_at > clock_timestamp() THEN 'retrying'
                WHEN deliver_at > clock_timestamp() THEN 'scheduled' ELSE 'waiting' END AS outcome,
            {_BRIEF}, last_error AS detail, NULL::interval AS run,
            least(coalesce(retry_at, deliver_at), {_LAST}) - clock_timestamp() AS remaining
        FROM (
            (SELECT * FROM djactor.message WHERE {_IN_MAILBOX}
                AND (deliver_at IS NULL OR released) AND aside IS NULL
                ORDER BY djactor.mailbox_position(priority, id) LIMIT {EVENTS})
            UNION ALL
            (SELECT * FROM djactor.message WHERE {_IN_MAILBOX}
                AND (aside IS NOT NULL OR (deliver_at IS NOT NULL AND NOT released))
                LIMIT {EVENTS})) mail
        WHERE kind <> 'timer' OR released
        ORDER BY at LIMIT {EVENTS}""",
    "deadletter": f"""
        SELECT failed_at AS at, kind AS name, id, reason AS outcome, {_BRIEF}, error AS detail,
            NULL::interval AS run, NULL::interval AS remaining
        FROM djactor.dead_letter WHERE actor_type = %(actor_type)s AND actor_key = %(key)s
        ORDER BY failed_at DESC LIMIT {EVENTS}""",
    "journal": f"""
        SELECT finished_at AS at, kind AS name, id, outcome, {_BRIEF},
            CASE WHEN attempts > 0 THEN last_error END AS detail,
            finished_at - started_at AS run, NULL::interval AS remaining
        FROM (SELECT * FROM djactor.journal WHERE actor_type = %(actor_type)s
            ORDER BY finished_at DESC LIMIT %(entries)s) entry
        WHERE actor_key = %(key)s ORDER BY finished_at DESC LIMIT {EVENTS}""",
}


@dataclass(frozen=True)
class Group:
    """What dead letters have in common: type, reason, and the first line of the error."""

    actor_type: str
    reason: str
    error: str

    @property
    def query(self) -> str:
        """The query of the list of dead letters that shows it."""
        return urlencode(
            {"type": self.actor_type, "reason": self.reason, "error": f"={self.error}"}
        )


def groups(using: str) -> list[dict[str, Any]]:
    """The groups of the latest ``LETTERS`` dead letters, the one that failed last first.

    Returns:
        At most ``GROUPS`` of them: the attributes of ``Group``, ``letters`` and ``actors`` (how
        many), ``sqlstate``, ``first_at``, ``last_at``, and ``line``: the error of all if it is the
        same in all of them, numbers included.
    """
    return rows(using, _GROUPS, {"sample": LETTERS})


def in_group(using: str, group: Group) -> list[int]:
    """The ids of a group, of those that ``groups()`` looks at; the oldest message first."""
    return sorted(row["id"] for row in rows(using, _IN_GROUP, asdict(group) | {"sample": LETTERS}))


def with_error(error: str) -> RawSQL:
    """The ids of the dead letters of all groups with this error, of the latest ones."""
    return RawSQL(_SAME_ERROR_IDS, [LETTERS, error])


def query_of(letter: DeadLetter) -> str:
    """The query of the list of dead letters that shows those of the letter's group."""
    (error,) = rows(
        letter._state.db or conf.get("DATABASE"),
        f"SELECT {_SAME} FROM (SELECT {_LINE} FROM (VALUES (%s::text)) v (error)) letter",
        [letter.error],
    )
    group = Group(letter.actor_type, letter.reason, error["same_error"])
    return group.query


def call_each(using: str, call: str, table: str, column: str, keys: list[Any]) -> int:
    """Call a function of djactor for each of these rows of a table; those that are gone are not.

    Args:
        using: Alias of the database.
        call: The call, with columns of the table as arguments, such as ``redrive(id)``.
        table: The table, as SQL names it.
        column: Its primary key, as SQL names it.
        keys: The values of the key.

    Returns:
        For how many.

    Raises:
        DatabaseError: The server has refused one of them.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"SELECT djactor.{call} FROM {table} WHERE {column} = ANY(%s) ORDER BY {column}",
            [keys],
        )
        return int(cursor.rowcount)


def life(
    using: str, actor_type: str, key: str, kinds: Collection[str]
) -> tuple[list[dict[str, Any]], bool]:
    """What an actor has before it and behind it, in one list: the future first, then backwards.

    Args:
        using: Alias of the database.
        actor_type: The type of the actor.
        key: The key of the actor.
        kinds: Which of ``timer``, ``message``, ``deadletter`` and ``journal`` to look at.

    Returns:
        The events, and whether there may be more of a kind than ``EVENTS``.  Each has ``what`` (its
        kind of event), ``at``, ``name``, ``id``, ``outcome``, ``payload`` (JSON as Python has it,
        and ``large`` if it was not read), ``detail``, ``run`` and ``remaining``.
    """
    events: list[dict[str, Any]] = []
    more = False
    named = {"actor_type": actor_type, "key": key, "entries": ENTRIES}
    for what, sql in _EVENTS.items():
        if what not in kinds:
            continue
        found = rows(using, sql, named)
        more = more or len(found) == EVENTS
        for row in found:
            text = row["payload"]
            payload = None if text is None else load_payload(text)
            events.append(row | {"what": what, "large": text is None, "payload": payload})
    running = _running(using, [event["id"] for event in events if event["what"] == "message"])
    for event in events:
        if event["what"] == "message" and event["id"] in running:
            event |= {"outcome": "running", "run": running[event["id"]], "remaining": None}
    events.sort(key=lambda event: event["at"], reverse=True)
    return events, more


def _running(using: str, ids: list[int]) -> dict[int, Any]:
    """Which of these messages workers handle just now, and for how long; a reader sees none."""
    sql = """SELECT message_id, clock_timestamp() - since AS run FROM djactor.worker
        WHERE message_id = ANY(%s)"""
    try:
        with transaction.atomic(using=using):
            return {row["message_id"]: row["run"] for row in rows(using, sql, [ids])} if ids else {}
    except DatabaseError:
        return {}


def python_classes(using: str) -> dict[str, str]:
    """The classes of the types that ``djactor_python`` has defined, by the types' names."""
    readable = "coalesce(has_table_privilege(to_regclass('djactor.python_actor'), 'SELECT'), false)"
    (there,) = rows(using, f"SELECT {readable} AS there", {})
    if not there["there"]:
        return {}
    found = rows(using, "SELECT name, class FROM djactor.python_actor", {})
    return {row["name"]: row["class"] for row in found}


def rows(using: str, sql: str, arguments: Any) -> list[dict[str, Any]]:
    """The rows of a query, as dicts."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, arguments)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
