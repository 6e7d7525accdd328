"""Response: from the sender's commit to the committed effect, at several rates; asks.

What: single messages, each in a transaction of its own: at 100 and at 2,000 a second to
one database, by one session and by four that keep to a timetable; and about one a second
to a database whose worker lingers (every 0.9 s) or sleeps (every 1.35 s; a pool falls
asleep after a second without work).  So that these take seconds and not minutes there are
six databases that get messages in turn.  Three handlers: no-op, adding to the state, also
writing a row.
And the round trip of ``CALL djactor.ask()``: sent, committed, handled, committed, answered.

How: nobody looks while it is measured.  The server notes the time of each commit
(``track_commit_timestamp``); each message has an actor of its own, whose row tells the
transaction of the turn, and the sender notes that of the INSERT.  Both times are taken
at the same point of a commit, just before its flush.  So the difference contains the
sender's flush and lacks the handler's: as long as flushes take alike it is the time from the
INSERT's return to the moment when the effect is durable.  A new actor costs two
inserts where a known one costs an update: the error goes up.
``latency`` shows the same from outside, with a listener.

The yardstick is the durable commit: the INSERT of a row into a plain table in a transaction of
its own, by the same client, with the same pauses, in the same run.  A machine that
has idled is slower at first, so each rate has a yardstick of its own; the fastest
one, commits one after the other, stands beside them.  An ask's time is the client's: it contains
two durable commits one after the other.

What would make it dishonest: a sender that falls behind its timetable and does not say so
(the rate reached is shown); messages handled in one batch with others because the worker
was busy, at a rate that is not the one named; asynchronous commit; a mean instead of a
median with its tail.  The tail of a shared machine is its neighbours'.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from psycopg import pq

from common import (
    Connection,
    Options,
    Result,
    admin,
    connect,
    create_database,
    found,
    require,
    server,
)
from private_server import PrivateServer
from workload import HANDLER_TITLES, HANDLERS, INITIAL_STATE, wait_idle

NAME = "response"
DATABASES = 6
WARM_PAUSE = 0.9
ASLEEP_PAUSE = 1.35
PROMISED_COMMITS = 3.0
SEND = b"""INSERT INTO djactor.message (actor_type, actor_key, payload)
    VALUES ($1, $2, '{"n": 1}') RETURNING pg_current_xact_id()::text"""
PLAIN = b"INSERT INTO plain VALUES (1)"
ASK = b"CALL djactor.ask('bench.asked', 'one')"


def prepare(private: PrivateServer, dbname: str) -> None:
    """A database with a type for each handler, its worker running."""
    create_database(private, dbname)
    with connect(private, dbname) as owner:
        owner.execute("CREATE TABLE written (n int)")
        owner.execute("CREATE TABLE plain (n int)")
        for handler, body in HANDLERS.items():
            owner.execute(
                f"CREATE FUNCTION {handler}(state jsonb, message jsonb) {body} LANGUAGE plpgsql"
            )
            owner.execute(
                "SELECT djactor.define_actor_type(%s, %s, initial_state => %s)",
                [f"bench.{handler}", handler, INITIAL_STATE],
            )
        owner.execute(
            "CREATE FUNCTION asked(state jsonb, message jsonb) RETURNS djactor.result"
            " LANGUAGE plpgsql AS $$ BEGIN RETURN (state, message)::djactor.result; END $$"
        )
        owner.execute("SELECT djactor.define_actor_type('bench.asked', 'asked')")
        for handler in [*HANDLERS, "asked"]:
            owner.execute("SELECT djactor.send(%s, 'warm', '{\"n\": 1}')", [f"bench.{handler}"])
        wait_idle(owner)


class Sender:
    """A session that sends, and remembers the transaction of each message."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pgconn = connection.pgconn
        self.pgconn.prepare(b"send", SEND)
        self.pgconn.prepare(b"plain", PLAIN)
        self.sent: dict[str, list[tuple[str, str]]] = {}
        self._keys = 0

    def send(self, handler: str, label: str) -> float:
        """One message to a new actor; milliseconds until libpq returns."""
        self._keys += 1
        key = f"{self.pgconn.backend_pid} {self._keys}"
        begin = time.perf_counter()
        result = self.pgconn.exec_prepared(b"send", [f"bench.{handler}".encode(), key.encode()])
        elapsed = 1000 * (time.perf_counter() - begin)
        require(result.status == pq.ExecStatus.TUPLES_OK, "a message was not sent")
        xid = found(result.get_value(0, 0), "no transaction")
        self.sent.setdefault(label, []).append((key, xid.decode()))
        return elapsed

    def plain(self) -> float:
        """A durable commit; milliseconds."""
        begin = time.perf_counter()
        self.pgconn.exec_prepared(b"plain", [])
        return 1000 * (time.perf_counter() - begin)

    def ask(self) -> float:
        """A round trip; milliseconds."""
        begin = time.perf_counter()
        result = self.pgconn.exec_(ASK)
        elapsed = 1000 * (time.perf_counter() - begin)
        require(result.status == pq.ExecStatus.TUPLES_OK, "an ask was not answered")
        return elapsed

    def effects(self, su: Connection, handler: str, label: str) -> list[float]:
        """Milliseconds between the commits of the messages sent under a label and their turns."""
        sent = self.sent.get(label, [])
        rows = su.execute(
            """
            SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(a.xmin)
                - pg_xact_commit_timestamp(s.xid::xid))
            FROM unnest(%s::text[], %s::text[]) s (key, xid)
            JOIN djactor.actor a ON a.actor_type = %s AND a.actor_key = s.key COLLATE "C"
            WHERE a.turns = 1""",
            [[key for key, _ in sent], [xid for _, xid in sent], f"bench.{handler}"],
        ).fetchall()
        require(len(rows) == len(sent), f"{len(sent)} sent, {len(rows)} handled")
        return [float(row[0]) for row in rows]


