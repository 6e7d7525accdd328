"""What the shop keeps: ordinary tables, which the handlers read and write with the ORM.

A turn's writes commit together with its state and the messages that it sends, so there is no
"processing" that somebody would have to clean up after a crash.
"""

import uuid

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now


class Product(models.Model):
    """Something to buy.  Its actor ``shop.stock`` takes units off the shelf and puts them back."""

    slug = models.SlugField(primary_key=True)
    name = models.CharField(max_length=100)
    price = models.PositiveIntegerField(help_text="in cents")
    delivered = models.PositiveIntegerField(default=0, help_text="units that ever came")
    stock = models.PositiveIntegerField(default=0, help_text="units on the shelf, not reserved")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(stock__lte=F("delivered")), name="shop_product_some")
        ]

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """An order.  The cart's actor adds it; from then on the actor ``shop.order`` writes it."""

    class Status(models.TextChoices):
        """Where it is; the last three are ends."""

        NEW = "new", "new"
        RESERVING = "reserving", "reserving the goods"
        PAYING = "paying", "waiting for the bank"
        TAKING = "taking", "packing"
        CANCELLING = "cancelling", "being cancelled"
        PAID = "paid", "paid, on its way"
        CANCELLED = "cancelled", "cancelled"
        STUCK = "stuck", "looked at by a person"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    customer = models.EmailField()
    card = models.CharField(max_length=20)
    total = models.PositiveIntegerField(help_text="in cents")
    status = models.TextField(choices=Status, db_default=Status.NEW)
    reason = models.TextField(db_default="", help_text="why it was cancelled")
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return str(self.id)[:8]


class Line(models.Model):
    """What an order is for."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.PROTECT)
    quantity = models.PositiveIntegerField()
    price = models.PositiveIntegerField(help_text="in cents, of one, on the day")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["order", "product"], name="shop_line_once")]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product_id}"


class Reservation(models.Model):
    """Units that are off the shelf because of an order, or were."""

    class Status(models.TextChoices):
        """Held until it expires; taken for good; back on the shelf."""

        HELD = "held"
        TAKEN = "taken"
        RETURNED = "returned"

    order = models.ForeignKey(Order, models.CASCADE, related_name="reservations")
    product = models.ForeignKey(Product, models.PROTECT, related_name="reservations")
    quantity = models.PositiveIntegerField()
    status = models.TextField(choices=Status, default=Status.HELD)

    class Meta:
        constraints = [
            # No guard against double work, which does not happen: it would show here.
            models.UniqueConstraint(fields=["order", "product"], name="shop_reservation_once")
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product_id}, {self.status}"
