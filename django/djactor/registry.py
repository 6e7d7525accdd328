"""Classes that are registered as actor types: ``djactor.register()``, in ``actors.py`` of an app.

    @djactor.register("shop.order", hosted=True, max_attempts=3)
    class Order:
        def __init__(self, number: int): ...

        def handle_message(self, message: dict): ...

A type whose handler is a function of the database is declared beside them, with the file that
creates the function: ``djactor.register_sql()``.

The app imports ``actors.py`` of every installed app at its start, as Django does with ``admin.py``;
``migrate`` then defines what is registered (``djactor.declared``).

PostgreSQL imports the same files when a class runs inside of it.  There need be no Django there, so
this module needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from djactor import messages

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from djactor.options import TypeOptions

_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class HostedType:
    """A class that is registered as an actor type.

    Attributes:
        name: The name of the type.
        cls: The class.
        hosted: Whether its turns run in processes of Django (``djactor_worker``); if not, they run
            inside PostgreSQL, by the extension ``djactor_python``.
        options: Those of ``define_actor_type`` that the code names; all others are left alone.
    """

    name: str
    cls: type[Any]
    hosted: bool
    options: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The dotted path of the class, which is the handler of the type."""
        return dotted_path(self.cls)


@dataclass(frozen=True)
class SqlType:
    """An actor type whose handler is a function of the database.

    Attributes:
        name: The name of the type.
        handler: The function, as ``define_actor_type`` wants it.
        sql: The file that creates the function, relative to the directory of the app; None for a
            function that something else creates.
        module: The module that has registered it, which is one of the app.
        options: As those of ``HostedType``.
    """

    name: str
    handler: str
    sql: str | None
    module: str
    options: Mapping[str, Any]

    hosted = False

    @property
    def path(self) -> str:
        """What it is called in errors."""
        return f"{self.handler} of {self.module}"


@dataclass(frozen=True)
class Conflict:
    """A type that is registered for two things.

    Attributes:
        name: The name of the type.
        first: What was registered, and counts.
        second: What was registered later.
    """

    name: str
    first: str
    second: str

    def __str__(self) -> str:
        return (
            f"the actor type {self.name!r} is registered for {self.first} already, and again for"
            f" {self.second}"
        )


_types: dict[str, HostedType] = {}
_sql_types: dict[str, SqlType] = {}
_conflicts: list[Conflict] = []
_collecting = False


@overload
def register(
    cls: _Class, name: str, *, hosted: bool = False, **options: Unpack[TypeOptions]
) -> _Class: ...


@overload
def register(
    cls: str, *, hosted: bool = False, **options: Unpack[TypeOptions]
) -> Callable[[_Class], _Class]: ...


def register(cls: Any, name: str | None = None, *, hosted: bool = False, **options: Any) -> Any:
    """Declare that a class is the one of an actor type.

    ``register(Order, "shop.order")`` does it; ``@register("shop.order")`` does it for the class
    that follows.

    Args:
        cls: The class, or, as a decorator, the name of the type.
        name: The name of the type; ``app_label.name`` by convention.
        hosted: Whether turns run in processes of Django, those of ``manage.py djactor_worker``; if
            not, they run inside PostgreSQL, which needs the extension ``djactor_python``.
        **options: Options of the type: see ``TypeOptions``.  One that is left out keeps the value
            that it has in the database.

    Returns:
        The class; as a decorator, what takes it.

    Raises:
        TypeError: The class is none, or the name is no text, or there is no such option.
        ValueError: Another class has that name.
    """
    if name is None:
        if not isinstance(cls, str):
            raise TypeError(f'register(cls, "app.name") or @register("app.name"), not {cls!r}')
        type_name = cls
        return lambda decorated: register(decorated, type_name, hosted=hosted, **options)
    if not isinstance(cls, type):
        raise TypeError(f"an actor's class is registered, not {cls!r}")
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of an actor type is a text, not {name!r}")
    _check_options(name, options)
    found = HostedType(name, cls, bool(hosted), MappingProxyType(dict(options)))
    if _is_new(name, found.path):
        _types[name] = found
    return cls


def register_sql(
    name: str,
    handler: str,
    *,
    sql: str | None = None,
    module: str | None = None,
    **options: Unpack[TypeOptions],
) -> None:
    """Declare an actor type whose handler is a function of the database.

    Args:
        name: The name of the type; ``app_label.name`` by convention.
        handler: The function, as ``define_actor_type`` wants it.
        sql: The file that creates the function, relative to the directory of the app.  It says
            CREATE OR REPLACE, and is run whenever it has changed.  None: something else creates
            the function, such as a migration.
        module: A module of the app (default: the caller's).
        **options: Options of the type: see ``TypeOptions``.  One that is left out keeps the value
            that it has in the database.

    Raises:
        TypeError: The name, the handler or the file is no text, or there is no such option.
        ValueError: The name is registered for something else.
    """
    if module is None:
        module = str(sys._getframe(1).f_globals.get("__name__", "__main__"))
    for what, value in ("name of an actor type", name), ("handler", handler):
        if not isinstance(value, str) or not value:
            raise TypeError(f"the {what} is a text, not {value!r}")
    if sql is not None and (not isinstance(sql, str) or not sql):
        raise TypeError(f"the handler file of the actor type {name!r} is a text, not {sql!r}")
    _check_options(name, options)
    found = SqlType(name, handler, sql, module, MappingProxyType(dict(options)))
    if _is_new(name, found.path):
        _sql_types[name] = found