def keep_time(begin: float, step: int, pause: float) -> None:
    """Wait for the moment of a step of the timetable."""
    left = begin + step * pause - time.perf_counter()
    if left > 0:
        time.sleep(left)


def on_time(
    sessions: Sequence[Sender], rate: int, count: int, action: Callable[[Sender], float]
) -> tuple[list[float], float]:
    """Do something at a rate, the sessions in turn, each in a thread; results, rate reached.

    One session could not commit 2,000 times a second while the worker commits too.
    """
    begin = time.perf_counter()

    def act(n: int) -> list[float]:
        values = []
        for i in range(n, count, len(sessions)):
            keep_time(begin, i, 1 / rate)
            values.append(action(sessions[n]))
        return values

    with ThreadPoolExecutor(len(sessions)) as pool:
        done = list(pool.map(act, range(len(sessions))))
    return [value for values in done for value in values], count / (time.perf_counter() - begin)


def in_turn(
    senders: Sequence[Sender], handlers: Sequence[str], label: str, pause: float, count: int
) -> None:
    """Send to the databases in turn, so that each gets a message every ``pause`` seconds.

    Which handler a message is for changes from round to round.
    """
    begin = time.perf_counter()
    for i in range(count):
        keep_time(begin, i, pause / len(senders))
        handler = handlers[i // len(senders) % len(handlers)]
        senders[i % len(senders)].send(handler, f"{label} {handler}")


def paced(
    senders: Sequence[Sender], pause: float, count: int, action: Callable[[Sender], float]
) -> list[float]:
    """Do something with the databases in turn, with each every ``pause`` seconds."""
    begin = time.perf_counter()
    values = []
    for i in range(count):
        keep_time(begin, i, pause / len(senders))
        values.append(action(senders[i % len(senders)]))
    return values


def run(options: Options) -> Result:
    """All rates and handlers, with their yardsticks before them."""
    result = Result(NAME, "From the sender's commit to the committed effect")
    slow = 24 if options.quick else 54
    seconds = 0.5 if options.quick else 1.0
    settings: dict[str, str | int | float | bool] = {
        "max_worker_processes": DATABASES + 8,  # room for scouts
        "djactor.max_workers": DATABASES,
        "djactor.poll_interval": "1h",
        "autovacuum": "off",
    }
    names = [f"bench_{i}" for i in range(DATABASES)]
    times: dict[str, list[float]] = {}
    plain: dict[str, list[float]] = {}
    asked: dict[str, list[float]] = {}
    reached: dict[str, list[float]] = {}
    with server(result, settings) as private, contextlib.ExitStack() as stack:
        for name in names:
            prepare(private, name)
        senders = [Sender(stack.enter_context(connect(private, name))) for name in names]
        first = senders[0]
        for sender in senders:  # what runs for the first time in a session is not the rule
            sender.send("add", "first")
            sender.plain()
            sender.ask()
        crew = [first, *(Sender(stack.enter_context(connect(private, names[0]))) for _ in "123")]
        plain["one after the other"] = paced([first], 0, 300, Sender.plain)
        for rate, sessions in ((100, [first]), (2_000, crew)):
            case = f"{rate:,} a second"
            count = int(rate * seconds)
            plain[case], _ = on_time(sessions, rate, count, Sender.plain)
            for handler in HANDLERS:
                label = f"{case} {handler}"
                send = partial(Sender.send, handler=handler, label=label)
                _, got = on_time(sessions, rate, count, send)
                reached.setdefault(case, []).append(got)
                wait_idle(first.connection)
        asked["100 a second"], _ = on_time([first], 100, int(100 * seconds), Sender.ask)
        for case, pause in (
            ("one a second, warm", WARM_PAUSE),
            ("one a second, asleep", ASLEEP_PAUSE),
        ):
            plain[case] = paced(senders, pause, slow // 3, Sender.plain)
            if pause == WARM_PAUSE:  # one round ahead, so that all are awake
                in_turn(senders, ["add"], "first", pause, len(senders))
            else:
                time.sleep(pause)
            in_turn(senders, list(HANDLERS), case, pause, slow)
            if pause == ASLEEP_PAUSE:
                time.sleep(pause)
                asked[case] = paced(senders, pause, slow // 3, Sender.ask)
        for name, sender in [*zip(names, senders, strict=True), *((names[0], s) for s in crew[1:])]:
            wait_idle(sender.connection)
            with admin(private, name) as su:
                for case in (case for case in plain if case != "one after the other"):
                    for handler in HANDLERS:
                        times.setdefault(f"{case}, {handler}", []).extend(
                            sender.effects(su, handler, f"{case} {handler}")
                        )

    for case, values in plain.items():
        result.add(f"durable commit, {case}", "ms", values, samples=True)
    for case, values in reached.items():
        result.add(f"sent, {case}", "messages/s", values)
    for case in plain:
        if case == "one after the other":
            continue
        commit = statistics.median(plain[case])
        for handler in HANDLERS:
            figure = result.add(
                f"{case}, {HANDLER_TITLES[handler]}",
                "ms",
                times[f"{case}, {handler}"],
                samples=True,
            )
            result.add(f"{figure.name}: median", "commits", [figure.median / commit])
            if handler == "add":
                result.promise(
                    f"{figure.name}: {figure.median:.2f} ms at the median, at most"
                    f" {PROMISED_COMMITS:g} durable commits: {figure.median / commit:.2f}",
                    figure.median <= PROMISED_COMMITS * commit,
                )
    for case, values in asked.items():
        commit = statistics.median(plain[case])
        figure = result.add(f"ask, {case}", "ms", values, samples=True)
        result.add(f"{figure.name}: median", "commits", [figure.median / commit])
        result.promise(
            f"{figure.name}: {figure.median:.2f} ms at the median, at most"
            f" {PROMISED_COMMITS:g} durable commits: {figure.median / commit:.2f}",
            figure.median <= PROMISED_COMMITS * commit,
        )
    return result
