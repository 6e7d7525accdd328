"""What can go wrong between Django and djactor, as exceptions."""

from __future__ import annotations

from typing import Any


class DjactorError(Exception):
    """The base of all errors of this package that are not programming mistakes."""


class MessageSent(DjactorError):
    """A message was to be saved or deleted after it had been sent."""


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
