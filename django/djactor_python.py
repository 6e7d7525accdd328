"""Plain Python classes as actors of djactor, inside PostgreSQL and in hosts.

The extension ``djactor_python`` runs this module in the sessions of djactor's
workers (and of whoever calls ``djactor.drain()``).  A class needs nothing of it::

    class NotificationActor:
        def __init__(self, user_id: int):
            self.user_id = user_id
            self.messages = []

        def handle_message(self, message: dict):
            self.messages.append(message)
            return {"status": "ok", "count": len(self.messages)}

One that wants more imports ``send``, ``reply``, ``set_timer``, ``cancel_timer``,
``stop``, ``reject`` and ``current`` from here; they work inside a turn.  In a host, a process
of Django that runs turns, they are those of ``djactor.hosting``, so that a class can move there.

What always holds:

* An object lives for one turn.  What lasts is its ``__dict__``, as JSON; a value
  that JSON would give back as something else fails the turn instead.
* No exception leaves ``handle`` and ``define``: they return it, made so that its
  message, SQLSTATE and hint are those of the original and its detail is the
  traceback.  PL/Python's own tracebacks know neither files nor line numbers.
* SQL text here is qualified throughout, operators too: it runs under whatever
  search_path the session has.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import re
import reprlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from uuid import UUID

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from djactor.options import Handles, M_contra

try:
    import plpy
except ImportError:  # outside a server: the tests of what needs none
    plpy = None

__all__ = [
    "Current",
    "StateError",
    "cancel_timer",
    "current",
    "progress",
    "reject",
    "reply",
    "send",
    "set_timer",
    "stop",
]

_REJECTED = "JA003"
_MAX_TRACEBACK = 10_000  # characters
_MAX_FRAMES = 30
_MAX_INT_BITS = 14_000  # Python reads no number of more than 4,300 digits
_MAX_FLOAT = 1e16  # from there on PostgreSQL writes a float as an int
_MAX_PLAIN = 1 << 63  # ints below that need no closer look
_ENCODINGS = ("UTF8", "SQL_ASCII")  # of databases; the second keeps UTF-8 as it is


# ---------- state ----------


def _make_encode() -> Callable[[Mapping[str, object]], str]:
    """What writes a state as JSON; ``JSONEncoder.encode()`` makes an encoder for each call."""
    slow = json.JSONEncoder(ensure_ascii=False)
    try:
        chunks: Any = json.encoder.c_make_encoder(  # type: ignore[attr-defined]  # not in its stub
            None,  # there are no cycles in what has been looked at
            slow.default,
            json.encoder.encode_basestring,
            None,
            slow.key_separator,
            slow.item_separator,
            slow.sort_keys,
            slow.skipkeys,
            slow.allow_nan,
        )
        if "".join(chunks({"a": [1, "é"]}, 0)) != '{"a": [1, "é"]}':
            return slow.encode
    except (AttributeError, TypeError):  # another Python has another one
        return slow.encode
    return lambda attributes: "".join(chunks(attributes, 0))


_encode = _make_encode()


class StateError(ValueError):
    """State that JSON cannot hold, or would silently change."""

    sqlstate = "22032"  # invalid_json_text
    hint = (
        "State is kept as JSON: None, bool, int, float, str, list, and dict with str keys, "
        "and nothing derived from these."
    )


def _shown(value: object) -> str:
    """A short repr, whatever it takes."""
    try:
        return reprlib.repr(value)
    except Exception:
        return "..."


def _describe_key(key: object) -> str:
    kind = type(key).__name__
    return f"dict key {_shown(key)} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _string_problem(value: str) -> str | None:
    if "\0" in value:
        return "str contains a NUL character, which PostgreSQL cannot store"
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:
        return "str contains half of a surrogate pair, which PostgreSQL cannot store"
    return None


def _float_problem(value: float) -> str | None:
    if -_MAX_FLOAT < value < _MAX_FLOAT:
        return None
    if value - value != 0:
        return f"{value} is not a number that JSON knows"
    return f"float {value} would come back as an int"


def _problem(value: Any) -> tuple[str, str] | None:
    """Where below a value is something that JSON would change, and what; None is good."""
    kind = type(value)
    if kind is str:
        problem = _string_problem(value)
    elif kind is int:
        problem = "int has too many digits" if value.bit_length() > _MAX_INT_BITS else None
    elif kind is bool or value is None:
        return None
    elif kind is float:
        problem = _float_problem(value)
    elif kind is list:
        for i, item in enumerate(value):
            found = _problem(item)
            if found is not None:
                return f"[{i}]{found[0]}", found[1]
        return None
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return "", _describe_key(key)
            problem = _string_problem(key)
            if problem is not None:
                return "", f"dict key {_shown(key)}: {problem}"
            found = _problem(item)
            if found is not None:
                return f"[{_shown(key)}]{found[0]}", found[1]
        return None
    else:
        name = (
            kind.__qualname__
            if kind.__module__ == "builtins"
            else f"{kind.__module__}.{kind.__qualname__}"
        )
        problem = f"value is of type {name}"
    return None if problem is None else ("", problem)


def dump_state(attributes: Mapping[str, object], owner: str) -> str:
    """The attributes of an object as JSON.

    Args:
        attributes: The attributes.
        owner: What the object is called in an error.

    Raises:
        StateError: JSON would change one of them; the error names it.
    """
    for name, value in attributes.items():
        if (
            type(value) is int
            and -_MAX_PLAIN < value < _MAX_PLAIN
            and type(name) is str
            and name.isascii()
            and name.isidentifier()
        ):
            continue  # most are so
        if type(name) is not str:
            raise StateError(f"attribute {_shown(name)} of {owner}: {_describe_key(name)}")
        try:
            found = _problem(value)
        except RecursionError:
            found = "", "value is nested too deeply, or contains itself"
        if found is None and _string_problem(name) is not None:
            found = "", f"its name: {_string_problem(name)}"
        if found is not None:
            raise StateError(f'attribute "{name}{found[0]}" of {owner}: {found[1]}')
    return _encode(attributes)


def load_state(state: str) -> dict[str, Any]:
    """The attributes that a state holds.

    Raises:
        StateError: The state is not a JSON object.
    """
    attributes = json.loads(state)
    if type(attributes) is not dict:
        raise StateError(
            f"the state of a Python actor must be a JSON object, not {state[:60]}",
        )
    return attributes


# ---------- classes ----------


def _evaluated(annotation: object, function: Callable[..., Any]) -> object:
    """What a string annotation means; the string when it means nothing here."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(function, "__globals__", {}))
    except Exception:
        return {"int": int, "UUID": UUID, "uuid.UUID": UUID}.get(annotation, annotation)


