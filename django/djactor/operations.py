"""Migration operations: the extension, kinds of actors, and schedules.

All respect database routers (``allow_migrate``, with ``hints``), do nothing on databases that
are not PostgreSQL, and show up in ``sqlmigrate``.  Going back never loses messages or
state without an explicit word in the operation.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from django.apps import apps
from django.db import IntegrityError, router, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from djactor import cluster, schedules
from djactor.exceptions import DjactorError
from djactor.fields import Interval, normalise_key
from djactor.options import Key, ScheduleOptions, ServerSetting, TypeOptions
from djactor.registry import dotted_path

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

_RATE = re.compile(r" *([0-9]+) */ *([0-9]*) *(s|min|h|hour|day) *", re.ASCII)
_UNITS = {"s": 1, "min": 60, "h": 3600, "hour": 3600, "day": 86400}  # in seconds
_JSON = {"initial_state", "settings"}
_INTERVALS = {
    "backoff",
    "backoff_max",
    "handler_timeout",
    "breaker_window",
    "journal",
    "idle_ttl",
    "wait_target",
}
_PLAIN = {
    "state_version": "int",
    "upgrade_handler": "text",
    "max_attempts": "int",
    "retry_order": "text",
    "on_exhausted": "text",
    "batch_size": "int",
    "concurrency": "int",
    "mailbox_limit": "int",
    "on_full": "text",
    "breaker_failures": "int",
    "hosted": "boolean",
    "stateless": "boolean",
    "rate": "text",
    "rate_by": "text",
    "fair_by": "text",
}
# What define_python_actor() does not take.
_NOT_IN_PYTHON = {"stateless", "rate", "rate_by", "fair_by"}
_Init = TypeVar("_Init", bound=Callable[..., None])


def _names(options: type) -> Callable[[_Init], _Init]:
    """Have a function that takes these options by ``Unpack`` show their names.

    squashmigrations writes only those arguments of an operation whose names it sees.
    """

    def show(function: _Init) -> _Init:
        signature = inspect.signature(function)
        named = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in options.__annotations__
        ]
        *own, _ = signature.parameters.values()
        function.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
        return function

    return show


class _DatabaseOperation(Operation):
    """An operation on the database alone; models are not its business."""

    reduces_to_sql = True
    atomic = True

    def __init__(self, hints: Mapping[str, Any] | None = None) -> None:
        self.hints = dict(hints or {})

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing: models stay as they are."""

    def _concerns(self, editor: BaseDatabaseSchemaEditor, app_label: str) -> bool:
        return editor.connection.vendor == "postgresql" and router.allow_migrate(
            editor.connection.alias, app_label, **self.hints
        )

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Do it, where the routers want it."""
        if self._concerns(schema_editor, app_label):
            self.forwards(app_label, schema_editor)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Undo it, where the routers want it."""
        if self._concerns(schema_editor, app_label):
            self.backwards(app_label, schema_editor)

    def forwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """What it does."""
        raise NotImplementedError

    def backwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """How it is undone."""
        raise NotImplementedError


class _Everywhere(_DatabaseOperation):
    """An operation that a cluster's nodes have in common: it is done from one, on all of them."""

    actor_key: str | None = None  # of one that concerns the node of an actor

    def _concerns(self, editor: BaseDatabaseSchemaEditor, app_label: str) -> bool:
        return super()._concerns(editor, app_label) and not cluster.defined_elsewhere(
            editor.connection.alias
        )

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Do it on all nodes, or on none."""
        editor = cluster.everywhere(schema_editor, self.actor_key)
        super().database_forwards(app_label, editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Undo it on all nodes, or on none."""
        editor = cluster.everywhere(schema_editor, self.actor_key)
        super().database_backwards(app_label, editor, from_state, to_state)


