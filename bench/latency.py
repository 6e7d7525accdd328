"""Latency: from the commit of a message to the effect of its turn.

What: single messages, each in a transaction of its own, to a database whose pool
of workers is asleep (nobody polls: ``djactor.poll_interval`` is an hour), and to
one whose worker lingers, which it does for a second after its last message.

How: the handler calls ``pg_notify``; a second session LISTENs.  PostgreSQL delivers
a notification after the commit of the transaction that sent it, so what is seen
has happened durably.  The clock starts when the sender's libpq returns from the
INSERT, which is after its commit, and stops when the listener's socket becomes
readable (select(2), nothing of Python in between but the call itself).
"From the INSERT" starts before the INSERT is sent instead; it contains the sender's
own durable commit and cannot be flattered by anything.

The error goes one way: up.  Contained and not part of the handling are the
NOTIFY in the handler, the wake-up of the listener's backend and that of this process,
three processes on a machine that may have two cores.  "Between commits" is the
server's view and errs the other way: from the time of the sender's commit
record to that of the handler's (``track_commit_timestamp``); it contains the
sender's flush, the wake-up and the turn, but not the handler's flush.  The
truth lies between the two.

Asleep: the pool of a database sleeps after a second without work; 1.35 s pass between
two messages to the same database.  So that a hundred samples do not take
minutes there are six databases, each with its own pool, and they get
messages in turn; while one is measured the others' workers sleep.  That a pool
sleeps at that distance is what the benchmark ``notifies`` shows, which counts one
NOTIFY for each message; to listen for them here would wake one process more
in the middle of what is measured.

Waking the worker may give it the CPU before the sender's backend has told its
client of the commit, so the effect may be there when the INSERT returns, and "from the
commit" is then next to nothing.  That is true for the sender, for whom the promise is made,
and it is why the figure from the INSERT stands beside it in the same line.

The yardstick is the durable commit of this machine: an INSERT into a plain table,
measured with the same calls in the same session: in a tight loop, and with the
pauses of the other figures between, since a machine that has idled is slower at
first.  A message's handling from its INSERT on is at least two durable commits
after such a pause, one of the sender and one of the worker.

What would make it dishonest: a worker that polls; messages sent while the worker
is still awake and counted as asleep; asynchronous commit; a mean instead of a
median with its tail.  The tail of a shared machine is its neighbours'.
"""

from __future__ import annotations

import select
import statistics
import time
from dataclasses import dataclass

import psycopg
from psycopg import pq

from common import (
    Connection,
    Options,
    Result,
    connect,
    create_database,
    found,
    number,
    require,
    server,
)
from private_server import PrivateServer

NAME = "latency"
DATABASES = 6
ASLEEP_AFTER = 1.35
PROMISED_MS = 2.0

HANDLER = """
    CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('bench_done', '');
        RETURN jsonb_build_object('total', (state->>'total')::bigint + 1);
    END $$"""
INSERT = b"INSERT INTO djactor.message (actor_type, actor_key) VALUES ('bench.ping', 'one')"


@dataclass
class Sample:
    """One message's times, in milliseconds."""

    from_commit: float
    from_insert: float


class Probe:
    """A sender and a listener on one database."""

    def __init__(self, sender: Connection, listener: Connection) -> None:
        self.sender = sender.pgconn
        self.listener = listener.pgconn
        listener.execute("LISTEN bench_done")

    def sample(self, timeout: float = 10.0) -> Sample:
        """Send a message and wait for its effect."""
        socket = self.listener.socket
        begin = time.perf_counter()
        result = self.sender.exec_(INSERT)
        sent = time.perf_counter()
        ready = select.select([socket], [], [], timeout)[0]
        seen = time.perf_counter()
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.DatabaseError(result.error_message.decode())
        require(bool(ready), "no effect of a message was seen")
        self.listener.consume_input()
        count = 0
        while self.listener.notifies() is not None:
            count += 1
        require(count == 1, f"{count} effects of one message were seen")
        return Sample(1000 * (seen - sent), 1000 * (seen - begin))


def prepare(private: PrivateServer, dbname: str) -> None:
    """A database with the type, its worker running."""
    create_database(private, dbname)
    with connect(private, dbname) as owner:
        owner.execute(HANDLER)
        owner.execute("CREATE TABLE plain (n int)")
        owner.execute(
            "SELECT djactor.define_actor_type('bench.ping', 'handle', "
            """initial_state => '{"total": 0}')"""
        )
        owner.execute("SELECT djactor.send('bench.ping', 'one')")
        require(
            owner.execute("SELECT djactor.wait_idle('30 s')").fetchone() == (True,),
            "the worker does not start",
        )


