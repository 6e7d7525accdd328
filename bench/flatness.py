"""Flatness: the rate stays what it is, whatever has piled up.

Three runs, each one worker in PL/pgSQL that adds to the state, each watched while it goes on:

backlog     10 million messages wait for 1,000 actors before the clock starts.  Beside it 10,000
            wait, again and again.
actors      1 million actors that exist already get two messages each.  Beside it 1,000 actors
            get them, two for each at a time, so that a turn of the mailbox has as much to do.
snapshot    5 million messages are sent and handled while a session holds a snapshot from
            before the first one: no row that is deleted can be removed, no old version of a
            state either.  Beside it the same without the snapshot.

Judged is the rate at the end against the rate at the beginning of the same run: the last fifth
of the messages against the first (of long runs a minute at most).  The rate beside it is shown
as a ratio.  For ``backlog`` the beginning is the hard part, with the fullest table; for
``snapshot`` the end.

How: what workers have handled is counted by djactor.stat, in shared memory; an observer
looks four times a second.  ``shared_buffers`` is a quarter of the machine's memory, since
nobody keeps 10 million messages in a server set up for a test.  Autovacuum is on.

What would make it dishonest: a backlog that fits where none does in practice; judging by the mean
of the run; senders who slow down with the worker (those of ``snapshot`` keep
20,000 messages ahead of it, and share its two cores at both ends of the run alike).
"""

from __future__ import annotations

import threading
import time

import longrun
from common import Options, Result, admin, connect, server
from longrun import Samples
from private_server import PrivateServer

NAME = "flatness"
PROMISED = 0.8
BACKLOG = 10_000_000
SMALL_BACKLOG = 10_000
ACTORS = 1_000_000
SNAPSHOT = 5_000_000
FEW_ACTORS = 1_000
AHEAD = 20_000  # messages that a steady sender is ahead
LONGEST_WINDOW = 60.0  # seconds
EVERY = 0.25  # seconds between two looks


def ends(samples: Samples) -> tuple[float, float]:
    """The rates of the first and of the last fifth, or minute."""
    part = min(0.2, LONGEST_WINDOW / samples.times[-1])
    return samples.rate(0.0, part), samples.rate(1.0 - part, 1.0)


def paused(private: PrivateServer, dbname: str, messages: int, actors: int, first: int) -> float:
    """Pause the type and send; the result is the sender's rate."""
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        owner.execute("SELECT djactor.pause(%s)", [longrun.TYPE])
        rate = longrun.preload(owner, messages, actors, first)
        su.execute("VACUUM (ANALYZE) djactor.message")
        su.execute("CHECKPOINT")
    return rate


def resumed(private: PrivateServer, dbname: str) -> Samples:
    """Resume the type and watch until all is handled."""
    with (
        connect(private, dbname) as owner,
        longrun.observed(private, dbname, EVERY) as samples,
    ):
        owner.execute("SELECT djactor.resume(%s)", [longrun.TYPE])
        longrun.wait_idle(owner, 1200)
    return samples


def close(private: PrivateServer, dbname: str, messages: int) -> None:
    """Check the books and drop the database."""
    with admin(private, dbname) as su:
        longrun.check_books(su, messages)
    private.sql(f"DROP DATABASE {dbname}")


def backlog(private: PrivateServer, result: Result, scale: int) -> tuple[Samples, float]:
    """10 million messages for 1,000 actors; beside it 10,000, twenty times."""
    messages = BACKLOG // scale
    longrun.define(private, "backlog")
    rate = paused(private, "backlog", messages, FEW_ACTORS, 1)
    result.add("backlog: sender, preloading", "messages/s", [rate])
    samples = resumed(private, "backlog")
    close(private, "backlog", messages)

    longrun.define(private, "small")
    seconds = 0.0
    for i in range(20):
        paused(private, "small", SMALL_BACKLOG, FEW_ACTORS, i * SMALL_BACKLOG + 1)
        seconds += resumed(private, "small").time_at(SMALL_BACKLOG)
    close(private, "small", 20 * SMALL_BACKLOG)
    return samples, 20 * SMALL_BACKLOG / seconds


def actors(private: PrivateServer, result: Result, scale: int) -> tuple[Samples, float]:
    """1 million actors that exist; beside it 1,000."""
    many = ACTORS // scale
    longrun.define(private, "actors")
    paused(private, "actors", many, many, 1)
    first = resumed(private, "actors")
    result.add("actors: coming into being", "actors/s", [many / first.times[-1]])
    with admin(private, "actors") as su:
        su.execute("VACUUM (ANALYZE) djactor.actor")
    paused(private, "actors", 2 * many, many, many + 1)
    samples = resumed(private, "actors")
    close(private, "actors", 3 * many)

    few = min(FEW_ACTORS, many)
    longrun.define(private, "few")
    seconds = 0.0
    for i in range(50):
        paused(private, "few", 2 * few, few, i * 2 * few + 1)
        seconds += resumed(private, "few").time_at(2 * few)
    close(private, "few", 100 * few)
    return samples, 100 * few / seconds


def steady(private: PrivateServer, dbname: str, messages: int, held: bool) -> Samples:
    """Send and handle, with or without a snapshot from before."""
    longrun.define(private, dbname)
    with connect(private, dbname) as holder, connect(private, dbname) as sender:
        if held:
            holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM djactor.message")
        with longrun.observed(private, dbname, EVERY) as samples:
            feeding = threading.Thread(
                target=longrun.feed, args=(sender, messages, FEW_ACTORS, 1_000, AHEAD)
            )
            feeding.start()
            feeding.join()
            with connect(private, dbname) as owner:
                longrun.wait_idle(owner, 300)
        if held:
            holder.execute("COMMIT")
    close(private, dbname, messages)
    return samples


def snapshot(private: PrivateServer, result: Result, scale: int) -> tuple[Samples, float]:
    """5 million messages under an old snapshot; beside it a fifth of them without."""
    messages = SNAPSHOT // scale
    samples = steady(private, "snapshot", messages, held=True)
    free = steady(private, "free", messages // 5, held=False)
    return samples, free.rate(0.0, 1.0)


RUNS = {
    "backlog": (backlog, f"{BACKLOG:,} messages wait", f"{SMALL_BACKLOG:,} messages wait"),
    "actors": (actors, f"{ACTORS:,} actors", f"{FEW_ACTORS:,} actors"),
    "snapshot": (snapshot, "a snapshot is held", "no snapshot is held"),
}


def run(options: Options) -> Result:
    """The three of them, one after the other; each once, since each takes minutes."""
    scale = longrun.QUICK if options.quick else 1
    result = Result(NAME, "The rate at the end of long runs against that at their beginning")
    for name, (measure, hard, easy) in RUNS.items():
        with server(result, longrun.SETTINGS) as private:
            began = time.monotonic()
            samples, beside = measure(private, result, scale)
            result.notes.append(f"{name}: {time.monotonic() - began:.0f} s")
        first, last = ends(samples)
        whole = samples.rate(0.0, 1.0)
        result.add(f"{name}: {hard}, at the beginning", "messages/s", [first])
        result.add(f"{name}: {hard}, at the end", "messages/s", [last])
        result.add(f"{name}: {easy}", "messages/s", [beside])
        result.add(f"{name}: {hard} / {easy}", "times", [whole / beside])
        result.series[f"{name}: messages a second"] = samples.rates()
        result.promise(
            f"{name}: the rate at the end is at least {PROMISED} of that at the beginning:"
            f" {last / first:.2f}",
            last >= PROMISED * first,
        )
    return result
