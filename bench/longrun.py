"""What the flatness benchmark needs: a server with room, a feeder and an observer.

Its tables are larger than those of the other benchmarks, so
``shared_buffers`` is a quarter of the machine's memory, as its manual advises,
and no checkpoint but a requested one falls into a run unless a benchmark says so.

The rate over time is what ``djactor.stat`` counts, which workers write to shared
memory after each commit: looking at it costs tens of microseconds twice a second, while
counting a table would be a load of its own, and a growing one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from common import (
    Connection,
    admin,
    connect,
    create_database,
    number,
    require,
)
from private_server import PrivateServer

QUICK = 100  # so many times smaller
PRELOAD_CHUNK = 500_000  # messages in one transaction

_MEMORY_MB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
SETTINGS: dict[str, str | int | float | bool] = {
    "djactor.max_workers": 1,
    "shared_buffers": f"{_MEMORY_MB // 4}MB",
    "max_wal_size": "20GB",
    "wal_compression": "off",
    "autovacuum_naptime": "10s",
}

TYPE = "bench.counter"
_HANDLER = """
    CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        RETURN jsonb_build_object('total', (state->>'total')::bigint + (message->>'n')::bigint);
    END $$"""


def define(private: PrivateServer, dbname: str) -> None:
    """A database with the type that all long benchmarks use, and its worker started."""
    create_database(private, dbname)
    with connect(private, dbname) as owner:
        owner.execute(_HANDLER)
        owner.execute(
            "SELECT djactor.define_actor_type(%s, 'handle', initial_state => '{\"total\": 0}')",
            [TYPE],
        )
        owner.execute("SELECT djactor.send(%s, '0', '{\"n\": 0}')", [TYPE])
        wait_idle(owner, 30)


def wait_idle(connection: Connection, seconds: float) -> None:
    """Wait until nothing is left to handle."""
    done = connection.execute(
        "SELECT djactor.wait_idle(make_interval(secs => %s))", [seconds]
    ).fetchone()
    require(done == (True,), f"not done within {seconds:.0f} s")


def handled(connection: Connection) -> int:
    """Turns that workers have committed so far."""
    return int(number(connection, "SELECT sum(handled) FROM djactor.stat"))


def send(connection: Connection, first: int, last: int, actors: int) -> None:
    """Messages first to last, in one transaction; number i goes to actor i modulo actors."""
    connection.execute(
        """
        INSERT INTO djactor.message (actor_type, actor_key, payload)
        SELECT %s, (i %% %s)::text, jsonb_build_object('n', i %% 7 + 1)
        FROM generate_series(%s::bigint, %s) i""",
        [TYPE, actors, first, last],
    )


def preload(connection: Connection, messages: int, actors: int, first: int = 1) -> float:
    """Send so many to the paused type; the result is the sender's rate."""
    began = time.monotonic()
    for start in range(first, first + messages, PRELOAD_CHUNK):
        send(connection, start, min(start + PRELOAD_CHUNK, first + messages) - 1, actors)
    return messages / (time.monotonic() - began)


def check_books(su: Connection, messages: int) -> None:
    """Nothing waits, nothing is dead, and the states are the sum of what was sent."""
    waiting = number(su, "SELECT count(*) FROM djactor.message")
    dead = number(su, "SELECT count(*) FROM djactor.dead_letter")
    require(waiting == 0 and dead == 0, f"{waiting:.0f} messages wait, {dead:.0f} are dead")
    turns = number(su, "SELECT sum(turns) FROM djactor.actor") - 1  # that of define()
    total = number(su, "SELECT sum((state->>'total')::bigint) FROM djactor.actor")
    expected = sum((i % 7 + 1) for i in range(messages % 7 + 1) if i) + messages // 7 * 28
    require(turns == messages, f"{turns:.0f} turns for {messages} messages")
    require(total == expected, f"the states add up to {total:.0f}, sent were {expected}")


class Sender(threading.Thread):
    """A thread that sends; join() raises what ended it early.

    ``sent`` counts alone would hide its death, since the books are checked against them.
    """

    def __init__(self, work: Callable[..., None], *args: object, **options: object) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._arguments = (args, options)
        self._error: BaseException | None = None

    def run(self) -> None:
        """What the thread does."""
        args, options = self._arguments
        try:
            self._work(*args, **options)
        except BaseException as error:
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; errors: what the work raised."""
        super().join(timeout)
        if self._error is not None:
            raise self._error


@dataclass
class Samples:
    """How many messages had been handled at which time (seconds since the start)."""

    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def rate(self, start: float, end: float) -> float:
        """Messages a second between two counts' worth of progress, as parts of the whole."""
        low, high = (self.time_at(self.counts[-1] * part) for part in (start, end))
        return self.counts[-1] * (end - start) / (high - low)

    def time_at(self, count: float) -> float:
        """When so many had been handled, between two samples in proportion."""
        for i in range(1, len(self.counts)):
            if self.counts[i] >= count:
                step = self.counts[i] - self.counts[i - 1]
                part = (count - self.counts[i - 1]) / step if step else 0.0
                return self.times[i - 1] + part * (self.times[i] - self.times[i - 1])
        return self.times[-1]

    def rates(self) -> tuple[list[float], list[float]]:
        """For a plot: the middle of each interval, and the rate in it."""
        pairs = range(1, len(self.times))
        return (
            [(self.times[i] + self.times[i - 1]) / 2 for i in pairs],
            [
                (self.counts[i] - self.counts[i - 1]) / (self.times[i] - self.times[i - 1])
                for i in pairs
            ],
        )


@contextmanager
def observed(private: PrivateServer, dbname: str, every: float) -> Iterator[Samples]:
    """Count what is handled while the block runs, from a session of its own."""
    samples = Samples()
    over = threading.Event()

    with admin(private, dbname) as su:
        base, start = handled(su), time.monotonic()

        def look() -> None:
            count = handled(su) - base
            samples.times.append(time.monotonic() - start)
            samples.counts.append(count)

        def watch() -> None:
            look()
            while not over.wait(every):
                look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield samples
        finally:
            over.set()
            thread.join()
            look()


def feed(
    connection: Connection, messages: int, actors: int, chunk: int, backlog: int, *, first: int = 1
) -> None:
    """Send so many in transactions of chunk messages; never let more than backlog wait."""
    done = handled(connection) - (first - 1)
    for start in range(first, first + messages, chunk):
        while start - first - (handled(connection) - done - (first - 1)) > backlog:
            time.sleep(0.002)
        send(connection, start, min(start + chunk, first + messages) - 1, actors)