def key_converter(cls: type[Any]) -> Callable[[str], Any]:
    """What makes of an actor's key the argument that ``__init__`` wants.

    Raises:
        TypeError: ``__init__`` does not take exactly a key.
    """
    try:
        signature = inspect.signature(cls.__init__)
    except ValueError:  # written in C
        return str
    try:
        signature.bind(None, "key")
    except TypeError as error:
        raise TypeError(
            f"{cls.__qualname__}.__init__ must take the actor's key and nothing else: {error}"
        ) from None
    positional = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) < 2:
        return str
    wanted = _evaluated(positional[1].annotation, inspect.unwrap(cls.__init__))
    return wanted if wanted in (int, UUID) else str


def receiver_of(cls: type[Any]) -> Any:
    """What reads the messages of a class that takes typed ones; None for another class.

    Raises:
        TypeError: Its handlers are not as they should be.
        ImportError: It takes typed messages, and there is no package djactor, which reads them.
    """
    try:
        from djactor import messages
    except ImportError:
        handle = inspect.unwrap(getattr(cls, "handle_message", check_class))
        for hint in inspect.get_annotations(handle).values():
            kind = _evaluated(hint, handle)
            if hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__pydantic_validator__"):
                raise ImportError(
                    f"{cls.__qualname__} takes typed messages: these need the package djactor,"
                    " whose directory is not among those of djactor_python.path"
                ) from None
        return None
    return messages.receiver_of(cls)


