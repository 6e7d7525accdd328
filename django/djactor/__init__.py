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
    from djactor.actors import ActorRef, actor
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
    from djactor.python import PythonActor

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
    "StateChanged",
    "UnknownActorType",
    "UnknownTimer",
    "WrongVersion",
    "actor",
]
__version__ = "1.0"

_HOMES = {"ActorRef": "actors", "PythonActor": "python", "actor": "actors"}


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
