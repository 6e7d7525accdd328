"""The work that throughput and yardstick do: shapes of load, and the books.

A shape is a number of actors and a handler in PL/pgSQL:

add     adds the message's number to the actor's state
write   also inserts a row into a user's table
noop    does nothing (RETURNS void)

The books are the same for djactor and for the bare loop: every actor's state is
the sum of what it was sent, its turns are as many as its messages, no message is
left, none is dead, and every row of the user's is there.  A run whose books do not balance
has no figure.

A run ends with the commit of its last message.  The server itself says when that was:
``track_commit_timestamp`` keeps the time of each commit, and the row of the actor
that was written last carries the transaction that wrote it.  So the figure does not
depend on how often somebody looks.  PostgreSQL takes a commit's time just before it
flushes the WAL, so the very last flush, well below a millisecond on a decent disk, is missing.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass

import psycopg

from common import (
    OWNER,
    Connection,
    admin,
    connect,
    create_database,
    number,
    process_times,
    require,
    worker_pids,
)
from private_server import PrivateServer

INITIAL_STATE = '{"total": 0}'
_TOTAL = "jsonb_build_object('total', (state->>'total')::bigint + (message->>'n')::bigint)"
HANDLERS = {
    "noop": "RETURNS void AS $$ BEGIN END $$",
    "add": f"RETURNS jsonb AS $$ BEGIN RETURN {_TOTAL}; END $$",
    "write": f"""RETURNS jsonb AS $$ BEGIN
        INSERT INTO written (n) VALUES ((message->>'n')::int);
        RETURN {_TOTAL};
    END $$""",
}
HANDLER_TITLES = {
    "noop": "no-op",
    "add": "adds to the state",
    "write": "also writes a row",
}

STATEMENT_ROWS = 100  # of a steady sender
SENDERS = 2
BACKLOG = 10_000  # messages that steady senders run ahead of the workers


@dataclass(frozen=True)
class Tables:
    """Where the messages wait and the actors are."""

    message: str
    actor: str


DJACTOR = Tables("djactor.message", "djactor.actor")
LOOP = Tables("bare_message", "bare_actor")


@dataclass(frozen=True)
class Shape:
    """How many actors, and what their handler does."""

    actors: int
    handler: str

    @property
    def title(self) -> str:
        """For tables."""
        actors = "one actor" if self.actors == 1 else f"{self.actors:,} actors"
        return f"{actors}, {HANDLER_TITLES[self.handler]}"


@dataclass
class Run:
    """What one run found."""

    rate: float  # messages a second
    cpu_us: float  # of the workers, per message


def create(private: PrivateServer, dbname: str, shape: Shape) -> None:
    """A database with the handler and the user's table."""
    create_database(private, dbname)
    with connect(private, dbname) as owner:
        owner.execute("CREATE TABLE written (n int)")
        owner.execute(
            f"CREATE FUNCTION handle(state jsonb, message jsonb) {HANDLERS[shape.handler]} "
            "LANGUAGE plpgsql"
        )


def insert(connection: Connection, tables: Tables, shape: Shape, messages: int) -> int:
    """Send everything by one statement."""
    return connection.execute(f"""
        INSERT INTO {tables.message} (actor_type, actor_key, payload)
        SELECT 'bench.counter', (i % {shape.actors})::text, jsonb_build_object('n', i % 7 + 1)
        FROM generate_series(1, {messages}) i""").rowcount


def last_commit(su: Connection, tables: Tables) -> float:
    """When the last turn was committed, in seconds of the epoch."""
    return number(
        su,
        "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))"
        f" FROM {tables.actor} WHERE actor_type = 'bench.counter'",
    )


def check_books(su: Connection, tables: Tables, shape: Shape, messages: int) -> None:
    """Every message handled once, and its effect there."""
    waiting = number(su, f"SELECT count(*) FROM {tables.message}")
    dead = number(su, "SELECT count(*) FROM djactor.dead_letter")
    require(waiting == 0 and dead == 0, f"{waiting:.0f} messages wait, {dead:.0f} are dead")
    state = "'0'" if shape.handler == "noop" else "a.state->>'total'"
    total = "0" if shape.handler == "noop" else "sum(i % 7 + 1)"
    wrong = number(
        su,
        f"""
        SELECT count(*) FROM (
            SELECT (i % {shape.actors})::text AS key, count(*) AS turns, {total} AS total
            FROM generate_series(0, {messages}) i GROUP BY 1 -- 0: the one before
        ) expected
        FULL JOIN (SELECT * FROM {tables.actor} WHERE actor_type = 'bench.counter') a
            ON a.actor_key = expected.key COLLATE "C"
        WHERE a.turns IS DISTINCT FROM expected.turns
            OR ({state})::bigint IS DISTINCT FROM expected.total""",
    )
    require(wrong == 0, f"the states of {wrong:.0f} actors are wrong")
    if shape.handler == "write":
        rows = number(su, "SELECT count(*) FROM written")
        require(rows == messages + 1, f"{rows:.0f} rows in the user's table")


