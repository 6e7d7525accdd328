"""Soak: an hour of random load with kills; memory and sizes stay flat, the books are right.

``make soak`` runs it for an hour, ``make soak ARGS="--minutes 5"`` shorter.  It goes in rounds on
one server.  In each, the clients of ``test/model/test_random.py`` send, fail, delay, redefine,
pause and edit at random, with handlers that last and that update rows which a web application
updates, too, while others keep transactions open; then all mail is waited for, and the model
compares what was committed with what was handled, and looks at the service.  Then all types are
dropped, the sizes are looked at, and the next round begins.

The first half is calm: no process ends but by its own will, so that a leak of the launcher or of
the worker, which is alone so that nobody takes its place, has the time to show.  In the second half
there are WORKERS, and any process may be killed with SIGKILL, sessions and workers are terminated,
workers reloaded, the server is stopped and restarted, and databases with busy workers are created
and dropped.

What must hold:

* the books, after each round (see the model);
* service is first come, first served, nobody waits for a stranger's turn, and the web
  application is no victim of a deadlock and never waits long (the model's oracles, too);
* no row of mail, actors, timers or watches is left after the types were dropped;
* tables and indexes of djactor in the last quarter are not larger than FLAT times what they were at
  the most in the second quarter, or than SMALL;
* what the memory contexts of the launcher and of the one worker of the calm half use, which live
  through it, and their open files are at its end not above FLAT times what they were in its middle,
  when caches are full (and CACHES, FILES), and their private memory is below LARGE: that has what
  malloc() keeps of the largest batch so far, too, so it grows by steps;
* the server finds no damage in itself (tools/private_server.py looks), and stops when told.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from private_server import PrivateServer

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))
from test_random import SCHEMA, Run

FLAT = 1.2
SMALL = 24.0  # MB: what a round leaves in pages that wait for VACUUM
LARGE = 64.0  # MB
CACHES = 0.5  # MB that the caches of a session may still gain
WORKERS = 3  # at the most, in the second half
FILES = 20  # by which what a session happens to have open may differ
TABLES = ("message", "actor", "actor_identity", "timer", "watch", "idempotency")
SETTINGS: dict[str, str | int | float | bool] = {
    "djactor.max_workers": 1,  # in the calm half
    "djactor.idle_timeout": "1s",
    "djactor.poll_interval": "1h",
    "track_commit_timestamp": True,  # by which the model sees who waited
    "max_worker_processes": 16,
    "autovacuum_naptime": "2s",
    "autovacuum_vacuum_cost_delay": 0,
    "max_wal_size": "512MB",
    "log_checkpoints": False,
}


class Soaked(Exception):
    """Something that must hold does not."""


@dataclass
class Process:
    """How large a process is."""

    used: float  # MB, of its memory contexts
    private: float  # MB
    files: int  # that it has open

    def __str__(self) -> str:
        return f"{self.used:.1f} of {self.private:.1f} MB, {self.files} files"


@dataclass
class Sample:
    """What is looked at between two rounds, when nothing is left to do."""

    at: float  # seconds since the start
    tables: float  # MB, with indexes
    launcher: dict[int, Process]  # by pid
    worker: dict[int, Process]  # as many as there are

    def __str__(self) -> str:
        launcher, worker = (
            "; ".join(str(process) for process in found.values())
            for found in (self.launcher, self.worker)
        )
        return f"tables {self.tables:6.1f} MB  launcher {launcher}  worker {worker}"


@dataclass
class Totals:
    """What the rounds did."""

    handled: int = 0
    dead: int = 0
    kills: int = 0
    restarts: int = 0
    databases: int = 0
    waits: int = 0
    web: int = 0
    longest: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)


class Chaos:
    """What happens besides the load, from the thread that the server lives with."""

    def __init__(self, run: Run, rng: random.Random, totals: Totals) -> None:
        self.run = run
        self.rng = rng
        self.totals = totals
        self.serial = 0

    def go(self, seconds: float) -> None:
        """Do one each few seconds; in the calm half only wait."""
        if self.run.calm:
            self.run.stop.wait(seconds)
            return
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.run.stop.is_set():
            time.sleep(min(left, self.rng.uniform(0.5, 4)))
            with contextlib.suppress(psycopg.OperationalError):
                self.rng.choice([self.kill, self.kill, self.end, self.database, self.stop])()

    def kill(self) -> None:
        """SIGKILL for any process that the server restarts after: so neither for the postmaster
        nor for the startup process, without which the postmaster gives up."""
        pids = [
            pid
            for pid in children(self.run.server.pid)
            if command(pid).startswith("postgres: ") and "startup" not in command(pid)
        ]
        if pids:
            # A worker may be among them, whose message is charged with it.
            self.run.books.count("killed")
            self.run.disturb()
            self.totals.kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(pids), signal.SIGKILL)
            time.sleep(1)
            self.run.disturb()

    def end(self) -> None:
        """Terminate sessions, or have fresh worker sessions take over."""
        with self.run.connect("postgres") as connection:
            if self.rng.random() < 0.5:
                self.run.disturb(crash=False)
                connection.execute("SELECT djactor.reload()")
            else:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                    " ORDER BY random() LIMIT 2"
                )

    def database(self) -> None:
        """A database comes, works, and goes while its workers are busy."""
        self.serial += 1
        self.totals.databases += 1
        name = f"other{self.serial}"
        server = self.run.server
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} OWNER app")  # type: ignore[call-overload]
            try:
                with psycopg.connect(server.dsn(name, "app"), autocommit=True) as app:
                    app.execute("CREATE EXTENSION djactor")
                    app.execute(
                        "CREATE FUNCTION busy(state jsonb, message jsonb) RETURNS jsonb LANGUAGE"
                        " plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN state; END $$"
                    )
                    app.execute("SELECT djactor.define_actor_type('busy', 'busy')")
                    app.execute(
                        "INSERT INTO djactor.message (actor_type, actor_key)"
                        " SELECT 'busy', i::text FROM generate_series(1, 500) i"
                    )
                    time.sleep(self.rng.random())
            finally:
                admin.execute(f"DROP DATABASE IF EXISTS {name}")  # type: ignore[call-overload]

    def stop(self) -> None:
        """Stop the server, and start it again."""
        if self.rng.random() < 0.3:
            self.totals.restarts += 1
            self.run.disturb()
            self.run.server.restart(self.rng.choice(["fast", "immediate"]))
            self.run.disturb()


def children(parent: int | None) -> list[int]:
    """Processes that another one has started."""
    if parent is None:
        return []
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split()]


def command(pid: int) -> str:
    """What a process says that it is; nothing, if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def processes(run: Run, connection: psycopg.Connection[Any], kind: str) -> dict[int, Process]:
    """All processes of the server that are of this kind, by pid; not those that end meanwhile."""
    found = {}
    for (pid,) in connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = %s ORDER BY pid", [kind]
    ):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used = contexts(run, connection, pid)
            text = Path(f"/proc/{pid}/status").read_text()
            status = dict(line.split(":", 1) for line in text.splitlines())
            if "RssAnon" not in status:  # a zombie has none
                continue
            private = int(status["RssAnon"].split()[0]) / 1024
            found[pid] = Process(used, private, len(list(Path(f"/proc/{pid}/fd").iterdir())))
    return found


