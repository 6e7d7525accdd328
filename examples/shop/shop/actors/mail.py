"""Mail: sent once the turn that wants it has committed, and tried again until it is sent.

The handler is async because a mail server may be slow: no transaction is open meanwhile.  No turn
knows whether a mail has left when its process dies, so a mail may leave twice.  It has the same
``Message-ID`` then, which is made of the message's id, and mail programs show it once.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from django.core.mail import EmailMessage

import djactor
from djactor.hosting import current


@djactor.register(
    "shop.mail", hosted=True, max_attempts=20, backoff_max=timedelta(minutes=10), stateless=True
)
class Mail:
    """The mail about the order that is its key, one after the other."""

    def __init__(self, order: str) -> None:
        self.order = order

    async def handle_message(self, message: dict[str, Any]) -> None:
        """``{"to", "subject", "text"}``."""
        mail = EmailMessage(
            message["subject"],
            message["text"],
            to=[message["to"]],
            headers={"Message-ID": f"<{self.order}.{current().message_id}@shop.example.org>"},
        )
        await asyncio.to_thread(mail.send)