def _is_new(name: str, path: str) -> bool:
    """Whether a type may be registered; the same path again may, its module was loaded afresh.

    Raises:
        ValueError: It is registered for something else.
    """
    before = _types.get(name) or _sql_types.get(name)
    if before is None or before.path == path:
        return True
    conflict = Conflict(name, before.path, path)
    if not _collecting:
        raise ValueError(str(conflict))
    _conflicts.append(conflict)
    return False


@contextlib.contextmanager
def collecting_conflicts() -> Iterator[None]:
    """Have ``conflicts()`` tell what is registered twice, instead of an exception in the block."""
    global _collecting
    before, _collecting = _collecting, True
    try:
        yield
    finally:
        _collecting = before


def conflicts() -> list[Conflict]:
    """The types that apps have registered twice; the first registration counts."""
    return list(_conflicts)


def registered() -> Mapping[str, HostedType]:
    """The classes that are registered, by name, in the order of registration."""
    return MappingProxyType(_types)


def name_of(cls: type[Any]) -> str:
    """The name of the actor type that a class is registered as.

    Raises:
        LookupError: It is not registered, or under several names.
    """
    found = [one.name for one in _types.values() if one.cls is cls]
    if not found and isinstance(cls, type):  # its module may have been loaded afresh
        path = dotted_path(cls)
        found = [one.name for one in _types.values() if one.path == path]
    if len(found) == 1:
        return found[0]
    what = dotted_path(cls) if isinstance(cls, type) else repr(cls)
    if not found:
        raise LookupError(
            f"{what} is not registered as an actor type: register it in actors.py of an app, or"
            " name the type"
        )
    raise LookupError(f"{what} is registered as {' and as '.join(found)}: name the one you mean")


def registered_sql() -> Mapping[str, SqlType]:
    """The types with a handler of the database that are registered, by name."""
    return MappingProxyType(_sql_types)


def is_registered(name: str) -> bool:
    """Whether a type is registered, whatever runs it."""
    return name in _types or name in _sql_types


def unregister(name: str) -> HostedType | SqlType | None:
    """Forget a type: for tests.  The database keeps it.

    Returns:
        What was registered.
    """
    return _types.pop(name, None) or _sql_types.pop(name, None)


def resolve(name: str, handler: str | None) -> type[Any]:
    """The class of an actor type.

    Args:
        name: The name of the type.
        handler: The dotted path of the class, as ``djactor.actor_type`` has it, for a type that
            is not registered.

    Raises:
        ImportError: There is no such class, or it cannot be imported; ``__cause__`` says why.
        TypeError: The class cannot be that of an actor.
    """
    known = _types.get(name)
    if known is not None:
        cls: Any = known.cls
    elif handler is None:
        raise ImportError(
            f"the actor type {name!r} is not registered, and the database names no class for it"
        )
    else:
        cls = _import(name, handler)
    wrong = wrong_with(cls)
    if wrong is not None:
        raise TypeError(f"the class of the actor type {name!r} cannot be used: {wrong}")
    found: type[Any] = cls
    return found


def dotted_path(cls: type[Any]) -> str:
    """``package.module.Class``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def wrong_with(cls: object) -> str | None:
    """Why something cannot be the class of an actor; None if it can.

    What ``djactor_python`` refuses is refused here, too.
    """
    if not isinstance(cls, type):
        return f"it is a {type(cls).__name__}, not a class"
    path = dotted_path(cls)
    handle = inspect.getattr_static(cls, "handle_message", None)
    if not callable(getattr(cls, "handle_message", None)) and not messages.has_handlers(cls):
        return f"{path} has no method handle_message()"
    if inspect.isfunction(handle) and not _takes(handle, _SELF, {}):
        return f"{path}.handle_message() does not take a message and nothing else"
    init: Any = inspect.getattr_static(cls, "__init__")
    if init is not object.__init__ and not _takes(init, _SELF, "key"):
        return f"{path}.__init__() does not take the actor's key and nothing else"
    if cls.__dictoffset__ == 0 or _slots(cls):
        return f"{path} uses __slots__, and an actor's state is its __dict__"
    try:
        messages.receiver_of(cls)
    except TypeError as error:
        return str(error)
    return None


_SELF = object()


def _takes(function: Any, *arguments: object) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _slots(cls: type[Any]) -> set[str]:
    found: set[str] = set()
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        found.update([slots] if isinstance(slots, str) else slots)
    return found - {"__dict__", "__weakref__"}


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """What operations of migrations would say about the options, at the same early time.

    Raises:
        TypeError: There is no such option.
    """
    from djactor.options import TypeOptions

    unknown = sorted(options.keys() - TypeOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"the actor type {name!r}: no option is called {', '.join(unknown)}")


def _import(name: str, path: str) -> Any:
    """What a dotted path names; a class may be inside another one.

    Raises:
        ImportError: Nothing, or it cannot be imported.
    """
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # The module itself, or a package that it would be in: the class may be deeper.
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                continue
            raise _cannot(name, path, f"{module} cannot be imported: {error}") from error
        except Exception as error:
            kind = type(error).__name__
            raise _cannot(name, path, f"{module} cannot be imported: {kind}: {error}") from error
        return _within(found, parts[length:], name, path)
    raise _cannot(name, path, f"there is no module {'.'.join(parts[:-1]) or path}")


def _within(module: ModuleType, names: list[str], name: str, path: str) -> Any:
    found: Any = module
    for part in names:
        try:
            found = getattr(found, part)
        except AttributeError as error:
            file = getattr(sys.modules.get(module.__name__), "__file__", None)
            where = f"{module.__name__} ({file})" if file else module.__name__
            raise _cannot(name, path, f"{where} has no {'.'.join(names)}") from error
    return found


def _cannot(name: str, path: str, why: str) -> ImportError:
    return ImportError(f"the class {path} of the actor type {name!r} cannot be imported: {why}")
