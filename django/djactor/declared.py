"""From ``djactor.register()`` to the database: what is registered is defined after ``migrate``.

A type that is missing is created.  Of one that is there, what the code names is changed, if it
differs; an option that the code does not name keeps its value, and nothing is ever dropped.

The file of a handler is run when it is not what the function was made from.  What it was made from
is in the function's comment, so it is dumped, restored and dropped with the function.

This happens in each database that has djactor and where the routers let the app of the class
migrate.  A class that runs inside PostgreSQL is defined by a superuser alone: ``migrate`` over the
connection of another role passes over it, says so, and the system checks say it again.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.loader import MigrationLoader
from django.utils.module_loading import module_has_submodule

from djactor import cluster, conf
from djactor.operations import CreateDjactor, DefineActorType, DefinePythonActorType, alter
from djactor.registry import (
    HostedType,
    SqlType,
    collecting_conflicts,
    conflicts,
    registered,
    registered_sql,
)

Declared = HostedType | SqlType

_OF_THE_SERVER = "plpy"  # a module that is there only

ONLY_SUPERUSERS = "only a superuser defines what runs inside PostgreSQL"

# Modules of actors that Django cannot import, since they import one of these.
left_out: dict[str, str] = {}


def discover() -> None:
    """Import ``actors.py`` of every installed app.

    One that imports what only the server has is left to the server.  What two of them register is
    told by the system checks.
    """
    for app in apps.get_app_configs():
        if app.module is None or not module_has_submodule(app.module, "actors"):
            continue
        name = f"{app.name}.actors"
        try:
            with collecting_conflicts():
                import_module(name)
        except ModuleNotFoundError as error:
            if error.name != _OF_THE_SERVER:
                raise
            left_out[name] = error.name


def all_declared() -> list[Declared]:
    """Everything that is registered, whatever runs it."""
    return [*registered().values(), *registered_sql().values()]


@dataclass(frozen=True)
class Change:
    """What a registered type needs in a database.

    Attributes:
        type: The type.
        made: Whether it is missing; if not, it differs.
        options: The names of what differs, the handler and where it runs included; ``sql`` is the
            file of the handler.
        refused: Why this role cannot do it; None if it can.
    """

    type: Declared
    made: bool
    options: tuple[str, ...] = ()
    refused: str | None = None

    def __str__(self) -> str:
        what = "" if self.made else f" ({', '.join(self.options)})"
        return f"the actor type {self.type.name}{what}"


def changes(cursor: Any, alias: str) -> list[Change]:
    """What has to be done for the types that are registered.

    Args:
        cursor: Of the database.
        alias: Its alias.

    Returns:
        In the order of registration; nothing for a type that is as the code says.

    Raises:
        OSError: The file of a handler cannot be read.
    """
    found = []
    wanted = list(_wanted(alias))
    if wanted:
        there = _there(cursor, [one.name for one in wanted])
        inside = _Inside(cursor)
        for one in wanted:
            if one.name not in there:
                found.append(Change(one, True, (), inside.refused(one)))
                continue
            different = _different(one, there[one.name], cursor)
            if different:
                # Without a change of the class its owner may do it.
                refused = inside.refused(one) if "handler" in different else None
                found.append(Change(one, False, tuple(different), refused))
    return found


def define_registered(
    using: str, only: Collection[str] | None, editor: BaseDatabaseSchemaEditor
) -> list[Change]:
    """Define the types that are registered, as far as the database has them otherwise or not.

    Args:
        using: Alias of the database.
        only: Names of types; None means all.
        editor: Of the database.

    Returns:
        What was done, and what was refused (and so was not done).

    Raises:
        DatabaseError: The server refuses an option, or the role may not define types.
        ImproperlyConfigured: A type is registered twice.
        OSError: The file of a handler cannot be read.
    """
    if conflicts():
        raise ImproperlyConfigured("; ".join(map(str, conflicts())))
    with editor.connection.cursor() as cursor:
        found = _changes_of(only, cursor, using)
        if found:  # another process may be doing the same
            cursor.execute(_LOCK)
            found = _changes_of(only, cursor, using)
    for change in found:
        if change.refused is None:
            try:
                _make(change, cluster.everywhere(editor))
            except Exception as error:
                if sys.version_info >= (3, 11):
                    error.add_note(f"while defining the registered type {change.type.name}")
                raise
    return found


def _changes_of(only: Collection[str] | None, cursor: Any, alias: str) -> list[Change]:
    return [change for change in changes(cursor, alias) if only is None or change.type.name in only]


def after_migrate(sender: Any, using: str, verbosity: int = 1, **kwargs: Any) -> None:
    """What ``migrate`` does at its end (the signal ``post_migrate``)."""
    if not all_declared() or connections[using].vendor != "postgresql" or not installed(using):
        return
    if cluster.defined_elsewhere(using):
        return
    stdout = kwargs.get("stdout") or sys.stdout
    with connections[using].schema_editor() as editor:
        done = define_registered(using, None, editor)
    if verbosity >= 1:
        for change in done:
            stdout.write(f"  {said(change)}\n")


def said(change: Change) -> str:
    """What has become of a change, in words."""
    if change.refused is not None:
        return f"Left out {change}: {change.refused}"
    return f"{'Defined' if change.made else 'Changed'} {change}"


def app_of(one: Declared) -> str:
    """The label of the app that registers the type, for routers."""
    app = apps.get_containing_app_config(_module_of(one))
    if app is not None:
        return app.label
    label = one.name.partition(".")[0]
    return label if apps.is_installed(label) or label in apps.app_configs else "djactor"


def _module_of(one: Declared) -> str:
    return one.module if isinstance(one, SqlType) else str(one.cls.__module__)


def file_of(one: SqlType) -> Path | None:
    """The file of a handler; None if there is none.

    It is below the directory of the app, or of the module if that belongs to no app.
    """
    if one.sql is None:
        return None
    app = apps.get_containing_app_config(one.module)
    if app is not None:
        return Path(app.path) / one.sql
    return Path(getattr(sys.modules.get(one.module), "__file__", None) or ".").parent / one.sql


def operation(one: Declared) -> DefineActorType:
    """The operation of a migration that would define it, but for the file of its handler."""
    if isinstance(one, SqlType):
        return DefineActorType(one.name, one.handler, **one.options)
    kind = DefineActorType if one.hosted else DefinePythonActorType
    return kind(one.name, one.path, hosted=one.hosted, **one.options)


@dataclass(frozen=True)
class Undeclared:
    """A type of the database that code has made, and no code names.

    Attributes:
        name: Its name.
        made_by: The class, or the file of the handler.
    """

    name: str
    made_by: str


def undeclared(cursor: Any, known: Collection[str]) -> list[Undeclared]:
    """The types that a class of this project, or a handler file, has made and nothing declares.

    A type that plain SQL has defined is none of them.

    Args:
        cursor: Of the database.
        known: Names of types that something else declares, such as migrations.
    """
    names = {one.name for one in all_declared()} | set(known)
    found = []
    for name, stored in sorted(_there(cursor, None).items()):
        if name in names:
            continue
        cls = stored.handler if stored.hosted else stored.python_class
        if stored.made_from is not None:
            found.append(Undeclared(name, stored.made_from[0]))
        elif cls and apps.get_containing_app_config(cls) is not None:
            found.append(Undeclared(name, cls))
    return found


def _wanted(alias: str) -> Iterator[Declared]:
    for one in all_declared():
        if router.allow_migrate(alias, app_of(one)):
            yield one


def installed(alias: str, create: bool = True) -> bool:
    """Whether the database has djactor, for this role.

    Args:
        alias: The database.
        create: Whether to create the extension where the app's migrations are taken away.
    """
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT has_table_privilege(to_regclass('djactor.actor_type'), 'SELECT')")
        (readable,) = cursor.fetchone()
    if readable is not None:  # NULL: there is no such table
        return bool(readable)
    if not create or MigrationLoader.migrations_module("djactor")[0] is not None:
        return False
    if not router.allow_migrate(alias, "djactor"):
        return False
    with connections[alias].schema_editor() as editor:
        CreateDjactor().forwards("djactor", editor)
    return True


@dataclass(frozen=True)
class _Stored:
    """How the database has a type: where it runs, and what."""

    hosted: bool
    handler: str | None
    python_class: str | None  # of one that djactor_python runs
    upgrade_handler: str | None
    comment: str | None  # of the function
    body: str | None  # a digest of it

    @property
    def made_from(self) -> tuple[str, str, str] | None:
        """The file that the function was made from, its digest, and the body's then."""
        found = None if self.comment is None else _MADE_FROM.search(self.comment)
        return None if found is None else (found[1], found[2], found[3])