def check_class(cls: object) -> None:
    """Check that something can be the class of an actor.

    Raises:
        TypeError: It is no class, has ``__slots__``, or its ``__init__`` does not take a key.
        AttributeError: It has no ``handle_message``, nor a method with ``@djactor.handles``.
    """
    if not isinstance(cls, type):
        raise TypeError(f"it is of type {type(cls).__qualname__}, not a class")
    if not callable(getattr(cls, "handle_message", None)) and receiver_of(cls) is None:
        raise AttributeError(f"class {cls.__qualname__} has no method handle_message")
    slots = {
        slot
        for base in cls.__mro__
        for slot in (
            [base.__dict__["__slots__"]]
            if isinstance(base.__dict__.get("__slots__"), str)
            else base.__dict__.get("__slots__", ())
        )
    } - {"__dict__", "__weakref__"}
    if slots or cls.__dictoffset__ == 0:
        raise TypeError(
            f"class {cls.__qualname__} uses __slots__, but an actor's state is its __dict__"
        )
    key_converter(cls)


@dataclass(frozen=True)
class _Actor:
    """A class, and how to call it."""

    cls: type[Any]
    name: str
    convert: Callable[[str], Any]
    receiver: Any = None

    def handle(self, obj: Any, message: Any) -> Any:
        """What the handler of an object returns for a message."""
        if self.receiver is None:
            return obj.handle_message(message)
        return self.receiver.handle(obj, message)

    def create(self, key: str, attributes: dict[str, Any]) -> Any:
        """A new object: the attributes of initial_state, then ``__init__``.

        Raises:
            ValueError: The key is not of the type that ``__init__`` takes.
        """
        obj = self.restore(attributes)
        if self.cls.__init__ is not object.__init__:
            try:
                argument = self.convert(key)
            except ValueError as error:
                raise ValueError(
                    f"the key {_shown(key)} is not the {self.convert.__name__} "
                    f"that {self.name}.__init__ takes: {error}"
                ) from None
            obj.__init__(argument)
        return obj

    def restore(self, attributes: dict[str, Any]) -> Any:
        """An object as it was at the end of its last turn."""
        obj = self.cls.__new__(self.cls)  # type: ignore[call-overload]  # it takes cls for type
        obj.__dict__ = attributes
        return obj


_actors: dict[str, _Actor] = {}
_directories: list[str] = []  # what djactor_python.path has put on sys.path


def _look_where_told() -> None:
    """Bring sys.path up to date with the setting djactor_python.path."""
    row = plpy.execute("SELECT pg_catalog.current_setting('djactor_python.path', true) AS path")[0]
    wanted = [d.strip() for d in re.split(f"[,{os.pathsep}]", row["path"] or "")]
    for directory in _directories:
        if directory in sys.path:
            sys.path.remove(directory)
    _directories[:] = [d for d in dict.fromkeys(wanted) if d and d not in sys.path]
    sys.path.extend(_directories)
    importlib.invalidate_caches()


def _load(path: str) -> _Actor:
    """The class of that dotted path, imported once for a session.

    Raises:
        ValueError: The path is not of the form ``package.module.Class``.
        ImportError: There is no such module.
        AttributeError: There is no such class, or it cannot be that of an actor.
        TypeError: The class cannot be that of an actor.
    """
    actor = _actors.get(path)
    if actor is None:
        _look_where_told()
        module, _, name = path.rpartition(".")
        if not module or not all(part.isidentifier() for part in path.split(".")):
            raise ValueError(f'"{path}" is not of the form package.module.Class')
        cls = getattr(importlib.import_module(module), name)
        check_class(cls)
        actor = _Actor(cls, cls.__name__, key_converter(cls), receiver_of(cls))
        _actors[path] = actor
    return actor


