"""The class of a hosted type: its objects, its states, its handler.

The rules are those of ``djactor_python``, so that a class may run inside PostgreSQL or in a host:
an object lives for one turn, what lasts is its ``__dict__`` as JSON, and a value that JSON would
give back as something else fails the turn.
"""

from __future__ import annotations

import inspect
import json
import json.scanner
from typing import Any

from djactor import messages
from djactor.hosting import calls
from djactor.hosting.context import EXISTS, FROM_VERSION, KEY, STATE, Row
from djactor_python import StateError, _Actor, check_class, dump_state, key_converter

_scan: Any = json.scanner.make_scanner(json.JSONDecoder())  # type: ignore[arg-type]


def loads(text: str) -> Any:
    """What a text of the server's jsonb means; there are no blanks around it."""
    return _scan(text, 0)[0]


class Hosted:
    """A type that is hosted here.

    Attributes:
        name: The name of the type.
        cls: Its class.
        is_async: Whether its handlers are coroutine functions.
        stateless: Whether its actors have no row, so that each turn makes a new object.
        alone: Whether each sync turn gets a transaction of its own.
        state_version: The version of its states when this process began.
    """

    __slots__ = (
        "_actor",
        "_receiver",
        "alone",
        "cls",
        "is_async",
        "label",
        "name",
        "state_version",
        "stateless",
    )

    def __init__(
        self,
        name: str,
        cls: type[Any],
        *,
        stateless: bool = False,
        alone: bool = False,
        state_version: int = 1,
    ) -> None:
        check_class(cls)
        self.name = name
        self.cls = cls
        self._receiver = messages.receiver_of(cls)
        self.is_async = is_async(cls)
        self.stateless = stateless
        self.alone = alone
        self.state_version = state_version
        self.label = cls.__name__
        self._actor = _Actor(cls, cls.__name__, key_converter(cls))

    def object_for(self, row: Row, state: str | None) -> Any:
        """The object whose handler gets a message.

        Args:
            row: The message, as it was taken.
            state: What an earlier turn of the same claim has left; None for the first one.

        Returns:
            The object: a new one, after ``__init__``, for an actor that has no row.

        Raises:
            Exception: What ``__init__`` or ``upgrade_state`` raises.
        """
        if state is not None and not self.stateless:
            return self._actor.restore(loads(state))
        text: str = (state if row[STATE] is None else row[STATE]) or "{}"
        attributes = loads(text)
        if type(attributes) is not dict:
            raise StateError(f"the state of a Python actor must be a JSON object, not {text[:60]}")
        if self.stateless or not row[EXISTS]:
            return self._actor.create(row[KEY], attributes)
        if row[FROM_VERSION] is not None:
            attributes = self._upgraded(attributes, row[FROM_VERSION])
        return self._actor.restore(attributes)

    def handle(self, obj: Any, payload: Any) -> Any:
        """Have an object handle a message.

        Args:
            obj: The object, of ``object_for()``.
            payload: The message, as JSON has it.

        Returns:
            What the handler returns: a coroutine, if it is async.

        Raises:
            InvalidMessage: The class takes typed messages, and this is none of them.
        """
        if self._receiver is None:
            return obj.handle_message(payload)
        return self._receiver.handle(obj, payload)

    def _upgraded(self, attributes: dict[str, Any], from_version: int) -> dict[str, Any]:
        upgrade = getattr(self.cls, "upgrade_state", None)
        if upgrade is None:
            raise TypeError(
                f"the state has version {from_version}, which is older than that of the type, and"
                f" class {self.label} has no upgrade_state(state, from_version)"
            )
        upgraded = upgrade(attributes, from_version)
        if type(upgraded) is not dict:
            raise TypeError(
                f"{self.label}.upgrade_state must return a dict, which is the new state; it"
                f" returned a value of type {type(upgraded).__qualname__}"
            )
        return upgraded

    def ended(self, obj: Any, answer: Any, before: str | None) -> tuple[str | None, str | None]:
        """What a handler leaves.

        Args:
            obj: The object.
            answer: What the handler has returned.
            before: The state before the turn, if leaving it unchanged need not be written.

        Returns:
            The new state, None if it is unchanged, and the reply, None if there is none; as JSON.

        Raises:
            TypeError: The handler has returned something else than a dict, an object of a message
                type or None.
            StateError: The state is nothing that JSON can hold.
        """
        if answer is not None and not isinstance(answer, dict):
            answer = messages.encode(answer)
            if not isinstance(answer, dict):
                raise TypeError(
                    f"{self.label}.handle_message must return a dict, which is the reply, or None; "
                    f"it returned a value of type {type(answer).__qualname__}"
                )
        if self.stateless:
            state = None
        else:
            state = dump_state(obj.__dict__, self.label)
            if state == before:
                state = None
        return state, None if answer is None else calls.dump(answer)


def unchanged_from(row: Row) -> str | None:
    """The state that a turn may leave as it is; None if it has to be written anyway."""
    if row[EXISTS] and row[FROM_VERSION] is None:
        state: str | None = row[STATE]
        return state
    return None


def is_async(cls: type[Any]) -> bool:
    """Whether the handlers of a class are coroutine functions."""
    receiver = messages.receiver_of(cls)
    if receiver is not None:
        return receiver.is_async
    return inspect.iscoroutinefunction(inspect.unwrap(cls.handle_message))
