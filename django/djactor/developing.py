"""What ``DEBUG`` adds to Django's autoreloader: handler files, and classes inside PostgreSQL.

``runserver``, and whatever else uses Django's autoreloader, starts anew when a file of Python has
changed.  Workers inside PostgreSQL keep the code that they have loaded, so they are replaced then.
A handler file that has changed is run, without a new start.

Files of ``register_sql()`` are watched, and those of migrations.  What cannot be done is told on
stderr, and does not end the server.  Nothing happens without ``DEBUG``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.migrations.exceptions import BadMigrationError, NodeNotFoundError

from djactor import conf, declared
from djactor.definitions import Definition, WholeLoader, last_definitions
from djactor.registry import is_registered, registered_sql

_INSIDE = "djactor.handle_python(jsonb,jsonb)"


def handler_files() -> dict[Path, list[str | Definition]]:
    """The files that make handlers: for each the registered types, and those of migrations."""
    found: dict[Path, list[str | Definition]] = {}
    for one in registered_sql().values():
        path = declared.file_of(one)
        if path is not None:
            found.setdefault(path.resolve(), []).append(one.name)
    try:
        definitions = last_definitions(WholeLoader(None))
    except (BadMigrationError, NodeNotFoundError):
        definitions = {}  # Django says that better
    for name, definition in definitions.items():
        if definition.made_by is not None and not is_registered(name):
            path = definition.made_by.file(definition.app_label).resolve()
            found.setdefault(path, []).append(definition)
    return found


def watch(sender: Any, **kwargs: Any) -> None:
    """Have Django's autoreloader watch handler files (the signal ``autoreload_started``)."""
    if not settings.DEBUG:
        return
    for path in handler_files():
        sender.watch_dir(path.parent, path.name)
    replace_workers()


def changed(sender: Any, file_path: Path, **kwargs: Any) -> bool | None:
    """What Django's autoreloader tells of a file (the signal ``file_changed``).

    Returns:
        True if there is no need to start anew.
    """
    if not settings.DEBUG or file_path.suffix != ".sql":
        return None
    return run_file(file_path) or None


def run_file(path: Path) -> bool:
    """Run the file of a handler, as it is now.

    A type that the database does not have is left to ``migrate``.

    Returns:
        Whether it is one.
    """
    types = handler_files().get(path.resolve())
    if not types:
        return False

    def define(alias: str) -> None:
        with connections[alias].schema_editor() as editor:
            with editor.connection.cursor() as cursor:
                cursor.execute("SELECT name FROM djactor.actor_type")
                there = {name for (name,) in cursor.fetchall()}
            done = [
                change.type.name
                for change in declared.define_registered(
                    alias, [one for one in types if isinstance(one, str) and one in there], editor
                )
            ]
            for one in types:
                if isinstance(one, Definition) and one.operation.name in there:
                    editor.execute(path.read_text("utf-8"), params=None)
                    done.append(one.operation.name)
        if done:
            _say(f"{path} has changed: {', '.join(done)} is defined anew")

    _try(f"{path} has changed, and cannot be run", define)
    return True


def replace_workers() -> None:
    """Have classes that run inside PostgreSQL be loaded afresh, if there are any."""

    def reload(alias: str) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT djactor.reload() WHERE EXISTS"
                " (SELECT FROM djactor.actor_type WHERE handler = %s)",
                [_INSIDE],
            )

    _try("workers inside PostgreSQL keep the code that they have", reload)


def _try(what: str, function: Callable[[str], None]) -> None:
    """Do something in the database of djactor; say so if that fails."""
    alias = conf.get("DATABASE")
    if alias not in connections or connections[alias].vendor != "postgresql":
        return
    try:
        if declared.installed(alias, create=False):
            function(alias)
    except Exception as error:
        _say(f"{what}: {str(error).strip()}")
    finally:
        if not connections[alias].in_atomic_block:
            connections[alias].close()  # of this thread


def _say(words: str) -> None:
    sys.stderr.write(f"djactor: {words}\n")
    sys.stderr.flush()
