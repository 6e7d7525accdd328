"""The backend: tasks are enqueued as messages.

A task without a key has one of its own, so tasks run side by side.  Those of one key run one after
the other, in the order in which they were enqueued.  A task with an idempotency key and no key is
sent to a key that is made of it, since idempotency keys belong to an actor.

Django's priorities are djactor's: higher first.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.checks import CheckMessage
from django.db import connections

from djactor import conf
from djactor.fields import normalise_key
from djactor.options import Key
from djactor.tasks import compat, queues, results

if TYPE_CHECKING:
    from djactor.models import Message

_Task = compat.Task
_LONGEST = 512  # bytes of a key


@dataclass(frozen=True, kw_only=True)
class Task(_Task):
    """A task of this backend.

    Attributes:
        key: Tasks of a queue that have the same key run one after the other, in their order; None
            means that nothing waits for this task.
        idempotency_key: A second one with this key, of the same task, queue and key, is not run,
            and has the result of the first.
    """

    key: Key | None = None
    idempotency_key: str | None = None

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        key: Key | None = None,
        idempotency_key: str | None = None,
    ) -> Task:
        """The task with other defaults.

        Args:
            priority: From -100 to 100, higher first.
            queue_name: The queue.
            run_after: When it may run at the earliest.
            backend: The alias of its backend.
            key: A str, an int or a UUID, of 1 to 512 bytes as text.
            idempotency_key: A text.

        Raises:
            InvalidTask: The backend cannot run such a task.
        """
        changes = {
            "priority": priority,
            "queue_name": queue_name,
            "run_after": run_after,
            "backend": backend,
            "key": key,
            "idempotency_key": idempotency_key,
        }
        given: dict[str, Any] = {
            name: value for name, value in changes.items() if value is not None
        }
        return replace(self, **given)

    def enqueue_many(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        *,
        key: Callable[..., Key | None] | None = None,
    ) -> list[compat.TaskResult]:
        """Enqueue many: see ``DjactorBackend.enqueue_many()``."""
        backend: Any = self.get_backend()
        found: list[compat.TaskResult] = backend.enqueue_many(self, calls, key=key)
        return found

    async def aenqueue_many(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        *,
        key: Callable[..., Key | None] | None = None,
    ) -> list[compat.TaskResult]:
        """``enqueue_many()`` for async code."""
        return await sync_to_async(self.enqueue_many)(calls, key=key)


class DjactorBackend(compat.BaseTaskBackend):
    """Tasks in PostgreSQL, by djactor."""

    is_djactor_backend = True
    task_class = Task
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.options = params.get("OPTIONS") or {}
        self._names = queues.queues_of(params)

    def validate_task(self, task: compat.Task) -> None:
        """See that a task can be run.

        Raises:
            InvalidTask: It cannot.
        """
        super().validate_task(task)
        key, once = _keys(task)
        if key is not None:
            try:
                normalise_key(key)
            except (TypeError, ValueError) as error:
                raise compat.InvalidTask(f"The key of a task cannot be used: {error}") from None
        if once is not None and (not isinstance(once, str) or not once):
            raise compat.InvalidTask(f"idempotency_key must be a text, not {once!r}.")

    def enqueue(
        self, task: compat.Task, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> compat.TaskResult:
        """Enqueue a task, in the transaction at hand.

        Args:
            task: The task.
            args: Its arguments.
            kwargs: Its named arguments.

        Returns:
            Its result, which is READY.

        Raises:
            InvalidTask: The task cannot be run by this backend.
            TypeError: JSON cannot hold the arguments.
            ValueError: The same.
            UnknownActorType: The queue is not defined: ``migrate`` was not run.
            MailboxFull: So many tasks wait for the key as ``mailbox_limit`` allows.
        """
        self.validate_task(task)
        self._require()
        result = self._new(task, args, kwargs)
        message = self._message(task, result)
        message.save(using=conf.get("DATABASE"))
        return self._enqueued(result, message)

    def enqueue_many(
        self,
        task: compat.Task,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        *,
        key: Callable[..., Key | None] | None = None,
    ) -> list[compat.TaskResult]:
        """Enqueue a task many times, by one statement.

        Args:
            task: The task.
            calls: For each time the arguments: a list or tuple, or a dict of named ones.
            key: A function that is called with the arguments, and returns the key.

        Returns:
            The results, in the same order.

        Raises:
            InvalidTask: As by ``enqueue()``, and so are all other errors; nothing is enqueued then.
            TypeError: The arguments of a call are neither list, tuple nor dict.
        """
        from djactor.models import Message

        self.validate_task(task)
        self._require()
        made: list[compat.TaskResult] = []
        for call in calls:
            if isinstance(call, Mapping):
                args, kwargs = (), dict(call)
            elif isinstance(call, list | tuple):
                args, kwargs = tuple(call), {}
            else:
                raise TypeError(f"the arguments of a call are a list or a dict, not {call!r}")
            one = task if key is None else replace(task, key=key(*args, **kwargs))  # type: ignore[call-arg]
            made.append(self._new(one, args, kwargs))
        messages = [self._message(result.task, result) for result in made]
        if messages:
            Message.objects.using(conf.get("DATABASE")).bulk_create(messages)
        return [self._enqueued(*both) for both in zip(made, messages, strict=True)]

    def get_result(self, result_id: str) -> compat.TaskResult:
        """What became of a task.

        Raises:
            TaskResultDoesNotExist: There is no such task in a queue of this backend, or its result
                is older than the retention of results.
        """
        self._require()
        return results.get(self, result_id)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """What is wrong with the settings."""
        return queues.check(self.alias, self._names, self.options)

    def _require(self) -> None:
        """See that there is a djactor to be used.

        Raises:
            InvalidTaskBackend: There is none.
        """
        if not apps.is_installed("djactor"):
            raise compat.InvalidTaskBackend(
                f"The task backend {self.alias!r} needs 'djactor' in INSTALLED_APPS."
            )
        database = conf.get("DATABASE")
        if connections[database].vendor != "postgresql":
            raise compat.InvalidTaskBackend(
                f"The task backend {self.alias!r} needs PostgreSQL, which the database"
                f" {database!r} is not."
            )

    def _new(
        self, task: compat.Task, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> compat.TaskResult:
        return compat.TaskResult(
            task=task,
            id="",
            status=compat.TaskResultStatus.READY,
            enqueued_at=None,
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )

    def _message(self, task: compat.Task, result: compat.TaskResult) -> Message:
        from djactor.models import Message

        key, once = _keys(task)
        path = task.module_path
        payload: dict[str, Any] = {
            "task": path,
            "args": result.args,
            "kwargs": result.kwargs,
            "backend": self.alias,
        }
        if task.run_after is not None:
            payload["run_after"] = task.run_after.isoformat()
        if key is not None:
            payload["key"] = normalise_key(key)
        if once is not None:
            payload["idempotency_key"] = once
        if results.has_nul(payload):
            raise ValueError("the character NUL in the arguments of a task cannot be stored")
        return Message(
            actor_type=task.queue_name,
            actor_key=_actor_key(path, key, once),
            payload=payload,
            priority=task.priority,
            deliver_at=task.run_after,
            idempotency_key=None if once is None else _short(f"{path} {once}"),
        )

    def _enqueued(self, result: compat.TaskResult, message: Message) -> compat.TaskResult:
        object.__setattr__(result, "id", str(message.pk))
        object.__setattr__(result, "enqueued_at", results.moment(message.sent_at))
        compat.task_enqueued.send(type(self), task_result=result)
        return result


def _keys(task: compat.Task) -> tuple[Key | None, str | None]:
    """Its key and idempotency key; a task that was declared for another backend has none."""
    return getattr(task, "key", None), getattr(task, "idempotency_key", None)


def _actor_key(path: str, key: Key | None, once: str | None) -> str:
    if key is not None:
        return normalise_key(key)
    if once is not None:
        return _short(f"{path} {once}")
    return uuid.uuid4().hex


def _short(text: str) -> str:
    """A text that is no longer than a key may be; a longer one is hashed."""
    if len(text.encode()) <= _LONGEST:
        return text
    return hashlib.sha256(text.encode()).hexdigest()
