"""What the migrations say about actor types and schedules, and whether a database has them so.

What is registered (``djactor.declared``) stands above what migrations say of the same type.

A database may lack what its migrations have defined although they count as applied: a schema that
was restored alone brings no rows of djactor's tables, and tests without migrations run none.
``define_types()`` makes up for it.

Migrations are read, not run; squashed ones count as what they replace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connections, router
from django.db.migrations.loader import MIGRATIONS_MODULE_NAME, MigrationLoader
from django.db.migrations.operations import SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation

from djactor import cluster, conf, declared
from djactor.operations import (
    CreateDjactor,
    DefineActorType,
    DropActorType,
    Schedule,
    Unschedule,
)
from djactor.registry import is_registered

_KINDS = DefineActorType | DropActorType | Schedule | Unschedule


@dataclass(frozen=True)
class Definition:
    """The last word of the migrations on an actor type."""

    app_label: str
    migration: str
    operation: DefineActorType
    made_by: DefineActorType | None  # the last definition of it that runs a file


def last_definitions(loader: MigrationLoader, alias: str | None = None) -> dict[str, Definition]:
    """The definitions that the migrations leave.

    Args:
        loader: The migrations.
        alias: Only what has been defined in this database, as far as ``loader`` knows, and as the
            routers say; None means all.

    Returns:
        By the type's name, in the order of the migrations.
    """
    found: dict[str, Definition] = {}
    for app_label, migration, operation in _operations(loader, alias):
        if not isinstance(operation, DefineActorType | DropActorType):
            continue
        before = found.pop(operation.name, None)
        if isinstance(operation, DefineActorType):
            made_by = before.made_by if before is not None else None
            if operation.sql is not None:
                made_by = operation
            found[operation.name] = Definition(app_label, migration, operation, made_by)
    return found


def last_schedules(loader: MigrationLoader, alias: str | None = None) -> list[Schedule]:
    """The schedules that the migrations leave, in the order of the migrations.

    Args:
        loader: The migrations.
        alias: As that of ``last_definitions()``.
    """
    found: dict[tuple[str, str, str], Schedule] = {}
    for _, _, operation in _operations(loader, alias):
        if isinstance(operation, Schedule | Unschedule):
            key = operation.actor_type, operation.actor_key, operation.name
            found.pop(key, None)
            if isinstance(operation, Schedule):
                found[key] = operation
        elif isinstance(operation, DropActorType):  # with its timers
            found = {key: one for key, one in found.items() if key[0] != operation.name}
    return list(found.values())


def define_types(using: str | None = None, only: Collection[str] | None = None) -> list[str]:
    """Define the actor types that the database lacks, as the migrations and ``register()`` do.

    Creates the extension if it is not there, and each handler whose migration names a file; sets
    the schedules of the types that it has defined.  What other migrations have made, such as tables
    and other functions, must be there.  What is registered is also changed where it differs.

    Args:
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).  Python actors need that of
            a superuser.
        only: Names of types; None means all.

    Returns:
        The names of the types that it has defined.

    Raises:
        DatabaseError: A handler does not exist, or the role may not do it.
    """
    alias = using or conf.get("DATABASE")
    made: list[str] = []
    with connections[alias].schema_editor() as editor:
        CreateDjactor().forwards("djactor", editor)
        with editor.connection.cursor() as cursor:
            cursor.execute("SELECT name FROM djactor.actor_type")
            there = {name for (name,) in cursor.fetchall()}
        everywhere = cluster.everywhere(editor)
        loader = WholeLoader(None)
        for name, definition in last_definitions(loader, alias).items():
            if name in there or is_registered(name) or (only is not None and name not in only):
                continue
            if definition.made_by is not None:
                definition.made_by.run_file(definition.app_label, everywhere)
            definition.operation.define(everywhere)
            made.append(name)
        for change in declared.define_registered(alias, only, editor):
            if change.made and change.refused is None:
                made.append(change.type.name)
        for schedule in last_schedules(loader, alias):
            if schedule.actor_type in made:
                schedule.forwards("djactor", cluster.everywhere(editor, schedule.actor_key))
    return made


def differences(definition: Definition, cursor: Any) -> list[str] | None:
    """The names of options that the database has otherwise; None if it has no such type."""
    wanted = definition.operation.as_stored()
    columns = ", ".join(sql for sql, _ in wanted.values())
    cursor.execute(
        f"SELECT {columns} FROM djactor.actor_type WHERE name = %s",
        [*(value for _, value in wanted.values()), definition.operation.name],
    )
    row = cursor.fetchone()
    if row is None:
        return None
    return [option for option, same in zip(wanted, row, strict=True) if not same]


class WholeLoader(MigrationLoader):
    """All migrations, also those that ``MIGRATION_MODULES`` has taken away."""

    @classmethod
    def migrations_module(cls, app_label: str) -> tuple[str | None, bool]:
        """The module that the settings name, or the one in the app's own directory."""
        module, explicit = super().migrations_module(app_label)
        if module is None:
            return f"{apps.get_app_config(app_label).name}.{MIGRATIONS_MODULE_NAME}", False
        return module, explicit


def _is_applied(loader: MigrationLoader, app_label: str, migration: str) -> bool:
    if loader.connection is None:
        return True
    # Tables of an app whose migrations are taken away are made, and its types are not.
    taken_away = MigrationLoader.migrations_module(app_label)[0] is None
    return taken_away or (app_label, migration) in (loader.applied_migrations or ())


def _in_order(loader: MigrationLoader) -> Iterator[tuple[str, str]]:
    seen = set()
    for leaf in sorted(loader.graph.leaf_nodes()):
        for node in loader.graph.forwards_plan(leaf):
            if node not in seen:
                seen.add(node)
                yield node


def _operations(loader: MigrationLoader, alias: str | None) -> Iterator[tuple[str, str, _KINDS]]:
    """Those of djactor, with the app and the name of their migrations."""
    for app_label, migration in _in_order(loader):
        if alias is not None and not _is_applied(loader, app_label, migration):
            continue
        for operation in _flat(loader.graph.nodes[app_label, migration].operations):
            if isinstance(operation, _KINDS) and (
                alias is None or router.allow_migrate(alias, app_label, **operation.hints)
            ):
                yield app_label, migration, operation


def _flat(operations: Sequence[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from _flat(operation.database_operations)
        else:
            yield operation
