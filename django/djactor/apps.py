"""The app's configuration: what happens when Django starts.

The system checks and the errors are made known, and ``actors.py`` of every installed app is
imported, which registers the actor types of the project.  Django's autoreloader is told about files
of handlers.
"""

import sys
from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.utils.autoreload import autoreload_started, file_changed


class DjactorConfig(AppConfig):
    """djactor, as Django sees it."""

    name = "djactor"
    verbose_name = "Actors"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Make checks and errors known, import ``actors.py``, register the queues of TASKS."""
        from djactor import checks, cluster, declared, developing, exceptions  # noqa: F401
        from djactor.tasks import queues

        connection_created.connect(exceptions.install, dispatch_uid="djactor.exceptions")
        post_migrate.connect(declared.after_migrate, self, dispatch_uid="djactor.declared")
        autoreload_started.connect(developing.watch, dispatch_uid="djactor.developing")
        file_changed.connect(developing.changed, dispatch_uid="djactor.developing")
        cluster.set_tables()
        declared.discover()
        queues.register_queues()
        setting_changed.connect(_settings_changed, dispatch_uid="djactor.settings")


def _settings_changed(setting: str, **kwargs: Any) -> None:
    """Tests change TASKS, whose types ``define_types()`` defines, and DJACTOR."""
    if setting == "DJACTOR":
        from djactor import cluster

        cluster.set_tables()
    if setting == "TASKS":
        from djactor.tasks import queues

        queues.register_queues()
        if "djactor.tasks.results" in sys.modules:
            sys.modules["djactor.tasks.results"].forget_tasks()
