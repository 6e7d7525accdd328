"""The queues of the setting TASKS, as hosted actor types without a state.

They are registered when Django starts, as classes of ``actors.py`` are; ``migrate`` defines them.
This module must not need Django's tasks: it is imported in projects without them, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import connections
from django.utils.module_loading import import_string

from djactor import conf, registry
from djactor.options import ServerSetting, TypeOptions

BACKEND = "djactor.tasks.DjactorBackend"

DEFAULTS: dict[str, Any] = {"max_attempts": 1, "handler_timeout": None}
"""What a queue's type has otherwise than other types: as Django's own backends do, a task that has
failed is not tried again, and may take as long as it takes."""

OPTIONS = (
    "max_attempts",
    "backoff",
    "backoff_max",
    "handler_timeout",
    "batch_size",
    "concurrency",
    "mailbox_limit",
    "rate",
    "breaker_failures",
    "breaker_window",
    "owner",
)
"""Options of the type that OPTIONS of a backend may name."""


def ours() -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of TASKS that name this backend or one that derives from it."""
    given = getattr(settings, "TASKS", None)
    if not isinstance(given, Mapping):
        return
    for alias, params in given.items():
        path = params.get("BACKEND") if isinstance(params, Mapping) else None
        if path != BACKEND:
            try:
                cls = import_string(str(path))
            except Exception:  # Django says what is wrong with it when it is used
                continue
            mro = getattr(cls, "__mro__", ())
            if not any(getattr(base, "is_djactor_backend", False) for base in mro):
                continue
        yield alias, dict(params)


def queues_of(params: Mapping[str, Any]) -> list[str]:
    """The queues of an entry of TASKS, in their order."""
    return list(dict.fromkeys(params.get("QUEUES", ["default"]) or ()))


def type_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the types of a backend's queues."""
    found = DEFAULTS | {name: options[name] for name in OPTIONS if name in options}
    if found["handler_timeout"] is None:
        from datetime import timedelta

        found["handler_timeout"] = timedelta(0)  # no limit
    found["journal"] = options.get("result_retention", ServerSetting("djactor.reply_retention"))
    found["stateless"] = True
    return found


def register_queues() -> None:
    """Register the type of each queue of TASKS; what cannot be is left to ``check()``."""
    for _, params in ours():
        from djactor.tasks.handlers import AsyncTaskHandler, TaskHandler

        options = params.get("OPTIONS") or {}
        given: Any = type_options(options)
        for queue in queues_of(params):
            if not isinstance(queue, str) or not queue or _taken(queue) is not None:
                continue
            asynchronous = queue in (options.get("async_queues") or ())
            cls = AsyncTaskHandler if asynchronous else TaskHandler
            registry.unregister(queue)  # TASKS of a moment ago may have said otherwise
            registry.register(cls, queue, hosted=True, **given)


def _taken(queue: str) -> str | None:
    """The class that has the name of a queue and is not one that runs tasks."""
    known = registry.registered().get(queue)
    if known is None or getattr(known.cls, "runs_tasks", False):
        return None
    return known.path


def check(alias: str, queues: list[str], options: Mapping[str, Any]) -> list[CheckMessage]:
    """What is wrong with an entry of TASKS.

    Args:
        alias: Its alias.
        queues: The names of its queues.
        options: Its OPTIONS.
    """
    where = f"settings.TASKS[{alias!r}]"
    messages: list[CheckMessage] = []

    def say(words: str, hint: str) -> None:
        messages.append(Error(words, hint=hint, id="djactor.E008"))

    if not apps.is_installed("djactor"):
        say(
            f"{where} uses djactor, which is not installed",
            "Add 'djactor' to INSTALLED_APPS.",
        )
        return messages
    database = conf.get("DATABASE")
    if database in connections and connections[database].vendor != "postgresql":
        say(
            f"{where} uses djactor, and its database {database!r} is not PostgreSQL",
            "Set DJACTOR['DATABASE'] to the alias of a PostgreSQL database.",
        )
    if not queues:
        say(
            f"{where} has no QUEUES",
            "djactor defines a queue before it is used: name them all.",
        )
    for queue in queues:
        taken = _taken(queue)
        others = [name for name, params in ours() if name != alias and queue in queues_of(params)]
        if taken is not None:
            say(
                f"{where}: the queue {queue!r} has the name of the actor type of {taken}",
                "A queue is an actor type: name one of them otherwise.",
            )
        elif others:
            say(
                f"{where}: the queue {queue!r} belongs to TASKS[{others[0]!r}], too",
                "Give each backend queues of its own.",
            )
    known = {*OPTIONS, "result_retention", "async_queues"}
    for name in sorted(set(options) - known, key=str):
        why = "is chosen by djactor" if name in TypeOptions.__annotations__ else "is not known"
        say(
            f"{where}: the option {name!r} {why}",
            f"OPTIONS may have {', '.join(sorted(known))}.",
        )
    given = options.get("async_queues") or ()
    unknown = [] if isinstance(given, str) else [one for one in given if one not in queues]
    if isinstance(given, str) or unknown:
        say(
            f"{where}: async_queues is {given!r}, which are not all QUEUES",
            "It is a list of some of the QUEUES.",
        )
    return messages
