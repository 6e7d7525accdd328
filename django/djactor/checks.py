"""System checks: what is missing between this Django project and djactor in its database.

They are tagged ``database``, so they run with ``migrate`` and ``check --database``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import OperationalError, connections

from djactor import conf

VERSIONS = ("1.0",)  # of the extension, that this app knows


@register(Tags.database)
def check_database(databases: Iterable[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Extension, version, preload and rights of the database that ``DJACTOR`` names."""
    alias = conf.get("DATABASE")
    if alias not in connections:
        return [
            Error(
                f"settings.DJACTOR names the database {alias!r}, which does not exist",
                hint=f"Databases are {', '.join(connections)}.",
                id="djactor.E001",
            )
        ]
    if alias not in (databases or ()):
        return []
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return [
            Error(
                f"the database {alias!r} is not PostgreSQL",
                hint='Name another one in settings.DJACTOR["DATABASE"].',
                id="djactor.E002",
            )
        ]
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT (SELECT extversion FROM pg_extension WHERE extname = 'djactor'),
                    current_setting('djactor.max_workers', true) IS NOT NULL,
                    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'djactor')"""
            )
            version, loaded, available = cursor.fetchone()
            may_send = version is None or _may_send(cursor)
    except OperationalError:
        return []  # no connection: Django says that better
    messages: list[CheckMessage] = []
    if not available:
        messages.append(
            Error(
                "the server has no djactor",
                hint="Install the extension on the machine of the database server.",
                id="djactor.E003",
            )
        )
    elif version is None:
        messages.append(
            Warning(
                f"the database {alias!r} has no extension djactor",
                hint="Run migrate; its owner may create the extension.",
                id="djactor.W001",
            )
        )
    elif version not in VERSIONS:
        messages.append(
            Warning(
                f"the extension djactor has version {version}, this app knows"
                f" {', '.join(VERSIONS)}",
                hint="Use UpdateDjactor in a migration, or install the app of that version.",
                id="djactor.W002",
            )
        )
    if available and not loaded:
        messages.append(
            Error(
                "the server does not preload djactor, so nothing handles messages",
                hint="Add djactor to shared_preload_libraries and restart the server.",
                id="djactor.E004",
            )
        )
    if not may_send:
        messages.append(
            Warning(
                f"the role of the database {alias!r} may not send",
                hint="GRANT INSERT on the columns that README.md lists under Rights.",
                id="djactor.W003",
            )
        )
    return messages


def _may_send(cursor: Any) -> bool:
    cursor.execute(
        """
        SELECT has_schema_privilege('djactor', 'USAGE')
            AND has_column_privilege('djactor.message', 'payload', 'INSERT')"""
    )
    return bool(cursor.fetchone()[0])
