"""Hosted actors: turns that run in processes of Django, ``manage.py djactor_worker``.

What a handler may want is here: ``current()``, the turn that runs, and ``Reject``.  The other
modules are the host itself.

    from djactor.hosting import current

    class Order:
        async def handle_message(self, message):
            receipt = await pay(message, idempotency_key=current().message_id)
            current().send("shop.mail", self.customer, {"receipt": receipt})
"""

from __future__ import annotations

from djactor.hosting.context import Reject, Turn, current, in_turn

__all__ = ["Reject", "Turn", "current", "in_turn"]
