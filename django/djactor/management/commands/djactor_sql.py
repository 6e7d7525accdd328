"""``manage.py djactor_sql``: a migration for each handler file that has changed.

A migration must do the same next year as today, so it names a version of the file:
``sql="counter.sql", sql_version=2`` means ``counter.2.sql`` beside it, which stays as it is.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.migrations import Migration
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.writer import MigrationWriter

from djactor.definitions import Definition, last_definitions


class Command(BaseCommand):
    """Writes versions of files, and the migrations that use them."""

    help = "Keeps handler files that have changed as versions, and writes migrations for them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which apps, and whether to write anything."""
        parser.add_argument("apps", nargs="*", help="labels of apps (default: all)")
        parser.add_argument(
            "--check", action="store_true", help="write nothing; exit with 1 if there is something"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Write them.

        Raises:
            CommandError: With ``--check``, where a file has changed.
        """
        loader = MigrationLoader(None)
        changed = [
            definition
            for definition in last_definitions(loader).values()
            if not options["apps"] or definition.app_label in options["apps"]
            if definition.operation.file_changed(definition.app_label)
        ]
        for definition in changed:
            self.stdout.write(self._said(definition))
        if options["check"] and changed:
            raise CommandError("run djactor_sql")
        if not changed:
            self.stdout.write("No changes")
        elif not options["check"]:
            leaves = dict(loader.graph.leaf_nodes())
            for definition in changed:
                self._keep(definition, leaves)

    def _said(self, definition: Definition) -> str:
        operation = definition.operation
        where = f"{definition.app_label} {definition.migration}: {operation.name}"
        if operation.sql_version is None:
            return f"{where} is made from {operation.sql} as it is today"
        return f"{where}: {operation.sql} has changed since version {operation.sql_version}"

    def _keep(self, definition: Definition, leaves: dict[str, str]) -> None:
        app_label, operation = definition.app_label, definition.operation
        version = (operation.sql_version or 0) + 1
        while (path := operation.file(app_label, version)).exists():
            version += 1
        text = operation.file(app_label).read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
        self.stdout.write(f"  wrote {path}")
        if operation.sql_version is None:
            self.stdout.write(
                f"  Say sql_version={version} in {definition.migration}, beside sql=."
            )
            return
        leaf = leaves[app_label]
        number = (MigrationAutodetector.parse_number(leaf) or 0) + 1
        content = {
            "dependencies": [(app_label, leaf)],
            "operations": [operation.with_version(version)],
        }
        name = f"{number:04d}_{Path(str(operation.sql)).stem}_{version}"
        migration = type("Migration", (Migration,), content)(name, app_label)
        leaves[app_label] = migration.name
        writer = MigrationWriter(migration)
        Path(writer.path).write_text(writer.as_string(), encoding="utf-8")
        self.stdout.write(f"  wrote {writer.path}")
