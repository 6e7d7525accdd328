"""Hosted: turns in Django's own processes: rates, CPU, response, idle, a host that is killed.

What, in the order of the table:

rates     Messages that wait, for 1,000 keys, through ``djactor_worker``, each kind of handler in
          a new database.  Async handlers await ``asyncio.sleep(0.01)`` and change the state;
          ``writes a row`` also executes an UPDATE in the transaction that ends the turn,
          ``in_commit()`` does that with the ORM.  ``one completion a commit`` has 16 connections,
          since one would wait for the disk all the time.  Sync handlers do one UPDATE with the
          ORM and change the state.
CPU       of the hosts and of the server (all its processes), each divided by the messages.
response  From the sender's commit to the committed effect, one message at a time to a host that
          waits; each 100 ms, each to an actor of its own.
idle      Queries, CPU and context switches in ten seconds of a worker with an async and a sync
          host that have nothing to do, and of their sessions.
takeover  Two workers; the first one has 90 mailboxes in hand, whose turns do not end, and is
          killed with SIGKILL, its supervisor too.  Measured is the time from the kill until the
          second one has begun each of the turns.

How: rates as in ``throughput`` and ``rivals``: preloaded, VACUUM, CHECKPOINT, hosts connected; the
clock starts just before ``resume()`` and stops with the last commit, by the server's clock.  The
states tell whether every message was handled once and in the order of its key; a run whose
books do not balance has no figure.  CPU is the kernel's account of all threads in nanoseconds.
Response is the difference of the two commits' times by the server, as in ``response``: it contains
the sender's flush and lacks the turn's.

Which way it errs: the hosts' first turns, which are slower, are contained in the rates.  The
senders' process is idle while rates are measured.

What would make it dishonest: a loop or a driver that a project would not have (Python, uvloop if
it is there, and psycopg are those of the tree's own environment; the report names them);
``one completion a commit``, which no option of the worker asks for, taken for its normal way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import (
    BenchmarkError,
    Connection,
    Options,
    Result,
    admin,
    connect,
    create_database,
    number,
    process_times,
    require,
    server,
)
from hosts import Hosts, define
from private_server import PrivateServer

NAME = "hosted"
KEYS = 1_000
CPU_US = 35.0  # at most, for an async turn in bulk
MEDIAN_MS, P95_MS = 1.2, 3.0
TAKEOVER_MS = 50.0
TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"


@dataclass(frozen=True)
class Load:
    """One kind of handler, and how it is hosted."""

    title: str
    cls: str
    messages: int
    promised: float | None = None  # messages a second
    processes: int = 1
    concurrency: int = 1_000
    commit_each: int = 0
    writes: bool = False  # to the table state


LOADS = (
    Load("async, 10 ms, one process", "Sleeper", 120_000, 40_000),
    Load("async, 10 ms, two processes", "Sleeper", 160_000, 60_000, processes=2),
    Load("async, 10 ms, concurrency 100", "Sleeper", 25_000, 8_500, concurrency=100),
    Load("async, 10 ms, one completion a commit", "Sleeper", 24_000, 8_000, commit_each=16),
    Load("async, 10 ms, writes a row", "Writer", 36_000, 12_000, writes=True),
    Load("async, 10 ms, in_commit() with the ORM", "AsyncOrm", 3_000, writes=True),
    Load("async, no wait, one process", "Adder", 120_000),
    Load("sync, ORM, one process", "Orm", 6_000, writes=True),
    Load("sync, ORM, two processes", "Orm", 12_000, 4_000, processes=2, writes=True),
    Load("sync, ORM, two, a commit each", "Orm", 4_500, 1_500, 2, commit_each=2, writes=True),
)


@dataclass(frozen=True)
class Run:
    """What one run gave."""

    rate: float  # messages a second
    hosts_us: float  # CPU of the hosts, per message
    server_us: float


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def cpu_us(pids: Sequence[int]) -> float:
    """CPU that all threads of processes have used so far, in microseconds."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0])
    return total / 1000


@contextlib.contextmanager
def database(private: PrivateServer, dbname: str) -> Iterator[Connection]:
    """A database with the extension and the table, for as long as the block lasts."""
    create_database(private, dbname)
    try:
        with connect(private, dbname) as owner:
            owner.execute("CREATE TABLE state (key text PRIMARY KEY, total bigint NOT NULL)")
            owner.execute(
                "INSERT INTO state SELECT i::text, 0 FROM generate_series(0, %s) i", [KEYS - 1]
            )
            yield owner
    finally:
        private.sql(f"DROP DATABASE {dbname} WITH (FORCE)")


