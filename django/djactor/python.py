"""``PythonActor``: a base for actors that are Python classes and run inside PostgreSQL.

The module is imported by the server, so it needs nothing but the standard library.  The base
is a convenience: any class with ``handle_message`` will do.  What acts on the turn that runs
is at hand as a method here; each is the function of that name in ``djactor_python``, which
is the server's and there only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def _in_server(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            module = importlib.import_module("djactor_python")
        except ImportError:
            module = None
        # The file may be on the path outside the server, too; what makes it work is not.
        if module is None or module.plpy is None:
            raise RuntimeError(
                f"{name}() works inside a turn, in PostgreSQL. Outside, use djactor.actor()."
            )
        return getattr(module, name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``djactor_python.{name}``; errors: RuntimeError outside PostgreSQL."
    return call


class PythonActor:
    """An actor.  An object lives for one turn; what lasts is its ``__dict__``, as JSON.

    ``__init__`` runs once in an actor's life and takes the key, converted as its annotation
    says (``str``, ``int`` or ``UUID``).
    """

    def handle_message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Handle one message; the result is the reply, or None."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_message()")

    send = staticmethod(_in_server("send"))
    reply = staticmethod(_in_server("reply"))
    set_timer = staticmethod(_in_server("set_timer"))
    cancel_timer = staticmethod(_in_server("cancel_timer"))
    stop = staticmethod(_in_server("stop"))
    reject = staticmethod(_in_server("reject"))
    current = staticmethod(_in_server("current"))
