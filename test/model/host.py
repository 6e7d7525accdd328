"""A host of one actor type whose handler is the function work() of the model.

Run as ``host.py DSN TYPE``.  Each turn is a transaction: begin_turn(), the handler, end_turn().
Once there was nothing to take it takes no more before it is notified.  It goes on through restarts
of the server, until it is killed or its parent has gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

LEASE = 30  # seconds
TIMEOUT = 3  # of a turn, in seconds, as the model's types have it


def turn(connection: psycopg.Connection[Any], row: Any, state: Any) -> Any:
    """Make one turn.  Returns the state that it leaves."""
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{TIMEOUT} s'")
        connection.execute("SELECT djactor.begin_turn(%s, %s)", (row.token, row.id))
        found = connection.execute("SELECT work(%s, %s)", (Jsonb(state), Jsonb(row.payload)))
        result = found.fetchone()
        if result is None or result[0] is None:
            raise psycopg.errors.NullValueNotAllowed("work() returned NULL")
        connection.execute("CALL djactor.end_turn(%s)", (Jsonb(result[0]),))
        return result[0]


def run(connection: psycopg.Connection[Any], rows: list[Any]) -> None:
    """Make the turns that take() has handed out."""
    dropped, state = None, None
    for row in rows:
        if row.claim == dropped:
            continue
        if row.first:
            state = row.state
        try:
            state = turn(connection, row, state)
        except psycopg.OperationalError as error:
            if error.sqlstate is None or error.sqlstate.startswith("57P"):
                raise
            fail(connection, row, error)
            dropped = row.claim
        except psycopg.Error as error:
            fail(connection, row, error)
            dropped = row.claim


def fail(connection: psycopg.Connection[Any], row: Any, error: psycopg.Error) -> None:
    """Report a failed turn; if begin_turn() has raised it there is nothing to be written."""
    connection.execute(
        "SELECT djactor.fail(%s, %s, %s, %s)",
        (row.token, row.id, error.sqlstate or "22004", str(error)),
    )


def serve(dsn: str, actor_type: str) -> None:
    with psycopg.connect(
        dsn, autocommit=True, row_factory=psycopg.rows.namedtuple_row
    ) as connection:
        opened = connection.execute(
            "SELECT djactor.host_open(%s, 'model', make_interval(secs => %s)) AS id",
            ([actor_type], LEASE),
        ).fetchone()
        connection.execute("LISTEN djactor_host")
        told = alive = True
        while alive and os.getppid() == PARENT:
            rows = connection.execute("SELECT * FROM djactor.take(8, 4)").fetchall() if told else []
            if rows:
                run(connection, rows)
                continue
            told = any(connection.notifies(timeout=2, stop_after=1))
            beat = connection.execute("SELECT djactor.heartbeat(%s) AS alive", (opened.id,))
            alive = beat.fetchone().alive


if __name__ == "__main__":
    PARENT = os.getppid()
    while os.getppid() == PARENT:
        # the server is away, the lease was over, the type is run inside for a while
        with contextlib.suppress(
            psycopg.OperationalError, psycopg.errors.ObjectNotInPrerequisiteState
        ):
            serve(sys.argv[1], sys.argv[2])
        time.sleep(0.1)
