"""Cases 1 and 2: handlers that last, and who waits for them.

1   Sixteen messages to sixteen keys of two types are committed at once; the handler of one of
    them sleeps 5 s, and it is the first, the third or the last that was sent.  When were the
    other fifteen done, counted from the sender's commit?  Half a second after it two
    asks begin, one to a key among the fifteen, one to a fresh key of the slow type.  With and
    without another worker alive; with a type whose turns have all been quick, and with one that
    has had slow turns.  Judged is the worst of the three places.

2   Sixty messages wait for each of many keys, more than the workers can handle in 8 s (where
    turns are short there are more).  How many turns has each key had then?  Afterwards, while
    they go on, three asks to fresh keys are made, one after the other: new mail may stir
    up a queue that has come to a standstill, so none comes before.  One round of all keys is what
    the workers took for as many turns as there are keys; an ask that queues behind all keys
    waits about that long, so it is given a tenth more.

What would make it dishonest: sleeps that end early when somebody waits (pg_sleep does not); turns
counted before they were committed; a sixteenth key whose message came in a second transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from beside.case import NEVER, Build, Case, Database, Rows
from common import Bounded, require
from private_server import PrivateServer

KEYS = 16
SLEEP = 5.0  # seconds of the slow turn
SOON = 100.0  # ms, with a free worker
STARTED = 200.0  # ms, where a worker has to be started first
ASK_AFTER = 0.5  # seconds from the commit to the asks
PLACES = {"first": 0, "third": 2, "last": KEYS - 1}

WATCHED = 8.0  # seconds
ASKS = 3
DIFFERENCE = 2  # turns
OF_A_ROUND = 1.1


@dataclass(frozen=True)
class Load:
    """Keys with mail, the length of a turn, and the workers."""

    keys: int
    ms: int
    workers: int
    messages: int = 60  # for each key

    @property
    def title(self) -> str:
        """For tables."""
        return f"{self.keys} keys, {self.ms} ms, {self.workers} workers"


LOADS = (Load(100, 30, 4), Load(64, 20, 4), Load(32, 20, 2), Load(100, 3, 4, 200))


def sixteen(
    private: PrivateServer, place: int, sleep: float, known: bool, alive: bool
) -> tuple[float, float, float]:
    """Milliseconds until all others were done; of the asks to one of them and to a fresh key."""
    with Database(private) as db:
        db.handler(
            "handle",
            "PERFORM pg_sleep((message->>'sleep')::float);"
            " INSERT INTO done VALUES ((message->>'n')::int);",
        )
        quick = {"n": 0, "sleep": 0}
        for actor_type in ("bench.one", "bench.other"):
            db.define(actor_type, "handle")
            db.send([(actor_type, "warm", quick)])
        db.settle()
        if alive:
            db.wake(2)
        if known:
            for _ in range(3):
                db.send([("bench.one", "slow before", {"n": 0, "sleep": 0.2})])
                db.settle()
        require(alive or db.workers() == 1, "there is another worker")
        kinds = ["bench.one" if i % 2 == place % 2 else "bench.other" for i in range(KEYS)]
        asked = next(i for i in range(KEYS - 1, 0, -1) if i != place and kinds[i] == "bench.one")
        sent = db.committed(
            db.send(
                (kinds[i], f"k{i}", {"n": i + 1, "sleep": sleep if i == place else 0})
                for i in range(KEYS)
            )
        )
        time.sleep(ASK_AFTER)
        asks = [db.ask("bench.one", key, quick) for key in (f"k{asked}", "fresh")]
        others = f"SELECT count(*) FROM done WHERE n > 0 AND n <> {place + 1}"
        all_done = db.until(others, KEYS - 1, sleep + 3)
        one, fresh = (ask.ms() for ask in asks)
        last = max(at for n, at in db.done().items() if n != place + 1) if all_done else NEVER
    return 1000 * (last - sent), one, fresh


def strangers(build: Build) -> Rows:
    """Case 1."""
    sleep = build.seconds(SLEEP)
    with build.server({"djactor.max_workers": 4, "djactor.idle_timeout": "10min"}) as private:
        for known in (False, True):
            for alive in (True, False):
                values = [sixteen(private, place, sleep, known, alive) for place in PLACES.values()]
                done, one, fresh = (list(column) for column in zip(*values, strict=True))
                how = (
                    f"slowness {'known' if known else 'new'},"
                    f" {'a free worker' if alive else 'one to be started'}"
                )
                bound = SOON if alive else STARTED
                yield Bounded(f"others done; {how}", "ms", done, most=bound, pick="max")
                yield Bounded(f"ask to one of them; {how}", "ms", one, most=bound, pick="max")
                yield Bounded(f"ask to a fresh key; {how}", "ms", fresh, most=bound, pick="max")


def turns(private: PrivateServer, load: Load, seconds: float) -> tuple[list[int], list[float]]:
    """Turns that each key has had after so many seconds; the times of the asks in ms."""
    with Database(private) as db:
        db.handler("handle", "PERFORM pg_sleep((message->>'ms')::float / 1000);")
        db.define("bench.fair", "handle")
        db.send([("bench.fair", "warm", {"ms": 0})])
        db.settle()
        db.fill("bench.fair", load.keys, load.keys * load.messages, f'{{"ms": {load.ms}}}')
        db.resume("bench.fair")
        time.sleep(seconds)
        counts = db.su.execute(
            """
            SELECT coalesce(a.turns, 0) FROM generate_series(0, %s) i
            LEFT JOIN djactor.actor a ON a.actor_type = 'bench.fair' AND a.actor_key = i::text""",
            [load.keys - 1],
        ).fetchall()
        had = sorted(int(row[0]) for row in counts)
        require(had[0] < load.messages, "the mail was used up: too short for this machine")
        return had, [db.ask("bench.fair", f"fresh {i}", {"ms": 0}).ms() for i in range(ASKS)]


def fairness(build: Build) -> Rows:
    """Case 2."""
    seconds = build.seconds(WATCHED)
    for workers in (4, 2):
        with build.server({"djactor.max_workers": workers}) as private:
            for load in (load for load in LOADS if load.workers == workers):
                yield from _fair(build, private, load, seconds)


def _fair(build: Build, private: PrivateServer, load: Load, seconds: float) -> Iterator[Bounded]:
    had, asked = turns(private, load, seconds)
    build.keep(f"turns of each key, {load.title}", [float(n) for n in had])
    one_round = 1000 * seconds * load.keys / max(1, sum(had))
    yield Bounded(f"turns of all keys, {load.title}", "turns", [float(sum(had))])
    yield Bounded(f"least turns of a key, {load.title}", "turns", [float(had[0])])
    yield Bounded(
        f"most turns less least, {load.title}", "turns", [float(had[-1] - had[0])], most=DIFFERENCE
    )
    yield Bounded(f"keys without a turn, {load.title}", "keys", [float(had.count(0))], most=0)
    yield Bounded(f"ask to a fresh key, {load.title}", "ms", asked, pick="max")
    yield Bounded(
        f"ask to a fresh key / round, {load.title}",
        "times",
        [ms / one_round for ms in asked],
        most=OF_A_ROUND,
        pick="max",
    )


CASES = (
    Case(1, "A slow turn and strangers", strangers),
    Case(2, "Fairness", fairness),
)
