"""The books: is each order paid once and its goods taken once, or all of it undone?

It compares three things that are written by different processes: the orders, the shelves, and
the bank's bookings.  A shop does that every night; the tests do it after they have killed all that
can be killed.  Of an order that is still under way nothing is said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import httpx
from django.conf import settings
from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce

from shop.models import Order, Product, Reservation

HELD, TAKEN = Reservation.Status.HELD, Reservation.Status.TAKEN
PAID, CANCELLED = Order.Status.PAID, Order.Status.CANCELLED


def bookings() -> list[dict[str, Any]]:
    """What the bank has booked: ``key``, ``kind`` (charge or refund), ``amount``.

    Raises:
        httpx.HTTPError: The bank does not answer.
    """
    answer = httpx.get(f"{settings.SHOP_BANK_URL}/bookings", timeout=30, trust_env=False)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def wrong() -> Iterator[str]:
    """All that is wrong, in words.

    The shop may be open meanwhile: nothing changes about an order that has ended, so the bank is
    asked after these are read.

    Raises:
        httpx.HTTPError: The bank does not answer.
    """
    ended = list(
        Order.objects.filter(status__in=(PAID, CANCELLED)).prefetch_related("lines", "reservations")
    )
    money: dict[str, Counter[str]] = defaultdict(Counter)  # by order: cents
    times: Counter[tuple[str, str]] = Counter()
    for entry in bookings():
        money[entry["key"]][entry["kind"]] += entry["amount"]
        times[entry["key"], entry["kind"]] += 1
    for (key, kind), count in times.items():
        if count > 1:
            yield f"order {key}: {count} times {kind}"
    for key in money.keys() - {str(found) for found in Order.objects.values_list("pk", flat=True)}:
        yield f"the bank has bookings for {key}, which is no order"
    for order in ended:
        yield from wrong_order(order, money[str(order.id)])
    yield from wrong_shelves()


def wrong_order(order: Order, money: Counter[str]) -> Iterator[str]:
    """What is wrong with an order that has ended.

    Args:
        order: The order.
        money: What the bank has charged and refunded, in cents.
    """
    goods = {one.product_id: one.quantity for one in order.lines.all()}
    taken = {
        one.product_id: one.quantity for one in order.reservations.all() if one.status == TAKEN
    }
    held = {one.product_id: one.quantity for one in order.reservations.all() if one.status == HELD}
    due, wanted = (order.total, goods) if order.status == PAID else (0, {})
    if money["charge"] - money["refund"] != due:
        yield f"order {order.id} is {order.status}, {due} is due, the bank says {dict(money)}"
    if taken != wanted or held:
        yield f"order {order.id} is {order.status}, {goods}: {taken} are taken, {held} held"


def wrong_shelves() -> Iterator[str]:
    """What is wrong with products: what came is on the shelf, held or taken."""
    off = Q(reservations__status__in=(HELD, TAKEN))
    products = Product.objects.annotate(
        gone=F("delivered") - F("stock"),
        reserved=Coalesce(Sum("reservations__quantity", filter=off), 0),
    )
    for product in products.exclude(gone=F("reserved")):
        yield f"{product.gone} of {product.slug} are gone, {product.reserved} are reserved"
