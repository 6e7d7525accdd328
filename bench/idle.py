"""Idle: what a server with djactor does when there is nothing to do.

What: a database with an actor type whose pool has gone to sleep,
``djactor.poll_interval`` an hour, watched for ten seconds: transactions in that
database, CPU time of all processes of djactor (launcher and workers), and how often
the kernel put one of them on a CPU at all.

How: transactions are those of pg_stat_database, read from another database, so
that the observer's do not count.  A process may report its transactions late, so
that figure alone would prove little; a context switch cannot be hidden: a
process that was never switched to in ten seconds has run no query and
used no CPU.  Ticks of 10 ms are shown because that is what top shows;
nanoseconds are of /proc/PID/schedstat.

What would make it dishonest: watching while the pool still lingers (it is left
alone for 2.5 s first) or has yet to write the last minute into djactor.stat_history
(that is waited for: it comes once after work, not again), a poll interval that just
does not end within the ten seconds but is short otherwise (it is an hour; the default,
a minute, means one look a minute), or watching a server without a type, which has no worker.
Autovacuum is off here: its visits to the database would count as transactions.
"""

from __future__ import annotations

import time

from common import (
    Options,
    Result,
    admin,
    connect,
    create_database,
    djactor_pids,
    number,
    process_times,
    require,
    server,
    worker_pids,
)
from private_server import PrivateServer

NAME = "idle"
DBNAME = "bench"
WRITTEN = """
    SELECT (SELECT coalesce(sum(handled), 0) FROM djactor.stat)
        = (SELECT coalesce(sum(handled), 0) FROM djactor.stat_history)
    """
TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"


def watch(private: PrivateServer, result: Result, seconds: float) -> None:
    """Let the worker fall asleep, look away for so long, and judge what was done meanwhile."""
    with admin(private, DBNAME) as su:
        end = time.monotonic() + 130
        while su.execute(WRITTEN).fetchone() != (True,):
            require(time.monotonic() < end, "the history is not written")
            time.sleep(1)
    with admin(private, "postgres") as su:
        time.sleep(2.5)
        require(len(worker_pids(su)) == 1, "no worker to watch")
        pids = djactor_pids(su)
        transactions = number(su, TRANSACTIONS, [DBNAME])
        before = process_times(pids)
        time.sleep(seconds)
        used = process_times(pids) - before
        require(djactor_pids(su) == pids, "processes of djactor came or went")
        transactions = number(su, TRANSACTIONS, [DBNAME]) - transactions

    result.notes.append(f"{len(pids)} processes of djactor: launcher and worker")
    result.add(f"transactions in {seconds:g} s", "", [transactions])
    result.add("context switches of djactor", "", [float(used.switches)])
    result.add("CPU ticks (10 ms) of djactor", "", [float(used.ticks)])
    result.add("CPU time of djactor", "µs", [used.cpu_ns / 1000])
    result.promise(
        f"an idle server runs no query: {transactions:.0f} transactions, "
        f"{used.switches} context switches",
        transactions == 0,
    )
    result.promise(
        f"an idle server uses no measurable CPU: {used.ticks} ticks, {used.cpu_ns / 1000:.0f} µs"
        f" in {seconds:g} s",
        used.ticks == 0,
    )


def run(options: Options) -> Result:
    """Watch a server that has nothing to do."""
    result = Result(NAME, "A server with nothing to do")
    seconds = 3.0 if options.quick else 10.0
    with server(result, {"djactor.poll_interval": "1h", "autovacuum": "off"}) as private:
        create_database(private, DBNAME)
        with connect(private, DBNAME) as owner:
            owner.execute(
                "CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb "
                "LANGUAGE plpgsql AS $$ BEGIN RETURN state; END $$"
            )
            owner.execute("SELECT djactor.define_actor_type('bench.idler', 'handle')")
            owner.execute("SELECT djactor.send('bench.idler', 'one')")
            done = owner.execute("SELECT djactor.wait_idle('30 s')").fetchone()
            require(done == (True,), "the worker does not start")
        watch(private, result, seconds)
    return result
