"""Typed messages: objects as JSON and back, and which method of a class takes which.

A message type is a dataclass, a pydantic model or a TypedDict.  On the wire a message is a plain
JSON object: the fields, and in ``@type`` the name of the type, which tells a class with several
types what it has got::

    {"@type": "AddItem", "sku": "x", "n": 2}

``encode()`` is the one place where an object becomes JSON, ``Receiver.read()`` the one where JSON
becomes an object.  What always holds:

* A dict is sent as it is, and a class whose ``handle_message()`` takes a dict gets it as it is.
* ``@type`` may be left out where only one type is possible: a class takes one type, or only one has
  the values that its fields of type ``Literal`` must have.
* A message that does not fit is refused by ``InvalidMessage``, before the handler has run.
* PostgreSQL imports this module, too: it needs nothing but the standard library.  pydantic is there
  if a class is a model.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin, overload
from uuid import UUID

from djactor.hosting.context import Reject

TYPE = "@type"
"""The member that names the type of a message."""

_MARK = "__djactor_handles__"
_SHOWN = 10  # faults of a message that are named

_M = TypeVar("_M")
_S = TypeVar("_S")
_R = TypeVar("_R")
_Method = TypeVar("_Method", bound=Callable[..., Any])

_Reader = Callable[[Any, str, list[str]], Any]
"""Reads a JSON value: takes it, its path, and the list that it adds faults to."""


class InvalidMessage(Reject):
    """A message that none of the handlers of a class takes.

    Attributes:
        faults: What is wrong, each with the path of the field.
    """

    def __init__(self, text: str, faults: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.faults = tuple(faults)


# ---------- handlers ----------


@overload
def handles(
    message_type: type[_M], /
) -> Callable[[Callable[[_S, _M], _R]], Callable[[_S, _M], _R]]: ...


@overload
def handles(method: _Method, /) -> _Method: ...


def handles(what: Any, /) -> Any:
    """Have a method handle the messages of a type.

    ``@handles(AddItem)`` names the type; ``@handles`` alone takes it from the annotation of the
    method's parameter, which may be a union of types.

    Args:
        what: The type, or the method.

    Returns:
        The method, as it was; or what takes the method.

    Raises:
        TypeError: It is neither a class nor a function.
    """
    if isinstance(what, type):

        def mark(method: Any) -> Any:
            setattr(method, _MARK, what)
            return method

        return mark
    if not inspect.isroutine(what):
        raise TypeError(f"@handles takes a message type, or a method, not {what!r}")
    setattr(what, _MARK, None)
    return what


# ---------- from objects to JSON ----------


def is_message_type(cls: object) -> bool:
    """Whether something is a dataclass, a pydantic model or a TypedDict."""
    return isinstance(cls, type) and (
        dataclasses.is_dataclass(cls) or _is_pydantic(cls) or _is_typed_dict(cls)
    )


def encode(payload: Any) -> Any:
    """A payload as what JSON can hold.

    Args:
        payload: An object of a dataclass or of a pydantic model becomes a dict of its fields and of
            ``@type``.  Everything else stays as it is.

    Raises:
        TypeError: A field has the name ``@type``.
    """
    return _encode(payload, type(payload))


def addressed(receiver: str | type[Any], payload: Any) -> tuple[str, Any]:
    """The name of an actor type, and a payload for it as what JSON can hold.

    Args:
        receiver: The name, or the class, which is registered.
        payload: The message; for a class, an object of a type that it takes.

    Raises:
        LookupError: The class is not registered, or under several names.
        TypeError: The class does not take the type.
    """
    if isinstance(receiver, str):
        return receiver, encode(payload)
    from djactor.registry import name_of

    return name_of(receiver), outgoing(receiver, payload)


def outgoing(cls: type[Any], payload: Any) -> Any:
    """``encode()`` of a message to an actor of a class.

    An object of a class that derives from a type which the class takes is sent as that type.

    Raises:
        TypeError: The class does not take the type.
    """
    kind = type(payload)
    if payload is None or kind is dict or not is_message_type(kind):
        return payload
    receiver = receiver_of(cls)
    if receiver is None:
        return encode(payload)
    taken = receiver.types
    for base in kind.__mro__:
        if base in taken:
            return _encode(payload, base)
    if receiver.plain:
        return encode(payload)
    raise TypeError(f"{receiver.label} takes {receiver.known}, not {kind.__name__}")


def _encode(payload: Any, kind: type[Any]) -> Any:
    fields = fields_of(payload)
    if fields is None:
        return payload
    if TYPE in fields:
        raise TypeError(
            f"a field of {type(payload).__name__} is called {TYPE}, as djactor's own is"
        )
    return {TYPE: kind.__name__, **fields}


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of an object of a message type; None for another value."""
    kind = type(value)
    if _is_pydantic(kind):
        if hasattr(kind, "model_dump"):
            found = value.model_dump(mode="json", by_alias=True)
        else:
            found = kind.__pydantic_serializer__.to_python(value, mode="json", by_alias=True)
        if not isinstance(found, dict):
            raise TypeError(f"a message is a JSON object, and {kind.__name__} is none")
        return found
    if dataclasses.is_dataclass(kind):
        return {
            one.name: _plain(getattr(value, one.name))
            for one in dataclasses.fields(kind)
            if one.init
        }
    return None