class CreateDjactor(_DatabaseOperation):
    """CREATE EXTENSION djactor, unless it is there.

    Going back drops it, with all that it holds.

    Args:
        discard: Whether messages, actors and dead letters may be lost by that.  If not, going back
            is refused with DjactorError while there are any.
        hints: For database routers.
    """

    def __init__(self, discard: bool = False, hints: Mapping[str, Any] | None = None) -> None:
        super().__init__(hints)
        self.discard = discard

    def forwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Create it."""
        create = "CREATE EXTENSION IF NOT EXISTS djactor"
        if editor.collect_sql:
            editor.execute(create)
            return
        try:
            with transaction.atomic(using=editor.connection.alias):
                editor.execute(create)
        except IntegrityError:  # another process was about to create it, and has done so
            editor.execute(create)

    def backwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Drop it, if nothing is lost by that.

        Raises:
            DjactorError: Messages, actors or dead letters would be lost, and ``discard`` is False.
        """
        if not self.discard and not editor.collect_sql:
            with editor.connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass('djactor.message') IS NULL")
                if cursor.fetchone()[0]:
                    return
                cursor.execute(
                    """
                    SELECT EXISTS (SELECT FROM djactor.message),
                        EXISTS (SELECT FROM djactor.actor),
                        EXISTS (SELECT FROM djactor.dead_letter)"""
                )
                lost = [
                    name
                    for name, exists in zip(
                        ("messages that wait", "actors", "dead letters"),
                        cursor.fetchone(),
                        strict=True,
                    )
                    if exists
                ]
            if lost:
                raise DjactorError(
                    f"dropping djactor would lose {' and '.join(lost)}."
                    " Say CreateDjactor(discard=True) in the migration if they may go."
                )
        editor.execute("DROP EXTENSION IF EXISTS djactor")

    def describe(self) -> str:
        """What is shown while migrating."""
        return "Creates the extension djactor"


