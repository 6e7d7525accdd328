"""Statements of the host on a connection of Django's, without Django's ways around them.

Each is one trip to the server, whatever it consists of: ``BEGIN`` goes with ``begin_turn()``, the
end of a turn with the beginning of the next, the last one with ``COMMIT``.  So a turn costs what
its handler does and one trip more.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.db import connections
from psycopg.pq import ExecStatus, TransactionStatus

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
WAITED_FOR = "SELECT djactor.waited_for()"


def literal(text: str | None) -> str:
    """A text in SQL; it has no NUL in it."""
    if text is None:
        return "NULL"
    quoted = text.replace("'", "''")
    if "\\" in quoted:
        return " E'" + quoted.replace("\\", "\\\\") + "'"
    return f"'{quoted}'"


def element(text: str | None) -> str:
    """A text in an array's text."""
    if text is None:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def raw_connection(alias: str) -> psycopg.Connection[Any]:
    """The driver's connection of this thread; it is made if it is not there.

    Raises:
        DatabaseError: There is none to be had.
    """
    wrapper = connections[alias]
    wrapper.ensure_connection()
    found: psycopg.Connection[Any] = wrapper.connection
    return found


def run(raw: psycopg.Connection[Any], sql: str) -> Any:
    """Execute statements, all in one trip.

    Returns:
        The result of the last one, as libpq has it.

    Raises:
        psycopg.Error: One has failed; those after it were not executed.
    """
    pgconn = raw.pgconn
    if pgconn.status != psycopg.pq.ConnStatus.OK:
        raise psycopg.OperationalError("the connection is closed")
    result = pgconn.exec_(sql.encode())
    if result.status not in _FINE:
        raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return result


def value(raw: psycopg.Connection[Any], sql: str) -> str | None:
    """The first column of the first row that the last of these statements returns."""
    found: bytes | None = run(raw, sql).get_value(0, 0)
    return None if found is None else found.decode()


def is_idle(raw: psycopg.Connection[Any]) -> bool:
    """Whether no transaction is open."""
    return raw.pgconn.transaction_status == TransactionStatus.IDLE


def begin_turn(token: int, message_id: int) -> str:
    """The statement."""
    return f"SELECT djactor.begin_turn({token}, {message_id});"


def next_turn(token: int, message_id: int, state: str | None, reply: str | None) -> str:
    """The statement; state and reply are those of the turn before."""
    return f"CALL djactor.next_turn({token}, {message_id}, {literal(state)}, {literal(reply)});"


def end_turn(state: str | None, reply: str | None) -> str:
    """The statement."""
    return f"CALL djactor.end_turn({literal(state)}, {literal(reply)});"


def fail(
    token: int,
    message_id: int,
    sqlstate: str,
    error: str,
    context: str | None,
    meta: str | None = None,
) -> str:
    """The statement."""
    return (
        f"SELECT djactor.fail({token}, {message_id}, {literal(sqlstate)}, {literal(error)},"
        f" {literal(context)}, {literal(meta)})"
    )


def release(tokens: list[int]) -> str:
    """The statement."""
    return f"SELECT djactor.release('{{{','.join(map(str, tokens))}}}')"
