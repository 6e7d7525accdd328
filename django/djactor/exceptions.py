"""What can go wrong between Django and djactor, as exceptions.

Errors of the database stay what Django makes of them; those that are djactor's own get a class
and say what to do.  They are DatabaseErrors still, with the driver's error as ``__cause__``, and
break a transaction as any other does.  ``explain`` is where that happens: a wrapper of each
connection's statements (see *Database instrumentation* in Django's manual), so that it holds
for the ORM, for SQL by hand and for migrations alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError, OperationalError, ProgrammingError


class DjactorError(Exception):
    """The base of all errors of this package that are not programming mistakes."""


class MessageSent(DjactorError):
    """A message was to be saved or deleted after it had been sent."""


class StateChanged(DjactorError):
    """An actor was to be saved that has had turns since it was read, or is gone.

    Read it again, or ``save(force=True)`` to overwrite what those turns have made of the state.
    """


class AskInTransaction(DjactorError):
    """``ask()`` inside ``atomic()``, or in a view under ``ATOMIC_REQUESTS``.

    Nobody can answer a message that is not committed yet.
    """


class AskTimeout(DjactorError):
    """No answer came in time.  The outcome is unknown: the message may have been handled.

    It is unknown, too, when the wait ended early: ``__cause__`` is the error then, such as that of
    a lost connection.

    Attributes:
        message_id: The message, for ``djactor.outcome()`` and a later look at ``Reply``.
        seconds: How long the caller was willing to wait.
        attempts: How many attempts have failed so far; None if that is not known, or the role may
            not read it.
        last_error: Why the last of these failed; None as for ``attempts``.
    """

    def __init__(
        self,
        message_id: int,
        seconds: float,
        attempts: int | None = None,
        last_error: str | None = None,
    ) -> None:
        super().__init__(message_id, seconds, attempts, last_error)
        self.message_id = message_id
        self.seconds = seconds
        self.attempts = attempts
        self.last_error = last_error

    def __str__(self) -> str:
        text = f"message {self.message_id} was not answered within {self.seconds:g} s"
        if self.last_error is None:
            return text
        return f"{text}; failed attempts: {self.attempts}, the last error: {self.last_error}"


_REASONS = {
    "failed": "It failed.",
    "crashed": "It failed.",
    "rejected": "It was refused.",
    "expired": "It took too long.",
    "cancelled": "It was cancelled.",
    "stopped": "It was stopped.",
    "dropped": "It is no longer possible.",
    "mailbox_full": "There is too much to do; try again later.",
}


class AskFailed(DjactorError):
    """The answer is an error.

    Attributes:
        message_id: The message that was asked.
        error: A dict, whatever the reason: ``reason``, ``sqlstate``, ``error`` (a text, with a
            traceback for Python actors), ``attempts`` and ``last_error`` (of one that expired).
            What a handler has given to ``reply_error()`` has the reason ``error``, and is
            ``error["error"]``.
    """

    def __init__(self, message_id: int, error: Any) -> None:
        super().__init__(message_id, error)
        self.message_id = message_id
        shape = {"reason", "sqlstate", "error"}
        own = isinstance(error, dict) and shape <= error.keys() <= {
            *shape,
            "attempts",
            "last_error",
        }
        self.error: dict[str, Any] = {
            "reason": "error",
            "sqlstate": None,
            "error": error,
            "attempts": None,
            "last_error": None,
        }
        if own:
            self.error |= error

    @property
    def reason(self) -> str:
        """``failed``, ``rejected`` and so on; ``error`` for what ``reply_error()`` said."""
        return str(self.error["reason"])

    @property
    def message(self) -> str:
        """A text that may be shown to users.

        It is what ``reject()`` said, or ``reply_error()`` if that was a text or has one as
        ``message``; else it says what became of the ask, without what is inside.
        """
        said = self.error["error"]
        if self.reason == "rejected" and isinstance(said, str):
            return said.partition("\nDETAIL:  ")[0].partition("\nHINT:  ")[0]
        if self.reason == "error":
            if isinstance(said, dict):
                said = said.get("message")
            if isinstance(said, str):
                return said
        return _REASONS.get(self.reason, "It failed.")

    def __str__(self) -> str:
        error = {name: value for name, value in self.error.items() if value is not None}
        return f"message {self.message_id} was answered by an error: {error}"


class UnknownActorType(DjactorError, ProgrammingError):
    """A message to an actor type that nobody has defined."""


class UnknownTimer(DjactorError, ProgrammingError):
    """The actor has no timer of that name; one that fires once is gone when it has fired."""


class MailboxFull(DjactorError, OperationalError):
    """The actor has as much mail as its type's ``mailbox_limit`` allows; send again later."""