_MADE_FROM = re.compile(r"^djactor: (\S.*) ([0-9a-f]{32}) ([0-9a-f]{32})$", re.MULTILINE)
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('djactor.register()', 0))"
_FUNCTION = """
    (SELECT obj_description(p.oid, 'pg_proc') FROM pg_proc p WHERE p.oid = f.oid),
    (SELECT md5(concat_ws('/', prosrc, prosecdef, proisstrict, provolatile, proconfig::text))
        FROM pg_proc p WHERE p.oid = f.oid)"""


def _there(cursor: Any, names: list[str] | None) -> dict[str, _Stored]:
    """The types that there are, of these names; None means all."""
    cursor.execute(
        "SELECT coalesce(has_table_privilege(to_regclass('djactor.python_actor'), 'SELECT'), false)"
    )
    python = cursor.fetchone()[0]
    cursor.execute(
        f"SELECT t.name, t.hosted, t.handler, p.class, t.upgrade_handler, {_FUNCTION}"
        " FROM djactor.actor_type t CROSS JOIN LATERAL"
        " (SELECT CASE WHEN NOT t.hosted THEN to_regprocedure(t.handler) END) f (oid)"
        + (
            " LEFT JOIN djactor.python_actor p ON p.name = t.name"
            " AND t.handler = 'djactor.handle_python(jsonb,jsonb)'"
            if python
            else ", (VALUES (NULL)) p (class)"
        )
        + ("" if names is None else " WHERE t.name = ANY(%s)"),
        None if names is None else [names],
    )
    return {name: _Stored(*stored) for name, *stored in cursor.fetchall()}


