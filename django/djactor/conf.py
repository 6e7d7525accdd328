"""The settings, all in one dict of Django's settings: ``DJACTOR = {...}``.

``DATABASE``        alias of the database with the extension (default ``"default"``)
``LISTEN``          whether ``aask()`` may LISTEN; False behind a pooler in transaction mode
``POLL_INTERVAL``   seconds between two looks for answers while listening, a safety net (1.0)
``STREAM_INTERVAL`` seconds between two looks for states that are streamed to browsers (0.25)
``METRICS_TOKEN``   what Prometheus sends to be told the figures; without it a login is needed ("")
``CLUSTER``         whether the database is a node of ``djactor_cluster`` (False)
``NODES``           the aliases of the cluster's nodes, by their numbers ({})
``STATE_SUMMARY``   a function, or its dotted path: what the admin's lists show of a state
``MESSAGE_SUMMARY`` the same for a message, in lists and traces: see ``djactor.summaries``

Entries that nobody knows, and values of another type, are found by the system checks.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

DEFAULTS: dict[str, Any] = {
    "DATABASE": "default",
    "LISTEN": True,
    "POLL_INTERVAL": 1.0,
    "STREAM_INTERVAL": 0.25,
    "METRICS_TOKEN": "",
    "CLUSTER": False,
    "NODES": {},
    "STATE_SUMMARY": "djactor.summaries.of_state",
    "MESSAGE_SUMMARY": "djactor.summaries.of_message",
}

# Those that are functions, or name one.
FUNCTIONS = ("STATE_SUMMARY", "MESSAGE_SUMMARY")


def given() -> dict[str, Any]:
    """What the project's settings say."""
    found: dict[str, Any] = getattr(settings, "DJACTOR", {})
    return found


def get(name: str) -> Any:
    """The setting, or its default."""
    return given().get(name, DEFAULTS[name])
