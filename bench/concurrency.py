"""Concurrency: 32 clients that insert single rows durably, with djactor's trigger and without.

What: pgbench with 32 clients on two threads, prepared statements, one INSERT a transaction,
``synchronous_commit`` on: into ``djactor.message`` while the type is paused, into a bare copy
of it (``LIKE ... INCLUDING ALL``: same columns, defaults, identity and indexes, no trigger), and
into ``djactor.message`` while a worker handles what comes.

How: the rate is pgbench's own count.  The three are measured in turn, each round in another
order, and ratios are those of one round.  Judged is the paused one: what djactor
does in the senders' commits (its trigger, its announcements, its lock) and nothing
else.  With the worker running the senders share the cores with it, so that ratio
is the price of the whole work on this machine and not of a lock; it is shown beside.
NOTIFYs on the channel ``djactor`` are counted by a listener in the same database, which
is there in all three, since a commit that queues a NOTIFY takes a lock that all such commits share.

What would make it dishonest: few clients, or an asynchronous commit, which would keep
them from waiting for each other; a copy without the indexes; a table that is
longer for one side than for the other (the tables are emptied before each run).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path

from common import (
    OWNER,
    BenchmarkError,
    Options,
    Result,
    admin,
    connect,
    create_database,
    number,
    require,
    server,
)
from notifies import Listener
from private_server import PrivateServer
from workload import HANDLERS, INITIAL_STATE, wait_idle

NAME = "concurrency"
DBNAME = "bench"
CLIENTS = 32
ACTORS = 1_000
PROMISED = 0.9
BARE = "bare copy"
PAUSED = "djactor.message, type paused"
RUNNING = "djactor.message, worker running"
CASES = (BARE, PAUSED, RUNNING)


def pgbench(private: PrivateServer, script: Path, seconds: float) -> tuple[float, int]:
    """Run the clients; transactions a second, and how many there were."""
    ran = subprocess.run(
        [
            *(private.bindir / "pgbench", "-n", "-M", "prepared", "-f", script),
            *("-c", str(CLIENTS), "-j", "2", "-T", f"{seconds:.0f}", "-D", f"actors={ACTORS}"),
            *("-h", private.host, "-p", str(private.port), "-U", OWNER, DBNAME),
        ],
        capture_output=True,
        text=True,
    )
    rate = re.search(r"^tps = ([\d.]+)", ran.stdout, re.MULTILINE)
    count = re.search(r"actually processed: (\d+)", ran.stdout)
    failed = re.search(r"failed transactions: (\d+)", ran.stdout)
    if ran.returncode != 0 or rate is None or count is None:
        raise BenchmarkError(f"pgbench failed: {ran.stderr.strip()}")
    require(failed is None or failed[1] == "0", "transactions of pgbench failed")
    return float(rate[1]), int(count[1])


def prepare(private: PrivateServer) -> None:
    """The type and the bare copy."""
    create_database(private, DBNAME)
    with connect(private, DBNAME) as owner:
        owner.execute(
            f"CREATE FUNCTION handle(state jsonb, message jsonb) {HANDLERS['add']} LANGUAGE plpgsql"
        )
        owner.execute(
            "SELECT djactor.define_actor_type('bench.counter', 'handle', initial_state => %s)",
            [INITIAL_STATE],
        )
        owner.execute("SELECT djactor.send('bench.counter', '0', '{\"n\": 1}')")
        wait_idle(owner)
    with admin(private, DBNAME) as su:
        su.execute("CREATE TABLE bare (LIKE djactor.message INCLUDING ALL)")
        su.execute(f"GRANT INSERT, SELECT ON bare TO {OWNER}")


def run(options: Options) -> Result:
    """Rounds over the three."""
    result = Result(NAME, f"{CLIENTS} clients that insert single rows durably (pgbench)")
    seconds = 1.0
    rates: dict[str, list[float]] = {case: [] for case in CASES}
    notified: dict[str, list[float]] = {case: [] for case in CASES}
    with (
        server(result, {"djactor.max_workers": 1, "autovacuum": "off"}) as private,
        tempfile.TemporaryDirectory() as directory,
    ):
        prepare(private)
        scripts = {}
        for table in ("djactor.message", "bare"):
            scripts[table] = Path(directory) / f"{table}.sql"
            scripts[table].write_text(
                "\\set key random(1, :actors)\n"
                f"INSERT INTO {table} (actor_type, actor_key, payload)"
                " VALUES ('bench.counter', :key::text, '{\"n\": 1}');\n"
            )
        listener = Listener(private.dsn(DBNAME, OWNER))
        with connect(private, DBNAME) as owner, admin(private, DBNAME) as su:
            for i in range(options.runs):
                for case in CASES[i % 3 :] + CASES[: i % 3]:
                    table = "bare" if case == BARE else "djactor.message"
                    if case == PAUSED:
                        owner.execute("SELECT djactor.pause('bench.counter')")
                    su.execute("CHECKPOINT")
                    turns = number(su, "SELECT sum(turns) FROM djactor.actor")
                    begin = time.monotonic()
                    rate, count = pgbench(private, scripts[table], seconds)
                    rates[case].append(rate)
                    if case == BARE:
                        rows = number(su, "SELECT count(*) FROM bare")
                        su.execute("TRUNCATE bare")
                    elif case == PAUSED:
                        rows = number(su, "SELECT count(*) FROM djactor.message")
                        owner.execute("SELECT djactor.resume('bench.counter')")
                    wait_idle(owner)
                    if case == RUNNING:
                        rows = number(su, "SELECT sum(turns) FROM djactor.actor") - turns
                    require(rows == count, f"{count} sent, {rows:.0f} found ({case})")
                    su.execute("VACUUM djactor.message")
                    time.sleep(0.3)
                    notified[case].append(float(listener.count(begin, time.monotonic())))
        listener.close()

    for case in CASES:
        result.add(case, "messages/s", rates[case])
    for case in (PAUSED, RUNNING):
        figure = result.add(
            f"{case} / bare",
            "times",
            [a / b for a, b in zip(rates[case], rates[BARE], strict=True)],
        )
        if case == PAUSED:
            result.promise(
                f"{CLIENTS} clients send at {PROMISED:g} of the bare rate or more:"
                f" {figure.median:.2f}",
                figure.median >= PROMISED,
            )
    for case in (PAUSED, RUNNING):
        result.add(f"NOTIFYs, {case}", "NOTIFYs", notified[case])
    return result
