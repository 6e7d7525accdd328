"""``manage.py djactor_redrive``: dead letters are sent again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from djactor import cluster, conf
from djactor.models import DeadLetter


class Command(BaseCommand):
    """Redrives what the options select, oldest first."""

    help = "Sends dead letters again, under the ids they had."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which ones."""
        parser.add_argument("ids", nargs="*", type=int, help="ids of dead letters")
        parser.add_argument("--type", help="those of this actor type")
        parser.add_argument("--key", help="and of this key")
        parser.add_argument("--reason", help="those given up for this reason, such as failed")
        parser.add_argument("--all", action="store_true", help="all of them")
        parser.add_argument("--dry-run", action="store_true", help="only show them")
        parser.add_argument("--database", help="alias of the database")

    def handle(self, *args: Any, **options: Any) -> None:
        """Redrive them.

        Raises:
            CommandError: Nothing says which, or there is no dead letter with one of the ids.
        """
        letters = DeadLetter.objects.using(options["database"] or conf.get("DATABASE"))
        filters = {
            "id__in": options["ids"],
            "actor_type": options["type"],
            "actor_key": options["key"],
            "reason": options["reason"],
        }
        filters = {name: value for name, value in filters.items() if value}
        if not filters and not options["all"]:
            raise CommandError("say which: ids, --type, --key, --reason, or --all")
        found = list(letters.filter(**filters).order_by("id"))
        missing = sorted(set(options["ids"]) - {letter.pk for letter in found})
        if missing:
            raise CommandError(f"no such dead letter: {', '.join(map(str, missing))}")
        for letter in found:
            if not options["dry_run"]:
                letter.redrive(using=options["database"] or (None if cluster.on() else letters.db))
            self.stdout.write(str(letter))
        self.stdout.write(f"{len(found)} {'found' if options['dry_run'] else 'redriven'}")
