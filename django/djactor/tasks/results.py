"""What became of a task: its result, from wherever its message is now.

One statement looks at all places with one snapshot, so a task is always in one of them.  Which host
runs a message is known to shared memory only.  The server's ``hosted_state()`` looks there first,
and at the message afterwards; if that is gone, its turn has ended meanwhile, and we look again.

An attempt that has failed leaves a note in the message's ``meta``::

    {"attempts": [{"worker": ..., "started": ..., "class": ..., "traceback": ...}], "dropped": 0}

Of many attempts the last ``KEPT`` are in it, and the number of those that are not.  One that nobody
could note, since its process died, is known by the message's counters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.db import connections
from django.utils.module_loading import import_string
from django.utils.timezone import make_naive

from djactor import conf
from djactor.exceptions import DjactorError
from djactor.fields import dump_payload, load_payload
from djactor.hosting.context import turn_or_none
from djactor.hosting.session import process_name
from djactor.tasks import compat

if TYPE_CHECKING:
    from djactor.tasks.backend import DjactorBackend

KEPT = 20  # attempts in the note
UNKNOWN = "unknown"  # worker of an attempt of which there is no note
_LOOKS = 5  # for a message whose turn ends while we look
_LAST_ID = 2**48

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON; after other than a backslash

_Status = compat.TaskResultStatus


class TaskCrashed(DjactorError):
    """The process that ran a task has died: the class path of such an error."""


class _Found(NamedTuple):
    """A row of ``_QUERY``."""

    place: str
    actor_type: str
    payload: str
    priority: int
    sent_at: datetime
    failed: int  # attempts, as the message counts them
    crashes: int
    meta: str | None
    reply: str | None
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None
    original: int | None  # of a duplicate: the message that was handled instead
    state: str | None
    host: str | None


_QUERY = """
    SELECT 'message', m.actor_type, m.payload::text, m.priority, m.sent_at, m.attempts, m.crashes,
        m.meta::text, NULL, m.last_error, {since}, NULL, NULL::bigint, {state}, {host}
    FROM djactor.message m {hosted}
    WHERE m.id = %(id)s
    UNION ALL
    SELECT 'dead', d.actor_type, d.payload::text, d.priority, d.sent_at, d.attempts, d.crashes,
        d.meta::text, NULL, coalesce(d.context, d.error, d.reason), NULL, d.failed_at, NULL, NULL,
        d.reason
    FROM djactor.dead_letter d
    WHERE d.id = %(id)s
    UNION ALL
    SELECT j.outcome, j.actor_type, j.payload::text, j.priority, j.sent_at, j.attempts, j.crashes,
        j.meta::text, j.reply::text, NULL, j.started_at, j.finished_at, i.message_id, NULL, NULL
    FROM djactor.journal j LEFT JOIN djactor.idempotency i ON j.outcome = 'duplicate'
        AND i.actor_type = j.actor_type AND i.actor_key = j.actor_key
        AND i.idempotency_key = j.idempotency_key
    WHERE j.id = %(id)s"""

_WITH_HOSTS = _QUERY.format(
    since="s.since",
    state="""
        CASE WHEN s.state = 'next' THEN
            CASE WHEN EXISTS (SELECT FROM djactor.message e
                WHERE djactor.name_hash(e.actor_type) = djactor.name_hash(m.actor_type)
                    AND djactor.name_hash(e.actor_key) = djactor.name_hash(m.actor_key)
                    AND djactor.mailbox_position(e.priority, e.id)
                        < djactor.mailbox_position(m.priority, m.id)
                    AND (e.deliver_at IS NULL OR e.released) AND e.aside IS NULL)
            THEN 'waiting' ELSE 'running' END
        ELSE coalesce(s.state, 'gone') END""",
    host="s.host",
    hosted="CROSS JOIN LATERAL djactor.hosted_state(m.id) s",
)
_WITHOUT_HOSTS = _QUERY.format(
    since="NULL::timestamptz", state="'waiting'", host="NULL::text", hosted=""
)


def moment(at: datetime | str | None) -> datetime | None:
    """A time as this project has it: without a time zone if it does not use them."""
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    if at is None:
        return None
    if settings.USE_TZ:
        return at.astimezone(timezone.utc)
    return at if at.tzinfo is None else make_naive(at)


class Attempts:
    """The attempts that have failed so far, from the note in a message's ``meta``.

    Attributes:
        known: Those that were noted, the oldest first.
        dropped: How many older ones there were.
    """

    def __init__(self, meta: Mapping[str, Any] | None) -> None:
        found = (meta or {}).get("attempts")
        self.known: list[dict[str, Any]] = list(found) if isinstance(found, list) else []
        self.dropped = int((meta or {}).get("dropped") or 0)

    def with_one(self, worker: str, started: datetime, error: BaseException) -> str:
        """The note with one more attempt, as JSON."""
        from djactor.tasks.handlers import class_path, traceback_of

        one = {
            "worker": worker,
            "started": started.isoformat(),
            "class": class_path(error),
            "traceback": traceback_of(error),
        }
        known = [*self.known, one]
        dropped = self.dropped + max(0, len(known) - KEPT)
        return json.dumps({"attempts": known[-KEPT:], "dropped": dropped})

    def workers(self, least: int = 0) -> list[str]:
        """Who has made them, at least so many."""
        known = [str(one.get("worker", UNKNOWN)) for one in self.known]
        return [UNKNOWN] * max(self.dropped, least - len(known)) + known

    def errors(self) -> list[compat.TaskError]:
        """What has been wrong with them, as far as it was noted."""
        return [
            compat.TaskError(
                exception_class_path=str(one.get("class", "")),
                traceback=str(one.get("traceback", "")),
            )
            for one in self.known
        ]

    def started(self, which: int) -> datetime | None:
        """When the first (0) or the last (-1) of them began."""
        return moment(self.known[which].get("started")) if self.known else None


class Known(NamedTuple):
    """A task, and what running it needs each time.

    Attributes:
        task: The task.
        sender: Who sends its signals: the class of its backend.
        call: What calls its function; an async one runs to its end.
    """

    task: compat.Task
    sender: type[compat.BaseTaskBackend]
    call: Callable[..., Any]


def task_of(payload: Mapping[str, Any], queue: str, priority: int) -> compat.Task:
    """The task that a message is about.

    Args:
        payload: The message's payload.
        queue: Its type.
        priority: Its priority.

    Raises:
        ImportError: There is no such task.
        TypeError: The path names something else.
        InvalidTask: The backend has no such queue any more.
    """
    return known_task(payload, queue, priority).task


def known_task(payload: Mapping[str, Any], queue: str, priority: int) -> Known:
    """The same, with what running it needs."""
    run_after = payload.get("run_after")
    return _known(
        str(payload["task"]),
        str(payload["backend"]),
        queue,
        priority,
        None if run_after is None else str(run_after),
        payload.get("key"),
        payload.get("idempotency_key"),
    )


@lru_cache(1000)
def _known(
    path: str,
    backend: str,
    queue: str,
    priority: int,
    run_after: str | None,
    key: str | None,
    once: str | None,
) -> Known:
    task = import_string(path)
    if not isinstance(task, compat.Task):
        raise TypeError(f"{path} is a {type(task).__name__}, not a task")
    options: dict[str, Any] = {"priority": priority, "queue_name": queue, "backend": backend}
    if run_after is not None:
        options["run_after"] = datetime.fromisoformat(run_after)
    if hasattr(task, "idempotency_key"):
        options |= {"key": key, "idempotency_key": once}
    task = task.using(**options)
    plain = type(task).call is compat.Task.call and not iscoroutinefunction(task.func)
    return Known(task, type(task.get_backend()), task.func if plain else task.call)


def forget_tasks() -> None:
    """Tasks are looked up again: for tests, whose settings are others now."""
    _known.cache_clear()


def get(backend: DjactorBackend, result_id: str) -> compat.TaskResult:
    """The result of a task.

    Raises:
        TaskResultDoesNotExist: It has none.
    """
    missing = compat.TaskResultDoesNotExist(result_id)
    text = str(result_id)
    if not (text.isascii() and text.isdecimal() and len(text) <= 15 and int(text) <= _LAST_ID):
        raise missing
    alias = conf.get("DATABASE")
    found = _find(alias, int(text))
    if found is not None and found.place == "duplicate":
        found = None if found.original is None else _find(alias, found.original)
    if found is None or found.place == "duplicate":
        raise missing
    payload = load_payload(found.payload)
    if not is_task(payload) or payload["backend"] != backend.alias:
        raise missing
    result: compat.TaskResult = compat.TaskResult(
        task=task_of(payload, found.actor_type, found.priority),
        id=text,
        status=_Status.READY,
        enqueued_at=moment(found.sent_at),
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=payload["args"],
        kwargs=payload["kwargs"],
        backend=backend.alias,
        errors=[],
        worker_ids=[],
    )
    meta = None if found.meta is None else load_payload(found.meta)
    _fill(result, found, Attempts(meta))
    return result


def has_nul(value: Any) -> bool:
    """Whether a text in a value of JSON has the character NUL, which jsonb cannot hold.

    Raises:
        TypeError: JSON cannot hold the value.
        ValueError: The same.
    """
    return _NUL.search(dump_payload(value)) is not None


def is_task(payload: Any) -> bool:
    """Whether a message of a queue was sent by ``enqueue()``."""
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("args"), list)
        and isinstance(payload.get("kwargs"), dict)
        and "task" in payload
        and "backend" in payload
    )


def _fill(result: compat.TaskResult, found: _Found, attempts: Attempts) -> None:
    """Write into a result how far its task is."""
    started, last = attempts.started(0), attempts.started(-1)
    errors = attempts.errors()
    workers = attempts.workers(found.failed + found.crashes)
    changes: dict[str, Any] = {}
    turn = turn_or_none()
    if found.place == "message" and turn is not None and str(turn.message_id) == result.id:
        found = found._replace(state="running", host=process_name())
        changes["started_at"] = started or result.enqueued_at
    if found.place == "message" and found.state == "running":
        last = moment(found.started_at) or last
        # the host says what it runs, too: "shop-1:4711 async"
        workers = [*workers, (found.host or UNKNOWN).partition(" ")[0]]
        changes["status"] = _Status.RUNNING
    elif found.place == "dead":
        changes |= {"status": _Status.FAILED, "finished_at": moment(found.finished_at)}
        if len(errors) + attempts.dropped < found.failed + found.crashes or not errors:
            path = f"{TaskCrashed.__module__}.{TaskCrashed.__qualname__}"
            if found.host != "crashed":
                path = f"{DjactorError.__module__}.{DjactorError.__qualname__}"
            one = compat.TaskError(exception_class_path=path, traceback=found.error or "")
            errors = [*errors, one]
    elif found.place == "handled":
        reply = {} if found.reply is None else load_payload(found.reply)
        last = moment(found.started_at)
        workers = [*workers, str(reply.get("worker", UNKNOWN))]
        changes |= {
            "status": _Status.SUCCESSFUL,
            "finished_at": moment(found.finished_at),
            "_return_value": reply.get("value"),
        }
    changes = {
        "started_at": started or last,
        "last_attempted_at": last,
        "errors": errors,
        "worker_ids": workers,
    } | changes
    for name, value in changes.items():
        object.__setattr__(result, name, value)


_may_ask: dict[str, bool] = {}  # by alias: whether the role may call hosted_state()


def _find(alias: str, message_id: int) -> _Found | None:
    with connections[alias].cursor() as cursor:
        if alias not in _may_ask:
            cursor.execute(
                "SELECT has_function_privilege('djactor.hosted_state(bigint)', 'EXECUTE')"
            )
            _may_ask[alias] = bool(cursor.fetchone()[0])
        found: _Found | None = None
        for _ in range(_LOOKS):
            cursor.execute(_WITH_HOSTS if _may_ask[alias] else _WITHOUT_HOSTS, {"id": message_id})
            row = cursor.fetchone()
            found = None if row is None else _Found(*row)
            if found is None or found.state != "gone":
                break
        return found