class NotInstalled(DjactorError, ProgrammingError):
    """The database has no extension djactor, or the server has none to offer."""


class NotPreloaded(DjactorError, OperationalError):
    """The server runs without the library, so nothing would handle a message."""


class WrongVersion(DjactorError, DatabaseError):
    """The extension, the server's library and this app do not fit together."""


_MIGRATE = (
    "Run migrate --database {alias}; the database's owner may create the extension."
    " Where the migrations count as applied (a schema restored alone), and in tests without"
    " migrations, djactor_define does it."
)
_UPDATE = (
    "The extension in this database is older than this app:"
    " use UpdateDjactor in a migration, or ALTER EXTENSION djactor UPDATE."
)
_CALL = f"Are its arguments as they should be? If so: {_UPDATE}"
_PYTHON = (
    "A superuser creates the extension for Python actors: CREATE EXTENSION djactor_python CASCADE."
    " A test database is a copy of template1, or of what DATABASES[{alias!r}]['TEST']['TEMPLATE']"
    " names: create it there."
)
# SQLSTATE, words of the message or of the statement, what it is, what to do.
_KNOWN: list[tuple[str, str, type[DatabaseError], str]] = [
    (
        "42704",
        "actor type",
        UnknownActorType,
        "A migration with DefineActorType defines it: has it been run on the database {alias!r}?"
        " If it counts as applied (a schema restored alone), and in tests without migrations,"
        " djactor_define does it.",
    ),
    ("42704", "has no timer", UnknownTimer, ""),
    ("53400", "mailbox of actor", MailboxFull, ""),
    ("55000", "djactor is not loaded", NotPreloaded, ""),
    ("55000", "older than the loaded library", WrongVersion, _UPDATE),
    ("55000", "newer than the loaded library", WrongVersion, ""),
    ("3F000", '"djactor"', NotInstalled, _MIGRATE),
    ("42P01", '"djactor.python_actor"', NotInstalled, _PYTHON),
    ("42P01", '"djactor.', NotInstalled, _MIGRATE),
    ("42883", "function djactor.define_python_actor(", NotInstalled, _PYTHON),
    ("42883", "function djactor.handle_python(", NotInstalled, _PYTHON),
    ("42883", "function djactor.", WrongVersion, _CALL),
    (
        "0A000",
        'extension "djactor',
        NotInstalled,
        "Install it on the machine of the database server; djactor itself belongs into"
        " shared_preload_libraries, too.",
    ),
]  # fmt: skip


def explain(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """Execute a statement, as one of Django's wrappers of statements.

    Raises:
        DatabaseError: What ``execute`` raises; djactor's own errors as the classes of this module.
    """
    try:
        return execute(sql, params, many, context)
    except DatabaseError as error:
        better = _better(error, context["connection"].alias)
        if better is None:
            raise
        raise better from error.__cause__


def _better(error: DatabaseError, alias: str) -> DatabaseError | None:
    state = getattr(error.__cause__, "sqlstate", None)
    text = str(error).strip()
    for known, words, kind, hint in _KNOWN:
        if state == known and words in text:
            return kind(f"{text}\n{hint.format(alias=alias)}".strip())
    return None


def install(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """What happens when a connection is made (the signal ``connection_created``)."""
    if connection.vendor == "postgresql" and explain not in connection.execute_wrappers:
        connection.execute_wrappers.append(explain)
