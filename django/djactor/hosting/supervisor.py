"""The supervisor of ``djactor_worker``: starts processes, looks after them, ends them.

It runs no user code.  A child that dies is replaced, at growing intervals if it dies soon; what it
was executing is reported to the server, so that a message that kills its process is charged, and
those that were merely there are not.  A child whose turn has exceeded its time limit and cannot be
ended is replaced, too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import psycopg
from django.conf import settings

from djactor import listener
from djactor.hosting import child, health, logs, notes
from djactor.hosting.session import BACKOFF, Options

_LOOK = 1.0  # seconds
_SOON = 10.0  # seconds: who dies sooner is started later the next time
_MARGIN = 10.0  # seconds that a child may take beyond its grace


@dataclass(frozen=True)
class Plan:
    """What to start.

    Attributes:
        options: What the hosts are told.
        types: Names of types; None means all that are registered as hosted.
        nodes: Aliases of a cluster's nodes, each of which gets its processes; None stands for the
            database of ``options``.
        processes: How many processes for each.
        health: The port of the health endpoint; None means none.
        autoreload: Whether to start anew when code has changed.
        uvloop: Whether to use uvloop if it is installed.
        verbosity: How much is logged, if the project does not say.
    """

    options: Options
    types: Sequence[str] | None
    nodes: Sequence[str | None] = (None,)
    processes: int = 1
    health: int | None = None
    autoreload: bool = False
    uvloop: bool = True
    verbosity: int = 1


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    node: str | None
    notes: notes.Notes
    notes_fd: int
    lifeline: int
    started: float
    condemned: list[int] = field(default_factory=list)  # messages that cannot be ended
    kill_at: float = float("inf")


class Supervisor:
    """Starts processes, looks after them, ends them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._children: list[_Child] = []
        self._retired: list[_Child] = []  # ending, and replaced already
        self._start_at: list[tuple[float, str | None]] = []  # when, and for which node
        self._failures = 0
        self._ending = 0  # signals
        self._was_ready = False
        self._looked = time.monotonic()
        self._status = 0
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._rope, False)

    def run(self) -> int:
        """Run until told to end.

        Returns:
            The status of the process.

        Raises:
            OSError: The port of the health endpoint cannot be had.
        """
        if self._plan.health is not None:
            server = health.serve(self._plan.health, self._live, self._ready)
            logs.logger.info("health: port %d", server.server_port)
        before = {one: signal.signal(one, self._told) for one in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._ring)
        wakeup = signal.set_wakeup_fd(self._rope, warn_on_full_buffer=False)
        try:
            self._start_at = [(0.0, node) for node in self._plan.nodes] * self._plan.processes
            while self._step():
                with contextlib.suppress(InterruptedError):
                    select.select([self._bell], [], [], self._pause())
                with contextlib.suppress(BlockingIOError):
                    while os.read(self._bell, 1024):
                        pass
        finally:
            signal.set_wakeup_fd(wakeup)
            for one, handler in before.items():
                signal.signal(one, handler)
            for left in [*self._children, *self._retired]:
                left.process.kill()
                left.process.wait()
        return self._status

    def _pause(self) -> float:
        soonest = min((due for due, _ in self._start_at), default=float("inf"))
        return max(0.0, min(_LOOK, soonest - time.monotonic()))

    def _step(self) -> bool:
        """Do what is to be done now.

        Returns:
            Whether there is more to come.
        """
        now = self._looked = time.monotonic()
        for one in [*self._children, *self._retired]:
            if one.process.poll() is not None:
                self._ended(one, now)
            elif one.kill_at <= now:
                one.process.kill()
            elif one in self._children:
                overdue = one.notes.overdue()
                if overdue:
                    self._replace(one, overdue, now)
        if self._ending:
            return bool(self._children or self._retired)
        for start in [start for start in self._start_at if start[0] <= now]:
            self._start_at.remove(start)
            self._children.append(self._start(start[1]))
        return bool(self._children or self._retired or self._start_at)

    def _start(self, node: str | None) -> _Child:
        plan = self._plan
        fd = notes.create()
        theirs, ours = os.pipe()
        configuration = {
            "alias": plan.options.alias,
            "node": node,
            "settings": settings.SETTINGS_MODULE,
            "types": None if plan.types is None else list(plan.types),
            "options": asdict(plan.options),
            "notes": fd,
            "lifeline": theirs,
            "autoreload": plan.autoreload,
            "uvloop": plan.uvloop,
            "verbosity": plan.verbosity,
            "pythonpath": os.environ.get("PYTHONPATH"),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "djactor.hosting.child"],
            env=child.environment(configuration),
            pass_fds=(fd, theirs),
        )
        os.close(theirs)
        return _Child(process, node, notes.Notes(fd), fd, ours, time.monotonic())

    def _ended(self, one: _Child, now: float) -> None:
        """A child has ended."""
        status = one.process.returncode
        executing = one.notes.executing()
        hosts = one.notes.words[notes.ASYNC_HOST : notes.SYNC_HOST + 1].tolist()
        retired = one in self._retired
        (self._retired if retired else self._children).remove(one)
        os.close(one.lifeline)
        os.close(one.notes_fd)
        served = one.notes.words[notes.READY] or one.notes.words[notes.DRAINING]
        # A node of a cluster may be down while others are served.
        wrong = status == child.WRONG and one.node is None
        if wrong and not served and not self._plan.autoreload:
            # It has said why; another one would say it again.
            if not self._was_ready:
                self._status = 1
                self._end()
                return
        elif status not in (child.CLEAN, child.RELOAD):
            self._report(one, status, executing, hosts)
        self._was_ready = self._was_ready or bool(served)
        if retired or self._ending:
            return
        if status == child.RELOAD:
            logs.logger.info("code or types have changed: starting anew")
            self._start_at.append((now, one.node))
            return
        if now - one.started > _SOON:
            self._failures = 0
        pause = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        self._start_at.append((now + pause, one.node))

    def _replace(self, one: _Child, overdue: list[int], now: float) -> None:
        """Replace a child of which a turn cannot be ended."""
        logs.logger.error(
            "process %d cannot end the turn of message %s, which is over its time limit:"
            " it is replaced",
            one.process.pid,
            ", ".join(map(str, overdue)),
        )
        one.condemned = overdue
        one.kill_at = now + self._plan.options.grace
        self._children.remove(one)
        self._retired.append(one)
        one.process.terminate()
        self._start_at.append((now, one.node))

    def _report(self, one: _Child, status: int, executing: list[int], hosts: list[int]) -> None:
        """Tell the server which message a dead process was executing."""
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        charged = one.condemned or executing
        logs.logger.error(
            "process %d has died (%s)%s",
            one.process.pid,
            how,
            f" while it was executing message {', '.join(map(str, charged))}" if charged else "",
        )
        if len(charged) > 1:
            return  # nobody knows which one it was: each runs alone next
        alias = one.node or self._plan.options.alias
        try:
            with psycopg.connect(
                **listener.parameters(alias, "supervisor") | {"autocommit": True}
            ) as connection:
                listener.become_role(connection, alias)
                for host in hosts:
                    if host:
                        connection.execute("SELECT djactor.host_crashed(%s, %s)", (host, charged))
        except psycopg.Error as error:
            logs.logger.warning("the death could not be reported: %s", error)

    # Signals, and the end.

    def _told(self, number: int, frame: FrameType | None) -> None:
        self._end()

    def _ring(self, number: int, frame: FrameType | None) -> None:
        """A child may have ended; the descriptor of wake-ups has it already."""

    def _end(self) -> None:
        self._ending += 1
        self._start_at.clear()
        limit = time.monotonic() + (self._plan.options.grace + _MARGIN if self._ending == 1 else 1)
        for one in [*self._children, *self._retired]:
            one.kill_at = min(one.kill_at, limit)
            one.process.terminate()

    # What the health endpoint tells; in its threads.

    def _live(self) -> tuple[bool, dict[str, Any]]:
        silent = time.monotonic() - self._looked
        return silent < 10 * _LOOK, {"processes": [one.process.pid for one in self._children]}

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        ready = [
            one.process.pid
            for one in list(self._children)
            if one.notes.words[notes.READY]
            and any(one.notes.words[notes.ASYNC_HOST : notes.SYNC_HOST + 1])
        ]
        wanted = self._plan.processes * len(self._plan.nodes)
        well = len(ready) == wanted and not self._ending
        return well, {"ready": ready, "ending": bool(self._ending)}
