"""Celery, with Redis and with RabbitMQ: Python, one worker with two processes (prefork).

It has no order per key: the cases with keys run unordered here.  There is no result backend, which
is the default, except in the variant ``results kept``.  Preload publishes what ``apply_async``
does, over one connection.

A broker does not tell when the last message was acknowledged, so the clock is the tasks' own: it
starts with the first task and stops with the end of the last one.  Acknowledgements that come
later are not waited for, which flatters Celery a little; that nothing is left in the broker is
checked once the worker has ended.  The worker cannot wait for a word, so the CPU of its first
tasks may be missing.

default   ``celery worker`` as it is: as many processes as cores; a task is acknowledged before it
          runs, so a crash loses it.
tuned     no gossip, mingle and heartbeats, 64 messages prefetched for each process, no rate
          limits.
durable   tuned, and acknowledged after the task (``acks_late``), so that a crash repeats it;
          Redis with ``appendfsync always``.  RabbitMQ's queue and messages are durable in all
          three, but published without waiting for its confirmation.
results kept
          Only in the case ``tasks``, as the like of what djactor and django-tasks-db do there:
          durable, and each task's result is a row of django-celery-results on the common server,
          committed before the task is acknowledged.  It is checked that all are there.

In no variant does a worker log a line for a task: that is so by default.  In the case ``tasks`` the
other systems are told so, too.

Where the handler sleeps, ``durable`` has a pool of 100 threads in one process instead, which is
what its manual advises for tasks that wait.  In the case ``orm`` the tasks use Django, with
connections that stay open, and without Celery's fixup for Django, which only costs time.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path

from common import BenchmarkError, number, require
from rivals import installing
from rivals.brokers import Broker, RabbitMQ, Redis
from rivals.programs import Program, run_program
from rivals.protocol import DJANGO_PROJECT, KEYS, Case, Plan, Rival, Site, Skip, Worker

_TUNED: dict[str, object] = {"worker_prefetch_multiplier": 64, "worker_disable_rate_limits": True}
_OPTIONS = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
_SETTINGS: dict[str, dict[str, object]] = {
    "default": {"conf": {}, "options": ["-c", "2"]},
    "tuned": {"conf": _TUNED, "options": ["-c", "2", *_OPTIONS]},
    "durable": {"conf": {**_TUNED, "task_acks_late": True}, "options": ["-c", "2", *_OPTIONS]},
}
_KEPT = "results kept"
_SETTINGS[_KEPT] = {
    "conf": {**_TUNED, "task_acks_late": True, "result_backend": "django-db"},
    "options": ["-c", "2", *_OPTIONS],
}
_THREADS: dict[str, object] = {
    "conf": {**_TUNED, "worker_prefetch_multiplier": 4, "task_acks_late": True},
    "options": ["--pool", "threads", "-c", "100", *_OPTIONS],
}


def _tallies(directory: Path) -> list[tuple[int, float, float]]:
    """Count, first start and last end of each process."""
    found = [struct.unpack("qdd", file.read_bytes()) for file in directory.glob("*.tally")]
    return [one for one in found if one[0] > 0]


class _CeleryWorker(Program):
    """Starts at once; its beginning is the first task's."""

    _directory: Path

    def go(self) -> float:
        """Wait for the first task."""
        deadline = time.monotonic() + 30
        while not (tallies := _tallies(self._directory)):
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError("the worker handles nothing")
            time.sleep(0.002)
        return min(first for _, first, _ in tallies)


