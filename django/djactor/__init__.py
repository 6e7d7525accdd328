"""djactor for Django: actors whose messages are rows, sent in your own transaction.

``actor("shop.counter", 42).send({"add": 1})`` is the short way; the models in
``djactor.models`` are the long one.  Both are plain inserts.

Names are loaded when they are first used: a module with Python actors imports this package
inside PostgreSQL, where there need be no Django.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from djactor.actors import ActorRef, acancel, actor, cancel
    from djactor.exceptions import (
        AskFailed,
        AskInTransaction,
        AskTimeout,
        DjactorError,
        MailboxFull,
        MessageSent,
        NotInstalled,
        NotPreloaded,
        StateChanged,
        UnknownActorType,
        UnknownTimer,
        WrongVersion,
    )
    from djactor.hosting.context import Reject
    from djactor.messages import handles
    from djactor.python import PythonActor
    from djactor.registry import register, register_sql
    from djactor.replies import await_replies, wait_replies

__all__ = [
    "ActorRef",
    "AskFailed",
    "AskInTransaction",
    "AskTimeout",
    "DjactorError",
    "MailboxFull",
    "MessageSent",
    "NotInstalled",
    "NotPreloaded",
    "PythonActor",
    "Reject",
    "StateChanged",
    "UnknownActorType",
    "UnknownTimer",
    "WrongVersion",
    "acancel",
    "actor",
    "await_replies",
    "cancel",
    "handles",
    "register",
    "register_sql",
    "wait_replies",
]
# The one place where the version stands: packages, control files and the library have it from here.
__version__ = "1.0"

_HOMES = {
    "ActorRef": "actors",
    "PythonActor": "python",
    "Reject": "hosting.context",
    "acancel": "actors",
    "actor": "actors",
    "await_replies": "replies",
    "cancel": "actors",
    "handles": "messages",
    "register": "registry",
    "register_sql": "registry",
    "wait_replies": "replies",
}


if not TYPE_CHECKING:  # a type checker would take it for a word that all names are there

    def __getattr__(name: str) -> Any:
        """What ``__all__`` names, from the module that has it.

        Raises:
            AttributeError: For any other name.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = _HOMES.get(name, "exceptions")
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
