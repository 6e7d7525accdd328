"""``PythonActor``: a base for actors that are Python classes, inside PostgreSQL or in a host.

The module is imported by the server, so it needs nothing but the standard library.  The base
is a convenience: any class with ``handle_message`` will do.  What acts on the turn that runs
is at hand as a method here; each is the function of that name in ``djactor_python``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from djactor.options import M_contra

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from zoneinfo import ZoneInfo

    from typing_extensions import TypeVar, Unpack

    from djactor.options import CatchUp, Handles, Key, MessageOptions
    from djactor_python import Current

    _Sent = TypeVar("_Sent")


def _in_server(name: str) -> Any:
    """The function of that name in ``djactor_python``; in a host it works, too.

    Raises:
        RuntimeError: No turn runs here, or none that this could act on.
    """
    module = importlib.import_module("djactor_python")
    return getattr(module, name)


class PythonActor(Generic[M_contra]):
    """An actor.  An object lives for one turn; what lasts is its ``__dict__``, as JSON.

    ``__init__`` runs once in an actor's life and takes the key, converted as its annotation
    says (``str``, ``int`` or ``UUID``).

    ``PythonActor[AddItem | RemoveItem]`` names the types of messages that a class takes.  From that
    type checkers know what may be sent to it, if it has a method for each (``@djactor.handles``).
    """

    def handle_message(self, message: M_contra) -> Any:
        """Handle one message; by the methods with ``@djactor.handles``, if there are some.

        Args:
            message: Its payload, or the object of it.

        Returns:
            The reply, or None.

        Raises:
            NotImplementedError: The class has not overridden this, nor has it such methods.
            InvalidMessage: It has none for this message.
        """
        from djactor import messages

        receiver = messages.receiver_of(type(self))
        if receiver is None:
            raise NotImplementedError(f"{type(self).__name__} has no handle_message()")
        return receiver.dispatch(self, message)

    handle_message.__djactor_base__ = True  # type: ignore[attr-defined]

    @staticmethod
    def send(
        actor_type: str | type[Handles[_Sent]],
        key: Key,
        payload: _Sent | None = None,
        **options: Unpack[MessageOptions],
    ) -> int:
        """Send a message, with this turn's commit: ``djactor_python.send()``.

        Args:
            actor_type: The type of the actor that gets it: its name, or its registered class.
            key: The key of that actor.
            payload: What JSON can hold (``{}`` if None), or a typed message.
            **options: Columns of the message: see ``MessageOptions``.

        Returns:
            The id of the message; None in an async turn of a host, which sends it when it ends.

        Raises:
            RuntimeError: Outside of turns.
            TypeError: For a payload that JSON cannot hold, or that the class does not take.
            ValueError: For NaN or an infinity in the payload, and for a time without a zone.
            LookupError: The class is not registered, or under several names.
        """
        sent: int = _in_server("send")(actor_type, key, payload, **options)
        return sent

    @staticmethod
    def reply(payload: Any, message_id: int | None = None) -> None:
        """Answer a message: ``djactor_python.reply()``.

        Args:
            payload: The answer: what JSON can hold.
            message_id: The message, whose reply was deferred (default: that of this turn).

        Raises:
            RuntimeError: Outside of turns.
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
            RuntimeError: Outside of turns.
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
            RuntimeError: Outside of turns.
        """
        return bool(_in_server("cancel_timer")(name))

    @staticmethod
    def progress(value: Any) -> None:
        """Say how far the turn is, for others to see at once: ``djactor_python.progress()``.

        Args:
            value: What JSON can hold, in 1,024 bytes at most.

        Raises:
            RuntimeError: Outside of turns.
        """
        _in_server("progress")(value)

    @staticmethod
    def stop(discard: bool = False) -> None:
        """Remove this actor at the end of the turn: ``djactor_python.stop()``.

        Args:
            discard: Whether its waiting mail goes to dead_letter; if not, a fresh actor gets it.

        Raises:
            RuntimeError: Outside of turns.
        """
        _in_server("stop")(discard)

    @staticmethod
    def reject(reason: str) -> NoReturn:
        """End the turn, and give the message up without a retry: ``djactor_python.reject()``.

        Raises:
            RuntimeError: Outside of turns.
        """
        _in_server("reject")(reason)
        raise AssertionError("djactor_python.reject() has returned")

    @staticmethod
    def current() -> Current | None:
        """The turn that runs: ``djactor_python.current()``.

        Raises:
            RuntimeError: Outside of turns.
        """
        turn: Current | None = _in_server("current")()
        return turn
