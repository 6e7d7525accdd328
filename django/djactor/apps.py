"""The app's configuration: its name, the system checks and the errors that come with it."""

from django.apps import AppConfig
from django.db.backends.signals import connection_created


class DjactorConfig(AppConfig):
    """djactor, as Django sees it."""

    name = "djactor"
    verbose_name = "Actors"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and have djactor's errors explained."""
        from djactor import checks, exceptions  # noqa: F401

        connection_created.connect(exceptions.install, dispatch_uid="djactor.exceptions")
