"""``PythonActor``: a base for actors that are Python classes and run inside PostgreSQL.

The module is imported by the server, so it needs nothing but the standard library.  The base
is a convenience: any class with ``handle_message`` will do.  What acts on the turn that runs
is at hand as a method here; each is the function of that name in ``djactor_python``, which
is the server's and there only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from zoneinfo import ZoneInfo

    from typing_extensions import Unpack

    from djactor.options import CatchUp, Key, MessageOptions
    from djactor_python import Current


def _in_server(name: str) -> Any:
    """The function of that name in ``djactor_python``.

    Raises:
        RuntimeError: Outside PostgreSQL.
    """
    try:
        module = importlib.import_module("djactor_python")
    except ImportError:
        module = None
    # The file may be on the path outside the server, too; what makes it work is not.
    if module is None or module.plpy is None:
        raise RuntimeError(
            f"{name}() works inside a turn, in PostgreSQL. Outside, use djactor.actor()."
        )
    return getattr(module, name)


class PythonActor:
    """An actor.  An object lives for one turn; what lasts is its ``__dict__``, as JSON.

    ``__init__`` runs once in an actor's life and takes the key, converted as its annotation
    says (``str``, ``int`` or ``UUID``).
    """

    def handle_message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Handle one message.

        Args:
            message: Its payload.

        Returns:
            The reply, or None.

        Raises:
            NotImplementedError: The class has not overridden this.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle_message()")

    @staticmethod
    def send(
        actor_type: str, key: Key, payload: Any = None, **options: Unpack[MessageOptions]
    ) -> int:
        """Send a message, with this turn's commit: ``djactor_python.send()``.

        Args:
            actor_type: The type of the actor that gets it.
            key: The key of that actor.
            payload: What JSON can hold (``{}`` if None).
            **options: Columns of the message: see ``MessageOptions``.

        Returns:
            The id of the message.

        Raises:
            RuntimeError: Outside PostgreSQL.
            TypeError: For a payload that JSON cannot hold.
            ValueError: For NaN or an infinity in the payload, and for a time without a zone.
        """
        return int(_in_server("send")(actor_type, key, payload, **options))

    @staticmethod
    def reply(payload: Any, message_id: int | None = None) -> None:
        """Answer a message: ``djactor_python.reply()``.

        Args:
            payload: The answer: what JSON can hold.
            message_id: The message, whose reply was deferred (default: that of this turn).

        Raises:
            RuntimeError: Outside PostgreSQL.
        """
        _in_server("reply")(payload, message_id)

    @staticmethod
    def set_timer(
        name: str,
        after: timedelta | float | None = None,
        payload: Any = None,
        *,
        every: timedelta | float | str | None = None,
        at: datetime | None = None,
        cron: str | None = None,
        time_zone: ZoneInfo | str | None = None,
        catch_up: CatchUp = "once",
    ) -> None:
        """Set a timer of this actor, or replace it: ``djactor_python.set_timer()``.

        Args:
            name: The timer's name.
            after: Fire that long after now: a timedelta, or seconds.
            payload: What JSON can hold (``{}`` if None).
            every: The period: a timedelta, seconds, or the text of an interval.
            at: Fire at that time, which has a time zone.
            cron: Five fields, or ``@daily`` and the like, instead of the three above.
            time_zone: Time zone of ``every`` and ``cron`` (default: that of the actor type).
            catch_up: As that of ``ActorRef.schedule()``.

        Raises:
            RuntimeError: Outside PostgreSQL.
        """
        _in_server("set_timer")(
            name,
            after,
            payload,
            every=every,
            at=at,
            cron=cron,
            time_zone=time_zone,
            catch_up=catch_up,
        )

    @staticmethod
    def cancel_timer(name: str) -> bool:
        """End a timer of this actor: ``djactor_python.cancel_timer()``.

        Returns:
            Whether there was such a timer.

        Raises:
            RuntimeError: Outside PostgreSQL.
        """
        return bool(_in_server("cancel_timer")(name))

    @staticmethod
    def stop(discard: bool = False) -> None:
        """Remove this actor at the end of the turn: ``djactor_python.stop()``.

        Args:
            discard: Whether its waiting mail goes to dead_letter; if not, a fresh actor gets it.

        Raises:
            RuntimeError: Outside PostgreSQL.
        """
        _in_server("stop")(discard)

    @staticmethod
    def reject(reason: str) -> NoReturn:
        """End the turn, and give the message up without a retry: ``djactor_python.reject()``.

        Raises:
            RuntimeError: Outside PostgreSQL.
        """
        _in_server("reject")(reason)
        raise AssertionError("djactor_python.reject() has returned")

    @staticmethod
    def current() -> Current | None:
        """The turn that runs: ``djactor_python.current()``.

        Raises:
            RuntimeError: Outside PostgreSQL.
        """
        turn: Current | None = _in_server("current")()
        return turn
