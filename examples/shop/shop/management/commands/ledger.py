"""``manage.py ledger``: compares the orders with the shelves and with the bank."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count

from shop import ledger
from shop.models import Order


class Command(BaseCommand):
    """Compares."""

    help = "Compares orders, shelves and the bank's bookings; fails if they do not agree."

    def handle(self, *args: Any, **options: Any) -> None:
        """Print what is wrong.

        Raises:
            CommandError: Something is.
        """
        wrong = list(ledger.wrong())
        for line in wrong:
            self.stdout.write(line)
        counts = dict(Order.objects.values_list("status").annotate(Count("pk")).order_by("status"))
        said = ", ".join(f"{count} {status}" for status, count in counts.items())
        if wrong:
            raise CommandError(f"{len(wrong)} things are wrong; orders: {said}")
        self.stdout.write(f"The books agree; orders: {said or 'none'}")
