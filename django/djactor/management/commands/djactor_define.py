"""``manage.py djactor_define``: defines the actor types that the database lacks."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from djactor.definitions import define_types


class Command(BaseCommand):
    """Defines them as the migrations do, although those count as applied."""

    help = "Defines the actor types of the migrations that the database lacks."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which ones."""
        parser.add_argument("types", nargs="*", help="names of actor types (default: all)")
        parser.add_argument("--database", help="alias of the database")

    def handle(self, *args: Any, **options: Any) -> None:
        """Define them."""
        made = define_types(options["database"], options["types"] or None)
        for name in made:
            self.stdout.write(name)
        self.stdout.write(f"{len(made)} defined")