def contexts(run: Run, connection: psycopg.Connection[Any], pid: int) -> float:
    """MB that a process uses in its memory contexts.  Errors: FileNotFoundError, if it ends."""
    log = run.server.log_file
    seen = log.stat().st_size
    connection.execute("SELECT pg_log_backend_memory_contexts(%s)", [pid])
    while True:
        with log.open("rb") as lines:
            lines.seek(seen)
            text = lines.read().decode(errors="replace")
        said = re.search(rf"\[{pid}\] LOG:  Grand total: .* (\d+) used\n", text)
        if said:
            return int(said[1]) / 1e6
        Path(f"/proc/{pid}/status").stat()
        time.sleep(0.01)


def ask(connection: psycopg.Connection[Any], query: str) -> Any:
    """One value."""
    row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    return row[0] if row else None


def forget(run: Run, totals: Totals) -> None:
    """Drop all that the round has made; errors: Soaked, if something stays."""
    totals.handled += run.books.counts["handled"]
    totals.dead += run.books.counts["dead"]
    totals.waits += run.books.counts["waits checked"]
    totals.web += run.books.counts["web"]
    for who, seconds in run.longest.items():
        totals.longest[who] = max(totals.longest.get(who, 0.0), seconds)
    with run.connect("postgres") as connection:
        connection.autocommit = True
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datname ~ '^other'"
        ):
            connection.execute(f"DROP DATABASE {name}")  # type: ignore[call-overload]
        for kind in run.all:
            connection.execute("SELECT djactor.drop_actor_type(%s, true)", [kind.name])
        for table in TABLES:
            left = ask(connection, f"SELECT count(*) FROM djactor.{table}")
            if left:
                raise Soaked(f"{left} rows are left in djactor.{table}")
        connection.execute("DELETE FROM djactor.dead_letter")
        connection.execute("TRUNCATE sent, ledger, edit, checked, mended, shared, web, cancelled")


