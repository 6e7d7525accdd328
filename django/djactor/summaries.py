"""A few words instead of JSON: what the admin's lists and traces show of states and messages.

``settings.DJACTOR`` may name functions of the project's own, by ``STATE_SUMMARY`` and
``MESSAGE_SUMMARY``: each gets the actor's type and the JSON and returns a text.  The functions that
are the defaults stand here, for those that want to add something to them.

What always holds: a summary is one line, and a function that fails fails no page; what it has
raised is shown in its place, and logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, cast

from django.utils.module_loading import import_string

from djactor import conf

log = logging.getLogger("djactor")

LIMIT = 60  # characters of a summary
_FIELDS = 8  # of an object
_NAMES = ("@type", "op")  # fields that say what a message is


def of_state(actor_type: str, state: Any) -> str:
    """What to show of a state: ``n=3, name=Ada``."""
    return _fields(state)


def of_message(actor_type: str, payload: Any) -> str:
    """What to show of a message: its ``@type``, which typed messages have, or its ``op``.

    Returns:
        The fields of a message that has neither.
    """
    if isinstance(payload, dict):
        for name in _NAMES:
            if isinstance(payload.get(name), str):
                return str(payload[name])
    return _fields(payload)


def summary(setting: str, actor_type: str, value: Any) -> str:
    """What the function that a setting names says of JSON of an actor type; at most one line."""
    try:
        text = str(_function(setting)(actor_type, value))
    except Exception as error:
        log.exception("settings.DJACTOR[%r] failed for type %s", setting, actor_type)
        text = f"{setting} failed: {type(error).__name__}: {error}"
    line = " ".join(text.split())
    return line if len(line) <= LIMIT else line[: LIMIT - 1] + "…"


def _function(setting: str) -> Callable[[str, Any], object]:
    given = conf.get(setting)
    found = import_string(given) if isinstance(given, str) else given
    return cast("Callable[[str, Any], object]", found)


def _fields(value: Any) -> str:
    if not isinstance(value, dict):
        return _value(value, LIMIT)
    shown = [f"{name}={_value(one, 20)}" for name, one in list(value.items())[:_FIELDS]]
    return ", ".join(shown + ["…"] * (len(value) > _FIELDS))


def _value(value: Any, limit: int) -> str:
    """A value within an object; of what has parts only how many there are."""
    if isinstance(value, dict):
        return "{…}" if value else "{}"
    if isinstance(value, list):
        return f"[{len(value)}]"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
