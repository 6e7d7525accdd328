"""Log records that say which turn they belong to.

In a host each record has ``actor_type``, ``actor_key`` and ``message_id``, None outside of turns.
A format that names them is used in other processes, too; there ``TurnFilter`` adds them::

    "filters": {"turn": {"()": "djactor.hosting.logs.TurnFilter"}}
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from djactor import sentry
from djactor.hosting.context import ID, KEY, TYPE, Turn, running

logger = logging.getLogger("djactor.worker")

_OF_TASKS = ("django.tasks", "django_tasks")  # loggers; a record for each start and end
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by verbosity


class TurnFilter(logging.Filter):
    """Adds to each record which turn it belongs to, and lets it pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add it."""
        _mark(record)
        return True


def to_stderr(verbosity: int) -> None:
    """Have what is logged appear on stderr, unless the project says where it goes.

    Args:
        verbosity: That of Django's commands: 0 shows warnings and errors, 1 also what is told of
            each start, reload and task, 2 and 3 everything.
    """
    root = logging.getLogger()
    if root.handlers or logger.handlers:
        return
    level = _LEVELS[min(verbosity, len(_LEVELS) - 1)]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # Django gives its own loggers a level, which would make the root's count for nothing.
    for handler in root.handlers:
        handler.setLevel(level)
    for name in _OF_TASKS:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(level)


def install() -> None:
    """Have all records of this process say which turn they belong to."""
    make = logging.getLogRecordFactory()

    def marked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        _mark(record)
        return record

    logging.setLogRecordFactory(marked)


@contextlib.contextmanager
def about(turn: Turn) -> Iterator[None]:
    """Have what is logged in the block say that it is about this turn."""
    token = running.set(turn)
    try:
        yield
    finally:
        running.reset(token)


def failed(turn: Turn, error: BaseException, verdict: str = "") -> None:
    """Log that a turn has failed, with its traceback, for Sentry and the like."""
    row = turn.row
    with about(turn), sentry.about(turn):
        logger.error(
            "turn of %s %s failed, message %d, attempt %d%s",
            row[TYPE],
            row[KEY],
            row[ID],
            turn.attempts + 1,
            f": {verdict}" if verdict else "",
            exc_info=(type(error), error, error.__traceback__),
        )


def rejected(turn: Turn, error: BaseException) -> None:
    """Log that a handler has refused a message, which is no error."""
    row = turn.row
    with about(turn):
        logger.info("%s %s rejected message %d: %s", row[TYPE], row[KEY], row[ID], error)


def _mark(record: logging.LogRecord) -> None:
    turn = running.get()
    if turn is None:
        record.actor_type = record.actor_key = record.message_id = None
    else:
        row = turn.row
        record.actor_type, record.actor_key, record.message_id = row[TYPE], row[KEY], row[ID]
