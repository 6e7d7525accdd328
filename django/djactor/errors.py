"""What can go wrong between Django and djactor, as exceptions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.db.utils import OperationalError


class DjactorError(Exception):
    """The base of all errors of this package that are not programming mistakes."""


class MessageSent(DjactorError):
    """A message was to be saved or deleted after it had been sent."""


class MailboxFull(DjactorError, OperationalError):
    """The actor has as much mail as its type's ``mailbox_limit`` allows; send again later.

    Like any error of the database it spoils the transaction that it happened in.
    """


@contextlib.contextmanager
def mailbox_full_is_told() -> Iterator[None]:
    """Inside, the server's refusal for a full mailbox is a MailboxFull."""
    try:
        yield
    except OperationalError as error:
        diagnostics = getattr(error.__cause__, "diag", None)
        if getattr(diagnostics, "constraint_name", None) == "mailbox_limit":
            raise MailboxFull(*error.args) from error.__cause__
        raise


class AskInTransaction(DjactorError):
    """``ask()`` inside ``atomic()``: nobody can answer a message that is not committed yet."""


class AskTimeout(DjactorError):
    """No answer came in time.  The outcome is unknown: the message may have been handled.

    ``message_id`` is what ``djactor.outcome()`` and a later look at ``Reply`` want.
    """

    def __init__(self, message_id: int, seconds: float) -> None:
        super().__init__(f"message {message_id} was not answered within {seconds:g} s")
        self.message_id = message_id


class AskFailed(DjactorError):
    """The answer is an error.  ``error`` is its JSON: ``reason``, ``sqlstate`` and ``error``."""

    def __init__(self, message_id: int, error: Any) -> None:
        super().__init__(f"message {message_id} was answered by an error: {error}")
        self.message_id = message_id
        self.error = error
