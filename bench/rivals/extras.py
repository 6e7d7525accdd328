"""What is not a rate: recovery after a SIGKILL of the worker, and CPU while there is nothing to do.

Recovery  The case ``keys``.  Once a third of the messages is handled the worker with all its
          processes is killed, and another one started at once, as a supervisor would.  Measured
          is the time from the kill until all is handled, that worker's start included; whoever is
          not done within the time limit has messages that wait for a timeout (or are lost), and
          how many is shown.  Afterwards the rows of ``state`` tell which effects are missing or
          were repeated.  For djactor the kill hits a backend, so PostgreSQL ends all sessions and
          recovers: that is in its figure.
Idle      CPU of server, worker and broker in a second, after some messages were handled and two
          seconds have passed.

Start     The case ``tasks``.  An idle worker gets one task each 20 ms; measured is the time from
          the sender's commit (Celery: from the end of ``apply_async()``) until the task's function
          begins, by the clock of the machine, over 200 tasks after 20 that are not counted.  It is
          below 0 if the task begins before the sender has heard that its commit is done.

Each once for each rival, so what it had in hand at the kill is luck, with the tuned settings
(Celery: the durable ones for recovery), so they say what happens, not how fast a machine is.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import time
from dataclasses import dataclass

import psycopg

from common import BenchmarkError
from rivals.measure import Ground, settle, wait_until_done
from rivals.programs import cpu_seconds
from rivals.protocol import CASES, Rival, Site, Worker

_KEYS = next(case for case in CASES if case.name == "keys")
_TASKS = next(case for case in CASES if case.name == "tasks")
_PAUSE = 0.02  # seconds between two tasks


@dataclass
class Recovery:
    """How a kill ended."""

    waiting: int  # messages not handled at the kill
    seconds: float  # from the kill to the end of all work; the limit, if there was none
    stuck: int  # messages not handled then
    effect: float  # sum of the effects, as a share of what was sent


def _reconnect(site: Site) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if site.owner.closed:
                dsn = site.private.dsn(site.dbname, "bench")
                site.owner = psycopg.connect(dsn, autocommit=True)
            site.owner.execute("SELECT 1")
            return
        except psycopg.Error:
            site.owner.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def recovery(ground: Ground, rival: Rival, limit: float, divisor: int) -> Recovery:
    """Kill the worker in the middle of its work."""
    variant = rival.variants[-1]
    plan = rival.plan(variant, _KEYS)
    plan = dataclasses.replace(plan, messages=max(100, plan.messages // divisor))
    with ground.site() as site:
        try:
            rival.prepare(site, _KEYS, plan)
            rival.preload(site, _KEYS, plan)
            settle(site)
            worker = rival.start(site, _KEYS, plan)
            killed = 0.0
            try:
                start = worker.go()
                while (waiting := rival.left(site)) > plan.messages * 2 // 3:
                    if time.time() - start > limit:
                        raise BenchmarkError(f"{waiting} messages left before the kill")
                    time.sleep(0.005)
                time.sleep(random.uniform(0, 0.1))  # not always at the same point of its round
                worker.kill()
                killed = time.time()
            finally:
                if not killed:
                    worker.stop()
            _reconnect(site)
            worker = rival.start(site, _KEYS, plan)
            try:
                worker.go()
                done = wait_until_done(rival, site, worker, killed, limit)
                end = max(killed, rival.finished_at(site)) if done else killed + limit
                stuck = 0 if done else rival.left(site)
            finally:
                worker.stop()
            sent = sum(i % 7 + 1 for i in range(1, plan.messages + 1))
            effect = rival.effect(site) / sent
        finally:
            rival.suspend()
            _reconnect(site)  # the server may be recovering
            site.owner.close()
    return Recovery(waiting, end - killed, stuck, effect)


def idle(ground: Ground, rival: Rival, seconds: float) -> float:
    """CPU, in milliseconds a second."""
    plan = rival.plan(rival.variants[-1], _KEYS)
    plan = dataclasses.replace(plan, messages=100)
    with ground.site() as site:
        try:
            rival.prepare(site, _KEYS, plan)
            rival.preload(site, _KEYS, plan)
            settle(site)
            worker = rival.start(site, _KEYS, plan)
            try:
                wait_until_done(rival, site, worker, worker.go(), 10)
                time.sleep(2)
                roots = [ground.private.pid or 0, *worker.pids, *rival.pids]
                before = cpu_seconds(roots)
                time.sleep(seconds)
                return (cpu_seconds(roots) - before) / seconds * 1000
            finally:
                worker.stop()
        finally:
            rival.suspend()


@dataclass
class Start:
    """From the commit to the start, in milliseconds."""

    median: float
    p95: float
    most: float


def can_start(rival: Rival) -> bool:
    """Whether a rival runs tasks that are sent one by one."""
    return type(rival).send is not Rival.send


def start(ground: Ground, rival: Rival, count: int) -> Start:
    """Send tasks to an idle worker."""
    plan = dataclasses.replace(rival.plan(rival.variants[-1], _TASKS), messages=0)
    with ground.site() as site:
        try:
            rival.prepare(site, _TASKS, plan)
            worker = rival.start(site, _TASKS, plan)
            try:
                rival.send(site, 1, 20, 0.0)
                worker.go()
                _started(site, worker, 1, 20)
                time.sleep(0.5)
                sent = json.loads(rival.send(site, 21, count, _PAUSE).splitlines()[-1])
                began = _started(site, worker, 21, count)
            finally:
                worker.abandon()
        finally:
            rival.suspend()
    taken = sorted(1000 * (began[int(i)] - at) for i, at in sent.items())
    return Start(statistics.median(taken), taken[int(0.95 * len(taken))], taken[-1])


def _started(site: Site, worker: Worker, first: int, count: int) -> dict[int, float]:
    """When these tasks have begun, once all have."""
    deadline = time.monotonic() + 30
    while True:
        words = " ".join(file.read_text() for file in site.directory.glob("*.starts")).split()
        found = {int(i): float(at) for i, at in zip(words[::2], words[1::2], strict=False)}
        if all(i in found for i in range(first, first + count)):
            return found
        worker.check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{len(found)} tasks have begun within 30 s")
        time.sleep(0.05)
