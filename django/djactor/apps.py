"""The app's configuration: its name, and the system checks that come with it."""

from django.apps import AppConfig


class DjactorConfig(AppConfig):
    """djactor, as Django sees it."""

    name = "djactor"
    verbose_name = "Actors"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from djactor import checks  # noqa: F401
