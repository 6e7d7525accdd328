"""Orders, as far as they go without processes: ``manage.py test``.

``drain()`` runs all turns in the test's own process and transaction, hosted ones and those of the
cart alike; so the bank's client can be replaced, and mail is in ``mail.outbox``.  What happens
when processes are killed is tested in ``test/examples/test_shop.py``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

from django.core import mail
from django.test import Client, TestCase, TransactionTestCase
from django.utils import timezone

import djactor
from djactor.hosting import current
from djactor.test import drain
from shop import bank, ledger
from shop.models import Order, Product, Reservation


class Orders(TestCase):
    """From the cart to the mail."""

    def setUp(self) -> None:
        """A shelf, and a bank that says yes."""
        for slug in ("cake", "tea"):
            Product.objects.create(slug=slug, name=slug, price=100, delivered=5, stock=5)
        self.charge = self.replace("charge", return_value="1")
        self.void = self.replace("void", return_value=False)

    def replace(self, name: str, **how: Any) -> mock.AsyncMock:
        """A function of the bank's client."""
        patch = mock.patch.object(bank, name, **how)
        self.addCleanup(patch.stop)
        found: mock.AsyncMock = patch.start()
        return found

    def buy(self, **quantities: int) -> Order:
        """Put these into a cart and buy them; what follows is up to the test."""
        cart = djactor.actor("shop.cart", "c")
        for slug, quantity in quantities.items():
            cart.send({"put": slug, "quantity": quantity})
        cart.send({"buy": {"customer": "ann@example.org", "card": "4111"}})
        drain(max=len(quantities) + 1)
        return Order.objects.get()

    def wait(self, seconds: float = 120) -> None:
        """Let time pass; failed turns are tried again meanwhile."""
        drain(until=timezone.now() + timedelta(seconds=seconds), on_error="retry")

    def assert_ended(self, order: Order, status: str, reason: str = "", **stock: int) -> None:
        """How it has ended, what is on the shelf, and that one mail says so."""
        order.refresh_from_db()
        self.assertEqual((order.status, order.reason), (status, reason))
        self.assertEqual(dict(Product.objects.values_list("slug", "stock")), stock)
        self.assertEqual(len(mail.outbox), 1)
        self.assertIn(str(order), mail.outbox[0].subject)

    def wrong(self, *booked: dict[str, Any]) -> list[str]:
        """What the ledger finds, if these are the bank's bookings."""
        with mock.patch.object(ledger, "bookings", return_value=booked):
            return list(ledger.wrong())

    def test_an_order_is_paid(self) -> None:
        """All goes well."""
        order = self.buy(tea=2, cake=1)
        self.assertEqual(order.total, 300)
        drain()
        self.assert_ended(order, "paid", cake=4, tea=3)
        self.charge.assert_awaited_once_with(300, "4111", key=str(order.id))
        self.assertEqual(self.wrong({"key": str(order.id), "kind": "charge", "amount": 300}), [])

    def test_what_is_sold_out_cancels_the_order(self) -> None:
        """One reservation is refused, the other one is undone, and nothing is charged."""
        order = self.buy(tea=6, cake=1)
        drain()
        self.assert_ended(order, "cancelled", "tea is sold out", cake=5, tea=5)
        self.charge.assert_not_awaited()

    def test_a_card_that_is_declined_cancels_it(self) -> None:
        """An answer, so there is no second attempt."""
        self.charge.side_effect = bank.Refused("the card is declined")
        order = self.buy(tea=1)
        drain()
        self.assert_ended(order, "cancelled", "the card is declined", cake=5, tea=5)
        self.assertEqual(self.charge.await_count, 1)

    def test_a_charge_without_an_answer_is_tried_again(self) -> None:
        """With the same key."""
        self.charge.side_effect = [TimeoutError, TimeoutError, "1"]
        order = self.buy(tea=1)
        self.wait()
        self.assert_ended(order, "paid", cake=5, tea=4)
        self.assertEqual(
            {call.kwargs["key"] for call in self.charge.await_args_list}, {str(order.id)}
        )

    def test_a_charge_that_never_gets_an_answer_is_voided(self) -> None:
        """The bank may have booked it, or may do so yet: void deals with both."""
        self.charge.side_effect = TimeoutError
        self.void.side_effect = [TimeoutError, True]
        order = self.buy(tea=1)
        self.wait()
        self.assert_ended(order, "cancelled", "it took too long", cake=5, tea=5)
        self.void.assert_awaited_with(key=str(order.id))

    def test_a_payment_after_the_reservation_has_expired_is_voided(self) -> None:
        """The customer has paid, but the goods are gone."""
        self.charge.side_effect = [TimeoutError, "1"]
        with self.settings(SHOP_HOLD=timedelta(seconds=0.2)):
            order = self.buy(tea=1)
            self.wait()
        self.assert_ended(order, "cancelled", "the reservation of tea has expired", cake=5, tea=5)
        self.void.assert_awaited_once_with(key=str(order.id))

    def test_what_was_taken_already_is_put_back(self) -> None:
        """One reservation expires while the bank is asked, and the other one does not."""

        async def charge(amount: int, card: str, *, key: str) -> str:
            current().send("shop.stock", "tea", {"do": "expire", "order": key})
            return "1"

        self.charge.side_effect = charge
        order = self.buy(tea=1, cake=1)
        drain()
        self.assert_ended(order, "cancelled", "the reservation of tea has expired", cake=5, tea=5)

    def test_buying_twice_is_buying_once(self) -> None:
        """The button was pressed again."""
        order = self.buy(tea=1)
        self.assertEqual(self.buy(), order)
        drain()
        self.assert_ended(order, "paid", cake=5, tea=4)

    def test_the_ledger_sees_what_is_wrong(self) -> None:
        """Money, goods, and bookings that nobody knows."""
        order = self.buy(tea=1)
        drain()
        once = {"key": str(order.id), "kind": "charge", "amount": 100}
        refund = once | {"kind": "refund"}
        for booked in ((), (once, once), (once, refund), (once, once | {"key": "who"})):
            self.assertEqual(len(self.wrong(*booked)), 1 + (booked == (once, once)), booked)
        Reservation.objects.update(status="returned")
        self.assertEqual(len(self.wrong(once)), 2)


class Pages(TransactionTestCase):
    """The pages, whose carts are asked: the question has to be committed."""

    def test_a_cart_is_filled_and_bought(self) -> None:
        """Through the browser's eyes, until the order's page."""
        Product.objects.create(slug="tea", name="Tea", price=450, delivered=5, stock=5)
        browser = Client()
        browser.get("/")
        self.assertRedirects(browser.post("/cart/", {"product": "tea", "quantity": 2}), "/")
        self.assertContains(browser.get("/"), "Together 900 cents")
        self.assertContains(
            browser.post("/cart/", {"product": "no", "quantity": 2}), "no such", status_code=400
        )
        customer = {"customer": "ann@example.org", "card": "4111"}
        self.assertContains(browser.post("/buy/", {}), "required", status_code=400)
        answer = browser.post("/buy/", customer)
        order = Order.objects.get()
        self.assertRedirects(answer, f"/orders/{order.id}/")
        self.assertContains(browser.get("/"), "Together 0 cents")
        self.assertEqual(browser.post("/buy/", customer)["Location"], f"/orders/{order.id}/")
