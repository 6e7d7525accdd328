"""What runs tasks: the classes of the actor types that queues are.

In a queue's turn a sync task is called in the transaction of its turn, which begins with its first
statement.  So is an async one, in an event loop of its own, whose ORM calls are part of that
transaction.  In a queue of ``async_queues`` async tasks run in the host's event loop, hundreds at
once, and outside of a transaction; sync ones run in its threads, by ``in_commit()``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import iscoroutinefunction
from traceback import format_exception
from typing import Any

from django.dispatch import Signal
from django.utils import timezone

from djactor.hosting.context import Reject, Turn, current
from djactor.hosting.session import process_name
from djactor.tasks import compat, results

LONGEST = 20_000  # characters of a traceback that are kept: its end

_tasks: set[asyncio.Task[Any]] = set()


def class_path(error: BaseException) -> str:
    """The dotted path of the class of an exception."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def traceback_of(error: BaseException) -> str:
    """Its traceback, as Django's own backends keep it, and as jsonb can hold it."""
    text = "".join(format_exception(error)).replace("\x00", "\ufffd")
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST else f"...{text[-LONGEST:]}"


class Run:
    """One attempt at a task.

    Attributes:
        turn: The turn that it is.
    """

    def __init__(self, message: Any) -> None:
        self.turn: Turn = current()
        if self.turn.kind != "user" or not results.is_task(message):
            raise Reject("this is no task: a queue takes what enqueue() sends, and nothing else")
        self._message: Mapping[str, Any] = message
        self._began = timezone.now()
        self._worker = process_name()
        self._value: Any = None
        self._error: BaseException | None = None
        self.turn.noted = self._noted
        turn = self.turn
        self._known = results.known_task(message, turn.actor_type, turn.priority or 0)
        turn.told = self._told

    @property
    def task(self) -> compat.Task:
        """The task."""
        return self._known.task

    @cached_property
    def result(self) -> compat.TaskResult:
        """Its result, which is RUNNING; few tasks have anybody who asks for it."""
        turn, message = self.turn, self._message
        attempts = results.Attempts(turn.meta)
        began = results.moment(self._began)
        made: compat.TaskResult = compat.TaskResult(
            task=self.task,
            id=str(turn.message_id),
            status=compat.TaskResultStatus.RUNNING,
            enqueued_at=results.moment(turn.sent_at),
            started_at=attempts.started(0) or began,
            last_attempted_at=began,
            finished_at=None,
            args=message["args"],
            kwargs=message["kwargs"],
            backend=str(message["backend"]),
            errors=attempts.errors(),
            worker_ids=[*attempts.workers(turn.attempts), self._worker],
        )
        return made

    @property
    def sender(self) -> Any:
        """Who sends its signals: the class of its backend."""
        return self._known.sender

    @property
    def arguments(self) -> Sequence[Any]:
        """What the function is called with, but for named arguments."""
        if self.task.takes_context:
            return compat.TaskContext(task_result=self.result), *self.result.args
        given: Sequence[Any] = self._message["args"]
        return given

    @property
    def named(self) -> Mapping[str, Any]:
        """The named arguments."""
        given: Mapping[str, Any] = self._message["kwargs"]
        return given

    def call(self) -> Any:
        """Call the function; an async one runs to its end."""
        return self._known.call(*self.arguments, **self.named)

    def ended(self, value: Any) -> dict[str, Any]:
        """What the turn leaves.

        Raises:
            TypeError: JSON cannot hold what the function has returned.
            ValueError: The same.
        """
        if value is not None:
            self._value = compat.normalize_json(value)
            if results.has_nul(self._value):
                raise ValueError("the character NUL in what a task returns cannot be stored")
        return {"value": self._value, "worker": self._worker}

    def _noted(self, error: BaseException) -> str:
        """An attempt has failed: what is kept of it."""
        self._error = error
        return results.Attempts(self.turn.meta).with_one(self._worker, self._began, error)

    def _told(self, verdict: str) -> None:
        """The attempt is over, and committed."""
        if verdict not in ("done", "dead_letter"):
            return
        matters = verdict == "dead_letter" or _matters(compat.task_finished)
        if not matters and "result" not in self.__dict__:
            return  # nobody has it
        changes: dict[str, Any] = {
            "finished_at": results.moment(timezone.now()),
            "status": compat.TaskResultStatus.SUCCESSFUL,
            "_return_value": self._value,
        }
        if verdict == "dead_letter":
            changes |= {"status": compat.TaskResultStatus.FAILED, "_return_value": None}
        for name, change in changes.items():
            object.__setattr__(self.result, name, change)
        error = self._error if verdict == "dead_letter" else None
        if error is None:
            if matters:
                _say(compat.task_finished, self.sender, self.result)
            return
        self.result.errors.append(
            compat.TaskError(exception_class_path=class_path(error), traceback=traceback_of(error))
        )
        try:
            raise error.with_traceback(error.__traceback__)
        except BaseException:  # receivers ask for it by sys.exc_info()
            _say(compat.task_finished, self.sender, self.result)


class TaskHandler:
    """The class of a queue."""

    runs_tasks = True

    def __init__(self, key: str) -> None:
        """Nothing is kept of a key."""

    def handle_message(self, message: dict[str, Any]) -> dict[str, Any]:
        """Run a task."""
        run = Run(message)
        if _matters(compat.task_started):
            compat.task_started.send(sender=run.sender, task_result=run.result)
        return run.ended(run.call())


class AsyncTaskHandler:
    """The class of a queue of ``async_queues``."""

    runs_tasks = True

    def __init__(self, key: str) -> None:
        """Nothing is kept of a key."""

    async def handle_message(self, message: dict[str, Any]) -> dict[str, Any]:
        """Run a task."""
        run = Run(message)
        if _is_heard(compat.task_started):
            await compat.task_started.asend(sender=run.sender, task_result=run.result)
        elif _matters(compat.task_started):
            compat.task_started.send(sender=run.sender, task_result=run.result)
        if iscoroutinefunction(run.task.func):
            value = await run.task.func(*run.arguments, **run.named)
        else:
            value = await run.turn.in_commit(run.call)
        return run.ended(value)


def _is_heard(signal: Signal) -> bool:
    """Whether a signal has receivers besides Django's own, which only log."""
    return any(key[0] not in compat.OWN_RECEIVERS for key, *_ in signal.receivers)


def _matters(signal: Signal) -> bool:
    """Whether sending a signal of success would be noticed."""
    return _is_heard(signal) or compat.logger.isEnabledFor(logging.INFO)


def _say(signal: Signal, sender: Any, result: compat.TaskResult) -> None:
    """Send a signal; what receivers raise is logged.

    Receivers must not block an event loop, so there they are called by a task of their own.
    """
    try:
        loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is None or not _is_heard(signal):
        signal.send_robust(sender=sender, task_result=result)
        return
    task = loop.create_task(_say_later(signal, sender, result, sys.exc_info()[1]))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _say_later(
    signal: Signal, sender: Any, result: compat.TaskResult, error: BaseException | None
) -> None:
    if error is None:
        await signal.asend_robust(sender=sender, task_result=result)
        return
    try:
        raise error.with_traceback(error.__traceback__)
    except BaseException:
        await signal.asend_robust(sender=sender, task_result=result)