def check_books(su: Connection, load: Load) -> None:
    """Each message once, in the order of its key, and its effects there."""
    dead = number(su, "SELECT count(*) FROM djactor.dead_letter")
    require(dead == 0, f"{dead:.0f} dead letters")
    wrong = number(
        su,
        f"""
        SELECT count(*) FROM (
            SELECT (i % {KEYS})::text AS key, count(*) AS turns, sum(i % 7 + 1) AS total,
                jsonb_build_object('total', sum(i % 7 + 1), 'last', max(i), 'disorder', 0) AS state
            FROM generate_series(1, {load.messages}) i GROUP BY 1
        ) expected
        LEFT JOIN state USING (key)
        FULL JOIN djactor.actor a ON a.actor_key = expected.key COLLATE "C"
        WHERE (a.turns, a.state) IS DISTINCT FROM (expected.turns, expected.state)
            OR {load.writes} AND state.total IS DISTINCT FROM expected.total""",
    )
    require(wrong == 0, f"{wrong:.0f} actors are wrong, or their order was")


def run_load(private: PrivateServer, dbname: str, load: Load, log: Path) -> Run:
    """One run."""
    with database(private, dbname) as owner, admin(private, dbname) as su:
        define(owner, "bench", load.cls, alone=load.commit_each > 0)
        owner.execute("SELECT djactor.pause('bench')")
        owner.execute(
            f"""INSERT INTO djactor.message (actor_type, actor_key, payload)
            SELECT 'bench', (i % {KEYS})::text, jsonb_build_object('n', i % 7 + 1, 'i', i)
            FROM generate_series(1, {load.messages}) i"""
        )
        su.execute("VACUUM (ANALYZE)")
        su.execute("CHECKPOINT")
        hosts = Hosts(
            private,
            dbname,
            ["bench"],
            log,
            processes=load.processes,
            options=["--concurrency", str(load.concurrency)],
            commit_each=load.commit_each,
        )
        try:
            hosts.wait_ready(su)
            roots = hosts.process.pid, private.pid or 0
            before = [cpu_us(tree(root)) for root in roots]
            start = time.time()
            owner.execute("SELECT djactor.resume('bench')")
            # Counters in shared memory: looking into the table would cost the server much.
            looked = "SELECT handled FROM djactor.stat WHERE actor_type = 'bench'"
            while number(owner, looked) < load.messages or number(
                owner, "SELECT EXISTS (SELECT FROM djactor.message)::int"
            ):
                hosts.check()
                if time.time() - start > 60:
                    raise BenchmarkError(f"not done within a minute; it said\n{hosts.said()}")
                time.sleep(0.02)
            # with sessions that the hosts have opened meanwhile
            after = [cpu_us(tree(root)) for root in roots]
            end = number(su, "SELECT extract(epoch FROM timestamp) FROM pg_last_committed_xact()")
        finally:
            hosts.stop()
        check_books(su, load)
    used = [(then - now) / load.messages for now, then in zip(before, after, strict=True)]
    return Run(load.messages / (end - start), *used)