def _plain(value: Any) -> Any:
    """The value of a field of a dataclass, as what JSON can hold."""
    kind = type(value)
    if kind in (str, int, bool, float, type(None)):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    fields = fields_of(value)
    return value if fields is None else fields


# ---------- from JSON to objects ----------


class _Type:
    """A type of messages of a class.

    Attributes:
        cls: The type.
        name: Its name, which ``@type`` has.
        literals: What its fields of type ``Literal`` may be: by these it is told from others.
        read: Makes an object of it.
    """

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        self.name = cls.__name__
        self.read = _object_reader(cls)
        self.literals = _literals(cls)

    def fits(self, value: Mapping[str, Any]) -> bool:
        """Whether an object has all literal values that the type asks for, and it asks for some."""
        return bool(self.literals) and all(
            field in value and _is_one_of(value[field], allowed)
            for field, allowed in self.literals.items()
        )


def _choose(kinds: Iterable[_Type], value: Mapping[str, Any]) -> _Type | None:
    """The only type whose literal values an object has."""
    fitting = [kind for kind in kinds if kind.fits(value)]
    return fitting[0] if len(fitting) == 1 else None


def _literals(cls: type[Any]) -> dict[str, tuple[Any, ...]]:
    try:
        hints = _hints(cls)
    except TypeError:  # of a model, which has its own ways
        return {}
    aliases = {
        name: one.alias
        for name, one in getattr(cls, "__pydantic_fields__", {}).items()
        if isinstance(getattr(one, "alias", None), str)
    }
    return {
        aliases.get(name, name): get_args(hint)
        for name, hint in hints.items()
        if get_origin(hint) is Literal
    }


def _is_one_of(value: object, allowed: Iterable[object]) -> bool:
    return any(type(value) is type(one) and value == one for one in allowed)


_readers: dict[type[Any], _Reader] = {}


def _object_reader(cls: type[Any]) -> _Reader:
    """What reads objects of a message type.

    Raises:
        TypeError: The type has a field that cannot be read.
    """
    found = _readers.get(cls)
    if found is not None:
        return found
    if _is_pydantic(cls):
        _readers[cls] = _model_reader(cls)
    else:
        fields = _Fields(cls)
        _readers[cls] = fields.read  # before the fields are looked at: one may be of this class
        try:
            fields.prepare()
        except BaseException:
            del _readers[cls]
            raise
    return _readers[cls]