def _import_hint(path: str) -> str:
    searched = ", ".join(_directories) or "none"
    hint = (
        f"Directories named by djactor_python.path: {searched}. "
        "They and the files in them must be readable for the server's operating system user."
    )
    if path.rpartition(".")[0] in sys.modules:
        hint += (
            " This session had loaded the module before: if its file has changed since, "
            "call djactor.reload(), and connect anew."
        )
    return hint


# ---------- errors ----------


def _clean(text: str) -> str:
    return text.replace("\0", "").encode(errors="backslashreplace").decode()


def _words(error: BaseException) -> str:
    """What an exception says, if it can."""
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


def _said(error: BaseException, name: str) -> str | None:
    """An attribute of an exception, if it is text: other libraries use the names, too."""
    try:
        value = getattr(error, name, None)
    except Exception:
        return None
    return value if isinstance(value, str) else None


def _sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE that an exception carries."""
    spidata = getattr(error, "spidata", None)
    if spidata:
        return "".join(chr((spidata[0] >> 6 * i & 0x3F) + ord("0")) for i in range(5))
    sqlstate = _said(error, "sqlstate")
    return sqlstate if sqlstate and re.fullmatch("[0-9A-Z]{5}", sqlstate) else None


_HOSTING = str(Path(__file__).parent / "djactor" / "hosting")


def _keep_frames_of_users(trace: traceback.TracebackException) -> bool:
    """Drop our own frames and those of the import system; False if no other is left."""
    trace.stack[:] = [
        frame
        for frame in trace.stack
        if frame.filename not in (__file__, importlib.__file__)
        and not frame.filename.startswith(("<frozen importlib", _HOSTING))
    ]
    found = bool(trace.stack)
    earlier = trace.__cause__ or (None if trace.__suppress_context__ else trace.__context__)
    if earlier is not None:
        found |= _keep_frames_of_users(earlier)
    return found


def _traceback(error: BaseException) -> str | None:
    """The traceback as Python prints it; None when it would not show users' code."""
    trace = traceback.TracebackException(
        type(error), error, error.__traceback__, limit=-_MAX_FRAMES
    )
    if not _keep_frames_of_users(trace):
        return None
    text = "".join(trace.format()).rstrip()
    return text if len(text) <= _MAX_TRACEBACK else "..." + text[-_MAX_TRACEBACK:]


def _report(
    error: BaseException,
    *,
    message: str | None = None,
    sqlstate: str | None = None,
    hint: str | None = None,
) -> BaseException:
    """The exception that PL/Python shall turn into the server's error.

    It is a plpy.Error for its attributes, but goes by the name of the original:
    PL/Python puts that before the message.
    """
    spidata = getattr(error, "spidata", None) or (None,) * 3
    sqlstate = sqlstate or _sqlstate(error) or "38000"
    name, module = type(error).__name__, _clean(str(type(error).__module__))
    details = [spidata[1] or _said(error, "detail")]
    if sqlstate == _REJECTED:
        name, module = "rejected", "builtins"
    else:
        details.append(_traceback(error))
    if message is not None:
        name, module = "djactor", "builtins"
    report: Any = type(name, (plpy.Error,), {"__module__": module})(
        _clean(_words(error) if message is None else message)
    )
    report.sqlstate = sqlstate
    report.detail = _clean("\n".join(d for d in details if d)) or None
    report.hint = _clean(hint or spidata[2] or _said(error, "hint") or "") or None
    made: BaseException = report
    return made


# ---------- the database ----------


@functools.cache
def _encoding() -> str:
    return str(plpy.execute("SELECT pg_catalog.getdatabaseencoding() AS name")[0]["name"])


