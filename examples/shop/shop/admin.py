"""The admin: products can be added and delivered; orders are for looking at.

What has become of an order in detail is under *Actors*: its messages, dead letters and traces.
"""

from django.contrib import admin, messages
from django.db import models
from django.db.models import F
from django.http import HttpRequest

from shop.models import Line, Order, Product, Reservation


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Products; the numbers are changed by deliveries and orders only."""

    list_display = ["name", "price", "delivered", "stock"]
    readonly_fields = ["delivered", "stock"]
    actions = ["deliver"]

    @admin.action(description="Ten more have come")
    def deliver(self, request: HttpRequest, products: models.QuerySet[Product]) -> None:
        """Add to the shelf: relative to what is there, since orders do so meanwhile."""
        products.update(delivered=F("delivered") + 10, stock=F("stock") + 10)
        messages.success(request, "They are on the shelf.")


class ReadOnly:
    """Actors write these."""

    def has_add_permission(self, *args: object) -> bool:
        """Carts do."""
        return False

    def has_change_permission(self, *args: object) -> bool:
        """Orders and stocks do."""
        return False

    def has_delete_permission(self, *args: object) -> bool:
        """Nobody does."""
        return False


class LineInline(ReadOnly, admin.TabularInline):
    """What an order is for."""

    model = Line


class ReservationInline(ReadOnly, admin.TabularInline):
    """What it has taken off the shelf."""

    model = Reservation


@admin.register(Order)
class OrderAdmin(ReadOnly, admin.ModelAdmin):
    """Orders."""

    list_display = ["id", "customer", "total", "status", "reason", "created_at"]
    list_filter = ["status"]
    inlines = [LineInline, ReservationInline]