def look(run: Run, started: float) -> Sample:
    """Sizes, once nothing runs."""
    with run.connect("postgres") as connection:
        return Sample(
            time.monotonic() - started,
            float(
                ask(
                    connection,
                    "SELECT sum(pg_total_relation_size(oid)) / 1e6 FROM pg_class"
                    " WHERE relnamespace = 'djactor'::regnamespace AND relkind = 'r'",
                )
            ),
            processes(run, connection, "djactor launcher"),
            processes(run, connection, "djactor worker"),
        )


def judge(totals: Totals, seconds: float) -> None:
    """Errors: Soaked, if something grows."""
    samples = totals.samples

    def part(low: float, high: float) -> list[Sample]:
        return [sample for sample in samples if low <= sample.at / seconds < high]

    if not all(part(i / 4, (i + 1) / 4) for i in range(3)):
        raise Soaked("too few rounds to judge: give it more minutes")
    before = max(sample.tables for sample in part(0.25, 0.5))
    after = max(sample.tables for sample in part(0.75, 9))
    print(f"tables: {before:.1f} MB at the most in the second quarter, {after:.1f} in the last")
    if after > max(FLAT * before, SMALL):
        raise Soaked("the tables grow")
    calm = part(0, 0.5)
    for name in ("launcher", "worker"):
        first, last = getattr(part(0.25, 0.5)[0], name), getattr(calm[-1], name)
        if len(first) != 1 or first.keys() != last.keys():
            raise Soaked(f"the {name} of the calm half has ended")
        (middle,), (end,) = first.values(), last.values()
        print(f"{name}: {middle} in the middle of the calm half, {end} at its end")
        if end.used > FLAT * middle.used + CACHES or end.files > FLAT * middle.files + FILES:
            raise Soaked(f"the {name} grows")
        if end.private > LARGE:
            raise Soaked(f"the {name} is too large")


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description="Random load with kills for a long time.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument(
        "--round", type=float, default=25, help="seconds of load in a round, at most"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    rng = random.Random(options.seed)
    totals = Totals()
    seconds = 60 * options.minutes
    load = min(options.round, seconds / 20)  # there have to be rounds in each quarter
    with PrivateServer(SETTINGS, fsync=False) as server:
        server.sql("CREATE ROLE app LOGIN")
        server.createdb("app", owner="app")
        server.sql("CREATE EXTENSION djactor; ALTER SCHEMA public OWNER TO app", "app")
        server.sql(SCHEMA, "app", "app")
        # As long as its role has a type there is a worker that stays.
        server.sql("SELECT djactor.define_actor_type('soak.stay', 'work')", "app", "app")
        started = time.monotonic()
        rounds = 0
        calm = True
        while (passed := time.monotonic() - started) < seconds:
            rounds += 1
            if calm and passed >= seconds / 2:
                calm = False
                server.sql(f"ALTER SYSTEM SET djactor.max_workers = {WORKERS}")
                server.restart()
            run = Run(server, rng.randrange(1_000_000), calm)
            with run.connect() as connection:
                for kind in run.all:
                    run.define(connection, kind, rng)
            chaos = Chaos(run, rng, totals)
            run.go(partial(chaos.go, load))
            run.settle()
            run.compare()
            forget(run, totals)
            sample = look(run, started)
            totals.samples.append(sample)
            print(
                f"{sample.at / 60:5.1f} min  round {rounds:3} {'calm' if calm else 'wild'}"
                f"  handled {totals.handled:8}  dead {totals.dead:6}  SIGKILLs {totals.kills:3}"
                f"  restarts {totals.restarts:2}  databases {totals.databases:3}"
                f"  {sample}",
                flush=True,
            )
    print(
        f"{totals.waits} waits looked at, {totals.web} requests, the longest"
        f" {totals.longest.get('web', 0):.3f} s; a stranger's message beside a long turn"
        f" {totals.longest.get('stranger', 0):.3f} s at the most"
    )
    judge(totals, seconds)


if __name__ == "__main__":
    try:
        main()
    except Soaked as error:
        sys.exit(f"soak: {error}")
