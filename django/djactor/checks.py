"""System checks: what is missing between this Django project and djactor in its database.

``check_settings`` looks at the settings alone.  ``check_database`` is tagged ``database``, so it
runs with ``migrate`` and ``check --database``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.db import OperationalError, ProgrammingError, connections, router
from django.db.migrations.exceptions import BadMigrationError, NodeNotFoundError

from djactor import conf
from djactor.definitions import WholeLoader, differences, last_definitions

VERSIONS = ("1.0",)  # of the extension, that this app knows
LONG = 10.0  # seconds that a message may wait before somebody should look


@register("djactor")
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """``settings.DJACTOR``: names, types, and the database that it names."""
    given = conf.given()
    if not isinstance(given, dict):
        return [Error("settings.DJACTOR is not a dict", id="djactor.E005")]
    messages: list[CheckMessage] = []
    for name, value in given.items():
        if name not in conf.DEFAULTS:
            messages.append(
                Warning(
                    f"settings.DJACTOR has an entry that nobody knows: {name!r}",
                    hint=f"Known are {', '.join(conf.DEFAULTS)}.",
                    id="djactor.W004",
                )
            )
        elif not _fits(value, conf.DEFAULTS[name]):
            kind = type(conf.DEFAULTS[name]).__name__
            messages.append(
                Error(
                    f"settings.DJACTOR[{name!r}] is {value!r}, which is no"
                    f" {'positive number' if kind == 'float' else kind}",
                    hint=f"The default is {conf.DEFAULTS[name]!r}.",
                    id="djactor.E005",
                )
            )
    if any(message.id == "djactor.E005" for message in messages):
        return messages
    alias = conf.get("DATABASE")
    if alias not in connections:
        messages.append(
            Error(
                f"settings.DJACTOR names the database {alias!r}, which does not exist",
                hint=f"Databases are {', '.join(connections)}.",
                id="djactor.E001",
            )
        )
    elif connections[alias].vendor != "postgresql":
        messages.append(
            Error(
                f"the database {alias!r} is not PostgreSQL",
                hint='Name another one in settings.DJACTOR["DATABASE"].',
                id="djactor.E002",
            )
        )
    elif _routed() != alias:
        messages.append(
            Warning(
                f"settings.DJACTOR names the database {alias!r}, and djactor's models go to"
                f" {_routed()!r}",
                hint='Add "djactor.router.DjactorRouter" to DATABASE_ROUTERS.',
                id="djactor.W005",
            )
        )
    return messages


def _routed() -> str:
    from djactor.models import Message

    return router.db_for_write(Message)


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return isinstance(value, type(default))


@register(Tags.database)
def check_database(databases: Iterable[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """The database that ``DJACTOR`` names: the extension, and whether anything runs."""
    alias = str(conf.get("DATABASE")) if isinstance(conf.given(), dict) else ""
    if alias not in (databases or ()) or alias not in connections:
        return []
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return []
    try:
        with connection.cursor() as cursor:
            messages, runs = _extension(alias, cursor)
            if not runs:
                return messages
            return [*messages, *_running(alias, cursor), *_defined(alias, cursor)]
    except OperationalError:
        return []  # no connection: Django says that better


def _extension(alias: str, cursor: Any) -> tuple[list[CheckMessage], bool]:
    """Whether it is there, in a version that this app knows, and loaded, and we may send.

    The second result: whether all of that is so.
    """
    cursor.execute(
        """
        SELECT (SELECT extversion FROM pg_extension WHERE extname = 'djactor'),
            current_setting('djactor.max_workers', true) IS NOT NULL,
            EXISTS (SELECT FROM pg_available_extensions WHERE name = 'djactor')"""
    )
    version, loaded, available = cursor.fetchone()
    messages: list[CheckMessage] = []
    if not available:
        messages.append(
            Error(
                "the server has no djactor",
                hint="Install the extension on the machine of the database server.",
                id="djactor.E003",
            )
        )
    elif version is None and sys.argv[1:2] != ["migrate"]:  # which is about to create it
        messages.append(
            Warning(
                f"the database {alias!r} has no extension djactor",
                hint="Run migrate; its owner may create the extension. Where the migrations"
                " count as applied, and in tests without migrations, djactor_define does it.",
                id="djactor.W001",
            )
        )
    elif version is not None and version not in VERSIONS:
        messages.append(
            Warning(
                f"the extension djactor has version {version}, this app knows"
                f" {', '.join(VERSIONS)}",
                hint="Use UpdateDjactor in a migration, or install the app of that version.",
                id="djactor.W002",
            )
        )
    if available and not loaded:
        messages.append(
            Error(
                "the server does not preload djactor, so nothing handles messages",
                hint="Add djactor to shared_preload_libraries and restart the server.",
                id="djactor.E004",
            )
        )
    if version is not None and not _may_send(cursor):
        messages.append(
            Warning(
                f"the role of the database {alias!r} may not send",
                hint="GRANT INSERT and SELECT on the columns that README.md lists under Rights.",
                id="djactor.W003",
            )
        )
    return messages, version is not None and not messages


def _may_send(cursor: Any) -> bool:
    cursor.execute(
        """
        SELECT has_schema_privilege('djactor', 'USAGE')
            AND has_column_privilege('djactor.message', 'payload', 'INSERT')
            AND has_column_privilege('djactor.message', 'id', 'SELECT')
            AND has_column_privilege('djactor.message', 'trace_id', 'SELECT')
            AND has_column_privilege('djactor.message', 'sent_at', 'SELECT')"""
    )
    return bool(cursor.fetchone()[0])


def _running(alias: str, cursor: Any) -> list[CheckMessage]:
    """What keeps the mail from being handled."""
    cursor.execute(
        """
        SELECT has_table_privilege('djactor.message', 'SELECT')
            AND has_table_privilege('djactor.actor_type', 'SELECT')
            AND has_table_privilege('djactor.worker', 'SELECT')
            AND has_function_privilege('djactor.worker_list()', 'EXECUTE')"""
    )
    if not cursor.fetchone()[0]:
        return []
    cursor.execute(
        """
        SELECT djactor.held(),
            NOT EXISTS (SELECT FROM djactor.worker) AND EXISTS (
                SELECT FROM (SELECT * FROM djactor.message LIMIT 1000) m
                JOIN djactor.actor_type t ON t.name = m.actor_type AND NOT t.paused
                WHERE m.sent_at < now() - make_interval(secs => %s)
                    AND m.deliver_at IS NULL AND m.retry_at IS NULL AND m.aside IS NULL)""",
        [LONG],
    )
    held, stands_still = cursor.fetchone()
    messages: list[CheckMessage] = []
    if held:
        messages.append(
            Warning(
                f"the mail of the database {alias!r} is held, since it is a copy",
                hint="SELECT djactor.resume() lets it run, if that is what you want.",
                id="djactor.W007",
            )
        )
    elif stands_still:
        messages.append(
            Warning(
                f"messages wait in the database {alias!r} and there is no worker",
                hint="The server's log says why; often max_worker_processes is too low.",
                id="djactor.W006",
            )
        )
    cursor.execute("SELECT name, problem FROM djactor.actor_type WHERE problem IS NOT NULL")
    for name, problem in cursor.fetchall():
        messages.append(
            Warning(
                f"messages to the actor type {name!r} wait: {problem}",
                hint="Repair the handler, or define the type again.",
                id="djactor.W008",
            )
        )
    return messages + _settings(alias, cursor)


def _settings(alias: str, cursor: Any) -> list[CheckMessage]:
    """Types whose turns read dates or names otherwise than this project's sessions do."""
    cursor.execute(
        """
        SELECT key, value, current_setting(key), array_agg(name ORDER BY name)
        FROM djactor.actor_type, jsonb_each_text(settings) s (key, value)
        WHERE key IN ('TimeZone', 'search_path', 'DateStyle', 'IntervalStyle')
            AND value <> current_setting(key)
        GROUP BY 1, 2 ORDER BY 1, 2"""
    )
    return [
        Warning(
            f"turns of {', '.join(names)} see {setting} = {theirs!r}, the sessions of the database"
            f" {alias!r} have {ours!r}",
            hint="Define the types again, from a session like these, or name the setting in their"
            " settings and silence this.",
            id="djactor.W010",
        )
        for setting, theirs, ours, names in cursor.fetchall()
    ]


def _defined(alias: str, cursor: Any) -> list[CheckMessage]:
    """What the migrations have defined, and the database has not, or has otherwise."""
    cursor.execute("SELECT has_table_privilege('djactor.actor_type', 'SELECT')")
    if not cursor.fetchone()[0]:
        return []
    try:
        found = last_definitions(WholeLoader(connections[alias]), alias)
    except (BadMigrationError, NodeNotFoundError, ProgrammingError):
        return []  # migrations that cannot be loaded: Django says that better
    messages: list[CheckMessage] = []
    for name, definition in found.items():
        where = f"{definition.app_label} {definition.migration}"
        different = differences(definition, cursor)
        if different is None:
            messages.append(
                Warning(
                    f"the database {alias!r} has no actor type {name!r}, which the migration"
                    f" {where} defines",
                    hint=f"Run djactor_define --database {alias}, after a restore as well as in"
                    " tests without migrations.",
                    id="djactor.W009",
                )
            )
        elif different:
            messages.append(
                Info(
                    f"the actor type {name!r} differs from the migration {where}:"
                    f" {', '.join(different)}",
                    hint="What alter_actor_type() has changed lasts until the next migration that"
                    " defines the type: say it there, too.",
                    id="djactor.I001",
                )
            )
    return messages