def _wrong_encoding() -> BaseException | None:
    """What is wrong with the database's encoding, if anything.

    PL/Python takes the texts of queries and of errors for UTF-8.  Elsewhere it writes other
    characters than it was told, without a word, and a failed query may crash the server.
    """
    if _encoding() in _ENCODINGS:
        return None
    return _report(
        RuntimeError(),
        message=f"Python actors cannot run in a database whose encoding is {_encoding()}",
        sqlstate="0A000",
        hint="Use a database whose encoding is UTF8: PL/Python takes the texts of queries and"
        " errors for UTF-8.",
    )


@functools.cache
def _plan(sql: str, *types: str) -> Any:
    """A saved plan; the types are the server's own, whatever the search_path says."""
    return plpy.prepare(sql, [f"pg_catalog.{name}" for name in types])


def _row(sql: str, types: str = "", *values: object) -> Any:
    """The row that a query returns."""
    return _plan(sql, *types.split(", ") if types else ()).execute(list(values))[0]


def _encoded(value: object) -> Any:
    """A typed message as what JSON can hold; everything else as it is."""
    if hasattr(value, "__dataclass_fields__") or hasattr(value, "__pydantic_validator__"):
        from djactor import messages

        return messages.encode(value)
    return value


def _json(value: object, what: str) -> str:
    try:
        if not isinstance(value, dict):
            value = _encoded(value)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"{what} is not JSON: {error}") from None
    problem = _string_problem(text)
    if problem is not None:
        raise ValueError(f"{what} is not JSON: {problem}")
    return text


