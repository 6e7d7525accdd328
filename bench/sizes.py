"""Sizes: the size of tables and indexes over a long time of steady load.

20,000 messages a second, in statements of 100 rows, go to 10,000 actors whose handler adds to
the state, for three minutes; ``make bench ARGS="sizes --minutes 60"``
makes it an hour.  Autovacuum is on as the server has it, but looks each 10 s in runs below 20
minutes, of which it would see too little.  From 30 to 40 percent of the time a
session holds a snapshot, which keeps VACUUM from removing anything: sizes rise then, and
must not go on rising once it is gone.

Bounded: the sizes of all tables and indexes of djactor together, at the most in the last
quarter, are not above 1.2 times what they were at the most in the second quarter, in which
the snapshot is held.  The rate handled in the last tenth is at least 0.8 of that in the first.

What would make it dishonest: sizes read right after a VACUUM that the benchmark ordered; a load
that leaves the machine idle most of the time, so that VACUUM has it easy.
"""

from __future__ import annotations

import time

import longrun
from common import Connection, Options, Result, admin, connect, require, server

NAME = "sizes"
RATE = 20_000
ROWS = 100  # of a statement
ACTORS = 10_000
HELD = (0.3, 0.4)  # of the time
LONG = 1200.0  # seconds; shorter runs have autovacuum look more often
BOUND = 1.2
PROMISED = 0.8

SIZES = """
    SELECT relname, pg_relation_size(oid) / 1e6 FROM pg_class
    WHERE relnamespace = 'djactor'::regnamespace AND relkind IN ('r', 'i')
    ORDER BY relname"""


def send(connection: Connection, seconds: float, sent: list[int]) -> None:
    """Statements of 100 rows at an even pace; sent[0] counts the messages."""
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        if sent[0] < RATE * passed:
            longrun.send(connection, sent[0] + 1, sent[0] + ROWS, ACTORS)
            sent[0] += ROWS
        else:
            time.sleep(0.002)


def run(options: Options) -> Result:
    """One long run."""
    seconds = 60.0 if options.quick else 60 * options.minutes
    every = seconds / 200
    result = Result(NAME, f"Sizes over {seconds / 60:g} minutes at {RATE:,} messages a second")
    settings = longrun.SETTINGS | {
        "autovacuum_naptime": "1min" if seconds >= LONG else "10s",
        "checkpoint_timeout": "5min",
    }
    sent = [0]
    times: list[float] = []
    sizes: dict[str, list[float]] = {}
    counts: list[int] = []
    with server(result, settings) as private:
        longrun.define(private, "sizes")
        with (
            connect(private, "sizes") as sender,
            connect(private, "sizes") as holder,
            admin(private, "sizes") as su,
        ):
            base = longrun.handled(su)
            feeding = longrun.Sender(send, sender, seconds, sent)
            start = time.monotonic()
            feeding.start()
            held = False
            while feeding.is_alive():
                passed = time.monotonic() - start
                if HELD[0] * seconds <= passed < HELD[1] * seconds and not held:
                    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                    holder.execute("SELECT count(*) FROM djactor.actor_type")
                    held = True
                elif passed >= HELD[1] * seconds and held:
                    holder.execute("COMMIT")
                    held = False
                times.append(passed)
                counts.append(longrun.handled(su) - base)
                for name, size in su.execute(SIZES).fetchall():
                    sizes.setdefault(name, []).append(float(size))
                time.sleep(every)
            feeding.join()
            longrun.wait_idle(sender, 300)
            longrun.check_books(su, sent[0])
    require(all(len(values) == len(times) for values in sizes.values()), "a table came or went")
    total = [sum(column) for column in zip(*sizes.values(), strict=True)]
    second = max(t for at, t in zip(times, total, strict=True) if 0.25 <= at / seconds < 0.5)
    last = max(t for at, t in zip(times, total, strict=True) if at / seconds >= 0.75)
    part = len(times) // 10
    rates = [
        (counts[j] - counts[i]) / (times[j] - times[i]) for i, j in ((0, part), (-1 - part, -1))
    ]
    result.add("sent", "messages/s", [sent[0] / seconds])
    result.add("handled, in the first tenth", "messages/s", [rates[0]])
    result.add("handled, in the last tenth", "messages/s", [rates[1]])
    result.add("all together, most in the second quarter", "MB", [second])
    result.add("all together, most in the last quarter", "MB", [last])
    for name, values in sizes.items():
        if max(values) >= 1.0:
            result.add(f"{name}, at the end", "MB", [values[-1]])
            result.series[f"{name}: MB"] = (times, values)
    result.series["all together: MB"] = (times, total)
    result.promise(
        f"the size in the last quarter is at most {BOUND} of that in the second:"
        f" {last / second:.2f}",
        last <= BOUND * second,
    )
    result.promise(
        f"the rate at the end is at least {PROMISED} of that at the beginning:"
        f" {rates[1] / rates[0]:.2f}",
        rates[1] >= PROMISED * rates[0],
    )
    return result
