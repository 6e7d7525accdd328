"""Case 5: a transaction that somebody has left open, with a lock on what a worker needs.

5   Messages wait for 500 keys, and in the midst of them one for the actor ``victim``.  A session
    has a transaction open that has cancelled the victim's message, or updated its state, or
    locked its row FOR KEY SHARE; then all mail becomes due.  After 4 s: how many of the 500 still
    wait, when was the last of them done, how often has the victim's handler been called, and how
    often that of anybody?  Sequences count the calls, since they do not go back with a transaction.
    Then the session rolls back, and the victim's message is to be done.  For an ordinary type,
    and for one with ``batch_size => 1``, whose handlers may reach outside; with one worker, which
    has everybody's mail, and once more with four.
    A lock FOR KEY SHARE is that of whoever watches, or has a foreign key to the actor: it
    conflicts with nothing that a turn does, so the victim is to be done at once.
    And an actor is watched by one whose turn then lasts 3 s: an ask to it is made meanwhile.

What would make it dishonest: a lock that is taken after the victim's turn; calls counted in a
table, where those that were rolled back do not show.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from beside.case import NEVER, Build, Case, Database, Rows
from common import Bounded, number, require
from private_server import PrivateServer

TYPE = "bench.held"
OTHERS = 500
WATCHED = 4.0  # seconds
CALLS = 5  # of the victim's handler, at most
SOON = 1000.0  # ms
RELEASED = 5.0  # seconds for the victim to be done, once it can be
WATCHERS_TURN = 3.0  # seconds

# What the session does that stays open; the third one is no conflict.
CANCEL = "SELECT djactor.cancel(id) FROM djactor.message WHERE actor_key = 'victim'"
UPDATE = "UPDATE djactor.actor SET state = '{\"by\": \"hand\"}' WHERE actor_key = 'victim'"
SHARE = "SELECT id FROM djactor.actor WHERE actor_key = 'victim' FOR KEY SHARE"
TITLES = {CANCEL: "cancel()", UPDATE: "UPDATE of the state", SHARE: "FOR KEY SHARE"}


@dataclass
class Found:
    """What one open transaction did."""

    waiting: float  # of the others, when the watch ended
    others_ms: float  # until the last of the others was done
    calls: int  # of the victim's handler, while the transaction was open
    all_calls: int  # of anybody's
    victim_ms: float  # until the victim was done, NEVER while the transaction was open
    released_ms: float  # from its end until the victim was done


def beside_open(private: PrivateServer, statement: str, seconds: float, solo: bool) -> Found:
    """Leave a transaction open while mail becomes due."""
    with Database(private) as db:
        db.owner.execute("CREATE SEQUENCE all_calls")
        db.handler(
            "handle",
            "PERFORM nextval('all_calls');"
            " IF message ? 'victim' THEN PERFORM nextval('calls'); END IF;"
            " IF message ? 'n' THEN INSERT INTO done VALUES ((message->>'n')::int); END IF;"
            " RETURN state;",
            "jsonb",
        )
        db.define(TYPE, "handle", **({"batch_size": 1} if solo else {}))
        db.send([(TYPE, "victim", {})])  # so that there is an actor to be locked
        db.settle()
        db.owner.execute("SELECT djactor.pause(%s)", [TYPE])
        mail = [(TYPE, str(i), {"n": i}) for i in range(1, OTHERS + 1)]
        mail.insert(OTHERS // 2, (TYPE, "victim", {"n": 0, "victim": True}))
        db.send(mail)
        somebody = db.session()
        somebody.execute("BEGIN")
        require(somebody.execute(statement).rowcount == 1, "nothing was locked")
        start = db.now()
        db.resume(TYPE)
        time.sleep(seconds)
        calls, all_calls = db.calls(), db.calls("all_calls") - 1
        waiting = number(db.su, "SELECT count(*) FROM djactor.message WHERE actor_key <> 'victim'")
        before = db.done(0)
        released = db.now()
        somebody.execute("ROLLBACK")
        db.until("SELECT count(*) FROM done WHERE n = 0", 1, RELEASED)
        after = db.done(0)
        others = [at for n, at in before.items() if n > 0]
        return Found(
            waiting,
            1000 * (max(others) - start) if len(others) == OTHERS else NEVER,
            calls,
            all_calls,
            1000 * (before.get(0, NEVER) - start),
            1000 * (after.get(0, NEVER) - released),
        )


def watched(private: PrivateServer) -> float:
    """Milliseconds of an ask to an actor that a turn watches which goes on."""
    with Database(private) as db:
        db.handler("handle", "NULL;")
        db.handler(
            "look",
            f"PERFORM djactor.watch('bench.watched', 'one'); PERFORM pg_sleep({WATCHERS_TURN});",
        )
        db.define("bench.watched", "handle")
        db.define("bench.watcher", "look")
        db.send([("bench.watched", "one", {})])
        db.settle()
        db.wake(2)
        db.send([("bench.watcher", "one", {})])
        time.sleep(0.3)
        return db.ask("bench.watched", "one").ms()


def _rows(private: PrivateServer, statement: str, seconds: float, solo: bool, workers: int) -> Rows:
    found = beside_open(private, statement, seconds, solo)
    what = (
        f"{TITLES[statement]} left open{', batch_size => 1' if solo else ''},"
        f" {workers} worker{'s' if workers > 1 else ''}"
    )
    after = f"{what}: others that wait after {seconds:g} s"
    yield Bounded(after, "messages", [found.waiting], most=0, pick="max")
    yield Bounded(f"{what}: others done", "ms", [found.others_ms], most=SOON, pick="max")
    most = 1 if statement == SHARE else CALLS
    calls = [float(found.calls)]
    yield Bounded(f"{what}: calls of the victim's handler", "calls", calls, most=most, pick="max")
    yield Bounded(f"{what}: calls of any handler", "calls", [float(found.all_calls)])
    if statement == SHARE:
        yield Bounded(f"{what}: victim done", "ms", [found.victim_ms], most=SOON, pick="max")
    else:
        yield Bounded(f"{what}: victim done after its end", "ms", [found.released_ms])


def held(build: Build) -> Rows:
    """Case 5."""
    seconds = build.seconds(WATCHED)
    for workers, statements in ((1, (CANCEL, UPDATE, SHARE)), (4, (CANCEL,))):
        with build.server({"djactor.max_workers": workers}) as private:
            for statement in statements:
                for solo in (False, True):
                    yield from _rows(private, statement, seconds, solo, workers)
    with build.server({"djactor.max_workers": 4}) as private:
        yield Bounded(
            f"watched in a turn of {WATCHERS_TURN:g} s: an ask to the watched actor",
            "ms",
            [watched(private)],
            most=SOON,
            pick="max",
        )


CASES = (Case(5, "Somebody's open transaction", held),)
