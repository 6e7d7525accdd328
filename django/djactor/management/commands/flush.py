"""``manage.py flush``, and with it ``TransactionTestCase``: djactor's tables are emptied too.

Django's own flush leaves unmanaged tables alone, so mail would leak into the next test.
"""

from typing import Any

from django.core.management.commands import flush
from django.db import connections

from djactor import conf
from djactor.test import reset


class Command(flush.Command):
    """Django's command, and then ours."""

    def handle(self, **options: Any) -> None:
        """Flush, then reset what djactor holds in that database."""
        super().handle(**options)
        alias = options["database"]
        if alias == conf.get("DATABASE") and connections[alias].vendor == "postgresql":
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT to_regclass('djactor.message') IS NOT NULL")
                installed = cursor.fetchone()[0]
            if installed:
                reset(alias)
