"""The app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Products, carts, orders, and how they are paid."""

    name = "shop"
