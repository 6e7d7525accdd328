"""The payment of an order: calls the bank.  An async handler, so hundreds wait at the same time.

``bank.NoAnswer``, such as a timeout or a 503, fails the turn, and djactor tries it again: with the
same key, so the bank books once.  A charge is tried until it expires, see ``order.py``.  The key
is the id of the order, since what is voided has to be named: the bank refuses a charge whose key
was voided before, so ``void`` is right whatever became of the charge.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import djactor
from djactor.hosting import current
from shop import bank


@djactor.register(
    "shop.payment",
    hosted=True,
    handler_timeout=timedelta(seconds=20),  # longer than the client's own timeout
    backoff=timedelta(seconds=0.5),
    backoff_max=timedelta(seconds=10),
    max_attempts=1000,  # for void: nobody gives up a refund after five attempts
    breaker_failures=None,  # the bank comes back by itself; no person need resume the type
)
class Payment:
    """The payment of the order that is its key."""

    def __init__(self, order: str) -> None:
        self.order = order

    async def handle_message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """``{"do": "charge", "amount", "card"}`` or ``{"do": "void"}``, in that order."""
        if message["do"] == "void":
            return {"refunded": await bank.void(key=self.order)}
        try:
            receipt = await bank.charge(message["amount"], message["card"], key=self.order)
        except bank.Refused as error:  # will be the same tomorrow: an answer, not a failure
            current().reply_error(str(error))
            return None
        return {"receipt": receipt}
