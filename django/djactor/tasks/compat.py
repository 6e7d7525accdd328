"""Django's part of tasks: ``django.tasks`` from 6.0 on, the package ``django-tasks`` before.

This is the only module that knows which of them it is.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import django
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import signals as _signals
    from django.tasks import task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import (
        DEFAULT_TASK_QUEUE_NAME,
        Task,
        TaskContext,
        TaskError,
        TaskResult,
        TaskResultStatus,
    )
    from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json

    PACKAGE = "django.tasks"
else:
    try:
        from django_tasks import signals as _signals
        from django_tasks import task_backends
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import (
            DEFAULT_TASK_QUEUE_NAME,
            Task,
            TaskContext,
            TaskError,
            TaskResult,
            TaskResultStatus,
        )
        from django_tasks.exceptions import InvalidTaskBackendError as InvalidTaskBackend
        from django_tasks.exceptions import InvalidTaskError as InvalidTask
        from django_tasks.exceptions import TaskResultDoesNotExist
        from django_tasks.signals import task_enqueued, task_finished, task_started
        from django_tasks.utils import normalize_json
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            f"Django {django.get_version()} has no tasks of its own: djactor.tasks needs the"
            " package django-tasks (pip install django-tasks), or Django 6.0"
        ) from error

    PACKAGE = "django_tasks"

logger = logging.getLogger(PACKAGE)
"""Where the package logs what its signals say."""

OWN_RECEIVERS = frozenset(
    id(found)
    for found in (
        getattr(_signals, f"log_task_{name}", None) for name in ("enqueued", "started", "finished")
    )
    if found is not None
)
"""The receivers of its signals that do it, as ``Signal.receivers`` names them."""

__all__ = [
    "DEFAULT_TASK_QUEUE_NAME",
    "OWN_RECEIVERS",
    "PACKAGE",
    "BaseTaskBackend",
    "InvalidTask",
    "InvalidTaskBackend",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "logger",
    "normalize_json",
    "task_backends",
    "task_enqueued",
    "task_finished",
    "task_started",
]
