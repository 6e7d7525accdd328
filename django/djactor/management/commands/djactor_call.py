"""``manage.py djactor_call``: runs one turn of an actor here, and shows what it has changed."""

import json
import logging
import traceback
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from djactor import conf, foreground
from djactor.fields import normalise_key


class Command(BaseCommand):
    """Sends a message and handles it here, or handles one that waits."""

    help = "Runs one turn of an actor here, with its log, and shows what it has changed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The actor and the message."""
        parser.add_argument("type", help="the actor's type, such as shop.cart")
        parser.add_argument("key", help="its key")
        parser.add_argument(
            "payload", nargs="?", help="the message, as JSON (default: the next one that waits)"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="roll back what the turn did in the database"
        )
        parser.add_argument("--database", metavar="ALIAS", help="alias of the database")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it.

        Raises:
            CommandError: It cannot be run, or it has failed; the text says why.
        """
        alias = options["database"] or conf.get("DATABASE")
        if alias not in connections or connections[alias].vendor != "postgresql":
            raise CommandError(f"there is no database {alias!r} of PostgreSQL in the settings")
        if not logging.getLogger().handlers:
            logging.basicConfig(
                level=logging.DEBUG if options["verbosity"] > 1 else logging.INFO,
                format="%(levelname)s %(name)s: %(message)s",
            )
        try:
            outcome = foreground.call(
                alias,
                options["type"],
                normalise_key(options["key"]),
                self._payload(options["payload"]),
                dry_run=options["dry_run"],
                begins=self._begins,
                log=self.stderr.write,
            )
        except foreground.CannotRun as error:
            raise CommandError(str(error)) from error
        except Exception as error:
            if self._began:
                raise self._failed(error) from error
            if isinstance(error, DatabaseError | ValueError):  # the message cannot be sent
                raise CommandError(str(error).strip()) from error
            raise
        self._show(outcome)
        self.stdout.write(
            "rolled back: nothing of it remains in the database"
            if options["dry_run"]
            else "committed"
        )

    _began = False

    def _payload(self, text: str | None) -> Any:
        """What a text means.

        Raises:
            CommandError: It is not JSON.
        """
        if text is None:
            return foreground.NOTHING
        try:
            return json.loads(text, parse_constant=self._constant)
        except (ValueError, RecursionError) as error:
            raise CommandError(
                f'the payload is not JSON: {error}. In a shell: \'{{"op": "add"}}\''
            ) from error

    @staticmethod
    def _constant(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    def _begins(self, outcome: foreground.Outcome) -> None:
        self._began = True
        self.stdout.write(f"message {outcome.message_id}, handled by {outcome.runs}")
        self.stdout.write(f"state before: {outcome.before or 'none'}")
        self.stdout.flush()

    def _show(self, outcome: foreground.Outcome) -> None:
        self.stdout.write(f"state after: {outcome.after or 'none'}")
        if outcome.error is not None:
            self.stdout.write(f"reply: error {outcome.error}")
        else:
            self.stdout.write(f"reply: {outcome.reply or 'none'}")
        for line in outcome.sent:
            self.stdout.write(f"sent: {line}")
        for line in outcome.timers:
            self.stdout.write(f"timer: {line}")

    def _failed(self, error: Exception) -> CommandError:
        diagnostic = getattr(error.__cause__, "diag", None)
        if diagnostic is None:
            self.stderr.write("".join(traceback.format_exception(error)))
        else:  # of the handler inside, not of this command
            for part in (diagnostic.message_detail, diagnostic.message_hint, diagnostic.context):
                if part:
                    self.stderr.write(part)
        words = str(error).strip().split("\n")[0]
        kind = type(error).__name__
        return CommandError(
            f"the turn has failed, and nothing of it remains in the database: {kind}: {words}"
        )
