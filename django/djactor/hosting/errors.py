"""What went wrong in a turn, in the words of ``fail()``: SQLSTATE, error, context."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg
from django.db import DatabaseError

import djactor_python
from djactor.hosting.context import Reject

if TYPE_CHECKING:
    from djactor.hosting.context import Turn

REJECTED = "JA003"
TIME_LIMIT = "57014"
HANDLER = "38000"
_LOST = "08006"

# SQLSTATEs of begin_turn() that mean: the claim has ended, and nobody is to blame.
ENDED = ("40001", "55P03")

# ... of a turn whose message may have been cancelled: its statement, or its end.
CANCELLED = ("57014", "40001")


class Failure(NamedTuple):
    """What ``fail()`` is told."""

    sqlstate: str
    error: str
    context: str | None
    meta: str | None = None


class TimeLimit(Exception):
    """A turn has taken longer than its type allows."""

    sqlstate = TIME_LIMIT


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of an error of Django's or the driver; of another one, what it says itself."""
    cause = error.__cause__ if isinstance(error, DatabaseError) else error
    if isinstance(cause, psycopg.Error):
        if cause.sqlstate is not None:
            return cause.sqlstate
        if isinstance(cause, psycopg.OperationalError):
            return _LOST
    return djactor_python._sqlstate(error)


def describe(error: BaseException, turn: Turn | None = None) -> Failure:
    """What to tell ``fail()`` about an exception of a turn.

    Args:
        error: The exception.
        turn: The turn, if what its handler wants to be kept of the error is to be kept.
    """
    failure = _describe(error)
    if turn is None or turn.noted is None:
        return failure
    return failure._replace(meta=turn.noted(error))


def _describe(error: BaseException) -> Failure:
    text = djactor_python._clean(djactor_python._words(error))
    if isinstance(error, Reject):
        return Failure(REJECTED, text, None)
    if isinstance(error, TimeLimit):
        return Failure(TIME_LIMIT, text, None)
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    trace = djactor_python._traceback(error)
    return Failure(
        sqlstate_of(error) or HANDLER,
        f"{name}: {text}" if text else name,
        None if trace is None else djactor_python._clean(trace),
    )
