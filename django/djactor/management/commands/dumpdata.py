"""``manage.py dumpdata``: djactor's tables are left out, unless they are asked for.

A fixture is data to start from.  Mail that waits is none, workers and counters are not even rows;
``loaddata`` could not load them, and they would keep it from loading the rest.
"""

from typing import Any

from django.core.management.commands import dumpdata


class Command(dumpdata.Command):
    """Django's command, and our exclusion."""

    def handle(self, *app_labels: str, **options: Any) -> None:
        """Dump; ``dumpdata djactor`` and ``dumpdata djactor.actor`` are for looking at."""
        if not app_labels:
            options["exclude"] = [*options["exclude"], "djactor"]
        super().handle(*app_labels, **options)
