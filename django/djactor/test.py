"""For tests: handle what waits here and now, wait for the workers, start afresh.

``drain()`` is for ``TestCase``, which never commits: the turns are part of the test's own
transaction and are rolled back with it.  ``wait_idle()`` is for ``TransactionTestCase``,
whose messages the workers get to see.  ``reset()`` removes what those leave behind;
the ``flush`` command of this app, which ``TransactionTestCase`` calls, does it by itself.
``define_types()`` is for tests without migrations.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Literal

from django.db import connections, transaction

from djactor import conf, listener
from djactor.actors import in_transaction, statement_timeout
from djactor.definitions import define_types

__all__ = ["define_types", "drain", "reset", "wait_idle"]


def drain(
    max: int | None = None,
    until: datetime | None = None,
    on_error: Literal["raise", "retry"] = "raise",
    using: str | None = None,
) -> int:
    """Handle due messages in the transaction at hand.

    Args:
        max: How many turns at most.
        until: Delays, timers and retries up to then count as due, in their order.
        on_error: ``"raise"`` what a handler raises, or ``"retry"`` as the type's policy says.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Returns:
        How many messages were handled.

    Raises:
        DatabaseError: What a handler raises; SQLSTATE 55000 in a database that is held.
    """
    return int(
        _call(
            using,
            "SELECT djactor.drain(max => %s::int, until => %s::timestamptz, on_error => %s)",
            [max, until, on_error],
        )
    )


def wait_idle(
    timeout: float = 10.0, actor_type: str | None = None, using: str | None = None
) -> None:
    """Wait until the workers have handled everything that is due or in backoff.

    It holds no snapshot while it waits, unless it is called inside ``atomic()``.  A
    ``statement_timeout`` of the connection does not end it: it waits by pieces then.

    Args:
        timeout: How long to wait, in seconds.
        actor_type: Only for messages to actors of this type; None means all.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Raises:
        AssertionError: Messages still waited then.
    """
    alias = using or conf.get("DATABASE")
    if in_transaction(alias):
        statement = "SELECT djactor.wait_idle(make_interval(secs => %s), %s::text)"
    else:
        statement = "CALL djactor.wait_idle(make_interval(secs => %s), %s::text, NULL)"
    piece = statement_timeout(alias) / 2 or timeout
    end = time.monotonic() + timeout
    done, left = False, timeout
    while not done and left >= 0.0:
        done = _call(alias, statement, [min(left, piece), actor_type])
        left = end - time.monotonic()
    if not done:
        raise AssertionError(f"messages still wait after {timeout:g} s: look at djactor.mailbox")


def reset(using: str | None = None) -> None:
    """Delete all mail, actors, timers, dead letters, replies and journals; the types stay.

    The connection on which ``aask()`` waits is closed, so the database may be dropped then.

    Args:
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Raises:
        DatabaseError: SQLSTATE 55P03, when a turn that runs does not end within ten seconds.
    """
    alias = using or conf.get("DATABASE")
    listener.close(alias)
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        # As text, and read by the server again: a Python value would not hold all of it.
        cursor.execute("SELECT name, paused, to_jsonb(t)::text FROM djactor.actor_type t")
        types = cursor.fetchall()
        cursor.execute("SELECT * FROM djactor.actor_type LIMIT 0")
        # Not options of the definition, or written by djactor.
        others = {"handler_owner", "paused", "paused_reason", "problem"}
        options = [column.name for column in cursor.description if column.name not in others]
        arguments = ", ".join(f"{option} => t.{option}" for option in options)
        for name, paused, definition in types:
            cursor.execute("SELECT djactor.drop_actor_type(%s, discard => true)", [name])
            cursor.execute(
                f"SELECT djactor.define_actor_type({arguments})"
                " FROM jsonb_populate_record(NULL::djactor.actor_type, %s::jsonb) t",
                [definition],
            )
            if paused:
                cursor.execute("SELECT djactor.pause(%s)", [name])
        for table in ("dead_letter", "reply", "journal"):
            cursor.execute(f"DELETE FROM djactor.{table}")


def _call(using: str | None, sql: str, params: list[Any]) -> Any:
    with connections[using or conf.get("DATABASE")].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0]