def _different(one: Declared, stored: _Stored, cursor: Any) -> list[str]:
    """The names of what the database has otherwise: ``handler`` also for where it runs."""
    found = []
    options = operation(one).as_stored()
    options.pop("hosted", None)
    if isinstance(one, SqlType):
        if stored.hosted:
            options.pop("handler")
            found.append("handler")
        elif not _is_made_from(one, stored):
            found.append("sql")
    else:
        options.pop("handler", None)
        if one.hosted:
            same = stored.hosted and stored.handler == one.path
        else:
            same = not stored.hosted and _is_python(stored, one.path)
        if not same:
            found.append("handler")
    if options:
        columns = ", ".join(sql for sql, _ in options.values())
        cursor.execute(
            f"SELECT {columns} FROM djactor.actor_type WHERE name = %s",
            [*(value for _, value in options.values()), one.name],
        )
        row = cursor.fetchone()
        if row is not None:
            found += [name for name, same in zip(options, row, strict=True) if not same]
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_made_from(one: SqlType, stored: _Stored) -> bool:
    """Whether the function is what the file of today makes; True if there is no file."""
    path = file_of(one)
    if path is None:
        return True
    return stored.made_from == (one.sql, _digest(path.read_text("utf-8")), stored.body)


def _is_python(stored: _Stored, path: str) -> bool:
    """Whether it runs that class; a role that may not read which class it is believes it."""
    if stored.python_class is not None:
        return stored.python_class == path
    return stored.handler == "djactor.handle_python(jsonb,jsonb)"


