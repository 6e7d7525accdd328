"""What a turn does, as statements: SQL with ``%s``, for Django's cursors as for psycopg's own.

Each parameter has its type in the text, so that None is no riddle for the server.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import connections  # noqa: F401  # Django must be there: payloads are as it has them

from djactor.fields import dump_payload, normalise_key
from djactor_python import _period, _span, _when

SEND = (
    "SELECT djactor.send(%s::text, %s::text, %s::jsonb, %s::int, %s::timestamptz, %s::timestamptz,"
    " %s::text, %s::jsonb, %s::bool, %s::text, %s::text, %s::interval, %s::interval)"
)
REPLY = "SELECT djactor.reply(%s::jsonb, %s::bigint)"
REPLY_ERROR = "SELECT djactor.reply_error(%s::jsonb, %s::bigint)"
DEFER_REPLY = "SELECT djactor.defer_reply()"
SET_TIMER = (
    "SELECT djactor.set_timer(%s::text, %s::interval, %s::jsonb, %s::interval, %s::timestamptz,"
    " %s::text, %s::text, %s::text)"
)
CANCEL_TIMER = "SELECT djactor.cancel_timer(%s::text)"
PROGRESS = "SELECT djactor.progress(%s::jsonb)"
STOP = "SELECT djactor.stop(%s::bool)"
STASH = "SELECT djactor.stash()"
UNSTASH_ALL = "SELECT djactor.unstash_all()"
WATCH = "SELECT djactor.watch(%s::text, %s::text)"
UNWATCH = "SELECT djactor.unwatch(%s::text, %s::text)"

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

key = normalise_key
when, span, period = _when, _span, _period


def dump(value: Any) -> str:
    """JSON of a payload or a reply; dates, UUIDs and Decimals become strings.

    Raises:
        TypeError: For what JSON cannot hold.
        ValueError: For NaN, an infinity, a cycle, and half of a surrogate pair.
    """
    try:
        text = _encode(value)
    except TypeError:
        text = dump_payload(value)
    if not text.isascii():
        text.encode()  # raises for what is no text
    return text
