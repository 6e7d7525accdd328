"""An order, as a saga: reserve the goods, charge the card, take the goods; or undo all of it.

The saga decides and calls nobody.  It asks other actors, ``wants_reply=True``, and gets the
answers as messages.  Each step commits the decision, the order's row and the questions together.

    new -> reserving -> paying -> taking -> paid
               |           |         |
               +-----------+---------+--> cancelling -> cancelled

When it gives up it does not know how far the others have got: the bank may book the charge in this
moment.  It need not know.  ``void`` and ``release`` come after ``charge`` and ``reserve`` in the
mailboxes of the others, and are right whatever has happened before.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

import djactor
from djactor.hosting import current
from shop.models import Line, Order

Status = Order.Status
GIVES_UP = (Status.RESERVING, Status.PAYING, Status.TAKING)
TOO_LATE, BROKEN = "it took too long", "something went wrong"


@djactor.register("shop.order", hosted=True)
class OrderSaga:
    """The order that is its key."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.status: str = Status.NEW.value
        self.waiting: list[int] = []  # ids of the messages whose answers are to come

    def handle_message(self, message: Any) -> None:  # noqa: ANN401  # an answer may be anything
        """Any message begins; then there are answers, and the timer."""
        turn = current()
        if turn.kind == "user":
            if self.status == Status.NEW:
                self.reserve()
        elif turn.kind == "timer":
            self.give_up(TOO_LATE)
        elif turn.in_reply_to in self.waiting:  # others are answers to what was given up
            self.waiting.remove(turn.in_reply_to)
            if turn.kind == "error":
                self.refused(turn.meta or {})
            elif not self.waiting:
                self.next()

    # Forwards.

    def next(self) -> None:
        """All answers of a step are there."""
        if self.status == Status.RESERVING:
            self.pay()
        elif self.status == Status.PAYING:
            current().cancel_timer("deadline")
            self.ask(Status.TAKING, "take")
        elif self.status == Status.TAKING:
            self.end(Status.PAID, "Thank you, your order is paid and on its way.")
        elif self.status == Status.CANCELLING:
            self.end(Status.CANCELLED, f"Your order was cancelled: {self.row().reason}.")

    def reserve(self) -> None:
        """The first step, and the deadline for all of them."""
        current().set_timer("deadline", settings.SHOP_DEADLINE)
        self.ask(Status.RESERVING, "reserve")

    def pay(self) -> None:
        """The charge expires with the deadline: after that no attempt begins."""
        self.set_status(Status.PAYING)
        order = self.row()
        charge = {"do": "charge", "amount": order.total, "card": order.card}
        deadline = order.created_at + settings.SHOP_DEADLINE
        self.send("shop.payment", self.order, charge, expires_at=deadline)

    # Backwards.

    def refused(self, error: dict[str, Any]) -> None:
        """An answer is an error: what the other one said, or what djactor says of the message."""
        why = {"error": str(error["error"]), "expired": TOO_LATE}.get(error["reason"], BROKEN)
        if self.status == Status.CANCELLING:  # void or release has become a dead letter
            self.set_status(Status.STUCK, why)
        else:
            self.give_up(why)

    def give_up(self, why: str) -> None:
        """Decide; the commit of this turn is what counts.  Whatever is under way is undone."""
        if self.status not in GIVES_UP:
            return
        current().cancel_timer("deadline")
        self.ask(Status.CANCELLING, "release", why)
        self.send("shop.payment", self.order, {"do": "void"})

    # Both.

    def ask(self, status: str, what: str, reason: str = "") -> None:
        """Ask the stock of each product, and wait for the answers."""
        self.set_status(status, reason)
        for line in Line.objects.filter(order_id=self.order).order_by("product"):
            question = {"do": what, "order": self.order, "quantity": line.quantity}
            self.send("shop.stock", line.product_id, question)

    def send(self, actor_type: str, key: str, payload: dict[str, Any], **options: Any) -> None:
        """Ask another actor."""
        sent = current().send(actor_type, key, payload, wants_reply=True, **options)
        assert sent is not None  # a sync turn knows the id at once
        self.waiting.append(sent)

    def end(self, status: str, text: str) -> None:
        """The customer is told, by a message that commits with the end."""
        self.set_status(status)
        order = self.row()
        mail = {"to": order.customer, "subject": f"Your order {order}", "text": text}
        current().send("shop.mail", self.order, mail)

    def set_status(self, status: str, reason: str = "") -> None:
        """In the state, for the customer's page, and in the table, for the admin."""
        self.status = str(status)
        self.waiting = []
        changes = {"status": status} | ({"reason": reason} if reason else {})
        Order.objects.filter(pk=self.order).update(**changes)

    def row(self) -> Order:
        """The order in the table."""
        return Order.objects.get(pk=self.order)