class _Inside:
    """Whether the role may define classes that run inside PostgreSQL; asked when needed."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._why: str | None = None
        self._asked = False

    def refused(self, one: Declared) -> str | None:
        """Why a type cannot be defined; None for one that can."""
        if one.hosted or isinstance(one, SqlType):
            return None
        if not self._asked:
            self._asked = True
            self._cursor.execute(
                """
                SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'djactor_python'),
                    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"""
            )
            there, superuser = self._cursor.fetchone()
            if not superuser:
                self._why = ONLY_SUPERUSERS
            elif not there:
                self._why = "the database has no extension djactor_python"
        return self._why


def _make(change: Change, editor: BaseDatabaseSchemaEditor) -> None:
    """Create the type, or change what differs."""
    one = change.type
    define = operation(one)
    if isinstance(one, SqlType):
        _make_sql(one, change, define, editor)
        return
    if change.made:
        _give_to_owner(define, editor)
        define.define(editor)
        return
    values = {name: said for name, said in define.values().items() if name in change.options}
    if "handler" in change.options and not one.hosted:
        _move_inside(one, values, editor)
        return
    if "handler" in change.options:
        values["handler"] = "%s", one.path
        values["hosted"] = "%s", True
        values["upgrade_handler"] = "%s::text", None  # the host upgrades
    alter(one.name, values, editor)


def _give_to_owner(define: DefineActorType, editor: BaseDatabaseSchemaEditor) -> None:
    owner = _owner(editor.connection.alias)
    if owner is not None:
        define.options.setdefault("owner", owner)


def _make_sql(
    one: SqlType, change: Change, define: DefineActorType, editor: BaseDatabaseSchemaEditor
) -> None:
    """Run the file of a handler, if it has to be, and define the type, or change what differs."""
    file = file_of(one)
    text = None
    if file is not None and (change.made or {"sql", "handler"} & set(change.options)):
        text = file.read_text("utf-8")
        owner = _owner(editor.connection.alias)
        if owner is not None:  # the function is the project's own, also over another connection
            editor.execute(f"SET LOCAL ROLE {editor.quote_name(owner)}")
        editor.execute(text, params=None)
        if owner is not None:
            editor.execute("RESET ROLE")
    if change.made:
        _give_to_owner(define, editor)
        define.define(editor)
    else:
        values = {name: said for name, said in define.values().items() if name in change.options}
        if "handler" in change.options:
            values["handler"] = "%s", one.handler
            values["hosted"] = "%s", False
        if values:
            alter(one.name, values, editor)
    if text is not None:
        _remember(one, text, editor)


def _remember(one: SqlType, text: str, editor: BaseDatabaseSchemaEditor) -> None:
    """Write into the comment of a handler what it was made from."""
    with editor.connection.cursor() as cursor:
        stored = _there(cursor, [one.name])[one.name]
    lines = [line for line in (stored.comment or "").splitlines() if not _MADE_FROM.match(line)]
    lines.append(f"djactor: {one.sql} {_digest(text)} {stored.body}")
    comment = "\n".join(lines)
    editor.execute(
        f"COMMENT ON FUNCTION {stored.handler} IS {editor.quote_value(comment)}", params=None
    )


def _move_inside(
    one: HostedType, values: dict[str, tuple[str, Any]], editor: BaseDatabaseSchemaEditor
) -> None:
    """djactor.define_python_actor() with the options that the type has, but for what differs."""
    with editor.connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT unnest(proargnames) FROM pg_proc
            WHERE oid = (SELECT objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
                JOIN pg_proc p ON p.oid = d.objid
                WHERE e.extname = 'djactor_python' AND d.classid = 'pg_proc'::regclass
                    AND p.proname = 'define_python_actor')"""
        )
        known = [name for (name,) in cursor.fetchall() if name not in ("name", "class")]
        cursor.execute(
            "SELECT stateless, rate, rate_by, fair_by FROM djactor.actor_type WHERE name = %s",
            [one.name],
        )
        stateless, *limits = cursor.fetchone()
    parts: list[str] = ["t.name", "%s"]
    params: list[Any] = [one.path]
    for option in known:
        if option in values:
            parts.append(f"{option} => {values[option][0]}")
            params.append(values[option][1])
        else:
            parts.append(f"{option} => t.{option}")
    editor.execute(
        f"SELECT djactor.define_python_actor({', '.join(parts)})"
        " FROM djactor.actor_type t WHERE t.name = %s",
        [*params, one.name],
    )
    others = {name: said for name, said in values.items() if name not in known}
    others.setdefault("stateless", ("%s::boolean", stateless))
    for name, limit in zip(("rate", "rate_by", "fair_by"), limits, strict=True):
        others.setdefault(name, ("%s::text", limit))
    alter(one.name, others, editor)


def _owner(alias: str) -> str | None:
    """The role that a new type belongs to: the project's own, also over another's connection.

    None is the role of this connection.
    """
    ours = conf.get("DATABASE")
    if alias == ours or ours not in connections:
        return None
    here, there = (connections[one].settings_dict for one in (alias, ours))
    same = all(here.get(part) == there.get(part) for part in ("HOST", "PORT", "NAME"))
    return str(there["USER"]) if same and there.get("USER") else None