def _when(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError("a time must know its time zone")
    return value.isoformat()


def _span(value: timedelta | float | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        value = timedelta(seconds=value)
    return f"{value // timedelta(microseconds=1)} microseconds"


def _period(value: timedelta | float | str | None) -> str | None:
    """Like psycopg: the days of a timedelta are those of the calendar."""
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    return value if isinstance(value, str) else _span(value)


# ---------- for handlers ----------


def _turn_of_host() -> Any:
    """The turn of a host that runs here; None if there is none."""
    try:
        from djactor.hosting.context import turn_or_none
    except ImportError:
        return None
    return turn_or_none()


def _hosted(name: str) -> Any:
    """What the turn of a host, outside of the server, has of that name.

    Raises:
        RuntimeError: No turn runs here.
    """
    turn = _turn_of_host()
    if turn is None:
        raise RuntimeError(
            f"{name}() works inside a turn, in PostgreSQL or in a host."
            " Outside, use djactor.actor()."
        )
    return getattr(turn, name)


@dataclass(frozen=True)
class Current:
    """The turn that is running: its actor and its message."""

    actor_type: str
    key: str
    turns: int
    """Turns of the actor before this one."""
    message_id: int
    kind: str
    """user, reply, error, timer or down."""
    meta: dict[str, Any] | None
    """What djactor says of a message that it has made itself."""
    headers: dict[str, Any] | None
    trace_id: UUID
    priority: int
    attempts: int
    """Failed attempts at this message."""
    wants_reply: bool
    in_reply_to: int | None
    sender_type: str | None
    sender_key: str | None
    cause_id: int | None
    sent_at: datetime


def current() -> Current | None:
    """The turn that is running; None outside of turns."""
    if plpy is None:
        hosted: Current | None = _turn_of_host()  # it has the same attributes
        return hosted
    row = _row(
        "SELECT s.actor_type, s.actor_key AS key, s.turns, m.id AS message_id, m.kind, m.meta,"
        " m.headers, m.trace_id, m.priority, m.attempts, m.wants_reply, m.in_reply_to,"
        " m.sender_type, m.sender_key, m.cause_id,"
        " EXTRACT(epoch FROM m.sent_at)::pg_catalog.float8 AS sent_at"
        " FROM djactor.self() AS s, djactor.message() AS m"
    )
    if row["message_id"] is None:
        return None
    return Current(
        **{
            **row,
            "meta": row["meta"] and json.loads(row["meta"]),
            "headers": row["headers"] and json.loads(row["headers"]),
            "trace_id": UUID(row["trace_id"]),
            "sent_at": datetime.fromtimestamp(row["sent_at"], timezone.utc),
        }
    )


def send(
    actor_type: str | type[Handles[M_contra]],
    key: str | int | UUID,
    payload: M_contra | None = None,
    *,
    priority: int = 0,
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
    idempotency_key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    wants_reply: bool = False,
    coalesce_key: str | None = None,
    coalesce_mode: Literal["keep", "replace", "debounce"] | None = None,
    debounce: timedelta | None = None,
    debounce_limit: timedelta | None = None,
) -> int:
    """Send a message, with this turn's commit.

    Args:
        actor_type: The type of the actor that gets it: its name, or its registered class.
        key: The key of that actor, of 1 to 512 bytes as text.
        payload: What JSON can hold (``{}`` if None), or a typed message.
        priority: Of the messages that are due, an actor handles the one with the highest first.
        deliver_at: When the message is due, with a time zone (default: now).
        expires_at: From when on it is no longer handled, with a time zone (default: never).
        idempotency_key: A second message to the same actor with this key is not handled.
        headers: What goes on to everything that its turn sends (default: the headers of the message
            being handled).
        wants_reply: Whether the reply comes back to this actor, as a message.
        coalesce_key: Waiting messages to the same actor with this key are merged into one.
        coalesce_mode: ``"replace"`` (the default) takes the place of those that wait, ``"keep"``
            gives way to them.
        debounce: The message is handled when none with its ``coalesce_key`` has come for that long.
        debounce_limit: How long others put it off, at most.

    Returns:
        The id of the message; None in an async turn of a host, which sends it when it ends.

    Raises:
        TypeError: For a payload or headers that JSON cannot hold, and for a payload that the class
            does not take.
        ValueError: For NaN or an infinity in these, and for a time without a zone.
        LookupError: The class is not registered, or under several names.
        plpy.Error: What the server refuses, such as an actor type that nobody has defined.
    """
    if plpy is None:
        return _hosted("send")(  # type: ignore[no-any-return]
            actor_type,
            key,
            payload,
            priority=priority,
            deliver_at=deliver_at,
            expires_at=expires_at,
            idempotency_key=idempotency_key,
            headers=headers,
            wants_reply=wants_reply,
            coalesce_key=coalesce_key,
            coalesce_mode=coalesce_mode,
            debounce=debounce,
            debounce_limit=debounce_limit,
        )
    name: object = actor_type
    value: object = payload
    if not isinstance(actor_type, str):
        from djactor import messages

        name, value = messages.addressed(actor_type, payload)
    row = _row(
        "SELECT djactor.send($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS id",
        "text, text, jsonb, int4, timestamptz, timestamptz, text, jsonb, bool, text, text,"
        " interval, interval",
        name,
        str(key),
        _json({} if value is None else value, "payload"),
        priority,
        _when(deliver_at),
        _when(expires_at),
        idempotency_key,
        None if headers is None else _json(headers, "headers"),
        wants_reply,
        coalesce_key,
        coalesce_mode,
        _span(debounce),
        _span(debounce_limit),
    )
    return int(row["id"])


def reply(payload: object, message_id: int | None = None) -> None:
    """Answer a message.

    Args:
        payload: The answer: what JSON can hold.
        message_id: An earlier message, whose reply was deferred (default: the message being
            handled).

    Raises:
        TypeError: For an answer that JSON cannot hold.
        ValueError: For NaN or an infinity in it.
    """
    if plpy is None:
        _hosted("reply")(payload, message_id)
        return
    _row("SELECT djactor.reply($1, $2)", "jsonb, int8", _json(payload, "reply"), message_id)


def set_timer(
    name: str,
    after: timedelta | float | None = None,
    payload: object = None,
    *,
    every: timedelta | float | str | None = None,
    at: datetime | None = None,
    cron: str | None = None,
    time_zone: ZoneInfo | str | None = None,
    catch_up: Literal["once", "skip"] = "once",
) -> None:
    """Set a timer of this actor, or replace the one of that name.

    Args:
        name: The timer's name.
        after: Fire that long after now: a timedelta, or seconds.
        payload: What JSON can hold (``{}`` if None).
        every: The period: a timedelta, seconds, or the text of an interval, such as ``"1 mon"``,
            which no timedelta is.
        at: Fire at that time, which has a time zone.
        cron: Five fields, or ``@daily`` and the like, instead of the three above.
        time_zone: Time zone of ``every`` and ``cron`` (default: that of the actor type).
        catch_up: ``"once"`` makes one firing of those that were missed, ``"skip"`` none.

    Raises:
        TypeError: For a payload that JSON cannot hold.
        ValueError: For NaN or an infinity in it, and for a time without a zone.
        plpy.Error: The server refuses the rule.
    """
    if plpy is None:
        _hosted("set_timer")(
            name,
            after,
            payload,
            every=every,
            at=at,
            cron=cron,
            time_zone=time_zone,
            catch_up=catch_up,
        )
        return
    _row(
        "SELECT djactor.set_timer($1, $2, $3, $4, $5, $6, $7, $8)",
        "text, interval, jsonb, interval, timestamptz, text, text, text",
        name,
        _span(after),
        _json({} if payload is None else payload, "payload"),
        _period(every),
        _when(at),
        cron,
        None if time_zone is None else str(time_zone),
        catch_up,
    )


def cancel_timer(name: str) -> bool:
    """Cancel a timer of this actor; False when there was none (None in an async turn of a host)."""
    if plpy is None:
        return _hosted("cancel_timer")(name)  # type: ignore[no-any-return]
    return bool(_row("SELECT djactor.cancel_timer($1) AS found", "text", name)["found"])


def progress(value: object) -> None:
    """Say how far the turn is; others see it at once, until the turn ends.

    Args:
        value: What JSON can hold, in 1,024 bytes at most.
    """
    if plpy is None:
        _hosted("progress")(value)
        return
    _row("SELECT djactor.progress($1)", "jsonb", _json(value, "progress"))


def stop(discard: bool = False) -> None:
    """Remove this actor at the end of the turn.

    Args:
        discard: Whether its waiting mail goes to dead_letter; if not, a fresh actor gets it.
    """
    if plpy is None:
        _hosted("stop")(discard)
        return
    _row("SELECT djactor.stop($1)", "bool", discard)


def reject(reason: str) -> NoReturn:
    """End the turn: the message goes to dead_letter at once.

    Raises:
        plpy.Error: Always, with SQLSTATE JA003.
    """
    if plpy is None:
        _hosted("reject")(reason)
    _row("SELECT djactor.reject($1)", "text", None if reason is None else _clean(str(reason)))
    raise AssertionError("djactor.reject() has returned")


# ---------- what the SQL functions call ----------


def _turn(state: str, message: str) -> tuple[str | None, str | None] | BaseException:
    wrong = _wrong_encoding()
    if wrong is not None:
        return wrong
    row = _row(
        "SELECT s.actor_type, s.actor_key, s.turns, p.class"
        " FROM djactor.self() AS s LEFT JOIN djactor.python_actor AS p"
        " ON p.name OPERATOR(pg_catalog.=) s.actor_type AND p.owner OPERATOR(pg_catalog.=)"
        " (pg_catalog.quote_ident(SESSION_USER::pg_catalog.text))::pg_catalog.regrole"
    )
    if row["actor_type"] is None:
        return _report(
            RuntimeError(),
            message="djactor.handle_python() is called outside a turn",
            sqlstate="55000",
        )
    path = row["class"]
    if path is None:
        return _report(
            LookupError(),
            message=f'actor type "{row["actor_type"]}" has no Python class for its owner',
            hint="Define it with djactor.define_python_actor().",
        )
    try:
        actor = _load(path)
    except Exception as error:
        return _report(
            error,
            message=f'class {path} of actor type "{row["actor_type"]}" cannot be used: '
            f"{type(error).__name__}: {_words(error)}",
            sqlstate="38000",
            hint=_import_hint(path),
        )

    attributes = load_state(state)
    if row["turns"] == 0:
        obj = actor.create(row["actor_key"], attributes)
    else:
        obj = actor.restore(attributes)
    answer = actor.handle(obj, json.loads(message))
    if answer is not None and not isinstance(answer, dict):
        answer = _encoded(answer)
    if answer is not None and not isinstance(answer, dict):
        raise TypeError(
            f"{actor.name}.handle_message must return a dict, which is the reply, or None; "
            f"it returned a value of type {type(answer).__qualname__}"
        )
    new_state = dump_state(obj.__dict__, actor.name)
    return (
        None if new_state == state else new_state,
        None if answer is None else _json(answer, f"reply of {actor.name}"),
    )


def handle(state: str, message: str) -> tuple[str | None, str | None] | BaseException:
    """One turn.

    Args:
        state: The actor's state, as JSON.
        message: The message's payload, as JSON.

    Returns:
        The new state (None: unchanged) and the reply, as JSON, or what went wrong.
    """
    try:
        return _turn(state, message)
    except plpy.Fatal:
        raise
    except BaseException as error:
        return _report(error)


_DEFINE_TYPES = (
    "text, text, jsonb, int4, text, int4, interval, interval, text, text, interval, int4, int4,"
    " int4, text, int4, interval, interval, regrole, jsonb, interval, interval"
)


def _define(arguments: list[Any]) -> None:
    name, path, *options = arguments
    owner = options[-4]
    for role in _plan(
        "SELECT pg_catalog.quote_ident(rolname) AS name FROM pg_catalog.pg_roles"
        " WHERE oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid",
        "regrole",
    ).execute([owner]):
        plpy.execute(
            "GRANT EXECUTE ON FUNCTION djactor.python_directory(),"
            f" djactor.handle_python(pg_catalog.jsonb, pg_catalog.jsonb) TO {role['name']}"
        )
        plpy.execute(f"GRANT SELECT ON djactor.python_actor TO {role['name']}")
    _row(
        "SELECT djactor.define_actor_type("
        + ", ".join(f"${i}" for i in range(1, len(arguments) - 1))
        + f", idle_ttl => ${len(arguments) - 1}, wait_target => ${len(arguments)})",
        _DEFINE_TYPES,
        name,
        "djactor.handle_python(jsonb,jsonb)",
        *options,
    )
    _plan(
        "INSERT INTO djactor.python_actor (name, class, owner) VALUES ($1, $2, $3)"
        " ON CONFLICT (name) DO UPDATE SET class = excluded.class, owner = excluded.owner",
        "text",
        "text",
        "regrole",
    ).execute([name, path, owner])
    plpy.execute(
        "DELETE FROM djactor.python_actor AS p WHERE NOT EXISTS (SELECT FROM djactor.actor_type"
        " AS t WHERE t.name OPERATOR(pg_catalog.=) p.name)"
    )
    # Workers that have loaded an earlier version of the module would not find the class
    _row("SELECT djactor.reload()")


def define(arguments: list[Any]) -> BaseException | None:
    """Define an actor type for a class.

    Args:
        arguments: Those of ``djactor.define_python_actor()``, in its order.

    Returns:
        What is wrong, if anything.
    """
    wrong = _wrong_encoding()
    if wrong is not None:
        return wrong
    path = arguments[1]
    if path is None:
        return _report(ValueError(), message="class must not be null", sqlstate="22004")
    try:
        _actors.pop(path, None)
        _load(path)
    except Exception as error:
        missing = isinstance(error, ImportError | AttributeError)
        return _report(
            error,
            message=f"class {path} cannot be used: {type(error).__name__}: {_words(error)}",
            sqlstate="42883" if missing else "42P13",
            hint=_import_hint(path),
        )
    try:
        _define(arguments)
    except Exception as error:
        return _report(error)
    return None
