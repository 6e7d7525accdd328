"""Throughput: how many messages a second one worker handles.

What: 200,000 messages to 1,000 actors, inserted by one statement; each adds a
number to the actor's state in a PL/pgSQL handler.  ``djactor.max_workers`` is 1.
Two ways to start the clock:

preloaded   The type is paused.  INSERT, VACUUM (ANALYZE), CHECKPOINT.  The clock
            starts just before ``resume()`` is sent.  What rivals' benchmarks
            measure: the worker alone, with all work waiting.
live        The type is not paused and its worker sleeps.  The clock starts with
            the commit of the INSERT, so the wake-up counts, and so do hint bits
            that no VACUUM has set.

The same preloaded with other shapes: all messages to one actor; a handler that
also writes a row into a user's table; a handler that does nothing (RETURNS void).

How: the clock stops at the commit of the last message.  The server itself says
when that was: ``track_commit_timestamp`` keeps the time of each commit, and the
row of the actor that was written last carries the transaction that wrote it.
So the figure does not depend on how often somebody looks, and the session that
waits (``wait_idle()``, which looks every 50 ms) hardly competes for the CPU.
PostgreSQL takes a commit's time just before it flushes the WAL, so the last
flush, well below a millisecond on a decent disk, is missing at the end, and
the first one is contained at the beginning of ``live``.

Each run has a database of its own, so nobody's dead rows are in the way.  The
other shapes are run once for each five runs of the first two.

What would make it dishonest: a type that handles without keeping state (the
no-op is shown, but judged is the one that adds); fsync off; several workers;
counting messages that were merely fetched.  Therefore the books are checked after
each run: every actor's state must be the sum of what it was sent, every mailbox
empty, no dead letter; else there is no figure but an error.  A run that starts
before the machine has calmed down measures the machine: look at the load that the
report shows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from common import (
    Options,
    Result,
    admin,
    connect,
    create_database,
    number,
    process_times,
    require,
    server,
    worker_pids,
)
from private_server import PrivateServer

NAME = "throughput"
MESSAGES = 200_000
ACTORS = 1_000
PROMISED = 50_000

_TOTAL = "jsonb_build_object('total', (state->>'total')::bigint + (message->>'n')::bigint)"

HANDLERS = {
    "add": f"RETURNS jsonb AS $$ BEGIN RETURN {_TOTAL}; END $$",
    "write": f"""RETURNS jsonb AS $$ BEGIN
        INSERT INTO written (n) VALUES ((message->>'n')::int);
        RETURN {_TOTAL};
    END $$""",
    "noop": "RETURNS void AS $$ BEGIN END $$",
}


@dataclass(frozen=True)
class Case:
    """One shape of load."""

    title: str
    handler: str
    actors: int
    live: bool = False
    share_of_runs: float = 1.0


CASES = [
    Case("1,000 actors, adds to the state, preloaded", "add", ACTORS),
    Case("1,000 actors, adds to the state, live", "add", ACTORS, live=True),
    Case("one actor, adds to the state, preloaded", "add", 1, share_of_runs=0.2),
    Case("1,000 actors, also writes a user's row, preloaded", "write", ACTORS, share_of_runs=0.2),
    Case("1,000 actors, no-op, preloaded", "noop", ACTORS, share_of_runs=0.2),
]


@dataclass
class Run:
    """What one run took."""

    seconds: float
    worker_cpu_us: float  # per message


def send(actors: int, messages: int) -> str:
    """The statement that sends everything and tells its transaction."""
    return f"""
        WITH sent AS (
            INSERT INTO djactor.message (actor_type, actor_key, payload)
            SELECT 'bench.counter', (i % {actors})::text, jsonb_build_object('n', i % 7 + 1)
            FROM generate_series(1, {messages}) i
            RETURNING 1
        )
        SELECT pg_current_xact_id()::text, count(*) FROM sent"""


def check_books(private: PrivateServer, dbname: str, case: Case, messages: int) -> None:
    """Every message handled once, and its effect there."""
    with admin(private, dbname) as su:
        waiting = number(su, "SELECT count(*) FROM djactor.message")
        dead = number(su, "SELECT count(*) FROM djactor.dead_letter")
        require(waiting == 0 and dead == 0, f"{waiting:.0f} messages wait, {dead:.0f} are dead")
        state = "'0'" if case.handler == "noop" else "a.state->>'total'"
        total = "0" if case.handler == "noop" else "sum(i % 7 + 1)"
        wrong = number(
            su,
            f"""
            SELECT count(*) FROM (
                SELECT (i % {case.actors})::text AS key, count(*) AS turns, {total} AS total
                FROM generate_series(1, {messages}) i GROUP BY 1
            ) expected FULL JOIN djactor.actor a ON a.actor_key = expected.key COLLATE "C"
            WHERE a.turns IS DISTINCT FROM expected.turns + (key = '0')::int -- the one before
                OR ({state})::bigint IS DISTINCT FROM expected.total""",
        )
        require(wrong == 0, f"the states of {wrong:.0f} actors are wrong")
        if case.handler == "write":
            rows = number(su, "SELECT count(*) FROM written WHERE n > 0")
            require(rows == messages, f"{rows:.0f} rows in the user's table")


def run_once(private: PrivateServer, dbname: str, case: Case, messages: int) -> Run:
    """One run in a new database."""
    create_database(private, dbname)
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        owner.execute("CREATE TABLE written (n int)")
        owner.execute(
            f"CREATE FUNCTION handle(state jsonb, message jsonb) {HANDLERS[case.handler]} "
            "LANGUAGE plpgsql"
        )
        owner.execute(
            "SELECT djactor.define_actor_type('bench.counter', 'handle', "
            """initial_state => '{"total": 0}')"""
        )
        # One turn, so that the worker exists and has its caches warm.
        owner.execute("SELECT djactor.send('bench.counter', '0', '{\"n\": 0}')")
        warm = owner.execute("SELECT djactor.wait_idle('30 s')").fetchone()
        require(warm == (True,), "the worker does not start")
        if not case.live:
            owner.execute("SELECT djactor.pause('bench.counter')")
        else:
            time.sleep(1.3)  # it lingers for a second

        workers = worker_pids(su)
        require(len(workers) == 1, f"{len(workers)} workers where one was asked for")
        before = process_times(workers)
        su.execute("CHECKPOINT")
        sent = owner.execute(send(case.actors, messages)).fetchone()
        require(sent is not None and sent[1] == messages, "not all was sent")
        if case.live:
            query = "SELECT extract(epoch FROM pg_xact_commit_timestamp(%s::xid))"
            start = number(owner, query, [sent[0]])
        else:
            su.execute("VACUUM (ANALYZE) djactor.message")
            su.execute("CHECKPOINT")
            before = process_times(workers)
            start = time.time()
            owner.execute("SELECT djactor.resume('bench.counter')")
        idle = owner.execute("SELECT djactor.wait_idle('60 s')").fetchone()
        require(idle == (True,), "not done within a minute")
        used = process_times(workers) - before
        end = number(
            su, "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) FROM djactor.actor"
        )
    check_books(private, dbname, case, messages)
    private.sql(f"DROP DATABASE {dbname}")
    return Run(end - start, used.cpu_ns / 1000 / messages)


def run(options: Options) -> Result:
    """All cases, their runs interleaved so that a disturbance hits all alike."""
    result = Result(NAME, f"Messages handled by one worker ({MESSAGES:,} a run)")
    messages = MESSAGES
    runs: dict[Case, list[Run]] = {case: [] for case in CASES}
    with server(result, {"djactor.max_workers": 1}) as private:
        for i in range(options.runs):
            for n, case in enumerate(CASES):
                if i < max(1, round(options.runs * case.share_of_runs)):
                    runs[case].append(run_once(private, f"bench_{i}_{n}", case, messages))
    for case, done in runs.items():
        figure = result.add(case.title, "messages/s", [messages / run.seconds for run in done])
        if case.handler == "add" and case.actors == ACTORS:
            result.promise(
                f"at least {PROMISED:,} messages/s with one worker"
                f" ({'live' if case.live else 'preloaded'}): {figure.median:,.0f}",
                figure.median >= PROMISED,
            )
    for case, done in runs.items():
        result.add(
            f"CPU of the worker: {case.title}", "µs/message", [run.worker_cpu_us for run in done]
        )
    return result