def durable_commits(connection: Connection, count: int, pause: float = 0) -> list[float]:
    """Milliseconds that an INSERT into a plain table and its commit take."""
    values = []
    for _ in range(count):
        time.sleep(pause)
        begin = time.perf_counter()
        connection.pgconn.exec_(b"INSERT INTO plain VALUES (1)")
        values.append(1000 * (time.perf_counter() - begin))
    return values


def between_commits(sender: Connection) -> float:
    """Send one message; milliseconds from its commit record to its handler's."""
    row = sender.execute(
        "INSERT INTO djactor.message (actor_type, actor_key) VALUES ('bench.ping', 'one') "
        "RETURNING pg_current_xact_id()::text"
    ).fetchone()
    xid = found(row, "nothing was sent")[0]
    time.sleep(0.1)
    return number(
        sender,
        "SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin)"
        " - pg_xact_commit_timestamp(%s::xid)) FROM djactor.actor",
        [xid],
    )


def run(options: Options) -> Result:
    """Samples asleep, samples warm, and the yardstick."""
    result = Result(NAME, "From a message's commit to its effect")
    asleep_count = 12 if options.quick else 30
    warm_count = 100 if options.quick else 300
    server_view_count = 6 if options.quick else 12
    distance = ASLEEP_AFTER / DATABASES
    names = [f"bench_{i}" for i in range(DATABASES)]
    settings: dict[str, str | int | float | bool] = {
        "max_worker_processes": DATABASES + 8,  # room for scouts
        "djactor.max_workers": DATABASES,
        "djactor.poll_interval": "1h",
    }
    asleep: list[Sample] = []
    commits: list[float] = []
    with server(result, settings) as private:
        for name in names:
            prepare(private, name)
        senders = [psycopg.connect(private.dsn(n, "bench"), autocommit=True) for n in names]
        listeners = [psycopg.connect(private.dsn(n, "bench"), autocommit=True) for n in names]
        try:
            probes = [Probe(s, c) for s, c in zip(senders, listeners, strict=True)]
            for _ in range(3):  # what runs for the first time in a session is not the rule
                for probe in probes:
                    probe.sample()
            durable = durable_commits(senders[0], 300)
            durable_warm = durable_commits(senders[0], 100, 0.01)
            durable_asleep = durable_commits(senders[0], server_view_count, distance)
            warm = []
            for _ in range(warm_count):
                warm.append(probes[0].sample())
                time.sleep(0.01)

            time.sleep(ASLEEP_AFTER)
            for i in range(asleep_count + server_view_count):
                turn_began = time.monotonic()
                if i < asleep_count:
                    asleep.append(probes[i % DATABASES].sample())
                else:
                    commits.append(between_commits(senders[i % DATABASES]))
                elapsed = time.monotonic() - turn_began
                time.sleep(max(0.0, distance - elapsed))
        finally:
            for connection in senders + listeners:
                connection.close()

    whole = result.add(
        "asleep, from the INSERT", "ms", [s.from_insert for s in asleep], samples=True
    )
    figure = result.add(
        "asleep, from the commit", "ms", [s.from_commit for s in asleep], samples=True
    )
    result.add("asleep, between commits", "ms", commits, samples=True)
    result.add("lingering, from the INSERT", "ms", [s.from_insert for s in warm], samples=True)
    result.add("lingering, from the commit", "ms", [s.from_commit for s in warm], samples=True)
    result.add("a durable commit, one after the other", "ms", durable, samples=True)
    result.add("a durable commit, every 10 ms", "ms", durable_warm, samples=True)
    result.add(
        f"a durable commit, every {1000 * distance:.0f} ms", "ms", durable_asleep, samples=True
    )
    yardstick = statistics.median(durable_asleep)
    result.promise(
        f"a message to a sleeping database is handled within {PROMISED_MS:g} ms at the median:"
        f" {figure.median:.2f} ms from its commit, {whole.median:.2f} ms from its INSERT"
        f" (two durable commits: {2 * yardstick:.2f} ms)",
        figure.median <= PROMISED_MS,
    )
    return result
