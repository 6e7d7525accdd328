"""The app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    """Devices, what they measured, and alerts."""

    name = "events"
