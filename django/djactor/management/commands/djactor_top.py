"""``manage.py djactor_top``: the same, live, until Ctrl-C."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from djactor import conf, status

_CLEAR = "\x1b[H\x1b[2J"


class Command(BaseCommand):
    """Prints it again and again."""

    help = "Shows the actor types, what waits for them, and the workers, live."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The database, and how often."""
        parser.add_argument("--database", help="alias of the database")
        parser.add_argument("--interval", type=float, default=2.0, help="seconds (default 2)")
        parser.add_argument(
            "--count", type=int, default=0, help="so many times (default: for ever)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print until told otherwise."""
        shown = 0
        while True:
            text = "\n".join(status.lines(options["database"] or conf.get("DATABASE")))
            self.stdout.write((_CLEAR if self.stdout.isatty() else "") + text + "\n")
            shown += 1
            if shown == options["count"]:
                return
            try:
                time.sleep(options["interval"])
            except KeyboardInterrupt:
                return
