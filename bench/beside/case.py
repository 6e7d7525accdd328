"""What the cases share: a build of djactor, databases, asks, clocks of commits.

A case measures one build on servers of its own and gives rows.  A time that counts is one of the
server's commits: handlers write a row into ``done``, and ``track_commit_timestamp`` says when its
transaction was committed, just before its flush.  So nobody polls while something is measured, and
what a handler did in a transaction that was rolled back does not count.  How often a handler
was called, rolled back or not, is counted by a sequence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from common import (
    OWNER,
    Bounded,
    Connection,
    Options,
    Result,
    admin,
    connect,
    create_database,
    found,
    number,
    require,
    server,
)
from private_server import PrivateServer

Settings = Mapping[str, str | int | float | bool]
Rows = Iterator[Bounded]

NEVER = float("inf")  # a time that had not come when the watch ended
ABSENT = float("nan")  # what this build does not have

# A case has up to three servers at a time.
SETTINGS: Settings = {"shared_buffers": "256MB", "max_worker_processes": 16}


@dataclass
class Build:
    """A build of djactor, what it is measured with, and its curves for the plot."""

    title: str
    bindir: Path | None  # of the server's programs; None: those of this tree
    options: Options
    curves: dict[str, list[float]] = field(default_factory=dict)  # for the plot: the last round's

    def keep(self, name: str, values: list[float]) -> None:
        """Keep what a single value cannot show."""
        self.curves[name] = values

    @contextmanager
    def server(self, settings: Settings, directory: Path | None = None) -> Iterator[PrivateServer]:
        """A server of this build."""
        merged = {**SETTINGS, **settings}
        with server(Result("", ""), merged, self.bindir, directory) as private:
            yield private

    def seconds(self, full: float) -> float:
        """So long, or a quarter of it where somebody only tries the programs."""
        return full / 4 if self.options.quick else full

    def count(self, full: int) -> int:
        """So many, or a tenth."""
        return max(1, full // 10) if self.options.quick else full


@dataclass(frozen=True)
class Case:
    """Something that neighbours notice, and how often it is measured by default."""

    number: int
    title: str
    measure: Callable[[Build], Rows]
    rounds: int = 1


class Database:
    """A database with the extension, and two sessions in it; gone at the end of the block."""

    def __init__(self, private: PrivateServer, name: str = "neighbours") -> None:
        self.private = private
        self.name = name
        self._stack = ExitStack()

    def __enter__(self) -> Database:
        create_database(self.private, self.name)
        self.owner: Connection = self._stack.enter_context(connect(self.private, self.name))
        self.su: Connection = self._stack.enter_context(admin(self.private, self.name))
        self.owner.execute("CREATE TABLE done (n int)")
        self.owner.execute("CREATE SEQUENCE calls")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()
        self.private.sql(f"DROP DATABASE {self.name} WITH (FORCE)")

    def session(self) -> Connection:
        """A further session, as long as the block lasts."""
        return self._stack.enter_context(connect(self.private, self.name))

    def handler(self, name: str, body: str, returns: str = "void") -> None:
        """A handler in PL/pgSQL; without a word about the state it leaves it as it is."""
        self.owner.execute(
            f"CREATE FUNCTION {name}(state jsonb, message jsonb) RETURNS {returns}"
            f" LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
        )

    def define(self, actor_type: str, handler: str, **options: object) -> None:
        """Define a type, with the options that are named."""
        named = "".join(f", {name} => %s" for name in options)
        self.owner.execute(
            f"SELECT djactor.define_actor_type(%s, %s{named})",
            [actor_type, handler, *options.values()],
        )

    def send(self, messages: Iterable[tuple[str, str, Mapping[str, object]]]) -> int:
        """Send (type, key, payload) in this order, committed at once; the transaction's id."""
        types, keys, payloads = zip(*messages, strict=True)
        row = self.owner.execute(
            """
            WITH sent AS (
                INSERT INTO djactor.message (actor_type, actor_key, payload)
                SELECT t, k, p FROM unnest(%s::text[], %s::text[], %s::jsonb[])
                    WITH ORDINALITY u (t, k, p, n) ORDER BY n
                RETURNING 1
            )
            SELECT pg_current_xact_id()::text::bigint, count(*) FROM sent""",
            [list(types), list(keys), [Jsonb(payload) for payload in payloads]],
        ).fetchone()
        xid, count = found(row, "nothing was sent")
        require(count == len(types), "not all was sent")
        return int(xid)

    def fill(self, actor_type: str, keys: int, messages: int, payload: str = "{}") -> None:
        """Pause the type and send so many messages, key after key in a round."""
        self.owner.execute("SELECT djactor.pause(%s)", [actor_type])
        self.owner.execute(
            "INSERT INTO djactor.message (actor_type, actor_key, payload)"
            " SELECT %s, (i %% %s)::text, %s FROM generate_series(0, %s) i",
            [actor_type, keys, payload, messages - 1],
        )
        if messages >= 10_000:
            self.su.execute("VACUUM (ANALYZE) djactor.message")
            self.su.execute("CHECKPOINT")

    def resume(self, actor_type: str) -> None:
        """Let the type go on."""
        self.owner.execute("SELECT djactor.resume(%s)", [actor_type])

    def settle(self) -> None:
        """Wait until nothing is left to do."""
        done = self.owner.execute("SELECT djactor.wait_idle('60 s')").fetchone()
        require(done == (True,), "what was sent ahead was not handled within a minute")

    def until(self, query: str, expected: float, seconds: float) -> bool:
        """Look each 20 ms whether a query has given this number, for so long at most."""
        over = time.monotonic() + seconds
        while number(self.su, query) < expected:
            if time.monotonic() > over:
                return False
            time.sleep(0.02)
        return True

    def workers(self) -> int:
        """Workers of this database that have started."""
        return int(number(self.su, "SELECT count(*) FROM djactor.worker WHERE state <> 'starting'"))

    def wake(self, workers: int) -> None:
        """Have so many workers run, at least.

        Messages of a type that is made for it take long, so that others are called for.  The
        first of each sixteen sleeps, since sixteen mailboxes could be one worker's.
        """
        self.handler("doze", "PERFORM pg_sleep((message->>'seconds')::float);")
        self.define("bench.dozer", "doze")
        for _ in range(10):
            if self.workers() >= workers:
                return
            self.send(
                ("bench.dozer", str(i), {"seconds": 0.0 if i % 16 else 0.3})
                for i in range(16 * workers)
            )
            self.settle()
        require(False, f"{self.workers()} workers where {workers} were asked for")

    def now(self) -> float:
        """The server's time, in seconds of the epoch."""
        return number(self.su, "SELECT extract(epoch FROM clock_timestamp())")

    def committed(self, xid: int) -> float:
        """When a transaction was committed, in seconds of the epoch."""
        return number(
            self.su,
            "SELECT extract(epoch FROM pg_xact_commit_timestamp(%s::text::xid))",
            [xid],
        )

    def done(self, first: int = 1) -> dict[int, float]:
        """When each turn with n >= first was committed that has written its n into done."""
        rows = self.su.execute(
            "SELECT n, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM done WHERE n >= %s",
            [first],
        ).fetchall()
        return {n: float(at) for n, at in rows}

    def calls(self, sequence: str = "calls") -> int:
        """How often handlers have drawn from a sequence, rolled back or not."""
        return int(number(self.su, f"SELECT last_value * is_called::int FROM {sequence}"))

    def stat(self, column: str) -> int:
        """A counter of djactor.stat, over all types."""
        return int(number(self.su, f"SELECT sum({column}) FROM djactor.stat"))

    def ask(
        self,
        actor_type: str,
        key: str,
        payload: Mapping[str, object] | None = None,
        timeout: float = 10.0,
    ) -> Ask:
        """Begin an ask in a session and a thread of its own."""
        return Ask(self.private.dsn(self.name, OWNER), actor_type, key, payload or {}, timeout)