class _Fields:
    """Reads a dataclass, or a TypedDict; a member that is no field of it is of no account."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self._is_dict = _is_typed_dict(cls)
        self._readers: dict[str, _Reader] = {}
        self._required: list[str] = []

    def prepare(self) -> None:
        """Look at the fields.

        Raises:
            TypeError: One cannot be read.
        """
        cls = self._cls
        hints = _hints(cls)
        if self._is_dict:
            names = list(hints)
            self._required = [name for name in names if name in cls.__required_keys__]
        else:
            fields: Any = cls.__dataclass_fields__
            for one in fields.values():
                if one._field_type is dataclasses._FIELD_INITVAR:  # type: ignore[attr-defined]
                    raise TypeError(
                        f"{cls.__name__}.{one.name} is an InitVar, which no message has"
                    )
            made = [one for one in dataclasses.fields(cls) if one.init]
            names = [one.name for one in made]
            self._required = [
                one.name
                for one in made
                if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
            ]
        self._readers = {name: _reader(hints[name], f"{cls.__name__}.{name}") for name in names}

    def read(self, value: Any, path: str, faults: list[str]) -> Any:
        """Make an object of a JSON object."""
        if type(value) is not dict:
            faults.append(_fault(path, f"{_shown(value)} is not an object"))
            return None
        before = len(faults)
        found = dict(value) if self._is_dict else {}
        for name in self._required:
            if name not in value:
                faults.append(_fault(f"{path}.{name}" if path else name, "is missing"))
        for name, read in self._readers.items():
            if name in value:
                found[name] = read(value[name], f"{path}.{name}" if path else name, faults)
        if len(faults) > before or self._is_dict:
            return found
        try:
            return self._cls(**found)
        except (TypeError, ValueError) as error:  # __post_init__
            faults.append(_fault(path, str(error) or type(error).__name__))
            return None


def _model_reader(cls: type[Any]) -> _Reader:
    """What reads a pydantic model or dataclass, as pydantic reads JSON.

    Raises:
        TypeError: Its messages would be no objects.
    """
    import pydantic

    if issubclass(cls, pydantic.RootModel):
        raise TypeError(f"{cls.__name__} is a RootModel, and a message is an object of fields")
    adapter: Any = pydantic.TypeAdapter(cls)

    def read(value: Any, path: str, faults: list[str]) -> Any:
        try:
            return adapter.validate_json(json.dumps(value))
        except pydantic.ValidationError as error:
            for one in error.errors(include_url=False, include_context=False):
                where = path
                for part in one["loc"]:
                    where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
                faults.append(_fault(where, one["msg"]))
            return None

    return read


def _reader(hint: Any, where: str) -> _Reader:
    """What reads values of a type.

    Args:
        hint: The type.
        where: Whose type it is, for the error.

    Raises:
        TypeError: No JSON value is read as this type.
    """
    hint = _bare(hint)
    if hint is Any or hint is object:
        return lambda value, path, faults: value
    if hint is None or hint is type(None):
        return _checked(lambda value: value is None, "null")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _checked(lambda value: _is_one_of(value, arguments), _one_of(arguments))
    if origin is Union or origin is types.UnionType:
        return _union_reader(hint, where)
    if hint in _SCALARS:
        return _SCALARS[hint]
    for known, (make, wanted) in _TEXTS.items():
        if hint is known or _stands_for(hint, known):
            return _text_reader(make, wanted)
    if is_message_type(hint):
        return _object_reader(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_reader(hint)
    kind = origin or hint
    if isinstance(kind, type):
        if issubclass(dict, kind) and issubclass(kind, Mapping):
            return _dict_reader(arguments, where)
        if issubclass(kind, tuple) and arguments:
            return _tuple_reader(arguments, where)
        if issubclass(list, kind) and issubclass(kind, Sequence):
            return _list_reader(arguments[0] if arguments else Any, list, where)
    raise TypeError(f"{where} is of type {_name(hint)}, as which no JSON value is read")


def _checked(fits: Callable[[Any], bool], wanted: str) -> _Reader:
    def read(value: Any, path: str, faults: list[str]) -> Any:
        if not fits(value):
            faults.append(_fault(path, f"{_shown(value)} is not {wanted}"))
        return value

    return read


def _float(value: Any, path: str, faults: list[str]) -> Any:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            pass
    faults.append(_fault(path, f"{_shown(value)} is not a float"))
    return None


_SCALARS: dict[Any, _Reader] = {
    str: _checked(lambda value: type(value) is str, "a str"),
    int: _checked(lambda value: type(value) is int, "an int"),
    bool: _checked(lambda value: type(value) is bool, "a bool"),
    float: _float,
}


def _decimal(value: Any) -> Decimal:
    found = Decimal(str(value))
    if type(value) is bool or not found.is_finite():
        raise ValueError
    return found


_TIME = re.compile(r"([T ]\d\d:\d\d:\d\d)\.(\d+)")
_ZONE = re.compile(r"([T ].*[+-]\d\d)$")


def _datetime(value: Any) -> datetime:
    """A time in ISO 8601, also as PostgreSQL writes it; Python 3.10 reads less."""
    if type(value) is not str or len(value) < 11:  # a date alone is none
        raise ValueError
    text = _TIME.sub(lambda found: f"{found[1]}.{found[2][:6]:0<6}", value, count=1)
    if text[-1] in "Zz":
        text = f"{text[:-1]}+00:00"
    return datetime.fromisoformat(_ZONE.sub(r"\1:00", text))


def _of_text(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read_text(value: Any) -> Any:
        if type(value) is not str:
            raise ValueError
        return read(value)

    return read_text


_TEXTS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    datetime: (_datetime, "a datetime"),
    date: (_of_text(date.fromisoformat), "a date"),
    time: (_of_text(time.fromisoformat), "a time"),
    Decimal: (_decimal, "a Decimal"),
    UUID: (_of_text(UUID), "a UUID"),
}


def _text_reader(make: Callable[[Any], Any], wanted: str) -> _Reader:
    def read(value: Any, path: str, faults: list[str]) -> Any:
        try:
            return make(value)
        except (ValueError, InvalidOperation):
            faults.append(_fault(path, f"{_shown(value)} is not {wanted}"))
            return None

    return read


def _enum_reader(cls: type[enum.Enum]) -> _Reader:
    members = list(cls)

    def read(value: Any, path: str, faults: list[str]) -> Any:
        for one in members:
            if _is_one_of(value, [_plain(one)]):
                return one
        wanted = _one_of([_plain(one) for one in members])
        faults.append(_fault(path, f"{_shown(value)} is not {wanted}"))
        return None

    return read


def _list_reader(item: Any, make: Callable[[Any], Any], where: str) -> _Reader:
    of_item = _reader(item, f"an item of {where}")

    def read(value: Any, path: str, faults: list[str]) -> Any:
        if type(value) is not list:
            faults.append(_fault(path, f"{_shown(value)} is not a list"))
            return None
        return make([of_item(one, f"{path}[{at}]", faults) for at, one in enumerate(value)])

    return read


def _tuple_reader(arguments: tuple[Any, ...], where: str) -> _Reader:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list_reader(arguments[0], tuple, where)
    items = [_reader(one, f"an item of {where}") for one in arguments if one != ()]

    def read(value: Any, path: str, faults: list[str]) -> Any:
        if type(value) is not list or len(value) != len(items):
            faults.append(_fault(path, f"{_shown(value)} is not a list of {len(items)}"))
            return None
        return tuple(
            one(item, f"{path}[{at}]", faults)
            for at, (one, item) in enumerate(zip(items, value, strict=True))
        )

    return read


def _dict_reader(arguments: tuple[Any, ...], where: str) -> _Reader:
    key, item = arguments or (str, Any)
    if _bare(key) not in (str, Any):
        raise TypeError(f"{where} has keys of type {_name(key)}, and JSON has texts alone as keys")
    of_item = _reader(item, f"an item of {where}")

    def read(value: Any, path: str, faults: list[str]) -> Any:
        if type(value) is not dict:
            faults.append(_fault(path, f"{_shown(value)} is not an object"))
            return None
        return {
            name: of_item(one, f"{path}[{_shown(name)}]", faults) for name, one in value.items()
        }

    return read


def _union_reader(hint: Any, where: str) -> _Reader:
    """The first member that fits; an object goes to the one that it can only be."""
    members = [_bare(one) for one in get_args(hint)]
    objects = [_Type(one) for one in members if is_message_type(one)]
    if len(objects) > 1 and not all(one.literals for one in objects):
        raise TypeError(
            f"{where} is of type {_name(hint)}, whose members cannot be told apart: give each a"
            ' field of type Literal, such as op: Literal["add"] = "add"'
        )
    others = [one for one in members if not is_message_type(one)]
    others.sort(key=lambda one: one is float)  # a float is no int, and an int is a float
    readers = [_reader(one, where) for one in others]
    only = objects[0] if len(objects) == 1 else None

    def read(value: Any, path: str, faults: list[str]) -> Any:
        found: list[str] = []
        if objects and type(value) is dict:
            kind = only or _choose(objects, value)
            if kind is not None:
                made = kind.read(value, path, found)
                if not found or not readers:
                    faults.extend(found)
                    return made
        for one in readers:
            tried: list[str] = []
            made = one(value, path, tried)
            if not tried:
                return made
        faults.extend(found or [_fault(path, f"{_shown(value)} is not of type {_name(hint)}")])
        return None

    return read


# ---------- the handlers of a class ----------


class Receiver:
    """How a class takes its messages.

    Attributes:
        label: The name of the class.
        is_async: Whether its handlers are coroutine functions.
        plain: Whether ``handle_message()`` takes what is of no type, as a dict.
        methods: The names of the methods, by the types that they take.
    """

    def __init__(
        self, cls: type[Any], methods: Mapping[type[Any], str], plain: bool, is_async: bool
    ) -> None:
        self.label = cls.__name__
        self.is_async = is_async
        self.plain = plain
        self.methods = methods
        self._by_name: dict[str, tuple[_Type, str]] = {}
        for one, method in methods.items():
            kind = _Type(one)
            if kind.name in self._by_name:
                raise TypeError(f"{self.label} takes two types that are called {kind.name}")
            self._by_name[kind.name] = kind, method
        self._kinds = [kind for kind, _ in self._by_name.values()]
        self._only = self._kinds[0] if len(self._kinds) == 1 and not plain else None

    @property
    def types(self) -> tuple[type[Any], ...]:
        """The types that it takes."""
        return tuple(self.methods)

    @property
    def known(self) -> str:
        """Their names."""
        return ", ".join(self._by_name)

    def read(self, payload: Any) -> tuple[str, Any]:
        """Which method takes a message, and as what.

        Args:
            payload: The message, as JSON has it.

        Raises:
            InvalidMessage: None takes it.
        """
        if type(payload) is not dict:
            if self.plain:
                return "handle_message", payload
            raise InvalidMessage(f"{self.label} takes {self.known}: the message is not an object")
        name = payload.get(TYPE)
        if name is None:
            kind = self._only or _choose(self._kinds, payload)
        else:
            kind = self._by_name[name][0] if type(name) is str and name in self._by_name else None
        if kind is None:
            if self.plain:
                return "handle_message", payload
            what = f"has no {TYPE}" if name is None else f"has the {TYPE} {_shown(name)}"
            raise InvalidMessage(f"{self.label} takes {self.known}: the message {what}")
        if name is not None:
            payload = {member: value for member, value in payload.items() if member != TYPE}
        faults: list[str] = []
        try:
            message = kind.read(payload, "", faults)
        except RecursionError:
            faults.append("it is nested too deeply")
        if faults:
            more = len(faults) - _SHOWN
            text = "; ".join(faults[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            raise InvalidMessage(f"{kind.name}: {text}", faults)
        return self._by_name[kind.name][1], message

    def handle(self, obj: Any, payload: Any) -> Any:
        """Have an object handle a message.

        Args:
            obj: The object, of the class.
            payload: The message, as JSON has it.

        Returns:
            What the method returns.

        Raises:
            InvalidMessage: No method takes the message; none has run.
        """
        method, message = self.read(payload)
        return getattr(obj, method)(message)

    def dispatch(self, obj: Any, message: Any) -> Any:
        """``handle()``, also of an object of a message type.

        Raises:
            InvalidMessage: No method takes the message.
        """
        for base in type(message).__mro__:
            if base in self.methods:
                return getattr(obj, self.methods[base])(message)
        return self.handle(obj, encode(message))


_receivers: dict[type[Any], Receiver | None] = {}


def receiver_of(cls: type[Any]) -> Receiver | None:
    """How a class takes its messages; None for one that takes all of them as they are.

    Raises:
        TypeError: A handler takes what is no message type, or one that cannot be read; two take the
            same; some are async and others not; the class declares others than it has.
    """
    try:
        return _receivers[cls]
    except KeyError:
        found = _receivers[cls] = _receiver(cls)
        return found


def has_handlers(cls: type[Any]) -> bool:
    """Whether a class has methods that ``@handles`` has marked."""
    return any(
        _MARK in getattr(one, "__dict__", ()) for base in cls.__mro__ for one in vars(base).values()
    )


def doubt(cls: type[Any]) -> str | None:
    """The annotation of ``handle_message()``, if it means nothing here and so is passed over.

    That is so for a name that is imported for type checkers alone.
    """
    method = _own_handle_message(cls)
    hint = None if method is None else _annotation(method)
    if isinstance(hint, str) and not re.match(r"(typing\.)?([Dd]ict|Mapping|Any|object)\b", hint):
        return hint
    return None


def _receiver(cls: type[Any]) -> Receiver | None:
    methods: dict[type[Any], str] = {}
    plain = False
    functions: list[Any] = []

    def take(name: str, kinds: Iterable[type[Any]]) -> None:
        for kind in kinds:
            if methods.setdefault(kind, name) != name:
                raise TypeError(
                    f"{cls.__name__} has two handlers of {kind.__name__}: {methods[kind]}() and"
                    f" {name}()"
                )

    declared = _declared(cls)
    own = _own_handle_message(cls)
    for name, named in _marked(cls).items():
        method = getattr(cls, name)
        where = f"{cls.__name__}.{name}()"
        if not _takes_a_message(inspect.getattr_static(cls, name)):
            raise TypeError(f"{where} does not take a message and nothing else")
        kinds, rest = _kinds(named or _annotation(method), where)
        if not kinds or rest:
            raise TypeError(
                f"{where} handles no message type: @djactor.handles takes a dataclass, a pydantic"
                " model or a TypedDict, or the method's parameter is annotated with them"
            )
        take(name, kinds)
        functions.append(method)
    if own is not None and "handle_message" not in _marked(cls):
        hint = _annotation(own)
        if hint is None and declared is not None:
            hint = declared
        kinds, plain = _kinds(hint, f"{cls.__name__}.handle_message()")
        take("handle_message", kinds)
        functions.append(own)
    if not methods:
        return None
    if declared is not None:
        _check_declared(cls, declared, methods)
    asynchronous = {_is_async(one) for one in functions}
    if len(asynchronous) > 1:
        raise TypeError(f"some handlers of {cls.__name__} are async, and others are not")
    return Receiver(cls, methods, plain, asynchronous.pop())


def _check_declared(cls: type[Any], declared: Any, methods: Mapping[type[Any], str]) -> None:
    """See that ``PythonActor[...]`` names what the class handles.

    Raises:
        TypeError: It does not.
    """
    kinds = set(_kinds(declared, f"the base of {cls.__name__}")[0])
    if not kinds:
        return
    for one in sorted(kinds ^ methods.keys(), key=lambda one: one.__name__):
        what = "and has no handler of it" if one in kinds else "and its base does not name that"
        verb = "declares" if one in kinds else "handles"
        raise TypeError(f"{cls.__name__} {verb} {one.__name__}, {what}")


def _marked(cls: type[Any]) -> dict[str, Any]:
    """The names of the methods that are marked, and the types that the marks name."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if _MARK in getattr(value, "__dict__", ()):
                found[name] = getattr(value, _MARK)
    return found


