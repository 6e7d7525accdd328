"""System checks: what is missing between this Django project and djactor in its database.

``check_settings`` looks at the settings, ``check_registered`` at the classes of ``actors.py``,
``check_tasks`` at TASKS.
``check_database`` is tagged ``database``, so it runs with ``migrate`` and ``check --database``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any

from django.core import mail
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.db import OperationalError, ProgrammingError, connections, router
from django.db.migrations.exceptions import BadMigrationError, NodeNotFoundError
from django.utils.module_loading import import_string

from djactor import __version__, cluster, conf, declared
from djactor import messages as messages_of
from djactor.definitions import Definition, WholeLoader, differences, last_definitions
from djactor.registry import (
    HostedType,
    SqlType,
    conflicts,
    is_registered,
    registered,
    registered_sql,
    resolve,
    wrong_with,
)
from djactor.tasks import queues

VERSIONS = (".".join(__version__.split(".")[:2]),)  # of the extension, that this app knows
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
        elif name in conf.FUNCTIONS:
            messages += _function(name, value)
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
    messages += _nodes()
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


def _nodes() -> list[CheckMessage]:
    """``NODES``: numbers of nodes, and aliases of databases."""
    messages: list[CheckMessage] = []
    for number, alias in conf.get("NODES").items():
        right = isinstance(number, int) and 0 <= number <= 63 and isinstance(alias, str)
        if not right or alias not in connections:
            messages.append(
                Error(
                    f"settings.DJACTOR['NODES'] has {number!r}: {alias!r}, which is no number of a"
                    " node and alias of its database",
                    hint=f"Nodes are 0 to 63, databases are {', '.join(connections)}.",
                    id="djactor.E011",
                )
            )
    if conf.get("NODES") and not conf.get("CLUSTER"):
        messages.append(
            Warning(
                "settings.DJACTOR has NODES, and no CLUSTER",
                hint='Set "CLUSTER": True, or leave NODES out.',
                id="djactor.W020",
            )
        )
    return messages


def _function(name: str, value: object) -> list[CheckMessage]:
    """What is wrong with a setting that is a function, or names one."""
    wrong = ""
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            wrong = str(error)
    if not wrong and callable(value):
        return []
    return [
        Error(
            f"settings.DJACTOR[{name!r}] is no function: {wrong or repr(value)}",
            hint="It is a function of an actor type and JSON, or the dotted path of one.",
            id="djactor.E005",
        )
    ]


def _routed() -> str:
    from djactor.models import Message

    return router.db_for_write(Message)


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return isinstance(value, type(default))


@register("djactor")
def check_registered(**kwargs: Any) -> list[CheckMessage]:
    """What ``actors.py`` registers: the classes, the handler files and their options."""
    messages: list[CheckMessage] = [
        Error(
            str(conflict),
            hint="A type belongs to one app: give one of them another name.",
            id="djactor.E010",
        )
        for conflict in conflicts()
    ]
    for sql_type in registered_sql().values():
        messages += _sql_type(sql_type)
    for one in registered().values():
        wrong = _wrong_class(one)
        if wrong is not None:
            messages.append(
                Error(
                    f"the class of the actor type {one.name!r} cannot be used: {wrong[0]}",
                    hint=wrong[1],
                    obj=one.cls,
                    id="djactor.E006",
                )
            )
            continue
        hint = messages_of.doubt(one.cls)
        if hint is not None:
            messages.append(
                Warning(
                    f"messages of the actor type {one.name!r} are not validated: the annotation"
                    f" {hint!r} of {one.path}.handle_message() means nothing where the class is",
                    hint="Import the name there, not for type checkers alone; or annotate it with"
                    " dict, which takes all messages as they are.",
                    obj=one.cls,
                    id="djactor.W016",
                )
            )
        messages += _options(one, one.cls)
        if one.hosted and one.options.get("upgrade_handler") is not None:
            messages.append(
                Error(
                    f"the hosted actor type {one.name!r} has an upgrade_handler, a function of the"
                    " database",
                    hint="States of a hosted type are upgraded by its class: docs/django.md.",
                    obj=one.cls,
                    id="djactor.E007",
                )
            )
    for module, needed in declared.left_out.items():
        messages.append(
            Info(
                f"{module} imports {needed}, which only the database server has: what the module"
                " registers is not known here",
                hint=f"Import {needed} where it is used, or keep such classes in another module.",
                id="djactor.I003",
            )
        )
    return messages


@register("djactor")
def check_tasks(**kwargs: Any) -> list[CheckMessage]:
    """The entries of TASKS that use djactor, unless Django asks the backends itself."""
    messages: list[CheckMessage] = []
    entries = list(queues.ours())
    if entries:
        from djactor.tasks import compat

        if f"{compat.PACKAGE}.checks" in sys.modules:
            return []
    for alias, params in entries:
        messages += queues.check(alias, queues.queues_of(params), params.get("OPTIONS") or {})
    return messages


def _options(one: declared.Declared, obj: object) -> list[CheckMessage]:
    try:
        declared.operation(one).values()
    except (TypeError, ValueError) as error:
        return [
            Error(
                f"an option of the actor type {one.name!r} cannot be used: {error}",
                hint="djactor.options.TypeOptions says what the options take.",
                obj=obj,
                id="djactor.E007",
            )
        ]
    return []


def _sql_type(one: SqlType) -> list[CheckMessage]:
    messages = _options(one, one.path)
    path = declared.file_of(one)
    if path is None:
        return messages
    try:
        path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        messages.append(
            Error(
                f"the handler file of the actor type {one.name!r} cannot be read: {error}",
                hint="It is relative to the directory of the app.",
                obj=one.path,
                id="djactor.E009",
            )
        )
    return messages


def _wrong_class(one: HostedType) -> tuple[str, str] | None:
    """What is wrong with the class of a registered type, and what to do; None if nothing is."""
    signature = (
        "It needs __init__(self, key), or none, and handle_message(self, message), or a method with"
        " @djactor.handles for each type of messages: docs/django.md."
    )
    wrong = wrong_with(one.cls)
    if wrong is not None:
        return wrong, signature
    if "<locals>" in one.path:
        return f"{one.path} is inside a function", "Processes find it at a module's level only."
    if one.hosted:
        return None
    receiver = messages_of.receiver_of(one.cls)
    if receiver is not None and receiver.is_async:
        return f"the handlers of {one.path} are async", "With hosted=True they may be."
    if receiver is None and inspect.iscoroutinefunction(one.cls.handle_message):
        return f"{one.path}.handle_message() is async", "With hosted=True it may be."
    if "." in one.cls.__qualname__:
        return f"{one.path} is inside another class", "djactor_python finds it at a module's level."
    return None


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
            return [
                *messages,
                *_cluster(alias, cursor),
                *_running(alias, cursor),
                *_defined(alias, cursor),
                *_registered(alias, cursor),
                *_hosted(alias, cursor),
            ]
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
                hint="GRANT INSERT and SELECT on the columns that docs/sql.md lists under Rights.",
                id="djactor.W003",
            )
        )
    return messages, version is not None and not messages


def _cluster(alias: str, cursor: Any) -> list[CheckMessage]:
    """Whether settings and database agree on what the cluster is."""
    if not isinstance(conf.get("NODES"), dict) or any(one.id == "djactor.E011" for one in _nodes()):
        return []
    cursor.execute("SELECT to_regclass('djactor_cluster.node') IS NOT NULL")
    here, known = None, {}
    if cursor.fetchone()[0]:
        cursor.execute(
            "SELECT node, node = djactor_cluster.this_node()"
            " FROM djactor_cluster.node ORDER BY node"
        )
        known = dict(cursor.fetchall())
        here = next((node for node, is_here in known.items() if is_here), None)
    if not cluster.on():
        if here is None or len(known) == 1:
            return []
        return [
            Warning(
                f"the database {alias!r} is node {here} of a cluster, and settings.DJACTOR does not"
                " say so: sending to actors of other nodes is refused",
                hint='Set "CLUSTER": True.',
                id="djactor.W021",
            )
        ]
    if here is None:
        return [
            Error(
                f"settings.DJACTOR has CLUSTER, and the database {alias!r} is no node of a cluster",
                hint="CREATE EXTENSION djactor_cluster, and djactor_cluster.set_up(): see"
                " docs/cluster.md.",
                id="djactor.E012",
            )
        ]
    nodes = cluster.nodes()
    if nodes and (nodes.keys() != known.keys() or nodes[here] != alias):
        return [
            Error(
                f"settings.DJACTOR['NODES'] is {nodes!r}, and the database {alias!r} is node"
                f" {here} of {', '.join(map(str, known))}",
                hint="Name the alias of each node by its number.",
                id="djactor.E013",
            )
        ]
    return []


def _may_send(cursor: Any) -> bool:
    if cluster.on():
        cursor.execute(
            """
            SELECT to_regclass('djactor_cluster.message') IS NULL
                OR has_column_privilege('djactor_cluster.message', 'payload', 'INSERT')
                AND has_column_privilege('djactor_cluster.message', 'id', 'SELECT')
                AND has_column_privilege('djactor_cluster.message', 'trace_id', 'SELECT')
                AND has_column_privilege('djactor_cluster.message', 'sent_at', 'SELECT')"""
        )
        if not cursor.fetchone()[0]:
            return False
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
                JOIN djactor.actor_type t ON t.name = m.actor_type
                    AND NOT t.paused AND NOT t.hosted
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
            AND NOT starts_with(name, 'djactor_cluster.')
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
    messages = _undeclared(alias, cursor, found)
    for name, definition in found.items():
        if is_registered(name):
            continue  # what is registered comes last
        messages += _file_of_migration(definition)
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


def _file_of_migration(definition: Definition) -> list[CheckMessage]:
    """A handler file that has changed since its version was kept."""
    made_by, app_label = definition.made_by, definition.app_label
    if made_by is None or made_by.sql_version is None or not made_by.file_changed(app_label):
        return []
    now = made_by.file(app_label).read_text("utf-8")
    version = made_by.sql_version + 1
    while (kept := made_by.file(app_label, version)).exists():
        if kept.read_text("utf-8") == now:
            return []  # there is a migration for it, which has not been applied
        version += 1
    return [
        Warning(
            f"the handler file {made_by.sql} of the actor type {made_by.name!r} has changed since"
            f" version {made_by.sql_version}",
            hint="Run djactor_sql, which writes a migration for it.",
            id="djactor.W015",
        )
    ]


def _undeclared(alias: str, cursor: Any, defined: Iterable[str]) -> list[CheckMessage]:
    """Types that code has made, and no code names any more."""
    if sys.argv[1:2] == ["migrate"]:
        return []
    return [
        Warning(
            f"the actor type {one.name!r} of the database {alias!r} was made by {one.made_by}, and"
            " nothing declares it any more",
            hint="Nothing is dropped by itself. Drop it with DropActorType in a migration, or"
            " register it again.",
            id="djactor.W014",
        )
        for one in declared.undeclared(cursor, list(defined))
    ]


def _registered(alias: str, cursor: Any) -> list[CheckMessage]:
    """What ``actors.py`` registers, and the database has not, or has otherwise."""
    cursor.execute("SELECT has_table_privilege('djactor.actor_type', 'SELECT')")
    # migrate is about to define them.
    if not cursor.fetchone()[0] or sys.argv[1:2] == ["migrate"]:
        return []
    if any(message.is_serious() for message in check_registered()):
        return []
    messages: list[CheckMessage] = []
    for change in declared.changes(cursor, alias):
        if change.options == ("sql",) and isinstance(change.type, SqlType):
            messages.append(
                Warning(
                    f"the handler of the actor type {change.type.name!r} in the database {alias!r}"
                    f" is not what {change.type.sql} makes: one of them has changed",
                    hint=f"Run migrate --database {alias}, or djactor_sync.",
                    id="djactor.W015",
                )
            )
            continue
        what = "is not defined" if change.made else f"differs: {', '.join(change.options)}"
        words = f"the registered actor type {change.type.name!r} {what} in the database {alias!r}"
        if change.refused is not None:
            messages.append(
                Warning(
                    f"{words}: {change.refused}",
                    hint="Run migrate --database with an alias of the same database that connects"
                    " as a superuser, or register it with hosted=True.",
                    id="djactor.W013",
                )
            )
        elif change.made or {"handler", "sql"} & set(change.options):
            messages.append(
                Warning(
                    words,
                    hint=f"Run migrate --database {alias}, or djactor_sync.",
                    id="djactor.W013",
                )
            )
        else:
            messages.append(
                Info(
                    words,
                    hint="What alter_actor_type() has changed lasts until the next migrate: say it"
                    " in the code, too.",
                    id="djactor.I002",
                )
            )
    return messages


def _hosted(alias: str, cursor: Any) -> list[CheckMessage]:
    """Hosted types that nobody serves, or whose class is not there."""
    cursor.execute(
        """
        SELECT has_table_privilege('djactor.actor_type', 'SELECT')
            AND has_table_privilege('djactor.message', 'SELECT')
            AND has_table_privilege('djactor.host', 'SELECT')
            AND has_function_privilege('djactor.host_list()', 'EXECUTE')"""
    )
    if not cursor.fetchone()[0]:
        return []
    cursor.execute(
        """
        SELECT t.name, t.handler,
            t.paused OR EXISTS (SELECT FROM djactor.host h WHERE t.name = ANY(h.types)
                AND h.state <> 'draining'),
            EXISTS (SELECT FROM djactor.message m WHERE m.actor_type = t.name)
        FROM djactor.actor_type t WHERE t.hosted ORDER BY t.name"""
    )
    messages: list[CheckMessage] = []
    for name, handler, served, has_mail in cursor.fetchall():
        # In a test run there is no host: drain() is one.
        if not served and (has_mail or not hasattr(mail, "outbox")):
            messages.append(
                Warning(
                    f"the actor type {name!r} of the database {alias!r} is hosted by nobody"
                    f"{', and messages wait' if has_mail else ''}",
                    hint="Start manage.py djactor_worker.",
                    id="djactor.W011",
                )
            )
        try:
            resolve(name, handler)
        except (ImportError, TypeError) as error:
            messages.append(
                Warning(
                    f"no process of this project can host the actor type {name!r}: {error}",
                    hint="Register the class in actors.py of an app, or define the type with the"
                    " class that it has now.",
                    id="djactor.W012",
                )
            )
    return messages
