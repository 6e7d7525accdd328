"""For tests: handle what waits here and now, wait for the workers, start afresh.

``drain()`` is for ``TestCase``, which never commits: the turns are part of the test's own
transaction and are rolled back with it.  Turns of hosted types run in the test's own process, so
``mail.outbox`` fills, and ``mock.patch`` and pdb work in them.  ``wait_idle()`` is for
``TransactionTestCase``, whose messages the workers get to see.  ``reset()`` removes what those
leave behind; the ``flush`` command of this app, which ``TransactionTestCase`` calls, does it by
itself.
``define_types()`` is for tests without migrations.

``inline()`` has classes that run inside PostgreSQL run in the test's process, too.
``capture_sends()`` is what is sent in a block.  ``Turn`` is a turn without a database.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from django.db import connections, transaction

from djactor import captured, conf, inprocess, listener
from djactor.actors import in_transaction, statement_timeout
from djactor.captured import Sent, capture_sends
from djactor.definitions import define_types
from djactor.inprocess import inline

if TYPE_CHECKING:
    from djactor.faked import Handled, Timer, Turn

__all__ = [
    "Handled",
    "Sent",
    "Timer",
    "Turn",
    "capture_sends",
    "define_types",
    "drain",
    "inline",
    "reset",
    "wait_idle",
]


if not TYPE_CHECKING:  # what runs turns is loaded when it is first used

    def __getattr__(name: str) -> Any:
        """``Turn`` and what it returns.

        Raises:
            AttributeError: For any other name.
        """
        if name not in ("Handled", "Timer", "Turn"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from djactor import faked

        return getattr(faked, name)


def drain(
    max: int | None = None,
    until: datetime | None = None,
    on_error: Literal["raise", "retry"] = "raise",
    using: str | None = None,
) -> int:
    """Handle due messages in the transaction at hand; outside of one, each turn commits.

    Args:
        max: How many turns at most.
        until: Delays, timers and retries up to then count as due, in their order.
        on_error: ``"raise"`` what a handler raises, or ``"retry"`` as the type's policy says.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Returns:
        How many messages were handled.

    Raises:
        DatabaseError: What a handler of the database raises; SQLSTATE 55000 in a database that is
            held.
        Exception: What a class of a hosted type raises, as it is.
    """
    alias = using or conf.get("DATABASE")
    if not inprocess.has_hosted_types(alias):
        return _inside(alias, max, until, on_error)
    handled = 0
    for moment in inprocess.moments(alias, until):
        while max is None or handled < max:
            left = None if max is None else max - handled
            before = handled
            handled += _inside(alias, left, moment, on_error)
            while max is None or handled < max:
                ended = inprocess.run_next(alias, moment, on_error)
                captured.look(alias)
                if ended is None:
                    break
                handled += ended
            if handled == before:
                break
    return handled


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
    end = _real_time() + timeout
    done, left = False, timeout
    while not done and left >= 0.0:
        done = _call(alias, statement, [min(left, piece), actor_type])
        left = end - _real_time()
    if not done:
        words = f"messages still wait after {timeout:g} s: look at djactor.mailbox"
        nobodys = inprocess.without_host(alias)
        if nobodys:
            words += (
                f". No process hosts {', '.join(nobodys)}: drain() runs these turns here, or start"
                " djactor_worker"
            )
        raise AssertionError(words)


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


def _real_time() -> float:
    """Seconds that pass also while freezegun has stopped ``time.monotonic()``."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _inside(alias: str, max: int | None, until: datetime | str | None, on_error: str) -> int:
    """The turns that run inside PostgreSQL."""
    if not captured.is_capturing(alias):
        return _drain(alias, max, until, on_error)
    handled = 0
    captured.look(alias)
    while (max is None or handled < max) and _drain(alias, 1, until, on_error):
        captured.look(alias)
        handled += 1
    return handled


def _drain(alias: str, max: int | None, until: datetime | str | None, on_error: str) -> int:
    return int(
        _call(
            alias,
            "SELECT djactor.drain(max => %s::int, until => %s::timestamptz, on_error => %s)",
            [max, until, on_error],
        )
    )


def _call(using: str | None, sql: str, params: list[Any]) -> Any:
    with connections[using or conf.get("DATABASE")].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0]
