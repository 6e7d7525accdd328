"""A backend for Django's tasks: ``django.tasks``, and the package ``django-tasks`` before Django 6.

    TASKS = {"default": {"BACKEND": "djactor.tasks.DjactorBackend"}}

A queue is an actor type of its name, a task that waits is a message, and ``djactor_worker`` runs
it.  So a task is enqueued by a plain insert in the caller's transaction, and what it writes commits
together with its result.

``queues`` registers the types and checks them, ``backend`` enqueues, ``handlers`` runs tasks in
hosts and in ``drain()``, ``results`` finds out what became of one, ``compat`` knows where Django's
part is.

There is no table of tasks.  A task is where its message is: in ``djactor.message`` while it waits
or runs, in ``djactor.dead_letter`` when it has failed, in ``djactor.journal`` when it was
successful.  What is known of earlier attempts goes with the message, in its column ``meta``.

Names are loaded when they are first used: other task queues import ``tasks`` of every installed
app, in projects, too, that have no tasks of Django's.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from djactor.tasks.backend import DjactorBackend, Task
    from djactor.tasks.results import TaskCrashed

__all__ = ["DjactorBackend", "Task", "TaskCrashed"]

_HOMES = {"DjactorBackend": "backend", "Task": "backend", "TaskCrashed": "results"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """What ``__all__`` names, from the module that has it.

        Raises:
            AttributeError: For any other name.
        """
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
