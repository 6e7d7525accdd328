"""Sender: what an INSERT into djactor.message costs him who sends.

What: the same rows inserted into ``djactor.message`` and into a bare copy of it
(``LIKE ... INCLUDING ALL``: same columns, defaults, identity and indexes, no trigger),
in three ways

single      one row a transaction, a prepared statement;
thousand    a thousand rows to a thousand actors by one INSERT ... SELECT;
copy        COPY of 10,000 rows to a thousand actors.

The difference between the two tables is djactor's trigger, with what it has to do
before and after the commit.  The copy keeps the expression indexes, whose functions
are djactor's too; a third table without those two shows what they cost.

How: ``synchronous_commit`` is off in the sender's session, so that the disk does
not hide the CPU; with it on, the ratio is nearer to one.  The type is paused: no
worker competes, and both tables only grow.  Wall time is that of libpq's call.  CPU time is
that of the sender's backend alone (/proc/PID/schedstat), which leaves out the
client and the time in which nobody ran.  The tables are measured in turn, round
after round and each round in another order, so that a disturbance, a growing
index or the place in the round meets all of them.

What would make it dishonest: measuring while a worker deletes what was sent; a
copy without the indexes; one long transaction for all single rows, which would call
the commit's part once instead of each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from common import (
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
from private_server import PrivateServer

NAME = "sender"
DBNAME = "bench"
PROMISED = 1.3
SINGLES = 500
STATEMENTS = 2
COPIED = 10_000
ROUNDS = 5  # for each run: short ones, so that what is compared was measured at one time
ACTORS = 1_000
TABLES = {
    "djactor.message": "djactor.message",
    "bare copy": "bare",
    "without expression indexes": "plain",
}
COLUMNS = "(actor_type, actor_key, payload)"


@dataclass
class Cost:
    """Microseconds a row."""

    wall: float
    cpu: float


def single(connection: Connection, table: str) -> int:
    """One row a transaction."""
    pgconn = connection.pgconn
    name = table.encode()
    statement = f"INSERT INTO {table} {COLUMNS} VALUES ('bench.counter', $1, '{{}}')"
    pgconn.prepare(name, statement.encode())
    for i in range(SINGLES):
        pgconn.exec_prepared(name, [str(i % ACTORS).encode()])
    connection.execute(f'DEALLOCATE "{table}"')
    return SINGLES


def thousand(connection: Connection, table: str) -> int:
    """A thousand rows a statement."""
    for _ in range(STATEMENTS):
        connection.execute(
            f"INSERT INTO {table} {COLUMNS}"
            f" SELECT 'bench.counter', i::text, '{{}}' FROM generate_series(1, {ACTORS}) i"
        )
    return STATEMENTS * ACTORS


COPY_DATA = "".join(f"bench.counter\t{i % ACTORS}\t{{}}\n" for i in range(COPIED)).encode()


def copy(connection: Connection, table: str) -> int:
    """All rows by one COPY."""
    with connection.cursor().copy(f"COPY {table} {COLUMNS} FROM STDIN") as stream:
        stream.write(COPY_DATA)
    return COPIED


WAYS: dict[str, Callable[[Connection, str], int]] = {
    "single": single,
    "1,000 a statement": thousand,
    "COPY": copy,
}


def measure(connection: Connection, way: Callable[[Connection, str], int], table: str) -> Cost:
    """Do it once."""
    pid = connection.pgconn.backend_pid
    before = process_times([pid])
    begin = time.perf_counter()
    rows = way(connection, table)
    wall = time.perf_counter() - begin
    used = process_times([pid]) - before
    return Cost(1e6 * wall / rows, used.cpu_ns / 1000 / rows)


def prepare(private: PrivateServer) -> None:
    """The type, paused, and the tables to compare with."""
    create_database(private, DBNAME)
    with connect(private, DBNAME) as owner:
        owner.execute(
            "CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb "
            "LANGUAGE plpgsql AS $$ BEGIN RETURN state; END $$"
        )
        owner.execute("SELECT djactor.define_actor_type('bench.counter', 'handle')")
        owner.execute("SELECT djactor.pause('bench.counter')")
    with admin(private, DBNAME) as su:
        for table in ("bare", "plain"):
            su.execute(f"CREATE TABLE {table} (LIKE djactor.message INCLUDING ALL)")
            su.execute(f"GRANT INSERT, SELECT ON {table} TO bench")
        indexes = su.execute(
            "SELECT indexrelid::regclass::text FROM pg_index"
            " WHERE indrelid = 'plain'::regclass AND indexprs IS NOT NULL"
        ).fetchall()
        require(len(indexes) == 3, "the mailbox's indexes are not what they were")
        for (index,) in indexes:
            su.execute(f"DROP INDEX {index}")


def run(options: Options) -> Result:
    """Rounds over the ways and tables."""
    result = Result(NAME, "What sending costs the sender (synchronous_commit off)")
    costs: dict[tuple[str, str], list[Cost]] = {(w, t): [] for w in WAYS for t in TABLES}
    with server(result, {"autovacuum": "off"}) as private:
        prepare(private)
        with connect(private, DBNAME) as owner:
            owner.execute("SET synchronous_commit = off")
            for i in range(options.runs * ROUNDS + 1):
                order = list(TABLES)[i % 3 :] + list(TABLES)[: i % 3]
                for way in WAYS:
                    for table in order:
                        cost = measure(owner, WAYS[way], TABLES[table])
                        if i > 0:  # the first round fills the session's caches
                            costs[way, table].append(cost)
            require(
                number(owner, "SELECT count(*) FROM djactor.message")
                == number(owner, "SELECT count(*) FROM bare"),
                "the tables got different rows",
            )
    result.settings["synchronous_commit"] = "off in the sender's session"
    for way in WAYS:
        for table in TABLES:
            values = costs[way, table]
            result.add(f"{way}: {table}", "µs/row", [cost.wall for cost in values])
        for table in TABLES:
            values = costs[way, table]
            result.add(f"{way}: {table}, CPU of the backend", "µs/row", [c.cpu for c in values])
        pairs = list(zip(costs[way, "djactor.message"], costs[way, "bare copy"], strict=True))
        figure = result.add(
            f"{way}: message / bare copy", "times", [m.wall / b.wall for m, b in pairs]
        )
        result.promise(
            f"{way}: sending costs at most {PROMISED:g} times the bare INSERT: {figure.median:.2f}",
            figure.median <= PROMISED,
        )
        result.add(f"{way}: message / bare copy, CPU", "times", [m.cpu / b.cpu for m, b in pairs])
    return result