def _own_handle_message(cls: type[Any]) -> Any:
    """The method, unless there is none, or only that of ``PythonActor``."""
    method = getattr(cls, "handle_message", None)
    return None if getattr(method, "__djactor_base__", False) else method


def _declared(cls: type[Any]) -> Any:
    """What ``PythonActor[...]`` among the bases names."""
    for base in cls.__mro__:
        for one in vars(base).get("__orig_bases__", ()):
            if get_origin(one) is not None and hasattr(
                getattr(get_origin(one), "handle_message", None), "__djactor_base__"
            ):
                return _evaluated(get_args(one)[0], sys.modules[base.__module__].__dict__)
    return None


def _annotation(method: Any) -> Any:
    """The type of a handler's parameter; its text if that means nothing, None if it has none."""
    function = inspect.unwrap(method)
    code = getattr(function, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    at = 0 if isinstance(function, types.MethodType) else 1
    if len(names) <= at:
        return None
    hint = _annotations(function).get(names[at])
    return _evaluated(hint, getattr(function, "__globals__", {}))


def _annotations(function: Any) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(function)


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    """What a text means as an annotation; the text if it means nothing here."""
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, names)
    except Exception:
        return hint


def _kinds(hint: Any, where: str) -> tuple[list[type[Any]], bool]:
    """The message types of an annotation, and whether it is for others, too.

    Raises:
        TypeError: A class is neither a message type nor what JSON has.
    """
    hint = _bare(hint)
    if get_origin(hint) in (Union, types.UnionType):
        kinds: list[type[Any]] = []
        plain = False
        for one in get_args(hint):
            more, others = _kinds(one, where)
            kinds += more
            plain |= others
        return kinds, plain
    if is_message_type(hint):
        return [hint], False
    origin = get_origin(hint) or hint
    if isinstance(origin, type) and not _is_of_json(origin):
        raise TypeError(
            f"{where} takes {_name(hint)}, which is no dataclass, pydantic model or TypedDict"
        )
    return [], True


