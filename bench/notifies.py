"""Notifies: one NOTIFY wakes a sleeping database, and none disturbs a busy one.

What: a session that LISTENs on the channel ``djactor``, as psql would, counts
what arrives

asleep      while single messages are sent 1.35 s apart, so that each finds the
            pool asleep: one NOTIFY each is promised (and without one the message
            would wait for the poll, an hour away);
steady      while four processes insert single messages for eight seconds, each in
            a transaction of its own: after the one that wakes the pool, none is
            promised.  A NOTIFY takes a lock of the whole cluster through the
            flush of its commit, so this promise is what keeps senders fast.

How: the listener is a process of its own that does nothing else, so it misses
nothing; PostgreSQL folds equal notifications of one transaction, never those of
two.  Rates are what the senders counted as committed, and the turns that the actors
show, over the time from the first INSERT to the last, respectively to the last
commit of a handler.

What would make it dishonest: counting nothing because nothing can be heard
(hence the asleep half, in the same session); a load that leaves the worker asleep in
between, which would have to ring again; or one that is so slow that the
worker's lingering hides everything.  The rates are below what the server can do:
the senders are Python on the same cores.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.synchronize import Barrier

import psycopg

from common import (
    OWNER,
    Options,
    Result,
    admin,
    connect,
    create_database,
    number,
    require,
    server,
)
from private_server import PrivateServer

NAME = "notifies"
SENDERS = 4
ACTORS = 1_000
ASLEEP_AFTER = 1.35
DBNAME = "bench"


class Listener:
    """Counts notifications on the channel djactor."""

    def __init__(self, dsn: str) -> None:
        self.times: list[float] = []
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute("LISTEN djactor")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ending.is_set():
            for _ in self._connection.notifies(timeout=0.2):
                self.times.append(time.monotonic())

    def count(self, begin: float, end: float) -> int:
        """How many arrived between two moments."""
        return sum(begin <= moment <= end for moment in self.times)

    def close(self) -> None:
        """Stop listening."""
        self._ending.set()
        self._thread.join()
        self._connection.close()


def send_for(dsn: str, number_: int, seconds: float, start: Barrier, sent: dict[int, int]) -> None:
    """Insert single messages for a while; a process of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        statement = (
            "INSERT INTO djactor.message (actor_type, actor_key, payload)"
            " VALUES ('bench.counter', %s, '{\"n\": 1}')"
        )
        start.wait()
        until = time.monotonic() + seconds
        count = 0
        while time.monotonic() < until:
            key = str((count * SENDERS + number_) % ACTORS)
            connection.execute(statement, [key], prepare=True)
            count += 1
    sent[number_] = count


def prepare(private: PrivateServer) -> None:
    """A database with a type that counts, its worker running."""
    create_database(private, DBNAME)
    with connect(private, DBNAME) as owner:
        owner.execute(
            """CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb
            LANGUAGE plpgsql AS $$ BEGIN
                RETURN jsonb_build_object('total', coalesce((state->>'total')::bigint, 0) + 1);
            END $$"""
        )
        owner.execute("SELECT djactor.define_actor_type('bench.counter', 'handle')")
        owner.execute("SELECT djactor.send('bench.counter', '0')")
        require(
            owner.execute("SELECT djactor.wait_idle('30 s')").fetchone() == (True,),
            "the worker does not start",
        )


def steady(private: PrivateServer, seconds: float) -> tuple[float, float, int]:
    """Load from several processes; begin and end (monotonic), and how much was sent."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        sent = manager.dict()
        start = context.Barrier(SENDERS + 1)
        processes = [
            context.Process(
                target=send_for,
                args=(private.dsn(DBNAME, OWNER), n, seconds, start, sent),
                daemon=True,
            )
            for n in range(SENDERS)
        ]
        for process in processes:
            process.start()
        start.wait()
        begin = time.monotonic()
        for process in processes:
            process.join(seconds + 30)
        end = time.monotonic()
        require(
            all(process.exitcode == 0 for process in processes) and len(sent) == SENDERS,
            "a sender failed",
        )
        return begin, end, sum(sent.values())


def run(options: Options) -> Result:
    """Count while asleep, then under load."""
    result = Result(NAME, "NOTIFYs on the channel djactor")
    seconds = 3.0 if options.quick else 8.0
    singles = 2 if options.quick else 3
    with server(result, {"djactor.poll_interval": "1h"}) as private:
        prepare(private)
        with connect(private, DBNAME) as owner, admin(private, DBNAME) as su:
            listener = Listener(private.dsn(DBNAME, OWNER))
            rung = []
            for _ in range(singles):
                time.sleep(ASLEEP_AFTER)
                begin = time.monotonic()
                owner.execute("SELECT djactor.send('bench.counter', '0')")
                owner.execute("SELECT djactor.wait_idle('10 s')")
                time.sleep(0.05)
                rung.append(listener.count(begin, time.monotonic()))

            time.sleep(ASLEEP_AFTER)
            turns = number(su, "SELECT sum(turns) FROM djactor.actor")
            wall = time.time()
            begin, end, sent = steady(private, seconds)
            owner.execute("SELECT djactor.wait_idle('60 s')")
            time.sleep(0.3)
            during = listener.count(begin, end + 0.3)
            handled = number(su, "SELECT sum(turns) FROM djactor.actor") - turns
            last = number(
                su,
                "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) FROM djactor.actor",
            )
            waiting = number(su, "SELECT count(*) FROM djactor.message")
            listener.close()
    require(handled == sent and waiting == 0, f"{sent} sent, {handled:.0f} handled")

    result.add("NOTIFYs for one message, asleep", "NOTIFYs", [float(n) for n in rung])
    result.add(f"NOTIFYs in {seconds:g} s of steady load", "NOTIFYs", [float(during)])
    result.add(f"sent by {SENDERS} processes, one a transaction", "messages/s", [sent / seconds])
    result.add("handled", "messages/s", [handled / (last - wall)])
    result.promise(
        f"a message to a sleeping database rings once: {rung}", all(n == 1 for n in rung)
    )
    result.promise(
        f"no NOTIFY under steady load, the wake-up excepted: {during} for {sent:,} messages",
        during <= 1,
    )
    return result
