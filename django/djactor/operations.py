"""Migration operations: the extension, kinds of actors, and schedules.

All respect database routers (``allow_migrate``, with ``hints``), do nothing on databases that
are not PostgreSQL, and show up in ``sqlmigrate``.  Going back never loses messages or
state without an explicit word in the operation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from django.apps import apps
from django.db import IntegrityError, router, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from djactor import schedules
from djactor.exceptions import DjactorError
from djactor.fields import Interval, normalise_key
from djactor.options import CatchUp, Key

_JSON = {"initial_state", "settings"}
_INTERVALS = {"backoff", "backoff_max", "handler_timeout", "breaker_window", "journal"}
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
}
_OPTIONS = {*_JSON, *_INTERVALS, *_PLAIN, "owner"}
_OMITTED: Any = object()  # an option that is left to the server; None may be a value


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


class DefineActorType(_DatabaseOperation):
    """djactor.define_actor_type(): defines a kind of actor, or changes it.

    Besides the arguments below it takes the options of ``define_actor_type``, which has the
    defaults; spans of time are timedeltas.  The server refuses bad values.

    Args:
        name: The name of the type; ``app_label.name`` by convention.
        handler: The function, as ``define_actor_type`` wants it.
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

    Raises:
        TypeError: The handler is a class.
    """

    # Each option is named in __init__, since squashmigrations writes only those that are.

    function = "define_actor_type"

    def __init__(
        self,
        name: str,
        handler: str | type,
        *,
        sql: str | None = None,
        sql_version: int | None = None,
        reverse_sql: str | None = None,
        previous: DefineActorType | None = None,
        hints: Mapping[str, Any] | None = None,
        initial_state: Any = _OMITTED,
        state_version: int = _OMITTED,
        upgrade_handler: str | None = _OMITTED,
        max_attempts: int = _OMITTED,
        backoff: timedelta = _OMITTED,
        backoff_max: timedelta = _OMITTED,
        retry_order: Literal["hold", "skip"] = _OMITTED,
        on_exhausted: Literal["dead_letter", "suspend"] = _OMITTED,
        handler_timeout: timedelta = _OMITTED,
        batch_size: int | None = _OMITTED,
        concurrency: int | None = _OMITTED,
        mailbox_limit: int | None = _OMITTED,
        on_full: Literal["raise", "dead_letter"] = _OMITTED,
        breaker_failures: int | None = _OMITTED,
        breaker_window: timedelta = _OMITTED,
        journal: timedelta | None = _OMITTED,
        owner: str = _OMITTED,
        settings: Mapping[str, Any] | None = _OMITTED,
    ) -> None:
        given = locals()
        super().__init__(hints)
        self.name = name
        self.handler = self.name_of(handler)
        self.sql = sql
        self.sql_version = sql_version
        self.reverse_sql = reverse_sql
        self.previous = previous
        self.options = {
            option: given[option]
            for option in given
            if option in _OPTIONS and given[option] is not _OMITTED
        }

    @staticmethod
    def name_of(handler: str | type) -> str:
        """The handler, as the server is told.

        Raises:
            TypeError: The handler is a class.
        """
        if not isinstance(handler, str):
            raise TypeError(
                "a handler is the name of a function; for a class there is DefinePythonActorType"
            )
        return handler

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
        arguments = ["%s", "%s"]
        params: list[Any] = [self.name, self.handler]
        for option, (sql, value) in self._values().items():
            arguments.append(f"{option} => {sql}")
            params.append(value)
        editor.execute(f"SELECT djactor.{self.function}({', '.join(arguments)})", params)

    def _values(self) -> dict[str, tuple[str, Any]]:
        """The options that are given: how SQL says their values."""
        found: dict[str, tuple[str, Any]] = {}
        for option, value in self.options.items():
            if option in _JSON:
                found[option] = "%s::jsonb", json.dumps(value)
            elif option in _INTERVALS:
                found[option] = "%s::interval", _interval(option, value)
            elif option == "owner":
                found[option] = "quote_ident(%s)::regrole", value
            else:
                found[option] = f"%s::{_PLAIN[option]}", value
        return found

    def as_stored(self) -> dict[str, tuple[str, Any]]:
        """For each option given: SQL that says whether a row of djactor.actor_type has it so.

        Names of functions may be written in many ways: their last part is compared.  What a type
        has of settings depends on the session of its definition: W010 looks at that.
        """
        found = {
            option: (f"{option} IS NOT DISTINCT FROM {sql}", value)
            for option, (sql, value) in self._values().items()
            if option not in ("owner", "upgrade_handler", "settings")
        }
        if "owner" in self.options:  # a role that does not exist is no error here
            found["owner"] = "owner::text = quote_ident(%s)", self.options["owner"]
        if self.function == DefineActorType.function:
            name = self.handler.split("(")[0].rpartition(".")[2].strip()
            last = "reverse(split_part(reverse(split_part(handler, '(', 1)), '.', 1))"
            found["handler"] = f"lower(trim(both '\"' FROM {last})) = lower(%s)", name.strip('"')
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
    djactor_python, which a superuser creates.
    """

    function = "define_python_actor"

    @staticmethod
    def name_of(handler: str | type) -> str:
        """The class, as a dotted path."""
        return (
            handler if isinstance(handler, str) else f"{handler.__module__}.{handler.__qualname__}"
        )


class DropActorType(_DatabaseOperation):
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


class Schedule(_DatabaseOperation):
    """djactor.schedule(): sets a timer of an actor, or changes its rule.

    Besides the arguments below it takes the options of ``ActorRef.schedule()``.  A timer that has
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

    # Each option is named in __init__, since squashmigrations writes only those that are.

    def __init__(
        self,
        actor_type: str,
        actor_key: Key,
        name: str,
        *,
        after: timedelta | str | None = None,
        payload: Any = None,
        every: timedelta | str | None = None,
        at: datetime | str | None = None,
        cron: str | None = None,
        time_zone: ZoneInfo | str | None = None,
        catch_up: CatchUp | None = None,
        previous: Schedule | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(hints)
        self.actor_type = actor_type
        self.actor_key = normalise_key(actor_key)
        self.name = name
        self.previous = previous
        self.rule = schedules.arguments(
            after=after,
            payload=payload,
            every=every,
            at=at,
            cron=cron,
            time_zone=time_zone,
            catch_up=catch_up,
        )

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


class Unschedule(_DatabaseOperation):
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
        self.actor_key = normalise_key(actor_key)
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
