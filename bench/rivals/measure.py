"""One run of one rival: the clock, the CPU, the books; the same for everybody.

What: messages handled a second.  N messages wait in a database of their own
on the common server (or in the broker), VACUUM (ANALYZE) and CHECKPOINT have been run, the worker
is connected and waits for the word.  The clock starts just before the word and
stops at the last committed acknowledgement: the server's own time of its last
commit (``pg_last_committed_xact()``), read once nothing is left.  So it does not matter how often
we look; we look at most 5% of the time.  For Celery, which has no such clock, see
celery_.py.

A worker that is not done within the time limit is stopped, and its figure is what
it had acknowledged until then, divided by that time; the table says so.

CPU is that of the server with all its processes, of the worker and of the broker,
from the word to the end, divided by the messages handled.

Which way it errs: a write of a rival's housekeeping between its last
acknowledgement and our look moves its end by at most 50 ms.  The worker's own
start is left out, which flatters those that start slowly.

What would make it dishonest: handlers whose effect is not looked at (so the rows
of ``state`` are summed up, and must be what was sent); acknowledgements
that are not durable beside some that are (so the table says what each one is worth);
settings that no manual advises.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import CpuUse, admin, connect, number, require
from private_server import PrivateServer
from rivals.programs import cpu_seconds
from rivals.protocol import KEYS, Case, Plan, Rival, Site, Worker

_LOOK = 0.05  # seconds between two looks, at most one twentieth of it looking


@dataclass
class Run:
    """What one run gave."""

    handled: int
    seconds: float
    cpu_us: float  # per message
    others: float  # cores that nothing of this run used meanwhile
    complete: bool

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.handled / self.seconds


class Ground:
    """The common server and a directory; gives each run a place of its own."""

    def __init__(self, private: PrivateServer, directory: Path) -> None:
        self.private = private
        self._directory = directory
        self._count = 0

    @contextlib.contextmanager
    def site(self) -> Iterator[Site]:
        """A new database and an empty directory, both gone afterwards."""
        self._count += 1
        dbname = f"run_{self._count}"
        directory = self._directory / dbname
        directory.mkdir()
        self.private.createdb(dbname, owner="bench")
        try:
            with connect(self.private, dbname) as owner:
                owner.execute("CREATE TABLE state (key text PRIMARY KEY, total bigint NOT NULL)")
                owner.execute(
                    "INSERT INTO state SELECT i::text, 0 FROM generate_series(0, %s) i", [KEYS - 1]
                )
                yield Site(self.private, dbname, owner, directory)
        finally:
            self.private.sql(f"DROP DATABASE {dbname} WITH (FORCE)")
            shutil.rmtree(directory)


@contextlib.contextmanager
def old_snapshot(site: Site) -> Iterator[None]:
    """A transaction that sees what was before, for as long as the block lasts."""
    with connect(site.private, site.dbname) as session, session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT count(*) FROM state")
        yield


def settle(site: Site) -> None:
    """Leave nothing for autovacuum and the checkpointer to do during the run."""
    with admin(site.private, site.dbname) as su:
        su.execute("VACUUM (ANALYZE)")
        su.execute("CHECKPOINT")


def wait_until_done(rival: Rival, site: Site, worker: Worker, start: float, limit: float) -> bool:
    """Wait until nothing is left; False if that takes longer than the limit."""
    while time.time() - start < limit:
        began = time.monotonic()
        if not rival.any_left(site):
            return True
        worker.check()
        time.sleep(max(_LOOK, 20 * (time.monotonic() - began)))
    return not rival.any_left(site)


def check_state(site: Site, messages: int, keys: int) -> None:
    """Every message's number arrived in its row, once."""
    wrong = number(
        site.owner,
        f"""
        SELECT count(*) FROM (
            SELECT (i % {keys})::text AS key, sum(i % 7 + 1) AS total
            FROM generate_series(1, {messages}) i GROUP BY 1
        ) expected LEFT JOIN state USING (key) WHERE state.total IS DISTINCT FROM expected.total""",
    )
    require(wrong == 0, f"{wrong:.0f} rows of state are not what was sent")


def run_once(ground: Ground, rival: Rival, case: Case, plan: Plan, limit: float) -> Run:
    """Prepare, preload, run, check."""
    with ground.site() as site, contextlib.ExitStack() as stack:
        stack.callback(rival.suspend)
        rival.prepare(site, case, plan)
        rival.preload(site, case, plan)
        settle(site)
        worker = rival.start(site, case, plan)
        complete = False
        try:
            with old_snapshot(site) if case.snapshot else contextlib.nullcontext():
                roots = [ground.private.pid or 0, *worker.pids, *rival.pids]
                start = worker.go()
                before, machine = cpu_seconds(roots), CpuUse.now()
                complete = wait_until_done(rival, site, worker, start, limit)
                if complete:
                    left, end = 0, rival.finished_at(site)
                else:
                    end = time.time()
                    left = rival.left(site)
                used = cpu_seconds(roots) - before
                now = CpuUse.now()
                others = now.machine - machine.machine - used - (now.ours - machine.ours)
        finally:
            if complete:
                worker.stop()
            else:
                worker.abandon()
        handled = plan.messages - left
        require(handled > 0, f"nothing handled within {limit:.0f} s")
        if complete:
            counted = worker.handled
            require(
                counted in (None, plan.messages),
                f"its handler was called {counted} times for {plan.messages} messages",
            )
            rival.check_books(site, case, plan)
            if case.handler == "orm" or (case.handler == "update" and rival.in_state):
                check_state(site, plan.messages, case.keys)
        seconds = end - start
        return Run(handled, seconds, used / handled * 1e6, max(0.0, others / seconds), complete)
