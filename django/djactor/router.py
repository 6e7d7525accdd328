"""A database router: djactor's models live in the database that ``DJACTOR["DATABASE"]`` names.

For projects where that is not ``default``::

    DATABASE_ROUTERS = ["djactor.router.DjactorRouter", ...]
"""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from djactor import conf


class DjactorRouter:
    """Reads, writes and migrations of the app go there; all other apps are others' business."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """The alias, for a model of djactor."""
        return _database() if model._meta.app_label == "djactor" else None

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        """The same; but what was read elsewhere, by ``using()``, is written there."""
        row = hints.get("instance")
        if isinstance(row, model) and model._meta.app_label == "djactor" and row._state.db:
            return str(row._state.db)
        return self.db_for_read(model)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Only there, for the app djactor."""
        return db == _database() if app_label == "djactor" else None


def _database() -> str:
    return str(conf.get("DATABASE"))