def _is_of_json(kind: type[Any]) -> bool:
    if kind in (str, int, float, bool, list, type(None)) or issubclass(kind, dict):
        return True
    if kind.__module__ in ("typing", "typing_extensions"):  # Any
        return True
    try:
        return issubclass(dict, kind)
    except TypeError:  # of a Protocol
        return True


def _takes_a_message(static: Any) -> bool:
    if not inspect.isfunction(static):
        return True
    try:
        signature = inspect.signature(static)
    except (TypeError, ValueError, NameError):
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True


def _is_async(method: Any) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(method))


# ---------- types ----------


def _is_pydantic(cls: type[Any]) -> bool:
    """Whether it is a model, or a dataclass, of pydantic 2."""
    return "__pydantic_validator__" in cls.__dict__ or hasattr(cls, "__pydantic_validator__")


def _is_typed_dict(cls: type[Any]) -> bool:
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _bare(hint: Any) -> Any:
    """A type without what does not change its JSON: NewType, Annotated, names of types."""
    while True:
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        elif hasattr(hint, "__metadata__"):  # Annotated
            hint = hint.__origin__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif getattr(get_origin(hint), "_name", "") in ("Required", "NotRequired", "ReadOnly"):
            hint = get_args(hint)[0]
        else:
            return hint


def _stands_for(hint: Any, known: type[Any]) -> bool:
    """Whether it is what freezegun puts in the place of a class while time stands still."""
    return isinstance(hint, type) and hint.__module__ == "freezegun.api" and issubclass(hint, known)


def _hints(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a class.

    Raises:
        TypeError: One means nothing where the class is.
    """
    try:
        return typing.get_type_hints(cls)
    except Exception as error:
        raise TypeError(f"the annotations of {cls.__name__} cannot be read: {error}") from None


def _name(hint: Any) -> str:
    if hint is type(None):
        return "None"
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_name(one) for one in get_args(hint))
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint.__qualname__
    return str(hint).replace("typing.", "")


def _one_of(values: Sequence[object]) -> str:
    return " or ".join(_shown(one) for one in values)


def _shown(value: object) -> str:
    return reprlib.repr(value)


def _fault(path: str, what: str) -> str:
    return f"{path}: {what}" if path else what
