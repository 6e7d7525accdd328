"""``manage.py djactor_sync``: brings the database to what ``actors.py`` declares."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from djactor import cluster, conf, declared


class Command(BaseCommand):
    """Does what ``migrate`` does at its end, or says what that would be."""

    help = "Defines the actor types that actors.py of the apps declare, as migrate does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The database, and whether to write anything."""
        parser.add_argument(
            "--check", action="store_true", help="write nothing; exit with 1 if anything differs"
        )
        parser.add_argument("--database", metavar="ALIAS", help="alias of the database")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write what differs, or list it.

        Raises:
            CommandError: Something differs, with ``--check``; something is left out, without; or
                the database has no djactor.
        """
        alias = options["database"] or conf.get("DATABASE")
        if alias not in connections:
            raise CommandError(f"there is no database {alias!r} in settings.DATABASES")
        if not options["check"] and cluster.defined_elsewhere(alias):
            raise CommandError(
                f"the types of a cluster are defined from {conf.get('DATABASE')!r}, on all nodes"
            )
        connection = connections[alias]
        if connection.vendor != "postgresql" or not declared.installed(alias, create=False):
            raise CommandError(f"the database {alias!r} has no djactor for this role: run migrate")
        if options["check"]:
            with connection.cursor() as cursor:
                found = declared.changes(cursor, alias)
        else:
            with connection.schema_editor() as editor:
                found = declared.define_registered(alias, None, editor)
        for change in found:
            self.stdout.write(self._would(change) if options["check"] else declared.said(change))
        if not found:
            self.stdout.write("No changes")
        elif options["check"]:
            raise CommandError(f"the database {alias!r} differs: run djactor_sync")
        left_out = sum(change.refused is not None for change in found)
        if left_out:
            raise CommandError(f"{left_out} left out")

    @staticmethod
    def _would(change: declared.Change) -> str:
        what = f"{'Would define' if change.made else 'Would change'} {change}"
        return what if change.refused is None else f"{what}: {change.refused}"
