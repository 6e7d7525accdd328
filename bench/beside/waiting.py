"""Case 7: somebody who waits for an answer or for quiet while others work.

7   Messages to ten hot actors, whose handler adds to a row for each, handled by one worker: a row
    like that has a new version with every turn, and as long as some snapshot is old none of them
    can be removed.  Messages a second over 6 s, after one second that does not count, beside
    nobody; beside an open ``SELECT djactor.wait_idle('25 s')``, and beside procedures that wait
    without a snapshot: ``CALL djactor.wait_idle``, ``CALL djactor.ask`` of a paused type's
    actor, ``CALL djactor.wait_reply``, all by the extended protocol, as drivers do.  The
    yardstick beside nobody is taken first and last, and counts with its mean.
    The waiting SELECTs are shown and not judged: PostgreSQL gives a function its caller's
    snapshot.  What a build does not have is not measured.

What would make it dishonest: a row that is written once a batch, whose versions are few; a
waiter that ended before the window did (it is looked for at the end).
"""

from __future__ import annotations

import contextlib
import threading

import psycopg

from beside.case import ABSENT, Build, Case, Database, Rows, flow
from common import Bounded, number, require
from private_server import PrivateServer

TYPE = "bench.hot"
HOT = 10  # actors, and rows
MESSAGES = 600_000
WINDOW = 6.0  # seconds
ROUNDS = 5  # one window varies by a fifth
OF_ALONE = 0.9

NOBODY = "nobody"
# How somebody waits, and the procedure that has to exist for it.
WAITS: dict[str, tuple[str, str | None]] = {
    "SELECT wait_idle()": ("SELECT djactor.wait_idle('25 s')", None),
    "SELECT wait_reply()": ("SELECT djactor.wait_reply(%(id)s, '25 s')", None),
    "CALL wait_idle()": ("CALL djactor.wait_idle('25 s', NULL, NULL)", "wait_idle"),
    "CALL wait_reply()": ("CALL djactor.wait_reply(%(id)s, '25 s', NULL)", "wait_reply"),
    "CALL ask()": ("CALL djactor.ask('bench.paused', 'one', '{}', '25 s')", "ask"),
}


class Waiter(threading.Thread):
    """A session that waits until it is cancelled."""

    def __init__(self, db: Database, statement: str, message: int) -> None:
        super().__init__(daemon=True)
        self._connection = db.session()
        self._statement = statement.replace("%(id)s", str(message))
        self._error: psycopg.Error | None = None
        self.start()

    def run(self) -> None:
        """Wait."""
        with contextlib.suppress(psycopg.errors.QueryCanceled):
            try:
                self._connection.execute(self._statement, prepare=True)
            except psycopg.errors.QueryCanceled:
                raise
            except psycopg.Error as error:
                self._error = error

    def stop(self) -> None:
        """It has to be waiting still."""
        waited = self.is_alive()
        self._connection.cancel()
        self.join()
        require(waited, f"did not wait: {self._statement}: {self._error or 'it returned'}")


def exists(private: PrivateServer, procedure: str) -> bool:
    """Whether this build has a procedure of that name."""
    with Database(private, "look") as db:
        found = number(
            db.su,
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'djactor'::regnamespace"
            " AND prokind = 'p' AND proname = %s",
            [procedure],
        )
    return found > 0


def hot_rate(private: PrivateServer, messages: int, seconds: float, statement: str | None) -> float:
    """Messages a second while somebody waits."""
    with Database(private) as db:
        db.owner.execute("CREATE TABLE hot (key text PRIMARY KEY, n bigint NOT NULL DEFAULT 0)")
        db.owner.execute(f"INSERT INTO hot SELECT i::text FROM generate_series(0, {HOT - 1}) i")
        db.handler(
            "handle",
            "DECLARE mine text := (djactor.self()).actor_key;"
            " BEGIN UPDATE hot SET n = n + 1 WHERE key = mine; END;",
        )
        db.handler("answer", "NULL;")
        db.define(TYPE, "handle")
        db.define("bench.paused", "answer")
        db.send([(TYPE, "warm", {})])
        db.settle()
        db.owner.execute("SELECT djactor.pause('bench.paused')")
        message = number(
            db.owner, "SELECT djactor.send('bench.paused', 'one', wants_reply => true)"
        )
        db.fill(TYPE, HOT, messages)
        if statement is None:
            db.resume(TYPE)
            return flow(db, messages, seconds).rate
        if "wait_idle" not in statement:
            waiter = Waiter(db, statement, int(message))
            db.resume(TYPE)
        else:  # paused mail is idle
            db.resume(TYPE)
            waiter = Waiter(db, statement, int(message))
        rate = flow(db, messages, seconds).rate
        waiter.stop()
        return rate


def waiting(build: Build) -> Rows:
    """Case 7."""
    messages, seconds = build.count(MESSAGES), build.seconds(WINDOW)
    with build.server({"djactor.max_workers": 1}) as private:
        alone = [hot_rate(private, messages, seconds, None)]
        rates: dict[str, float] = {}
        for title, (statement, procedure) in WAITS.items():
            if procedure is not None and not exists(private, procedure):
                rates[title] = ABSENT
            else:
                rates[title] = hot_rate(private, messages, seconds, statement)
        alone.append(hot_rate(private, messages, seconds, None))
        mean = sum(alone) / len(alone)
        yield Bounded("hot rows, beside nobody", "messages/s", [mean])
        for title, rate in rates.items():
            yield Bounded(f"hot rows, beside {title}", "messages/s", [rate])
            yield Bounded(
                f"hot rows, beside {title} / beside nobody",
                "times",
                [rate / mean],
                least=OF_ALONE if title.startswith("CALL") else None,
            )


CASES = (Case(7, "Waiting", waiting, ROUNDS),)