class _Celery(Rival):
    """What both brokers share."""

    variants = ("default", "tuned", "durable")
    has_django = True
    _broker: Broker

    def install(self) -> str:
        """From PyPI; the broker from Debian."""
        home, self._python = installing.python()
        self._program = home / "celery_app.py"
        self._runs = 0
        return installing.python_version(self._python, "celery")

    @property
    def pids(self) -> Sequence[int]:
        """The broker's."""
        return self._broker.pids

    def _url(self) -> str:
        raise NotImplementedError

    def _wake(self, plan: Plan) -> None:
        self._broker.wake()

    def variants_of(self, case: Case) -> Sequence[str]:
        """In the case ``tasks`` one more."""
        return [*super().variants_of(case), *([_KEPT] if case.handler == "tasks" else [])]

    def plan(self, variant: str, case: Case) -> Plan:
        """See the settings above."""
        messages = 4_000 if case.handler in ("noop", "tasks") else 2_500
        if variant == _KEPT:
            messages = 1_500
        order = "none: unordered" if case.keys else ""
        threads = variant == "durable" and case.handler == "sleep"
        return Plan(messages, _THREADS if threads else _SETTINGS[variant], order)

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """A queue of its own for each run."""
        self._wake(plan)
        self._runs += 1
        kept = plan.settings is _SETTINGS[_KEPT]
        self._config: dict[str, object] = {
            "broker": self._url(),
            "queue": f"bench{self._runs}",
            "url": site.url(),
            "host": site.private.host,
            "database": site.dbname,
            "directory": str(site.directory),
            "handler": "noop" if case.handler == "tasks" else case.handler,
            "results": kept,
            "starts": "" if plan.messages else str(site.directory),
            "messages": plan.messages,
            "keys": case.keys or KEYS,
            **plan.settings,
        }
        if kept:
            command = [self._python, self._program]
            run_program(command, {**self._config, "mode": "schema"}, site.directory, DJANGO_PROJECT)

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """A program of theirs publishes."""
        command = [self._python, self._program]
        config = {**self._config, "mode": "preload"}
        run_program(command, config, site.directory, DJANGO_PROJECT)

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """One worker."""
        config = {**self._config, "mode": "work"}
        worker = _CeleryWorker(
            [self._python, self._program], config, site.directory, DJANGO_PROJECT
        )
        worker._directory = site.directory
        return worker

    def send(self, site: Site, first: int, count: int, pause: float) -> str:
        """By ``apply_async()``."""
        config = {**self._config, "mode": "send", "first": first, "count": count, "pause": pause}
        return run_program([self._python, self._program], config, site.directory, DJANGO_PROJECT)

    def left(self, site: Site) -> int:
        """What was sent less what was handled."""
        sent = int(str(self._config["messages"]))
        return sent - sum(count for count, _, _ in _tallies(site.directory))

    def finished_at(self, site: Site) -> float:
        """The last task's end."""
        return max(last for _, _, last in _tallies(site.directory))

    def check_books(self, site: Site, case: Case, plan: Plan) -> None:
        """The broker has nothing left."""
        config = {**self._config, "mode": "left"}
        left = run_program([self._python, self._program], config, site.directory, DJANGO_PROJECT)
        require(int(left) == 0, f"the broker still has {left.strip()} messages")
        if plan.settings is _SETTINGS[_KEPT]:
            query = "SELECT count(*) FROM django_celery_results_taskresult WHERE status = 'SUCCESS'"
            kept = number(site.owner, query)
            require(kept == plan.messages, f"{kept:.0f} results")


class CeleryRedis(_Celery):
    """With Redis."""

    _broker: Redis
    name = "Celery+Redis"
    about = "acknowledged in memory; only 'durable' flushes each change"

    def install(self) -> str:
        """Redis from Debian."""
        installing.debian({"redis-server": "redis-server"})
        redis = installing.output(["redis-server", "--version"], "redis-server").split()[2]
        return f"{super().install()}, Redis {redis.removeprefix('v=')}"

    def open(self, directory: Path) -> None:
        """Each run starts a fresh one: it takes no time."""
        self._directory = directory / "redis"
        self._directory.mkdir()

    def _wake(self, plan: Plan) -> None:
        self._stop()
        durable = plan.settings in (_SETTINGS["durable"], _SETTINGS[_KEPT], _THREADS)
        self._broker = Redis(self._directory / str(self._runs), durable)

    def _url(self) -> str:
        return self._broker.url

    def _stop(self) -> None:
        if getattr(self, "_broker", None) is not None:
            self._broker.stop()

    def suspend(self) -> None:
        """The next run starts another."""
        self._stop()

    def close(self) -> None:
        """The last one."""
        self._stop()


class CeleryRabbitMQ(_Celery):
    """With RabbitMQ."""

    _broker: RabbitMQ
    name = "Celery+RabbitMQ"
    about = "durable queue, but confirmations are not waited for"

    def install(self) -> str:
        """RabbitMQ from Debian."""
        installing.debian({"rabbitmq-server": RabbitMQ.server})
        version = installing.output(
            ["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"], "rabbitmq-server"
        )
        return f"{super().install()}, RabbitMQ {version.partition('-')[0]}"

    def open(self, directory: Path) -> None:
        """It takes seconds to start, so it runs all the time, stopped in between."""
        try:
            self._broker = RabbitMQ(directory / "rabbitmq")
        except (BenchmarkError, OSError) as error:
            raise Skip(str(error)) from None
        self._broker.suspend()

    def _url(self) -> str:
        return self._broker.url

    def suspend(self) -> None:
        """Until the next run."""
        self._broker.suspend()

    def close(self) -> None:
        """End it."""
        self._broker.stop()
