"""The settings, all in one dict of Django's settings: ``DJACTOR = {...}``.

``DATABASE``        alias of the database with the extension (default ``"default"``)
``LISTEN``          whether ``aask()`` may LISTEN; False behind a pooler in transaction mode
``POLL_INTERVAL``   seconds between two looks for an answer while listening, a safety net (1.0)
``STREAM_INTERVAL`` seconds between two looks for states that are streamed to browsers (0.25)
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

DEFAULTS: dict[str, Any] = {
    "DATABASE": "default",
    "LISTEN": True,
    "POLL_INTERVAL": 1.0,
    "STREAM_INTERVAL": 0.25,
}


def get(name: str) -> Any:
    """The setting, or its default; errors: ImproperlyConfigured for a name nobody knows."""
    given = getattr(settings, "DJACTOR", {})
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise ImproperlyConfigured(
            f"settings.DJACTOR has unknown entries: {', '.join(unknown)};"
            f" known are {', '.join(DEFAULTS)}"
        )
    return given.get(name, DEFAULTS[name])
