"""Cases 3 and 4: rows that several keys write, and web requests that write them too.

3   Messages to 300 keys, whose handler adds to one of 50, of 1,000 or of 10,000 rows, chosen at
    random.  Messages a second with one, two and four workers, each on a server of its own,
    over 8 s after one second that does not count; all messages wait before the clock starts.  No
    message may fail or lose an attempt, since nobody is to blame for a deadlock.  Two and four
    workers are judged by what one reached.

4   An UPDATE from outside of a row that a turn of the batch has written while another key's turn
    runs: it may wait for that turn, not for further ones.  With turns of 5 s, begun 0.3 s
    before; and, since a batch ends after batch_time anyway, with short turns and a batch_time of
    a second.
    And a web loop: transactions that update two of 50 rows, in ascending order, as fast as one
    client can, while mail to 300 keys is handled that updates one of the rows each; in batches,
    and with ``batch_size => 1``, at one and at four workers.  Latencies are the client's, from
    BEGIN to COMMIT, those that ended in a deadlock included.

What would make it dishonest: mail that is used up before the window ends (then it ends there);
a rate that counts turns that were rolled back (it is that of djactor.stat, committed turns
only); web transactions that do not meet the handlers' rows; a random() in the WHERE clause,
which is evaluated for each row and makes every turn read the whole table.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack

import psycopg

from beside.case import Build, Case, Database, Rows, flow, percentile
from common import Bounded, number
from private_server import PrivateServer

TYPE = "bench.shop"
KEYS = 300
PRODUCTS = (50, 1_000, 10_000)
WORKERS = (1, 2, 4)
MESSAGES = 800_000
WINDOW = 8.0  # seconds
ROUNDS = 5  # of case 3: one window varies by a fifth
OF_ONE = 0.95

ROWS = 50  # that web and handlers share
SOLO_MESSAGES = 150_000
OF_SOLO = 2.0
LONG_TURN = 5.0  # seconds
EARLY = 0.3  # seconds that the turn runs before the UPDATE begins
SHORT_TURN = 50.0  # ms
SLACK = 25.0  # ms


def shop(db: Database, products: int, messages: int, **options: object) -> None:
    """The rows, the type that adds to them, and its mail; it waits for resume()."""
    db.owner.execute("CREATE TABLE product (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0)")
    db.owner.execute("INSERT INTO product SELECT generate_series(1, %s)", [products])
    db.handler(
        "handle",
        f"DECLARE chosen int := 1 + floor(random() * {products});"
        " BEGIN UPDATE product SET n = n + 1 WHERE id = chosen; END;",
    )
    db.define(TYPE, "handle", **options)
    db.send([(TYPE, "warm", {})])
    db.settle()
    db.fill(TYPE, KEYS, messages)


def shared_rows(build: Build) -> Rows:
    """Case 3."""
    messages, seconds = build.count(MESSAGES), build.seconds(WINDOW)
    with ExitStack() as stack:
        servers = {
            workers: stack.enter_context(build.server({"djactor.max_workers": workers}))
            for workers in WORKERS
        }
        for products in PRODUCTS:
            rates = {}
            for workers, private in servers.items():
                title = f"{products:,} rows, {workers} worker{'s' if workers > 1 else ''}"
                with Database(private) as db:
                    shop(db, products, messages)
                    db.resume(TYPE)
                    rates[workers] = flow(db, messages, seconds).rate
                    failed = number(
                        db.su,
                        "SELECT (SELECT sum(failed) FROM djactor.stat)"
                        " + (SELECT count(*) FROM djactor.message WHERE attempts > 0)"
                        " + (SELECT count(*) FROM djactor.dead_letter)",
                    )
                    retried = db.stat("retried")
                yield Bounded(title, "messages/s", [rates[workers]])
                yield Bounded(f"{title}: attempts used up", "attempts", [failed], most=0)
                yield Bounded(f"{title}: retried", "messages", [float(retried)])
                if workers > 1:
                    ratio = rates[workers] / rates[1]
                    yield Bounded(f"{title} / one worker", "times", [ratio], least=OF_ONE)


def wait_for_row(db: Database, web: psycopg.Connection[tuple]) -> float:
    """Milliseconds that an UPDATE of the first row takes."""
    begin = time.perf_counter()
    web.execute("UPDATE product SET n = n + 1 WHERE id = 1")
    return 1000 * (time.perf_counter() - begin)


def row_of_a_batch(private: PrivateServer, turn: float, known: bool) -> float:
    """How long an UPDATE of a row waits, in ms, that a turn before a long one has updated."""
    with Database(private) as db:
        prepare_waits(db)
        if known:
            for _ in range(3):
                db.send([("bench.web", "k2", {"sleep": 0.2})])
                db.settle()
        web = db.session()
        db.send([("bench.web", "k1", {"row": True}), ("bench.web", "k2", {"sleep": turn})])
        time.sleep(EARLY)
        return wait_for_row(db, web)


def prepare_waits(db: Database) -> None:
    """A type whose messages say whether the turn updates the row, and how long it takes."""
    db.owner.execute("CREATE TABLE product (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0)")
    db.owner.execute("INSERT INTO product SELECT generate_series(1, 50)")
    db.handler(
        "handle",
        "IF message ? 'row' THEN UPDATE product SET n = n + 1 WHERE id = 1; END IF;"
        " IF message ? 'sleep' THEN PERFORM pg_sleep((message->>'sleep')::float); END IF;",
    )
    db.define("bench.web", "handle")
    db.send([("bench.web", "warm", {})])
    db.settle()


def row_of_short_turns(private: PrivateServer, updates: int) -> list[float]:
    """The same, in ms, while a key's turns follow each other, each of which has updated the row."""
    with Database(private) as db:
        prepare_waits(db)
        web = db.session()
        payload = {"row": True, "sleep": SHORT_TURN / 1000}
        db.send(("bench.web", "k1", payload) for _ in range(20 * updates))
        values = []
        for _ in range(updates):
            time.sleep(EARLY)
            values.append(wait_for_row(db, web))
        return values


