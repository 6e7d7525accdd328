"""The app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Clients, upstreams, and what may pass between them."""

    name = "gateway"