def wait_idle(owner: Connection) -> None:
    """Until nothing is left to do."""
    done = owner.execute("SELECT djactor.wait_idle('120 s')").fetchone()
    require(done == (True,), "not done within two minutes")


def start_workers(owner: Connection, su: Connection, workers: int) -> list[int]:
    """Make the type, and have all workers run before any clock does; their pids.

    A pool gets a further worker when a batch takes long while mailboxes wait, of which a
    worker claims 16 at a time; so slow messages of another type call for it.
    One turn of the type itself warms its worker's caches.
    """
    owner.execute(
        "SELECT djactor.define_actor_type('bench.counter', 'handle', initial_state => %s)",
        [INITIAL_STATE],
    )
    owner.execute("SELECT djactor.send('bench.counter', '0', '{\"n\": 1}')")
    wait_idle(owner)
    if workers > 1:
        owner.execute(
            "CREATE FUNCTION doze(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql"
            " AS $$ BEGIN PERFORM pg_sleep((message->>'seconds')::float); END $$"
        )
        owner.execute("SELECT djactor.define_actor_type('bench.dozer', 'doze')")
    for _ in range(10):
        if len(worker_pids(su)) == workers:
            break
        owner.execute(
            "INSERT INTO djactor.message (actor_type, actor_key, payload)"
            " SELECT 'bench.dozer', i::text, jsonb_build_object('seconds', (i % 16 = 1)::int * 0.2)"
            f" FROM generate_series(1, {16 * workers}) i"
        )
        wait_idle(owner)
    pids = worker_pids(su)
    require(len(pids) == workers, f"{len(pids)} workers where {workers} were asked for")
    return pids


def send_steadily(
    dsn: str, shape: Shape, first: int, last: int, start: multiprocessing.synchronize.Barrier
) -> None:
    """Insert the messages from first to last in statements of 100; a process of its own.

    It keeps its share of the backlog: the counters of djactor.stat, which lie in shared
    memory, say how far the workers are.
    """
    statement = f"""
        INSERT INTO djactor.message (actor_type, actor_key, payload)
        SELECT 'bench.counter', (i %% {shape.actors})::text, jsonb_build_object('n', i %% 7 + 1)
        FROM generate_series(%s::int, %s::int) i"""
    with psycopg.connect(dsn, autocommit=True) as connection:
        looked = "SELECT handled FROM djactor.stat WHERE actor_type = 'bench.counter'"
        before = number(connection, looked)
        start.wait()
        for i in range(first, last + 1, STATEMENT_ROWS):
            connection.execute(statement, [i, min(last, i + STATEMENT_ROWS - 1)], prepare=True)
            if (i - first) // STATEMENT_ROWS % 10 == 9:
                while (i - first) - (number(connection, looked) - before) / SENDERS > (
                    BACKLOG / SENDERS
                ):
                    time.sleep(0.002)


def run_steady(
    private: PrivateServer, dbname: str, shape: Shape, messages: int, workers: int
) -> Run:
    """One run with senders at work, in a new database.

    The clock starts when the senders do, and stops with the last turn's commit: so it
    contains what the senders were ahead at their end, at most BACKLOG messages.
    """
    create(private, dbname, shape)
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        pids = start_workers(owner, su, workers)
        su.execute("CHECKPOINT")
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(SENDERS + 1)
        share = messages // SENDERS
        senders = [
            context.Process(
                target=send_steadily,
                args=(private.dsn(dbname, OWNER), shape, n * share + 1, (n + 1) * share, barrier),
                daemon=True,
            )
            for n in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        barrier.wait()
        before = process_times(pids)
        start = time.time()
        for sender in senders:
            sender.join(120)
        require(all(sender.exitcode == 0 for sender in senders), "a sender failed")
        wait_idle(owner)
        used = process_times(pids) - before
        end = last_commit(su, DJACTOR)
        check_books(su, DJACTOR, shape, share * SENDERS)
    private.sql(f"DROP DATABASE {dbname}")
    return Run(share * SENDERS / (end - start), used.cpu_ns / 1000 / messages)


def run_preloaded(
    private: PrivateServer, dbname: str, shape: Shape, messages: int, workers: int
) -> Run:
    """One run of a backlog, in a new database; the clock starts just before resume()."""
    create(private, dbname, shape)
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        pids = start_workers(owner, su, workers)
        owner.execute("SELECT djactor.pause('bench.counter')")
        require(insert(owner, DJACTOR, shape, messages) == messages, "not all was sent")
        su.execute("VACUUM (ANALYZE) djactor.message")
        su.execute("CHECKPOINT")
        require(worker_pids(su) == pids, "workers came or went")
        before = process_times(pids)
        start = time.time()
        owner.execute("SELECT djactor.resume('bench.counter')")
        wait_idle(owner)
        used = process_times(pids) - before
        end = last_commit(su, DJACTOR)
        check_books(su, DJACTOR, shape, messages)
    private.sql(f"DROP DATABASE {dbname}")
    return Run(messages / (end - start), used.cpu_ns / 1000 / messages)