class Web(threading.Thread):
    """One client that updates two rows a transaction, until it is told to stop."""

    def __init__(self, db: Database) -> None:
        super().__init__(daemon=True)
        self._connection = db.session()
        self._over = threading.Event()
        self._random = random.Random(15)
        self.ms: list[float] = []
        self.deadlocks = 0

    def run(self) -> None:
        """Transaction after transaction."""
        update = "UPDATE product SET n = n + 1 WHERE id = %s"
        while not self._over.is_set():
            pair = sorted(self._random.sample(range(1, ROWS + 1), 2))
            begin = time.perf_counter()
            try:
                with self._connection.transaction():
                    for row in pair:
                        self._connection.execute(update, [row], prepare=True)
            except psycopg.errors.DeadlockDetected:
                self.deadlocks += 1
            self.ms.append(1000 * (time.perf_counter() - begin))

    def stop(self) -> None:
        """Let it end after the transaction that runs."""
        self._over.set()
        self.join()


def web_loop(
    private: PrivateServer, seconds: float, messages: int, solo: bool
) -> tuple[Web, float, float]:
    """A web client beside mail; it, the seconds that it ran, and the messages a second."""
    with Database(private) as db:
        shop(db, ROWS, messages, **({"batch_size": 1} if solo else {}))
        web = Web(db)
        db.resume(TYPE)
        web.start()
        begin = time.monotonic()
        mail = flow(db, messages, seconds, lead_in=0.0)
        web.stop()
        return web, time.monotonic() - begin, mail.rate


def web(build: Build) -> Rows:
    """Case 4."""
    turn, seconds = build.seconds(LONG_TURN), build.seconds(WINDOW)
    with build.server({"djactor.max_workers": 4}) as private:
        for known in (False, True):
            yield Bounded(
                f"UPDATE beside another key's turn of {turn:g} s,"
                f" slowness {'known' if known else 'new'}",
                "ms",
                [row_of_a_batch(private, turn, known)],
                most=1000 * turn,
                pick="max",
            )
    with build.server({"djactor.max_workers": 4, "djactor.batch_time": "1s"}) as private:
        yield Bounded(
            f"UPDATE beside turns of {SHORT_TURN:g} ms, batch_time 1 s",
            "ms",
            row_of_short_turns(private, 5),
            most=SHORT_TURN + SLACK,
            pick="max",
        )
    for workers in (1, 4):
        with build.server({"djactor.max_workers": workers}) as private:
            p99 = {}
            for solo in (True, False):
                messages = build.count(SOLO_MESSAGES if solo else MESSAGES)
                loop, lasted, rate = web_loop(private, seconds, messages, solo)
                title = (
                    f"web beside {'batch_size => 1' if solo else 'batches'},"
                    f" {workers} worker{'s' if workers > 1 else ''}"
                )
                p99[solo] = percentile(loop.ms, 99)
                yield Bounded(title, "transactions/s", [len(loop.ms) / lasted])
                yield Bounded(f"{title}: median", "ms", [percentile(loop.ms, 50)])
                yield Bounded(f"{title}: p99", "ms", [p99[solo]])
                yield Bounded(
                    f"{title}: deadlocks", "deadlocks", [float(loop.deadlocks)], most=0, pick="max"
                )
                yield Bounded(f"{title}: mail", "messages/s", [rate])
            yield Bounded(
                f"{title}: p99 / beside batch_size => 1",
                "times",
                [p99[False] / p99[True]],
                most=OF_SOLO,
            )


CASES = (
    Case(3, "Shared rows", shared_rows, ROUNDS),
    Case(4, "Web requests", web),
)