class UpdateDjactor(_DatabaseOperation):
    """ALTER EXTENSION djactor UPDATE TO a version; there is no way back.

    Args:
        version: The version, such as ``"1.1"``.
        hints: For database routers.
    """

    reversible = False

    def __init__(self, version: str, hints: Mapping[str, Any] | None = None) -> None:
        super().__init__(hints)
        self.version = version

    def forwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Update it."""
        editor.execute(f"ALTER EXTENSION djactor UPDATE TO {editor.quote_value(self.version)}")

    def describe(self) -> str:
        """What is shown while migrating."""
        return f"Updates the extension djactor to {self.version}"


class DefineActorType(_Everywhere):
    """djactor.define_actor_type(): defines a kind of actor, or changes it.

    Besides the arguments below it takes the options of ``define_actor_type``, which has the
    defaults; spans of time are timedeltas.  The server refuses bad values.

    Args:
        name: The name of the type; ``app_label.name`` by convention.
        handler: The function, as ``define_actor_type`` wants it.  For a hosted type the class or
            its dotted path; None leaves it to ``djactor.register()``.
        sql: A ``.sql`` file that is run before, which creates the function; relative to the
            directory of the app.  It should say CREATE OR REPLACE.
        sql_version: Which version of that file: 2 means ``counter.2.sql`` instead of
            ``counter.sql``, as ``manage.py djactor_sql`` has kept it.  None is the file as it is
            today, so that an old migration does what it did only as long as nobody changes the
            file.
        reverse_sql: Statements that are run when going back, after the type is gone.
        previous: The definition before this one, to which going back returns; without it going
            back drops the type, which the server refuses while actors or mail exist.
        hints: For database routers.
        hosted: Whether turns run in processes of Django, those of ``manage.py djactor_worker``,
            and not inside PostgreSQL.

    Raises:
        TypeError: The handler of a type that is not hosted is a class, or None; or there is no
            such option.
    """

    function = "define_actor_type"

    @_names(TypeOptions)
    def __init__(
        self,
        name: str,
        handler: str | type | None = None,
        *,
        hosted: bool = False,
        sql: str | None = None,
        sql_version: int | None = None,
        reverse_sql: str | None = None,
        previous: DefineActorType | None = None,
        hints: Mapping[str, Any] | None = None,
        **options: Unpack[TypeOptions],
    ) -> None:
        unknown = options.keys() - TypeOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} takes no option {', '.join(sorted(unknown))}")
        super().__init__(hints)
        self.name = name
        self.hosted = hosted
        self.handler = self._class_of(handler) if hosted else self.name_of(handler)
        self.sql = sql
        self.sql_version = sql_version
        self.reverse_sql = reverse_sql
        self.previous = previous
        given: dict[str, Any] = dict(options)
        self.options = {name: given[name] for name in TypeOptions.__annotations__ if name in given}
        if hosted:  # the server's default is False, and djactor_python knows no such word
            self.options["hosted"] = True

    @staticmethod
    def name_of(handler: str | type | None) -> str:
        """The handler, as the server is told.

        Raises:
            TypeError: The handler is a class, or None.
        """
        if handler is None:
            raise TypeError("an actor type needs a handler, unless it is hosted")
        if not isinstance(handler, str):
            raise TypeError(
                "a handler is the name of a function; for a class there is hosted=True, and"
                " DefinePythonActorType"
            )
        return handler

    @staticmethod
    def _class_of(handler: str | type | None) -> str | None:
        """The class of a hosted type, as a dotted path."""
        return dotted_path(handler) if isinstance(handler, type) else handler

    @property
    def in_python(self) -> bool:
        """Whether ``djactor_python`` runs a class."""
        return not self.hosted and self.function != DefineActorType.function

    def file(self, app_label: str, version: int | None = None) -> Path:
        """The file of ``sql``: as it is today, or this version of it."""
        path = Path(apps.get_app_config(app_label).path) / str(self.sql)
        return path if version is None else path.with_name(f"{path.stem}.{version}{path.suffix}")

    def file_changed(self, app_label: str) -> bool:
        """Whether today's file is not kept as the version that is used here."""
        if self.sql is None:
            return False
        if self.sql_version is None:
            return True
        now, then = self.file(app_label), self.file(app_label, self.sql_version)
        return now.exists() and (
            not then.exists() or now.read_text("utf-8") != then.read_text("utf-8")
        )

    def with_version(self, version: int) -> DefineActorType:
        """The same definition with another version of the file, and this one as ``previous``."""
        _, args, kwargs = self.deconstruct()
        options = {name: value for name, value in kwargs.items() if name != "previous"}
        before = type(self)(*args, **options)
        options.pop("reverse_sql", None)  # what the version before has made stays
        return type(self)(*args, **options | {"sql_version": version, "previous": before})

    def forwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Run the file, define the type."""
        self.run_file(app_label, editor)
        self.define(editor)

    def run_file(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Run the file, if there is one."""
        if self.sql is not None:
            path = self.file(app_label, self.sql_version)
            editor.execute(path.read_text(encoding="utf-8"), params=None)

    def define(self, editor: BaseDatabaseSchemaEditor) -> None:
        """Define the type; its handler is there."""
        later = _NOT_IN_PYTHON if self.in_python else set()
        values = self.values()
        arguments = ["%s", "%s"]
        params: list[Any] = [self.name, self.handler]
        for option in (one for one in values if one not in later):
            sql, value = values[option]
            arguments.append(f"{option} => {sql}")
            params.append(value)
        function = self.function if self.in_python else DefineActorType.function
        editor.execute(f"SELECT djactor.{function}({', '.join(arguments)})", params)
        if values.keys() & later:
            alter(self.name, {option: values[option] for option in values.keys() & later}, editor)

    def values(self) -> dict[str, tuple[str, Any]]:
        """The options that are given: how SQL says their values."""
        found: dict[str, tuple[str, Any]] = {}
        for option, value in self.options.items():
            if option in _JSON:
                found[option] = "%s::jsonb", json.dumps(value)
            elif option in _INTERVALS and isinstance(value, ServerSetting):
                found[option] = "pg_catalog.current_setting(%s)::interval", value.name
            elif option in _INTERVALS:
                found[option] = "%s::interval", _interval(option, value)
            elif option == "owner":
                found[option] = "quote_ident(%s)::regrole", value
            else:
                if option == "rate":
                    _check_rate(value)
                if option in ("rate_by", "fair_by"):
                    _check_by(option, value)
                found[option] = f"%s::{_PLAIN[option]}", value
        return found

    def as_stored(self) -> dict[str, tuple[str, Any]]:
        """For each option given: SQL that says whether a row of djactor.actor_type has it so.

        Names of functions may be written in many ways: their last part is compared.  What a type
        has of settings that are not named depends on the session of its definition: W010 looks at
        that.
        """
        found = {
            option: (f"{option} IS NOT DISTINCT FROM {sql}", value)
            for option, (sql, value) in self.values().items()
        }
        if "owner" in self.options:  # a role that does not exist is no error here
            found["owner"] = "owner::text = quote_ident(%s)", self.options["owner"]
        upgrade = self.options.get("upgrade_handler")
        if upgrade is not None:
            found["upgrade_handler"] = _same_function("upgrade_handler", upgrade)
        if found.pop("settings", None) and self.options["settings"] is not None:
            found["settings"] = "settings @> %s::jsonb", json.dumps(self.options["settings"])
        if self.hosted:
            found["handler"] = "handler IS NOT DISTINCT FROM %s::text", self.handler
        elif not self.in_python:
            found["handler"] = _same_function("handler", str(self.handler))
        return found

    def backwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Define it as it was before, or drop it."""
        if self.previous is not None:
            self.previous.forwards(app_label, editor)
        else:
            editor.execute("SELECT djactor.drop_actor_type(%s)", [self.name])
        if self.reverse_sql is not None:
            editor.execute(self.reverse_sql, params=None)

    def describe(self) -> str:
        """What is shown while migrating."""
        return f"Defines the actor type {self.name}"


class DefinePythonActorType(DefineActorType):
    """djactor.define_python_actor(): a plain Python class as a kind of actor.

    Instead of a handler it takes the class or its dotted path.  It needs the extension
    djactor_python, which a superuser creates.  With ``hosted=True`` it is ``DefineActorType`` with
    that word, and needs neither.
    """

    function = "define_python_actor"

    @staticmethod
    def name_of(handler: str | type | None) -> str:
        """The class, as a dotted path.

        Raises:
            TypeError: There is none.
        """
        if handler is None:
            raise TypeError("a Python actor needs a class, unless it is hosted")
        return handler if isinstance(handler, str) else dotted_path(handler)


class DropActorType(_Everywhere):
    """djactor.drop_actor_type(): refused by the server while actors or mail exist.

    Args:
        name: The name of the type.
        discard: Delete its actors and mail.
        previous: The definition to which going back returns; without it there is no way back.
        hints: For database routers.
    """

    def __init__(
        self,
        name: str,
        discard: bool = False,
        previous: DefineActorType | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(hints)
        self.name = name
        self.discard = discard
        self.previous = previous
        self.reversible = previous is not None  # type: ignore[misc]  # Django's RunSQL does so, too

    def forwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Drop it."""
        editor.execute(
            "SELECT djactor.drop_actor_type(%s, discard => %s)", [self.name, self.discard]
        )

    def backwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Define it as it was before."""
        assert self.previous is not None
        self.previous.forwards(app_label, editor)

    def describe(self) -> str:
        """What is shown while migrating."""
        return f"Drops the actor type {self.name}"


class Schedule(_Everywhere):
    """djactor.schedule(): sets a timer of an actor, or changes its rule.

    Besides the arguments below it takes ``ScheduleOptions``.  A timer that has
    the same rule already keeps its next firing.  The server refuses bad rules.

    Args:
        actor_type: The type of the actor; it is defined by then.
        actor_key: The key of the actor, which need not exist.
        name: The timer's name.
        previous: The schedule before this one, to which going back returns; without it going back
            ends the timer.
        hints: For database routers.

    Raises:
        TypeError: For a key or an option that cannot be converted.
        ValueError: For a key that is empty or too long, a payload that is not JSON, and a time
            without a zone.
    """

    @_names(ScheduleOptions)
    def __init__(
        self,
        actor_type: str,
        actor_key: Key,
        name: str,
        *,
        previous: Schedule | None = None,
        hints: Mapping[str, Any] | None = None,
        **rule: Unpack[ScheduleOptions],
    ) -> None:
        super().__init__(hints)
        self.actor_type = actor_type
        self.actor_key: str = normalise_key(actor_key)
        self.name = name
        self.previous = previous
        self.rule = schedules.arguments(rule)

    def deconstruct(self) -> tuple[str, Any, Any]:
        """As Django's; what its writer cannot write, or would write as something else, as text."""
        name, args, kwargs = super().deconstruct()
        texts = {
            argument: self.rule[argument][1]
            for argument, value in kwargs.items()
            if isinstance(value, Interval | ZoneInfo)
        }
        return name, args, kwargs | texts

    def forwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Set the timer."""
        editor.execute(*schedules.statement(self.actor_type, self.actor_key, self.name, self.rule))

    def backwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Set it as it was before, or end it."""
        if self.previous is not None:
            self.previous.forwards(app_label, editor)
        else:
            _unschedule(self, editor)

    def describe(self) -> str:
        """What is shown while migrating."""
        return f"Schedules {self.name} of the actor {self.actor_type} {self.actor_key}"


