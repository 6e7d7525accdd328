"""Hosted turns in the process and the transaction at hand: what ``djactor.test.drain()`` does.

A turn is wrapped in a savepoint, so that one that fails leaves nothing but its exception, or what
the type's policy makes of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from django.db import DatabaseError, connections, transaction

from djactor import conf
from djactor.registry import resolve

_PYTHON = "djactor.handle_python(jsonb,jsonb)"  # the handler of classes inside PostgreSQL


def has_hosted_types(using: str) -> bool:
    """Whether the database has hosted types, as far as this role may know."""
    if not _call(using, "SELECT has_table_privilege('djactor.actor_type', 'SELECT')", []):
        return False
    return bool(_call(using, "SELECT EXISTS (SELECT FROM djactor.actor_type WHERE hosted)", []))


def moments(using: str, until: datetime | None) -> Iterator[datetime | str | None]:
    """The times up to which mail is handled, one after the other, each when all before is done.

    So a hosted turn and one inside PostgreSQL that are due at different times run in this order.

    Args:
        using: Alias of the database.
        until: As that of ``drain()``.

    Yields:
        None for what is due now, then the time of each delay, timer and retry, at last ``until``.
    """
    yield None
    if until is None:
        return
    last: str | None = None
    while True:
        last = _call(
            using,
            """
            SELECT min(due)::text FROM (
                SELECT coalesce(retry_at, deliver_at) AS due FROM djactor.message) m
            WHERE due > coalesce(%s::timestamptz, clock_timestamp()) AND due < %s::timestamptz""",
            [last, until],
        )
        if last is None:
            break
        yield last
    yield until


def run_next(
    using: str, until: datetime | str | None = None, on_error: Literal["raise", "retry"] = "raise"
) -> int | None:
    """Run the next turn that is due of any hosted type.

    Args:
        using: Alias of the database.
        until: As that of ``drain()``.
        on_error: As that of ``drain()``.

    Returns:
        1 if the message was handled, 0 if that failed; None if nothing is due.

    Raises:
        Exception: What the handler raises, unless ``on_error`` is ``"retry"``.
    """
    raised: BaseException | None = None
    with transaction.atomic(using=using, savepoint=False):
        row = take(using, until)
        if row is None:
            return None
        from djactor.hosting import turns  # a project without hosted types has no use for it
        from djactor.hosting.errors import describe

        turn = turns.turn_of(row)
        try:
            with transaction.atomic(using=using):
                cls = resolve(row["actor_type"], handler(using, row["actor_type"]))
                turns.run_turn(turn, cls, using)
            verdict = "done"
        except (Exception, SystemExit) as error:  # a host outlives that, too
            if on_error == "retry":
                verdict = _call(
                    using,
                    "SELECT djactor.fail(%s::bigint, %s::bigint, %s::text, %s::text, %s::text,"
                    " %s::jsonb)",
                    [row["token"], row["id"], *describe(error, turn)],
                )
            else:
                raised = error
                _call(using, "SELECT djactor.release(ARRAY[%s::bigint])", [row["token"]])
    if raised is None:
        turns.tell(turn, verdict)
        return int(verdict == "done")
    raise raised


@contextlib.contextmanager
def inline(*types: str, using: str | None = None) -> Iterator[None]:
    """Have classes that run inside PostgreSQL run in this process, for the length of a block.

    In the block their types are hosted ones.  So ``drain()`` runs them here, no worker does, and
    what a class does outside of the database it does here, where a test can see or replace it.

    An actor that has had a turn in the block can have none inside in the same transaction.  If an
    older state has to be upgraded, the class does that (``upgrade_state``), and no function of the
    database.

    Args:
        *types: The names of the types (default: all of those that belong to this role).
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Raises:
        LookupError: There is no such type of this role with a class inside PostgreSQL.
    """
    alias = using or conf.get("DATABASE")
    moved = _inside_types(alias)
    missing = sorted(set(types) - moved.keys())
    if missing:
        raise LookupError(
            f"no class inside PostgreSQL runs the actor type {missing[0]!r}, or it belongs to"
            " another role"
        )
    names = types or tuple(moved)
    for name in names:
        _move(alias, name, moved[name][0], True, None)
    try:
        yield
    except BaseException:
        with contextlib.suppress(DatabaseError):  # the transaction may have failed: all is undone
            _move_back(alias, {name: moved[name] for name in names})
        raise
    _move_back(alias, {name: moved[name] for name in names})


def _inside_types(alias: str) -> dict[str, tuple[str, str | None]]:
    """By name: the class and the upgrade_handler of each type that a class inside runs."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(has_table_privilege(to_regclass('djactor.python_actor'), 'SELECT'),"
            " false)"
        )
        if not cursor.fetchone()[0]:
            return {}
        cursor.execute(
            """
            SELECT t.name, p.class, t.upgrade_handler
            FROM djactor.actor_type t JOIN djactor.python_actor p ON p.name = t.name
            WHERE NOT t.hosted AND t.handler = %s AND t.owner = current_user::regrole
            ORDER BY t.name""",
            [_PYTHON],
        )
        return {name: (cls, upgrade) for name, cls, upgrade in cursor.fetchall()}


def _move(alias: str, name: str, handler: str, hosted: bool, upgrade_handler: str | None) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT djactor.alter_actor_type(%s, handler => %s, hosted => %s,"
            " upgrade_handler => %s::text)",
            [name, handler, hosted, upgrade_handler],
        )


def _move_back(alias: str, moved: dict[str, tuple[str, str | None]]) -> None:
    if connections[alias].needs_rollback:
        return  # which undoes it
    with transaction.atomic(using=alias):
        for name, (_, upgrade_handler) in moved.items():
            _move(alias, name, _PYTHON, False, upgrade_handler)


def without_host(using: str) -> list[str]:
    """The hosted types with waiting mail that no process hosts; none if that cannot be read."""
    try:
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute(
                """
                SELECT t.name FROM djactor.actor_type t WHERE t.hosted
                    AND NOT EXISTS (SELECT FROM djactor.host h
                        WHERE t.name = ANY(h.types) AND h.state <> 'draining')
                    AND EXISTS (SELECT FROM djactor.message m WHERE m.actor_type = t.name)
                ORDER BY t.name"""
            )
            return [name for (name,) in cursor.fetchall()]
    except Exception:  # a hint is not worth an error
        return []


def take(
    using: str,
    until: datetime | str | None = None,
    only_type: str | None = None,
    only_key: str | None = None,
) -> dict[str, Any] | None:
    """The next message that is due: a row of ``drain_take()``; None if there is none.

    Args:
        using: Alias of the database.
        until: As that of ``drain()``.
        only_type: The type whose mail it is; None means any.
        only_key: The key of the actor whose mail it is; None means any.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT * FROM djactor.drain_take(%s::timestamptz, %s::text, %s::text)",
            [until, only_type, only_key],
        )
        row = cursor.fetchone()
        if row is None:
            return None
        return dict(zip((column.name for column in cursor.description), row, strict=True))


def handler(using: str, actor_type: str) -> str | None:
    """What the database has as the handler of a type."""
    found: str | None = _call(
        using, "SELECT handler FROM djactor.actor_type WHERE name = %s", [actor_type]
    )
    return found


def _call(using: str, sql: str, params: list[Any]) -> Any:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0]