def rates(private: PrivateServer, result: Result, options: Options, log: Path) -> None:
    """All loads, in turn."""
    runs: dict[Load, list[Run]] = {}
    for i in range(options.runs):
        for n, load in enumerate(LOADS):
            shorter = dataclasses.replace(load, messages=load.messages // 10)
            one = run_load(private, f"rate_{i}_{n}", shorter if options.quick else load, log)
            runs.setdefault(load, []).append(one)
    for load, found in runs.items():
        figure = result.add(load.title, "messages/s", [run.rate for run in found])
        if load.promised:
            result.promise(
                f"{load.title}: {load.promised:,.0f} messages a second: {figure.median:,.0f}",
                figure.median >= load.promised,
            )
    for load, found in runs.items():
        result.add(f"CPU of hosts, {load.title}", "µs/message", [run.hosts_us for run in found])
        result.add(
            f"CPU of the server, {load.title}", "µs/message", [run.server_us for run in found]
        )
    both = [run.hosts_us + run.server_us for run in runs[LOADS[0]]]
    cpu = result.add("CPU of both, async, one process", "µs/message", both)
    result.promise(
        f"{LOADS[0].title}: at most {CPU_US:.0f} µs of CPU a message: {cpu.median:.1f}",
        cpu.median <= CPU_US,
    )


def response(owner: Connection, su: Connection, name: str, count: int) -> list[float]:
    """Milliseconds between the sender's commit and the turn's, one message each 100 ms."""
    sent: list[tuple[str, str]] = []
    begin = time.perf_counter()
    for i in range(count + 5):  # the first five are not shown
        time.sleep(max(0.0, begin + i * 0.1 - time.perf_counter()))
        row = owner.execute(
            """INSERT INTO djactor.message (actor_type, actor_key, payload)
            VALUES (%s, %s, '{"n": 1, "i": 1}') RETURNING pg_current_xact_id()::text""",
            [name, str(i)],
            prepare=True,
        ).fetchone()
        assert row is not None
        sent.append((str(i), row[0]))
    require(bool(number(owner, "SELECT djactor.wait_idle('30 s')::int")), "not all was handled")
    rows = su.execute(
        """
        SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(a.xmin)
            - pg_xact_commit_timestamp(s.xid::xid))
        FROM unnest(%s::text[], %s::text[]) s (key, xid)
        JOIN djactor.actor a ON a.actor_type = %s AND a.actor_key = s.key COLLATE "C"
        WHERE a.turns = 1""",
        [[key for key, _ in sent[5:]], [xid for _, xid in sent[5:]], name],
    ).fetchall()
    require(len(rows) == count, f"{count} sent, {len(rows)} handled")
    return [float(row[0]) for row in rows]


def rest(private: PrivateServer, result: Result, options: Options, log: Path) -> None:
    """Response of hosts that wait, then what they do while there is nothing to do."""
    dbname = "rest"
    with database(private, dbname) as owner, admin(private, dbname) as su:
        kinds = {"Adder": "async", "Orm": "sync with the ORM"}
        for cls in kinds:
            define(owner, f"bench.{cls.lower()}", cls)
        hosts = Hosts(private, dbname, ["bench.adder", "bench.orm"], log)
        try:
            hosts.wait_ready(su, 2)
            for cls, kind in kinds.items():
                values = response(owner, su, f"bench.{cls.lower()}", 20 if options.quick else 100)
                figure = result.add(f"commit to effect, {kind}", "ms", values, samples=True)
                median, p95 = figure.median, figure.percentile(95)
                result.promise(
                    f"from commit to effect, {kind}: {MEDIAN_MS:g} ms at the median:"
                    f" {median:.2f}; p95 {P95_MS:g} ms: {p95:.2f}",
                    median <= MEDIAN_MS and p95 <= P95_MS,
                )
            idle(private, dbname, su, owner, result, hosts, 3.0 if options.quick else 10.0)
        finally:
            hosts.stop()


def idle(
    private: PrivateServer,
    dbname: str,
    su: Connection,
    owner: Connection,
    result: Result,
    hosts: Hosts,
    seconds: float,
) -> None:
    """Watch processes and sessions for so long."""
    sessions = [
        row[0]
        for row in su.execute(
            """SELECT pid FROM pg_stat_activity WHERE datname = %s
            AND backend_type = 'client backend' AND pid NOT IN (%s, pg_backend_pid())""",
            [dbname, owner.info.backend_pid],
        )
    ]
    with admin(private, "postgres") as other:
        time.sleep(11.5)  # a session that is idle tells its statistics after ten seconds
        ours = tree(hosts.process.pid)
        transactions = number(other, TRANSACTIONS, [dbname])
        before, of_hosts, of_sessions = (
            process_times([*ours, *sessions]),
            cpu_us(ours),
            cpu_us(sessions),
        )
        time.sleep(seconds)
        of_hosts, of_sessions = cpu_us(ours) - of_hosts, cpu_us(sessions) - of_sessions
        used = process_times([*ours, *sessions]) - before
        time.sleep(1.5)
        transactions = number(other, TRANSACTIONS, [dbname]) - transactions
    beats = 2 * (1 + int((seconds + 1.5) / 10))
    result.notes.append(f"idle: {len(ours)} processes of hosts, {len(sessions)} sessions of theirs")
    result.add(f"idle: transactions in {seconds + 1.5:g} s", "", [transactions])
    result.add("idle: CPU ticks (10 ms)", "", [float(used.ticks)])
    result.add("idle: CPU of hosts", "µs", [of_hosts])
    result.add("idle: CPU of their sessions", "µs", [of_sessions])
    result.add("idle: context switches", "", [float(used.switches)])
    result.promise(
        f"an idle host runs no query but its heartbeat: {transactions:.0f} transactions of"
        " two hosts",
        transactions <= beats,
    )
    result.promise(
        f"an idle host uses no measurable CPU: {used.ticks} ticks, {of_hosts + of_sessions:.0f} µs"
        f" in {seconds:g} s",
        used.ticks == 0,
    )


def takeover(private: PrivateServer, result: Result, options: Options, log: Path) -> None:
    """Kill a worker with mailboxes in hand, again and again."""
    mailboxes = 90  # the host takes 5 at once at least, of the 100 that it may have
    all_values: list[float] = []
    first: list[float] = []
    last: list[float] = []
    dbname = "takeover"
    with database(private, dbname) as owner, admin(private, dbname) as su:
        define(owner, "bench", "Holder")
        serving = Hosts(private, dbname, ["bench"], log)
        spare: Hosts | None = None
        try:
            serving.wait_ready(su)
            for i in range(5 if options.quick else 20):
                begun = log.parent / f"begun{i}"
                (child,) = serving.children()
                owner.execute(
                    """INSERT INTO djactor.message (actor_type, actor_key, payload)
                    SELECT 'bench', %s || '-' || n,
                        jsonb_build_object('file', %s::text, 'hold', %s::int)
                    FROM generate_series(1, %s) n""",
                    [str(i), str(begun), child, mailboxes],
                )
                wait_lines(begun, mailboxes)
                spare = Hosts(private, dbname, ["bench"], log)
                wait_spare(su, spare)
                killed = time.time()
                os.kill(serving.process.pid, signal.SIGKILL)
                os.kill(child, signal.SIGKILL)
                lines = wait_lines(begun, 2 * mailboxes)
                serving.kill()
                times = [
                    (float(at) - killed) * 1000
                    for pid, _, at in (line.split() for line in lines)
                    if int(pid) != child
                ]
                require(len(times) == mailboxes, f"{len(times)} turns were begun elsewhere")
                all_values += times
                first.append(min(times))
                last.append(max(times))
                require(bool(number(owner, "SELECT djactor.wait_idle('30 s')::int")), "not done")
                serving, spare = spare, None
            wrong = number(su, "SELECT count(*) FROM djactor.actor WHERE turns <> 1")
            dead = number(su, "SELECT count(*) FROM djactor.dead_letter")
            require(wrong == 0 and dead == 0, f"{wrong:.0f} wrong, {dead:.0f} dead")
        finally:
            for hosts in (serving, spare):
                if hosts is not None:
                    hosts.stop()
    result.add("takeover of 90 mailboxes, the first", "ms", first)
    figure = result.add("takeover of 90 mailboxes, the last", "ms", last)
    result.add("takeover, each mailbox", "ms", all_values, samples=True)
    result.promise(
        f"the keys of a host that was killed run elsewhere within {TAKEOVER_MS:.0f} ms:"
        f" {figure.median:.1f} at the median of {len(last)} kills, {max(last):.1f} at most",
        max(last) <= TAKEOVER_MS,
    )


def wait_lines(file: Path, count: int) -> list[str]:
    """Until a file has so many lines."""
    deadline = time.monotonic() + 20
    lines: list[str] = []
    while time.monotonic() < deadline:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise BenchmarkError(f"{len(lines)} turns of {count} have begun after 20 s")


def wait_spare(su: Connection, spare: Hosts) -> None:
    """Until the second worker's host waits for mail."""
    spare.wait_ready(su, 1)
    deadline = time.monotonic() + 30
    while number(su, "SELECT count(*) FROM djactor.host") != 2:
        require(time.monotonic() < deadline, "there are not two hosts")
        time.sleep(0.02)
    time.sleep(0.5)


def run(options: Options) -> Result:
    """All of it."""
    result = Result(NAME, "Turns in processes of Django")
    loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio's own loop"
    django = importlib.metadata.version("django")
    result.notes.append(f"Django {django}, {loop}")
    parent = os.environ.get("DJACTOR_TMPDIR", "/tmp")
    with (
        server(result, {"autovacuum": "off"}) as private,
        tempfile.TemporaryDirectory(prefix="hosts-", dir=parent) as directory,
    ):
        log = Path(directory) / "hosts.log"
        takeover(private, result, options, log)
        rest(private, result, options, log)
        rates(private, result, options, log)
    return result