class Ask(threading.Thread):
    """One ask that goes on while others are watched."""

    def __init__(
        self, dsn: str, actor_type: str, key: str, payload: Mapping[str, object], timeout: float
    ) -> None:
        super().__init__(daemon=True)
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._arguments = [actor_type, key, Jsonb(payload), f"{timeout} s"]
        self._ms = NEVER
        self._error: psycopg.Error | None = None
        self.start()

    def run(self) -> None:
        """Ask, and take the time."""
        with self._connection:
            try:
                self._ms = ask(self._connection, *self._arguments)
            except psycopg.Error as error:
                self._error = error

    def ms(self) -> float:
        """Milliseconds to the answer, or to the end of its patience; waits for it."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._ms


def ask(connection: Connection, *arguments: object) -> float:
    """Ask, given type, key, payload and timeout; milliseconds until it was over.

    An ask that had no answer in time counts with the time that it has waited.
    """
    begin = time.perf_counter()
    try:
        connection.execute("CALL djactor.ask(%s, %s, %s, %s)", arguments)
    except psycopg.Error as error:
        if error.sqlstate != "JA001":
            raise
    return 1000 * (time.perf_counter() - begin)


@dataclass
class Flow:
    """What was handled in a window: messages and seconds."""

    messages: int
    seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


def flow(database: Database, messages: int, seconds: float, lead_in: float = 1.0) -> Flow:
    """Watch djactor.stat for so long, and before that for the lead-in, which does not count.

    Call it as soon as mail may be handled.  ``messages`` is what can be handled: where it is
    used up the window ends there.
    """
    base = database.stat("handled")
    start = time.monotonic()
    looks: list[tuple[float, int]] = []
    while True:
        handled = database.stat("handled") - base
        looks.append((time.monotonic() - start, handled))
        if handled >= messages or looks[-1][0] >= lead_in + seconds:
            break
        time.sleep(0.05)
    begin = next((look for look in looks if look[0] >= lead_in and look is not looks[-1]), looks[0])
    return Flow(looks[-1][1] - begin[1], looks[-1][0] - begin[0])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, int(-(-len(ordered) * percent // 100)) - 1)]
