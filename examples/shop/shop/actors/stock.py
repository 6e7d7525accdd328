"""The stock of a product: reservations that expire.  A sync handler, with the ORM.

Turns of one product run one after the other, and each is a transaction: so there is no lock here,
no retry, and no guard against a message that comes twice.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import F

import djactor
from djactor.hosting import current
from shop.models import Product, Reservation

Status = Reservation.Status


@djactor.register("shop.stock", hosted=True)
class Stock:
    """The stock of the product that is its key."""

    def __init__(self, product: str) -> None:
        self.product = product

    def handle_message(self, message: dict[str, Any]) -> None:
        """``{"do": ..., "order": ...}``, from an order or from a timer of this actor."""
        order = message["order"]
        if message["do"] == "reserve":
            self.reserve(order, message["quantity"])
        elif message["do"] == "take":
            self.take(order)
        elif message["do"] == "release":  # the order was given up: at any time, and more than once
            self.put_back(order, Status.HELD, Status.TAKEN)
        elif message["do"] == "expire":  # by the timer
            self.put_back(order, Status.HELD)

    def reserve(self, order: str, quantity: int) -> None:
        """Take units off the shelf, for a while.

        The timer is a row that commits with the reservation: units come back even if nobody ever
        asks about this order again.
        """
        on_shelf = Product.objects.filter(slug=self.product, stock__gte=quantity)
        if not on_shelf.update(stock=F("stock") - quantity):
            current().reply_error(f"{self.product} is sold out")  # an answer, not a failure
            return
        Reservation.objects.create(order_id=order, product_id=self.product, quantity=quantity)
        current().set_timer(f"expire {order}", settings.SHOP_HOLD, {"do": "expire", "order": order})

    def take(self, order: str) -> None:
        """Keep them off the shelf for good."""
        if not self.reservations(order, Status.HELD).update(status=Status.TAKEN):
            current().reply_error(f"the reservation of {self.product} has expired")
            return
        current().cancel_timer(f"expire {order}")

    def put_back(self, order: str, *statuses: str) -> None:
        """Put them back, if they are off the shelf."""
        found = self.reservations(order, *statuses).first()
        if found is not None:
            found.status = Status.RETURNED
            found.save()
            Product.objects.filter(slug=self.product).update(stock=F("stock") + found.quantity)
            current().cancel_timer(f"expire {order}")

    def reservations(self, order: str, *statuses: str) -> Any:  # noqa: ANN401
        """What the order has of this product, one at most."""
        return Reservation.objects.filter(order_id=order, product=self.product, status__in=statuses)
