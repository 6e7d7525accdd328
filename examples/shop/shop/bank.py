"""The client of the bank: two calls, each with a key and a time limit.

Any client will do.  This one opens a connection for each call.  It does not try again: that is
the business of the actor that calls, or the bank would get the product of both.
"""

from __future__ import annotations

import ssl
from typing import Any

import httpx
from django.conf import settings

TIMEOUT = 5.0  # seconds
_TLS = ssl.create_default_context()  # is expensive to make


class Refused(Exception):
    """The bank says no, and will say so again."""


class NoAnswer(Exception):
    """Nobody knows whether the bank has done it; what to do about it is the same in all cases."""


async def charge(amount: int, card: str, *, key: str) -> str:
    """Book a charge, if it is not booked yet.

    Args:
        amount: In cents.
        card: Who pays.
        key: Makes a repetition known to be one.

    Returns:
        The number of the receipt, the same for each repetition.

    Raises:
        Refused: The card is declined, or the key was voided.
        NoAnswer: Nobody knows whether it is booked.
    """
    answer = await _post("/charges", {"amount": amount, "card": card}, key)
    return str(answer["receipt"])


async def void(*, key: str) -> bool:
    """Have nothing booked under a key: refund what is, and refuse what may still come.

    Returns:
        Whether there was something to refund, now or before.

    Raises:
        NoAnswer: Nobody knows whether that is done.
    """
    return bool((await _post("/voids", {}, key))["refunded"])


async def _post(path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT, verify=_TLS, trust_env=False) as client:
            answer = await client.post(
                settings.SHOP_BANK_URL + path, json=body, headers={"Idempotency-Key": key}
            )
        if answer.status_code in (402, 409):
            raise Refused(answer.json()["error"])
        found: dict[str, Any] = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        # Not the client's traceback of fifty lines: this is expected, and in the log each time.
        raise NoAnswer(f"{type(error).__name__}: {error}") from None
    return found
