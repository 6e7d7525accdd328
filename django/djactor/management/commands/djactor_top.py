"""``manage.py djactor_top``: what djactor_status prints, live, until Ctrl-C."""

import shutil
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections

from djactor import conf, status

_HOME, _END_OF_LINE, _END = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the other screen, no cursor


class Command(BaseCommand):
    """Prints it again and again; in a terminal each time in the same place."""

    help = "Shows the actor types, what waits for them, and the workers, live."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The database, and how often."""
        parser.add_argument("--database", help="alias of the database")
        parser.add_argument("--interval", type=float, default=2.0, help="seconds (default 2)")
        parser.add_argument(
            "--count", type=int, default=0, help="so many times (default: for ever)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print until told otherwise.

        Raises:
            CommandError: The interval is not greater than 0 seconds.
        """
        if options["interval"] <= 0:
            raise CommandError("--interval is a number of seconds greater than 0")
        named = options["database"]
        using = named or conf.get("DATABASE")
        terminal = self.stdout.isatty()
        if terminal:
            self.stdout.write(_ENTER, ending="")
        try:
            shown = 0
            while True:
                head = f"djactor on {using}, {time.strftime('%H:%M:%S')}"
                self._show([head, "", *self._lines(named, using)], terminal)
                shown += 1
                if shown == options["count"]:
                    return
                time.sleep(options["interval"])
        except KeyboardInterrupt:
            return
        finally:
            if terminal:
                self.stdout.write(_LEAVE, ending="")

    def _lines(self, named: str | None, using: str) -> list[str]:
        try:
            return status.of_all(named, using)
        except OperationalError as error:  # the server may come back
            connections[using].close()
            return [f"no connection: {error}"]

    def _show(self, lines: list[str], terminal: bool) -> None:
        if not terminal:
            self.stdout.write("\n".join(lines) + "\n")
            return
        size = shutil.get_terminal_size()
        if len(lines) > size.lines:
            left_off = len(lines) - size.lines + 1
            lines = [*lines[: size.lines - 1], f"... {left_off} lines more: djactor_status"]
        shown = (line[: size.columns] + _END_OF_LINE for line in lines)
        self.stdout.write(_HOME + "\n".join(shown) + _END, ending="")
        self.stdout.flush()
