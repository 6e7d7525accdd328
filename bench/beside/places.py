"""Case 8: databases that have to share the places of workers.

8   One place (``max_workers`` 1), two databases without other mail, asked in turn, an ask after the
    other, for 12 s at most; the first ask to each is shown by itself.  Then the second one has
    messages that fail each time for want of disk space and are put off again and again, and
    only the first one is asked, twice a second: a retry that is not due is no reason to keep a
    place.
    Four places, 200 databases: one client, then four, then sixteen ask each database once, in a
    shuffled order, for 20 s at most.  Connecting is not timed.  An ask that had no answer in 10 s
    counts with the time that it waited.  This server is made of 60,000 files, so fsync is off, and
    it lies in memory where there is room; the two commits of an ask are nothing beside a
    change of places.

What would make it dishonest: databases whose worker is there already when they are asked (each is
asked again only after all others); waiting between asks to idle databases until a place is given
up for idleness.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from beside.case import Build, Case, Database, Rows, Settings, ask, percentile
from common import OWNER, Bounded, connect, create_database, number, require
from private_server import PrivateServer

TYPE = "bench.asked"
TWO_SECONDS = 12.0
TWO_ASKS = 100
PAUSE = 0.5  # seconds between asks beside mail that is put off
MEDIAN = 100.0  # ms
DATABASES = 200
PLACES = 4
CLIENTS = (1, 4, 16)
MANY_SECONDS = 20.0
P99 = 1000.0  # ms
PATIENCE = "10 s"
MEMORY = Path("/dev/shm")
ROOM = 20_000_000  # bytes for a database, with its share of the WAL


def define(db: Database) -> None:
    """The type that is asked."""
    db.handler("answer", "NULL;")
    db.define(TYPE, "answer")


def asks(
    connections: Sequence[psycopg.Connection[tuple]], seconds: float, pause: float = 0.0
) -> list[float]:
    """Ask in turn, so often or for so long, with pauses; milliseconds of each."""
    values: list[float] = []
    over = time.monotonic() + seconds
    while len(values) < TWO_ASKS and (time.monotonic() < over or not values):
        connection = connections[len(values) % len(connections)]
        values.append(ask(connection, TYPE, "one", Jsonb({}), PATIENCE))
        time.sleep(pause)
    return values


def two(build: Build) -> Rows:
    """Two databases on one place."""
    seconds = build.seconds(TWO_SECONDS)
    with (
        build.server({"djactor.max_workers": 1}) as private,
        Database(private, "one") as one,
        Database(private, "other") as other,
    ):
        define(one)
        define(other)
        first = asks([one.owner], 0.0) + asks([other.owner], 0.0)
        yield Bounded("two databases on one place: first asks", "ms", first, pick="max")
        values = asks([one.owner, other.owner], seconds)
        title = "two databases on one place"
        yield Bounded(f"{title}: ask, median", "ms", [percentile(values, 50)], most=MEDIAN)
        yield Bounded(f"{title}: ask, p99", "ms", [percentile(values, 99)])

        other.handler("full", "RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'disk is full';")
        other.define("bench.full", "full", backoff="100 ms", max_attempts=1_000_000)
        other.send([("bench.full", str(i), {}) for i in range(10)])
        require(
            other.until(
                "SELECT count(*) FROM djactor.message WHERE last_error IS NOT NULL", 10, 30
            ),
            "nothing was put off",
        )
        values = asks([one.owner], seconds, PAUSE)
        title = "one place, the other database has mail that is put off"
        yield Bounded(f"{title}: ask, median", "ms", [percentile(values, 50)], most=MEDIAN)
        yield Bounded(f"{title}: ask, p99", "ms", [percentile(values, 99)])


class Client(threading.Thread):
    """A client that asks some databases in turn, with a new session for each ask."""

    def __init__(self, private: PrivateServer, names: Sequence[str], over: float) -> None:
        super().__init__(daemon=True)
        self._private, self._names, self._over = private, names, over
        self._error: psycopg.Error | None = None
        self.ms: list[float] = []
        self.start()

    def run(self) -> None:
        """Ask each once, or until time is up."""
        try:
            for name in self._names:
                if time.monotonic() > self._over:
                    return
                with psycopg.connect(self._private.dsn(name, OWNER), autocommit=True) as session:
                    self.ms.append(ask(session, TYPE, "one", Jsonb({}), PATIENCE))
        except psycopg.Error as error:
            self._error = error

    def result(self) -> list[float]:
        """Its asks in milliseconds; waits for its end."""
        self.join()
        if self._error is not None:
            raise self._error
        return self.ms


def preload(private: PrivateServer, libraries: str) -> None:
    """Restart the server with other libraries."""
    with (private.data_directory / "postgresql.conf").open("a") as conf:
        conf.write(f"shared_preload_libraries = '{libraries}'\n")
    private.restart()


def make(private: PrivateServer, names: Sequence[str]) -> None:
    """Databases with the type, copied from one; the launcher has seen all of them.

    They are made while the server runs without djactor, which would look at all of them
    each time that one more is there.
    """
    create_database(private, "pattern")
    with connect(private, "pattern") as owner:
        owner.execute(
            "CREATE FUNCTION answer(state jsonb, message jsonb) RETURNS void"
            " LANGUAGE plpgsql AS $$ BEGIN END $$"
        )
        owner.execute("SELECT djactor.define_actor_type(%s, 'answer')", [TYPE])
    preload(private, "")
    with connect(private, "postgres", private.superuser) as su:
        for name in names:
            su.execute(f"CREATE DATABASE {name} TEMPLATE pattern OWNER {OWNER}")
    preload(private, "djactor")
    quiet = 0
    with connect(private, "postgres", private.superuser) as su:
        while quiet < 10:
            time.sleep(0.2)
            busy = number(
                su, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'djactor scout'"
            )
            quiet = 0 if busy else quiet + 1


def many(build: Build) -> Rows:
    """200 databases on four places."""
    seconds, databases = build.seconds(MANY_SECONDS), build.count(DATABASES)
    names = [f"many_{i}" for i in range(databases)]
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM * databases
    settings: Settings = {"djactor.max_workers": PLACES, "fsync": "off"}
    with build.server(settings, MEMORY if roomy else None) as private:
        make(private, names)
        for clients in CLIENTS:
            random.Random(clients).shuffle(names)
            over = time.monotonic() + seconds
            running = [Client(private, names[i::clients], over) for i in range(clients)]
            values = [ms for client in running for ms in client.result()]
            title = (
                f"{databases} databases on {PLACES} places,"
                f" {clients} client{'s' if clients > 1 else ''}"
            )
            yield Bounded(f"{title}: asks", "asks", [float(len(values))])
            yield Bounded(f"{title}: ask, median", "ms", [percentile(values, 50)])
            yield Bounded(f"{title}: ask, p99", "ms", [percentile(values, 99)], most=P99)
            yield Bounded(f"{title}: ask, slowest", "ms", [max(values)])


def places(build: Build) -> Rows:
    """Case 8."""
    yield from two(build)
    yield from many(build)


CASES = (Case(8, "Places", places),)
