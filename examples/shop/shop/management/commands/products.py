"""``manage.py products``: puts goods on the shelf of a new shop, and an administrator beside it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from shop.models import Product

PRODUCTS = [("tea", "Tea", 450), ("cake", "Cake", 1250), ("pot", "Teapot", 3900)]


class Command(BaseCommand):
    """What is there already stays as it is."""

    help = "Adds three products, and the superuser admin with the password admin."

    def handle(self, *args: Any, **options: Any) -> None:
        """Add what is missing."""
        for slug, name, price in PRODUCTS:
            Product.objects.get_or_create(
                slug=slug, defaults={"name": name, "price": price, "delivered": 300, "stock": 300}
            )
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", password="admin")