class Unschedule(_Everywhere):
    """djactor.unschedule(): ends a timer of an actor; does nothing if it is gone already.

    Args:
        actor_type: The type of the actor.
        actor_key: The key of the actor.
        name: The timer's name.
        previous: The schedule to which going back returns; without it there is no way back.
        hints: For database routers.

    Raises:
        TypeError: For a key of another type than str, int and UUID.
        ValueError: For a key that is empty or too long.
    """

    def __init__(
        self,
        actor_type: str,
        actor_key: Key,
        name: str,
        previous: Schedule | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(hints)
        self.actor_type = actor_type
        self.actor_key: str = normalise_key(actor_key)
        self.name = name
        self.previous = previous
        self.reversible = previous is not None  # type: ignore[misc]  # Django's RunSQL does so, too

    def forwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """End it."""
        _unschedule(self, editor)

    def backwards(self, app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Set it as it was before."""
        assert self.previous is not None
        self.previous.forwards(app_label, editor)

    def describe(self) -> str:
        """What is shown while migrating."""
        return f"Ends the schedule {self.name} of the actor {self.actor_type} {self.actor_key}"


def _unschedule(schedule: Schedule | Unschedule, editor: BaseDatabaseSchemaEditor) -> None:
    editor.execute(
        "SELECT djactor.unschedule(%s, %s, %s)",
        [schedule.actor_type, schedule.actor_key, schedule.name],
    )


def alter(
    name: str, values: Mapping[str, tuple[str, Any]], editor: BaseDatabaseSchemaEditor
) -> None:
    """djactor.alter_actor_type(), with values as ``DefineActorType.values()`` has them."""
    arguments = "".join(f", {option} => {sql}" for option, (sql, _) in values.items())
    editor.execute(
        f"SELECT djactor.alter_actor_type(%s{arguments})",
        [name, *(value for _, value in values.values())],
    )


def _same_function(column: str, name: str) -> tuple[str, str]:
    """SQL, and its parameter: whether a column names the same function, but for its schema."""
    last = f"reverse(split_part(reverse(split_part({column}, '(', 1)), '.', 1))"
    said = name.split("(")[0].rpartition(".")[2].strip()
    return f"lower(trim(both '\"' FROM {last})) = lower(%s)", said.strip('"')


def _check_by(option: str, value: Any) -> None:
    """Say early what the server would say about rate_by and fair_by.

    Raises:
        TypeError: It is neither a str nor None.
        ValueError: It is of neither form.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{option} must be a str such as 'header:tenant', not {value!r}")
    if not re.fullmatch(r"(header|key):.+", value, re.DOTALL):
        raise ValueError(f"{option} must be 'header:NAME' or 'key:SEPARATOR', not {value!r}")


def _check_rate(rate: Any) -> None:
    """Say early what the server would say about a rate.

    Raises:
        TypeError: It is neither a str nor None.
        ValueError: It is not of the form ``"100/min"``, or one of its numbers is out of range.
    """
    if rate is None:
        return
    if not isinstance(rate, str):
        raise TypeError(f"rate must be a str such as '100/min', not {rate!r}")
    found = _RATE.fullmatch(rate)
    if found is None:
        raise ValueError(
            f"rate must be a number, a slash and a period in s, min, h or day, such as '100/min' or"
            f" '10/30 s', not {rate!r}"
        )
    turns, seconds = int(found[1]), int(found[2] or 1) * _UNITS[found[3]]
    if not 1 <= turns <= 1_000_000:
        raise ValueError(f"rate must allow 1 to 1,000,000 turns, not {rate!r}")
    if not 1 <= seconds <= 31 * _UNITS["day"]:
        raise ValueError(f"the period of a rate must have a second to 31 days, not {rate!r}")


def _interval(option: str, value: object) -> str | None:
    """A span of time as text that PostgreSQL reads.

    Raises:
        TypeError: The value of the option is not a timedelta.
    """
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise TypeError(f"{option} is a timedelta, not {type(value).__name__}")
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
