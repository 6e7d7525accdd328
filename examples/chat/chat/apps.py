"""The app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    """Rooms, users and what was said."""

    name = "chat"
