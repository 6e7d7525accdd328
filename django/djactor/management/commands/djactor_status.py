"""``manage.py djactor_status``: types, what waits, workers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from djactor import conf, status


class Command(BaseCommand):
    """Prints it once."""

    help = "Shows the actor types, what waits for them, and the workers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The database."""
        parser.add_argument(
            "--database", help="alias of the database (default: all nodes of a cluster)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print it."""
        for line in status.of_all(options["database"], conf.get("DATABASE")):
            self.stdout.write(line)
