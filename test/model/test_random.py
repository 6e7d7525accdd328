"""Random operations against a model of what djactor promises.

Several clients send at random (one or many messages, commits, rollbacks, savepoints, priorities,
delays, messages that fail in various ways, sends from inside handlers, handlers that last or that
update rows which all keys share), while an operator pauses, resumes, redefines types, edits states,
and cancels, terminates and kills workers.  Somebody keeps transactions open that have rows of
djactor locked, and a web application updates the shared rows, two at a time and in one order.  One
type comes and goes, while others send to it and redrive what has failed.  One is run by hosts
(host.py), which are killed, too, and by workers when it is so defined for a while.
Polling is off: what is handled was announced.  In the end everything is resumed and waited for, and
then:

* each committed message was handled exactly once, or is a dead letter, as its payload demands, with
  as many attempts as it demands; nothing that was rolled back was handled (contract 3, 4, 6, 11 to
  13); one whose worker was killed again and again may be dead as crashed (15);
* what is nobody's fault has used up no attempt: deadlocks, locks of others, a server in trouble for
  a while (12);
* each shared row was updated once by each turn that should;
* each actor handled its messages in order, where contract 9 promises one;
* no delayed message was early;
* each actor's state is the fold over what it handled, no edit by hand was lost (contract 21);
  and of a type that was dropped nothing comes back;
* with the mailbox full, priority decides (contract 8);
* service is first come, first served, also when handlers are slow, and nobody waits for a
  stranger's turn while a worker is free (28; see Fairness);
* the web application was never the victim of a deadlock, and never waited long (31).

The seed is printed; DJACTOR_SEED repeats the choices of all threads (not their timing).
DJACTOR_SECONDS says how long to go on (half of it where no process is ended), DJACTOR_WORKERS how
many workers there are.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from private_server import PrivateServer

SENDERS = 4
SECONDS = float(os.environ.get("DJACTOR_SECONDS", "40"))
PATIENCE = float(os.environ.get("DJACTOR_PATIENCE", "120"))  # for all mail to be handled in the end
WORKERS = os.environ.get("DJACTOR_WORKERS")
NEVER = float("inf")
SHARED = 50  # rows that handlers and the web application update
HANDLER_TIMEOUT = 3  # seconds
WEB_SECONDS = 5.0  # a transaction of the web application lasts no longer
HOSTED = "m.hosted"  # the type that hosts run, most of the time
HOSTS = 2
HOST = Path(__file__).with_name("host.py")
QUICK_TRIES = 3  # of what is nobody's fault; from then on it may be charged
LONG = 2.0  # seconds that the long turn lasts which strangers must not wait for
FREE = 1.0  # seconds in which a worker that is free, or a new one, comes for certain
SCRAPE = re.compile(r"BEGAN (\S+) (\S+) (\S+) ([0-9.]+) (\d+) (\d+) (\d+)")

SCHEMA = """
CREATE TABLE sent (uid text PRIMARY KEY, actor_type text NOT NULL, actor_key text NOT NULL,
    payload jsonb NOT NULL, deliver_at timestamptz, waived bool NOT NULL);
CREATE TABLE ledger (serial bigserial PRIMARY KEY, uid text NOT NULL, actor_type text NOT NULL,
    actor_key text NOT NULL, turn int NOT NULL, attempts int NOT NULL, at timestamptz NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id());
CREATE TABLE edit (actor_type text NOT NULL, actor_key text NOT NULL);
CREATE TABLE good (id int PRIMARY KEY);
CREATE TABLE checked (id int REFERENCES good DEFERRABLE INITIALLY DEFERRED);
-- what is mended stops failing: for types that suspend
CREATE TABLE mended (done bool);
-- what all keys update, and the web application, which says so in the other
CREATE TABLE shared (id int PRIMARY KEY, n int NOT NULL);
CREATE TABLE web (which int NOT NULL, asked timestamptz NOT NULL, got timestamptz NOT NULL);
CREATE TABLE cancelled (uid text NOT NULL);

CREATE FUNCTION post(uid text, actor_type text, actor_key text, payload jsonb, priority int,
        delay interval, expires interval) RETURNS void LANGUAGE sql AS $$
    INSERT INTO sent VALUES ($1, $2, $3, $4, clock_timestamp() + $6, $5 <> 0 OR $6 IS NOT NULL);
    INSERT INTO djactor.message (actor_type, actor_key, payload, priority, deliver_at, expires_at)
        SELECT $2, $3, $4, $5, sent.deliver_at, clock_timestamp() + $7
        FROM sent WHERE sent.uid = $1;
$$;

CREATE FUNCTION request(which int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    asked timestamptz := clock_timestamp();
BEGIN
    UPDATE shared SET n = n + 1 WHERE id = which;
    INSERT INTO web VALUES (which, asked, clock_timestamp());
END $$;

CREATE FUNCTION work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    m djactor.message := djactor.message();
    turn int := coalesce((state->>'turn')::int, 0) + 1;
    which int;
BEGIN
    -- a log is the only journal that keeps what is rolled back
    IF message ? 'watched' THEN
        RAISE LOG 'BEGAN % % % % % % %', m.actor_type, m.actor_key, message->>'uid',
            extract(epoch FROM clock_timestamp()), m.put_offs, pg_backend_pid(),
            pg_current_xact_id();
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext(m.actor_type), hashtext(m.actor_key)) THEN
        RAISE LOG 'OVERLAP: two turns of % % at once', m.actor_type, m.actor_key;
    END IF;
    INSERT INTO ledger (uid, actor_type, actor_key, turn, attempts, at)
        VALUES (message->>'uid', m.actor_type, m.actor_key, turn, m.attempts, clock_timestamp());
    IF m.attempts < coalesce((message->>'fail')::int, 0) AND NOT EXISTS (SELECT FROM mended) THEN
        CASE message->>'how'
            WHEN 'raise' THEN RAISE EXCEPTION 'attempt %', m.attempts;
            WHEN 'alone' THEN RAISE undefined_table USING MESSAGE = 'perhaps a batch-mate''s fault';
            WHEN 'deferred' THEN INSERT INTO checked VALUES (1);
            WHEN 'timeout' THEN PERFORM pg_sleep(60);
            WHEN 'null' THEN RETURN NULL;
        END CASE;
    END IF;
    IF message ? 'flaky' AND m.put_offs < 2 AND random() < 0.5 THEN
        RAISE serialization_failure;
    END IF;
    -- what suspends its actor begins to count anew with each resume()
    IF m.put_offs + m.attempts < coalesce((message->>'trouble')::int, 0)
            AND NOT EXISTS (SELECT FROM mended) THEN
        RAISE EXCEPTION 'nobody''s fault' USING ERRCODE = message->>'state';
    END IF;
    FOR which IN SELECT jsonb_array_elements_text(message->'shared') LOOP
        UPDATE shared SET n = n + 1 WHERE id = which;
    END LOOP;
    IF message ? 'sleep' THEN
        PERFORM pg_sleep((message->>'sleep')::float8);
    END IF;
    IF message ? 'forward' THEN
        PERFORM post(uid, message->'forward'->>'type', message->'forward'->>'key',
            message->'forward' || jsonb_build_object('uid', uid), 0, NULL, NULL),
            pg_sleep((message->'forward'->>'pause')::float8)
        FROM jsonb_array_elements_text(message->'forward'->'uids') uid;
    END IF;
    RETURN state || jsonb_build_object('turn', turn,
        'sum', coalesce((state->>'sum')::bigint, 0) + (message->>'value')::bigint);
END $$;
"""


@dataclass(frozen=True)
class Type:
    """A kind of actor: what the model has to know of it never changes."""

    name: str
    max_attempts: int
    retry_order: str
    on_exhausted: str


@dataclass
class Message:
    """A message as its sender knows it; times are those of the client's clock."""

    uid: str
    transaction: int
    place: int  # within its transaction
    started: float  # the INSERT was not under way before
    committed: float = NEVER  # the COMMIT was answered by then
    visible: float = NEVER  # the same by the clock that the server has, too


@dataclass
class Books:
    """What the clients know, under a lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    messages: dict[str, Message] = field(default_factory=dict)
    rolled_back: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    errors: list[str] = field(default_factory=list)

    def count(self, what: str, n: int = 1) -> None:
        with self.lock:
            self.counts[what] += n


class Fairness:
    """The oracles of service, from what the log and the ledger say of the fair types.

    *First come, first served*: while a mailbox is queued no other mailbox of its type is visited
    more than once, or twice: one more for what a worker had taken before.  A visit is a turn in
    another transaction, or one that begins more than a millisecond after the visit did.  When a
    mailbox is queued nobody can see, since a process may lose the CPU at any moment.  What is known
    is when it certainly was: from the commit of its message, or from when the worker that had
    handled its last turn began another one, until the last turn before its own of the worker that
    took it.  An attempt that was rolled back is only in the log; a mailbox goes back to the front
    then, so with all attempts of a message there may be ROUNDS more.

    *Let go*: a batch that somebody waits for begins no other turn.  Who asks for a lock may be kept
    from running before he waits, so of all batches that a request waited for a share of LATE may
    have begun more than MORE.

    No oracle looks at a time in which the server was ended.  A worker that is ended gives back what
    it had at the front of the queue; only the message whose turn it was is not looked at.
    """

    ONCE = 2
    ROUNDS = 3
    MORE = 5
    LATE = 0.05
    VISIT = 0.001

    def __init__(self, run: Run, rows: list[tuple[Any, ...]]) -> None:
        self.run = run
        # of the ledger, in order, with uid, type, key, start, transaction, commit, shared rows
        self.rows = sorted(rows, key=lambda row: row[3])
        self.wrong: list[str] = []
        self.checked = 0
        self.most = self.waits = self.late = 0
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        self.of_worker: dict[int, list[Attempt]] = defaultdict(list)
        log = run.server.log_file.open(errors="replace")
        with log:
            log.seek(run.log_start)
            for line in log:
                if " LOG:  BEGAN " in line and (said := SCRAPE.search(line)):
                    kind, key, uid, at, put_offs, pid, xact = said.groups()
                    attempt = Attempt(float(at), key, uid, int(put_offs), int(pid), xact)
                    self.attempts[kind].append(attempt)
                    self.of_worker[attempt.pid].append(attempt)
        for attempts in [*self.attempts.values(), *self.of_worker.values()]:
            attempts.sort(key=at_of)

    def later(self, attempt: Attempt, than: float) -> float:
        """When the worker of an attempt began its next transaction's first turn."""
        others = self.of_worker[attempt.pid]
        for other in others[bisect.bisect_right(others, than, key=at_of) :]:
            if other.xact != attempt.xact:
                return other.at
        return NEVER

    def before(self, attempt: Attempt) -> float:
        """When the worker of an attempt began its turn before."""
        others = self.of_worker[attempt.pid]
        place = bisect.bisect_left(others, attempt.at, key=at_of)
        return others[place - 1].at if place > 0 else 0.0

    def evidence(self, visits: list[float], since: float, until: float, attempt: Attempt) -> str:
        """What to look at when a mailbox has waited for too long."""
        looked = [f"{at:.3f}" for at in visits if since < at < until]
        turns = [
            f"{other.at:.3f} {other.key}"
            for other in self.of_worker[attempt.pid]
            if since - 0.1 < other.at <= attempt.at
        ]
        ends = [f"{at:.3f}" for at, _ in self.run.disturbances if since - 2 < at < until + 1]
        return (
            f"{looked} from {since:.3f} to {until:.3f}; turns of process {attempt.pid}:"
            f" {turns[-12:]}; processes ended: {ends}"
        )

    def first_come(self, kind: str) -> None:
        """See above; for one type."""
        begins: dict[str, list[float]] = defaultdict(list)
        for attempt in self.attempts[kind]:
            begins[attempt.uid].append(attempt.at)
        commits: dict[str, float] = {}
        done: dict[str, float] = {}  # when the attempt began that was not rolled back
        visits: dict[str, list[float]] = defaultdict(list)
        last: dict[str, str] = {}
        for uid, type_name, key, start, xact, commit, _ in self.rows:
            if type_name != kind:
                continue
            commits[uid] = commit
            # the log's line is a moment older than the ledger's
            done[uid] = max((at for at in begins[uid] if at <= start), default=0.0)
            if last.get(key) != xact or start > visits[key][-1] + self.VISIT:
                visits[key].append(start)
            last[key] = xact

        since: dict[str, float] = defaultdict(float)  # when a key was certainly queued again
        served: dict[str, float] = defaultdict(float)  # its last turn's commit
        tries: Counter[str] = Counter()  # rolled back since then
        meanwhile: dict[str, Counter[str]] = defaultdict(Counter)
        for attempt in self.attempts[kind]:
            key, uid = attempt.key, attempt.uid
            message = self.run.books.messages.get(uid)
            if uid not in done or message is None:
                continue
            queued, until = max(since[key], message.visible), self.before(attempt)
            for other, starts in visits.items():
                if other != key and queued < until:
                    count = bisect.bisect_left(starts, until) - bisect.bisect_right(starts, queued)
                    meanwhile[key][other] += count
            from_ = max(served[key], message.visible)
            again = tries[key] > 0
            if attempt.put_offs == 0 and not self.run.disturbed(from_, attempt.at, again):
                self.checked += queued < until
                other, count = max(meanwhile[key].items(), key=lambda of: of[1], default=("", 0))
                if not again:
                    self.most = max(self.most, count)
                if count > (self.ROUNDS + self.ONCE if again else self.ONCE):
                    self.wrong.append(
                        f"{kind} {key} waited {attempt.at - from_:.3f} s for {uid}, after"
                        f" {tries[key]} attempts, {from_:.3f} to {attempt.at:.3f};"
                        f" meanwhile {other} was visited {count} times, of which"
                        f" {self.evidence(visits[other], queued, until, attempt)}"
                    )
            if done[uid] == attempt.at:
                served[key] = commits[uid]
                since[key] = self.later(attempt, commits[uid])
                tries[key] = 0
                meanwhile[key].clear()
            else:
                since[key] = self.later(attempt, attempt.at)
                tries[key] += 1

    def let_go(self, requests: list[tuple[int, float, float]]) -> None:
        """How many turns did a batch begin while a request waited for a row that it had?"""
        turns: dict[str, list[float]] = defaultdict(list)
        holders: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
        for *_, start, xact, commit, shared in self.rows:
            turns[xact].append(start)
            for row in shared:
                holders[row].append((start, commit, xact))
        worst: list[tuple[int, float, str]] = []
        for row, asked, got in requests:
            if self.run.disturbed(asked, got):
                continue
            for start, commit, xact in holders[row]:
                if start < asked < commit < got:
                    self.waits += 1
                    began = len(turns[xact]) - bisect.bisect_right(turns[xact], asked)
                    worst.append((began, asked, xact))
        late = [wait for wait in worst if wait[0] > self.MORE]
        self.late = len(late)
        if len(late) > max(2, self.LATE * len(worst)):
            self.wrong.append(
                f"of {len(worst)} batches that a request waited for {len(late)} went on for more"
                f" than {self.MORE} turns: {sorted(late)[-5:]}"
            )


@dataclass(frozen=True)
class Attempt:
    """A turn that began, whatever became of it."""

    at: float
    key: str
    uid: str
    put_offs: int
    pid: int
    xact: str


def at_of(attempt: Attempt) -> float:
    return attempt.at


class Run:
    """One run of the test; a calm one ends no worker and cancels nothing."""

    def __init__(self, server: PrivateServer, seed: int, calm: bool = False) -> None:
        self.server = server
        self.seed = seed
        self.calm = calm
        self.books = Books()
        self.wrong: list[str] = []
        self.stop = threading.Event()
        self.serial = itertools.count(1)
        self.log_start = server.log_file.stat().st_size
        self.disturbances: list[tuple[float, bool]] = []
        self.misses: list[str] = []
        self.discarded = 0.0  # when mail of the type that comes and goes was last discarded
        self.workers, self.room = 1, 0
        self.longest = {"web": 0.0, "stranger": 0.0}
        rng = random.Random(seed)
        self.types = [
            Type("m.plain", rng.choice([3, 5]), "hold", "dead_letter"),
            Type("m.second", rng.choice([2, 4]), "hold", "dead_letter"),
            Type("m.skip", 3, "skip", "dead_letter"),
            Type("m.once", 1, "hold", "dead_letter"),
            Type("m.suspend", 2, "hold", "suspend"),
            Type(HOSTED, 3, "hold", "dead_letter"),
        ]
        self.hosts: list[subprocess.Popen[bytes]] = []
        # Those whose service is looked at: nobody pauses them, changes them or locks their rows.
        self.fair = [
            Type("m.fair", 3, "hold", "dead_letter"),
            Type("m.level", 3, "hold", "dead_letter"),
            Type("m.fresh", 3, "hold", "dead_letter"),
            Type("m.flood", 3, "hold", "dead_letter"),
        ]
        # One that comes and goes; its mail is redriven by somebody else.
        self.brief = Type("m.brief", 3, "hold", "dead_letter")
        self.all = [*self.types, *self.fair, self.brief]
        self.keys = rng.choice([3, 12, 60])

    # Connections, through crashes of the server.

    def connect(self, user: str = "app") -> psycopg.Connection[Any]:
        deadline = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(self.server.dsn("app", user), connect_timeout=20)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def disturb(self, crash: bool = True) -> None:
        """Now a worker is ended, or the server, with all that it knows of who has waited."""
        self.disturbances.append((time.time(), crash))

    def disturbed(self, since: float, until: float, by_any: bool = False) -> bool:
        """Was the server ended then, or any worker?"""
        return any(
            since - 1 <= at <= until + 0.5 if crash else by_any and since - 0.1 <= at <= until + 0.1
            for at, crash in self.disturbances
        )

    def define(self, connection: psycopg.Connection[Any], kind: Type, rng: random.Random) -> None:
        limited = kind not in self.fair and kind.name != "m.flood"
        rate = rng.choice([None, None, "100/s", "200/2 s"]) if limited else None
        tenants = rng.choice([None, "key:1", "key:2"]) if limited else None
        connection.execute(
            "SELECT djactor.define_actor_type(%s, 'public.work', hosted => %s, max_attempts => %s,"
            " breaker_failures => NULL, retry_order => %s, on_exhausted => %s, backoff => %s,"
            f" backoff_max => '200 ms', handler_timeout => '{HANDLER_TIMEOUT} s', batch_size => %s,"
            " concurrency => %s, owner => 'app', rate => %s, rate_by => %s, fair_by => %s)",
            (
                kind.name,
                kind.name == HOSTED and rng.random() < 0.8,
                kind.max_attempts,
                kind.retry_order,
                kind.on_exhausted,
                rng.choice(["1 ms", "20 ms"]),
                None if kind.name == "m.flood" else rng.choice([None, None, 1, 7]),
                None if kind in self.fair else rng.choice([None, None, 1, 2]),
                rate,
                tenants if rate and rng.random() < 0.5 else None,
                tenants,
            ),
        )

    # Senders.

    def payload(self, rng: random.Random) -> dict[str, Any]:
        """What a message demands: one thing at most, so that the books know what comes."""
        payload: dict[str, Any] = {"value": rng.randrange(1000)}
        what = rng.random()
        if what < 0.12:
            payload["fail"] = rng.choice([1, 1, 1, 2, 2, 3, 99])
            payload["how"] = rng.choice(["raise", "raise", "alone", "deferred", "null"])
        elif what < 0.1202:  # few: each attempt takes the whole handler_timeout
            payload["fail"] = rng.choice([1, 99])
            payload["how"] = "timeout"
            payload["watched"] = True
        elif what < 0.15:
            payload["flaky"] = True
        elif what < 0.17:
            payload["sleep"] = rng.random() * 0.05
        elif what < 0.171:
            payload["sleep"] = 0.3
        elif what < 0.18:
            payload["trouble"] = rng.choice([1, 1, 2, 6])
            payload["state"] = rng.choice(["40001", "58P01"])
        elif what < 0.25:
            uid = f"f{self.seed}-{next(self.serial)}"
            kind = rng.choice(self.types)
            payload["forward"] = {
                "uids": [f"{uid}-{i}" for i in range(rng.choice([1, 2]))],
                "pause": rng.choice([0, 0, 0.01]),
                "type": kind.name,
                "key": f"k{rng.randrange(self.keys)}",
                "value": 1,
            }
        elif what < 0.4:
            payload |= self.updates(rng)
        return payload

    def updates(self, rng: random.Random) -> dict[str, Any]:
        """Shared rows, in ascending order or in any, in a turn that may last."""
        rows = rng.sample(range(SHARED), rng.choice([1, 1, 2, 3]))
        if rng.random() < 0.5:
            rows.sort()
        payload: dict[str, Any] = {"shared": rows}
        if rng.random() < 0.05:
            payload["sleep"] = rng.random() * 0.06
        return payload

    def send_some(
        self, connection: psycopg.Connection[Any], rng: random.Random, transaction: int, place: int
    ) -> list[Message]:
        n = rng.choice([1, 1, 1, 2, 5, 30]) if rng.random() < 0.99 else 1500
        rows = []
        messages = []
        plain = n > 30
        for i in range(n):
            uid = f"s{next(self.serial)}"
            kind = rng.choice(self.types[:2] if plain else self.types)
            payload = {"value": 1} if plain else self.payload(rng)
            payload["uid"] = uid
            key = f"k{rng.randrange(2000 if plain else self.keys)}"
            special = rng.random()
            rows.append(
                (
                    uid,
                    kind.name,
                    key,
                    json.dumps(payload),
                    rng.randrange(-5, 6) if special < 0.05 else 0,
                    f"{rng.randrange(3000)} ms" if 0.05 <= special < 0.1 else None,
                    "-1 s" if 0.1 <= special < 0.11 else None,
                )
            )
            messages.append(Message(uid, transaction, place + i, time.monotonic()))
        with self.books.lock:
            self.books.messages.update((message.uid, message) for message in messages)
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(
            "SELECT post(u, t, k, p, r, d, e) FROM unnest(%s::text[], %s::text[], %s::text[],"
            " %s::jsonb[], %s::int[], %s::interval[], %s::interval[])"
            " WITH ORDINALITY AS x (u, t, k, p, r, d, e, o) ORDER BY o",
            columns,
        )
        return messages

    def transaction(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        number = next(self.serial)
        kept: list[Message] = []
        gone: list[Message] = []
        place = 0
        for _ in range(rng.choice([1, 1, 2, 4])):
            if rng.random() < 0.2:
                connection.execute("SAVEPOINT s")
                gone += self.send_some(connection, rng, number, place)
                connection.execute("ROLLBACK TO s")
            else:
                kept += self.send_some(connection, rng, number, place)
            place += 10000
            if rng.random() < 0.2:
                time.sleep(rng.random() * 0.02)
        if rng.random() < 0.15:
            connection.rollback()
            gone += kept
            self.books.count("rolled back", len(gone))
        else:
            connection.commit()
            committed, visible = time.monotonic(), time.time()
            for message in kept:
                message.committed, message.visible = committed, visible
        with self.books.lock:
            self.books.rolled_back.update(message.uid for message in gone)

    def sender(self, number: int) -> None:
        rng = random.Random(self.seed * 1000 + number)
        connection = self.connect()
        while not self.stop.is_set():
            try:
                self.transaction(connection, rng)
            except psycopg.OperationalError:
                # The server crashed; what became of the transaction is in table sent.
                self.books.count("connections lost")
                with contextlib.suppress(psycopg.Error):
                    connection.close()
                connection = self.connect()
            time.sleep(rng.choice([0, 0.02, 0.1, 0.2]))
            if rng.random() < 0.02:
                time.sleep(rng.random() * 1.5)  # the pool may lapse into sleep
        connection.close()

    # Senders to the fair types.

    def send_watched(
        self,
        connection: psycopg.Connection[Any],
        kind: str,
        rows: list[tuple[str, dict[str, Any]]],
        watched: bool = True,
    ) -> list[Message]:
        """Messages for these keys, in one transaction."""
        transaction = next(self.serial)
        messages = []
        payloads = []
        for place, (_, payload) in enumerate(rows):
            uid = f"w{self.seed}-{next(self.serial)}"
            messages.append(Message(uid, transaction, place, time.monotonic()))
            payload = {"value": 1, "uid": uid} | payload
            payloads.append(json.dumps(payload | {"watched": True} if watched else payload))
        with self.books.lock:
            self.books.messages.update((message.uid, message) for message in messages)
        connection.execute(
            "SELECT post(p->>'uid', %s, k, p, 0, NULL, NULL)"
            " FROM unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS x (k, p, o) ORDER BY o",
            (kind, [key for key, _ in rows], payloads),
        )
        connection.commit()
        committed, visible = time.monotonic(), time.time()
        for message in messages:
            message.committed, message.visible = committed, visible
        return messages

    def slow(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """Mail whose turns last, to a few keys or to many, and now and then much that does not."""
        waiting = connection.execute(
            "SELECT count(*) FILTER (WHERE actor_type = 'm.fair'),"
            " count(*) FILTER (WHERE actor_type = 'm.level') FROM djactor.message"
        ).fetchone()
        connection.rollback()
        assert waiting is not None
        if waiting[0] < 40:
            rows = []
            for _ in range(rng.choice([1, 2, 10, 40])):
                payload: dict[str, Any] = {"sleep": rng.choice([0, 0.005, 0.02, 0.06])}
                if rng.random() < 0.02:
                    payload["sleep"] = 0.3
                rows.append((f"k{rng.randrange(self.keys)}", payload))
            self.send_watched(connection, "m.fair", rows)
        if rng.random() < 0.02:
            self.flood(connection, rng)
        if waiting[1] == 0 and rng.random() < 0.1:
            keys, each = rng.choice([(8, 8), (16, 6), (40, 4)])
            seconds = rng.choice([0.005, 0.005, 0.02])
            self.send_watched(
                connection,
                "m.level",
                [(f"k{key}", {"sleep": seconds}) for _ in range(each) for key in range(keys)],
            )

    def flood(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """Mail for large batches that have many of the shared rows."""
        rows = [(f"k{rng.randrange(100)}", {"shared": [rng.randrange(SHARED)]}) for _ in range(600)]
        self.send_watched(connection, "m.flood", rows, watched=False)

    def stranger(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """Messages to fresh keys do not wait for the long turn among them while a place is free: no
        worker has it, or one that is idle."""
        began = time.time()
        alone = self.workers == 1
        sleep = {"sleep": 0.3 if alone else LONG}
        rows = [(f"fresh{next(self.serial)}", {}) for _ in range(rng.choice([2, 5, 10]))]
        place = rng.randrange(len(rows))
        rows.insert(place, (f"long{next(self.serial)}", sleep))
        messages = self.send_watched(connection, "m.fresh", rows)
        long = messages.pop(place)
        uids = [message.uid for message in messages]
        free_since, longest = NEVER, 0.0
        while not self.stop.is_set():
            done = {
                row[0]
                for row in connection.execute(
                    "SELECT uid FROM ledger WHERE uid = ANY (%s)", ([*uids, long.uid],)
                )
            }
            # another database's worker has its place whatever it does
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE w.state IS DISTINCT FROM 'idle')"
                " FROM pg_stat_activity a LEFT JOIN djactor.worker w USING (pid)"
                " WHERE a.backend_type = 'djactor worker'"
            ).fetchone()
            now = time.time()
            connection.rollback()
            if row is None or row[0] >= self.workers:
                free_since = NEVER
            else:
                free_since = min(free_since, now)
                longest = max(longest, now - free_since)
            if long.uid in done or len(done) == len(uids):
                break
            self.stop.wait(0.01)
        else:
            return
        if alone or self.disturbed(began, now):
            return
        self.books.count("strangers", len(uids))
        waited = now - long.visible
        if long.uid not in done:
            self.longest["stranger"] = max(self.longest["stranger"], waited)
        if longest > FREE:
            self.misses.append(
                f"{len(uids)} fresh keys: not all were served in {waited:.3f} s beside the long"
                f" turn of {long.uid}, until {now:.3f}, and a place was free for {longest:.3f} s"
            )

    # A type that comes and goes.

    def sends_to_brief(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """Send mail to a type that somebody drops, or redrive what has failed."""
        try:
            if rng.random() < 0.6:
                rows: list[tuple[str, dict[str, Any]]] = [
                    (
                        f"k{rng.randrange(5)}",
                        {"fail": 99, "how": "raise"} if rng.random() < 0.3 else {"sleep": 0.002},
                    )
                    for _ in range(rng.choice([1, 5, 20]))
                ]
                self.send_watched(connection, "m.brief", rows, watched=False)
            else:
                self.books.count("redriven", self.redrive(connection, 20))
                if rng.random() < 0.3:
                    self.stop.wait(rng.random() * 0.05)
                connection.rollback() if rng.random() < 0.2 else connection.commit()
        except psycopg.errors.UndefinedObject:
            self.books.count("sent or redriven without a type")
            connection.rollback()

    def redrive(self, connection: psycopg.Connection[Any], n: int) -> int:
        """Dead letters of that type, this many at the most.  Returns how many."""
        rows = connection.execute(
            "SELECT djactor.redrive(id) FROM (SELECT id FROM djactor.dead_letter"
            " WHERE actor_type = %s LIMIT %s) AS x",
            (self.brief.name, n),
        )
        return len(rows.fetchall())

    def drops_brief(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """Drop the type, with what it has or if it has nothing, and define it again."""
        discard = rng.random() < 0.6
        try:
            connection.execute("SELECT djactor.drop_actor_type(%s, %s)", (self.brief.name, discard))
            self.stop.wait(rng.choice([0, 0.01, 0.1]))
            if rng.random() < 0.2:
                connection.rollback()
                return
            connection.commit()
        except psycopg.errors.DependentObjectsStillExist:
            self.books.count("not dropped")
            connection.rollback()
            return
        except psycopg.errors.UndefinedObject:
            connection.rollback()  # the answer to the last COMMIT was lost, perhaps
            discard = True
        self.books.count("dropped")
        if discard:
            self.discarded = time.monotonic()
        self.stop.wait(rng.choice([0, 0.02, 0.2]))
        left = connection.execute(
            "SELECT 'message', actor_key FROM djactor.message WHERE actor_type = %(type)s"
            " UNION ALL SELECT 'actor', actor_key FROM djactor.actor WHERE actor_type = %(type)s"
            " UNION ALL SELECT 'timer', actor_key FROM djactor.timer WHERE actor_type = %(type)s",
            {"type": self.brief.name},
        ).fetchall()
        if left:
            self.misses.append(f"{self.brief.name} was dropped, and has {left[:5]}")
        self.define(connection, self.brief, rng)
        connection.commit()

    def beside(self, which: str) -> None:
        """One of the threads that send, or update, beside the random senders."""
        step, pause = {
            "slow": (self.slow, 0.1),
            "stranger": (self.stranger, 2.0),
            "web": (self.web, 0.01),
            "bystander": (self.bystander, 0.3),
            "sends to brief": (self.sends_to_brief, 0.1),
            "drops brief": (self.drops_brief, 0.6),
            "ends hosts": (self.ends_hosts, 2.0),
        }[which]
        rng = random.Random(f"{self.seed} {which}")
        user = "postgres" if which in ("bystander", "ends hosts") else "app"
        connection = self.connect(user)
        while not self.stop.is_set():
            try:
                step(connection, rng)
            except psycopg.errors.DeadlockDetected:
                raise
            except psycopg.OperationalError:
                self.books.count("connections lost")
                with contextlib.suppress(psycopg.Error):
                    connection.close()
                connection = self.connect(user)
            self.stop.wait(rng.random() * pause)
        connection.close()

    # Hosts.

    def start_hosts(self) -> None:
        for _ in range(HOSTS - len(self.hosts)):
            command = [sys.executable, HOST, self.server.dsn("app", "app"), HOSTED]
            self.hosts.append(subprocess.Popen(command))

    def end_hosts(self) -> None:
        for host in self.hosts:
            host.kill()
            host.wait()
        self.hosts.clear()

    def ends_hosts(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """Kill a host, or end its session; another one comes."""
        if self.calm:
            return
        if rng.random() < 0.6:
            self.books.count("killed")
            self.books.count("hosts killed")
            host = self.hosts.pop(rng.randrange(len(self.hosts)))
            host.kill()
            host.wait()
            self.start_hosts()
        else:
            self.books.count("hosts terminated")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM djactor.host ORDER BY random() LIMIT 1"
            )
            connection.commit()

    # Those who are in the way.

    def web(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """A request: two shared rows, in ascending order.  Errors: a deadlock."""
        began = time.time()
        for row in sorted(rng.sample(range(SHARED), 2)):
            connection.execute("SELECT request(%s)", (row,))
        connection.commit()
        now = time.time()
        self.books.count("web")
        if self.disturbed(began, now):
            return
        self.longest["web"] = max(self.longest["web"], now - began)
        if now - began > WEB_SECONDS:
            self.misses.append(f"a request took {now - began:.3f} s, until {now:.3f}")

    def bystander(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """A transaction that locks rows of djactor stays open for a while."""
        kind = rng.choice(self.types).name
        key = f"k{rng.randrange(self.keys)}"
        what = rng.choice(["cancel", "cancel", "edit", "share"])
        if what == "cancel":
            row = connection.execute(
                "SELECT id, payload->>'uid' FROM djactor.message WHERE actor_type = %s LIMIT 1",
                (kind,),
            ).fetchone()
            cancelled = row and connection.execute("SELECT djactor.cancel(%s)", row[:1]).fetchone()
            if row and cancelled and cancelled[0]:
                connection.execute("INSERT INTO cancelled VALUES (%s)", row[1:])
        elif what == "edit":
            self.edit(connection, kind, key)
        else:
            connection.execute(
                "SELECT FROM djactor.actor WHERE actor_type = %s AND actor_key = %s FOR KEY SHARE",
                (kind, key),
            )
        self.books.count(f"left open: {what}")
        self.stop.wait(rng.choice([0.02, 0.1, 0.5]))
        connection.commit() if rng.random() < 0.3 else connection.rollback()

    # The operator.

    def edit(self, connection: psycopg.Connection[Any], kind: str, key: str) -> None:
        """Change an actor's state by hand, in the present transaction."""
        connection.execute(
            "WITH u AS (UPDATE djactor.actor SET state = state ||"
            "  jsonb_build_object('edits', coalesce((state->>'edits')::int, 0) + 1)"
            "  WHERE actor_type = %s AND actor_key = %s RETURNING actor_type, actor_key)"
            " INSERT INTO edit SELECT * FROM u",
            (kind, key),
        )

    def operate(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        kind = rng.choice(self.types)
        key = f"k{rng.randrange(self.keys)}"
        what = rng.random()
        connection.autocommit = True
        if what < 0.1:
            self.books.count("defined")
            self.define(connection, kind, rng)
        elif what < 0.2:
            self.books.count("paused")
            connection.execute("SELECT djactor.pause(%s)", (kind.name,))
            if rng.random() < 0.8:
                time.sleep(rng.random() * 0.3)
                connection.execute("SELECT djactor.resume(%s)", (kind.name,))
        elif what < 0.4:
            verb = rng.choice(["pause", "resume", "resume"])
            with contextlib.suppress(psycopg.errors.UndefinedObject):
                connection.execute(f"SELECT djactor.{verb}(%s, %s)", (kind.name, key))
        elif what < 0.75:
            self.books.count("edits")
            connection.autocommit = False
            self.edit(connection, kind.name, key)
            time.sleep(rng.choice([0, 0.005, 0.1]))
            connection.rollback() if rng.random() < 0.2 else connection.commit()
        elif self.calm:
            pass
        elif what < 0.97:
            verb = rng.choice(["cancel", "terminate"])
            self.books.count(verb)
            if verb == "terminate":
                self.disturb(crash=False)
            # Not turns that last: one that is cancelled again and again has used up an attempt.
            connection.execute(
                f"SELECT pg_{verb}_backend(pid) FROM djactor.worker w LEFT JOIN djactor.message m"
                " ON m.id = w.message_id WHERE pid IS NOT NULL"
                f" AND ('{verb}' = 'terminate' OR (payload ? 'watched') IS NOT TRUE)"
                " ORDER BY random() LIMIT 1"
            )
        else:
            row = connection.execute(
                "SELECT pid FROM djactor.worker WHERE pid IS NOT NULL ORDER BY random() LIMIT 1"
            ).fetchone()
            if row is not None:
                self.books.count("killed")
                self.disturb()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(row[0], signal.SIGKILL)
                time.sleep(1)
                self.disturb()

    def operator(self) -> None:
        rng = random.Random(self.seed * 1000 + 999)
        connection = self.connect("postgres")
        while not self.stop.is_set():
            try:
                self.operate(connection, rng)
            except psycopg.OperationalError as error:
                if error.sqlstate is not None and not error.sqlstate.startswith("57"):
                    raise
                with contextlib.suppress(psycopg.Error):
                    connection.close()
                connection = self.connect("postgres")
                self.disturb()
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                connection.rollback()
            time.sleep(rng.random() * 0.15)
        connection.close()

    def guarded(self, target: Any, *args: Any) -> None:
        try:
            target(*args)
        except BaseException as error:
            with self.books.lock:
                self.books.errors.append(f"{target.__name__}{args}: {error!r}")
            self.stop.set()

    def prepare(self) -> None:
        """The shared rows, and what the server is set to."""
        with self.connect("postgres") as connection:
            row = connection.execute(
                "SELECT current_setting('djactor.max_workers')::int,"
                " current_setting('djactor.run_queue_size')::int"
            ).fetchone()
            assert row is not None
            self.workers, self.room = row
            connection.execute(
                "INSERT INTO shared SELECT i, 0 FROM generate_series(0, %s) i", (SHARED - 1,)
            )
            # who looks for a free place sees the workers of all databases
            connection.execute("GRANT pg_read_all_stats TO app")

    def go(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Let all go on for SECONDS, or as long as something else takes meanwhile."""
        threads = [
            threading.Thread(target=self.guarded, args=(self.sender, number))
            for number in range(SENDERS)
        ]
        threads.append(threading.Thread(target=self.guarded, args=(self.operator,)))
        threads += [
            threading.Thread(target=self.guarded, args=(self.beside, which))
            for which in (
                "slow",
                "stranger",
                "web",
                "bystander",
                "sends to brief",
                "drops brief",
                "ends hosts",
            )
        ]
        self.prepare()
        self.start_hosts()
        for thread in threads:
            thread.start()
        try:
            if meanwhile is not None:
                meanwhile()
            else:
                self.stop.wait(SECONDS / 2 if self.calm else SECONDS)
        finally:
            self.stop.set()
        for thread in threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in threads)
        assert self.books.errors == [], "\n".join(self.books.errors) + "\n" + self.server.log_tail()

    def settle(self) -> None:
        """Resume all that is paused or suspended, and wait until nothing is left."""
        self.start_hosts()
        try:
            self.wait_for_all()
        finally:
            self.end_hosts()

    def wait_for_all(self) -> None:
        with self.connect("postgres") as connection:
            connection.autocommit = True
            self.define(connection, self.brief, random.Random(self.seed))
            self.redrive(connection, 1_000_000)
            connection.execute(
                "SELECT djactor.alter_actor_type(name, rate => NULL, rate_by => NULL)"
                " FROM djactor.actor_type"
            )
            for kind in self.all:
                connection.execute("SELECT djactor.resume(%s)", (kind.name,))
            deadline = time.monotonic() + PATIENCE
            while True:
                # Once all others are done, what still fails is mended; who was suspended goes on.
                connection.execute(
                    "SELECT djactor.resume(actor_type, actor_key) FROM djactor.actor"
                    " WHERE paused OR (status = 'suspended' AND EXISTS (SELECT FROM mended))"
                )
                left = connection.execute(
                    "SELECT count(*), count(*) FILTER (WHERE actor_type <> 'm.suspend')"
                    " FROM djactor.message"
                ).fetchone()
                assert left is not None
                if left[0] == 0:
                    return
                if left[1] == 0:
                    connection.execute("INSERT INTO mended VALUES (true)")
                if time.monotonic() > deadline:
                    rows = connection.execute(
                        "SELECT actor_type, actor_key, count(*) AS n, min(id), max(attempts),"
                        " min(retry_at) - clock_timestamp(), max(last_error) FROM djactor.message"
                        " GROUP BY 1, 2 ORDER BY actor_type = 'm.suspend', 1, 2 LIMIT 10"
                    )
                    pytest.fail(
                        f"{left} messages left: "
                        + "\n".join(map(str, rows))
                        + self.server.log_tail()
                    )
                time.sleep(0.2)

    # The comparison.

    def compare(self) -> None:
        with self.connect("postgres") as connection:
            sent = {
                row[0]: row[1:]
                for row in connection.execute(
                    "SELECT uid, actor_type, actor_key, payload, deliver_at, waived FROM sent"
                )
            }
            ledger = connection.execute(
                "SELECT uid, actor_type, actor_key, turn, attempts, at FROM ledger ORDER BY serial"
            ).fetchall()
            turns_served = connection.execute(
                "SELECT uid, l.actor_type, l.actor_key, extract(epoch FROM at)::float8, xact::text,"
                " extract(epoch FROM pg_xact_commit_timestamp(xact::xid))::float8,"
                " coalesce(payload->'shared', '[]') FROM ledger l JOIN sent USING (uid)"
            ).fetchall()
            requests = connection.execute(
                "SELECT which, extract(epoch FROM asked)::float8, extract(epoch FROM got)::float8"
                " FROM web"
            ).fetchall()
            cancelled = {row[0] for row in connection.execute("SELECT uid FROM cancelled")}
            uneven = connection.execute(
                "SELECT id, n, should FROM shared LEFT JOIN (SELECT which AS id, count(*) AS"
                " should FROM (SELECT which FROM web UNION ALL SELECT r::int FROM ledger JOIN sent"
                " USING (uid), jsonb_array_elements_text(payload->'shared') r) AS x GROUP BY 1)"
                " AS y USING (id) WHERE n <> coalesce(should, 0)"
            ).fetchall()
            dead = {
                row[0]: row[1:]
                for row in connection.execute(
                    "SELECT payload->>'uid', actor_type, actor_key, reason, attempts"
                    " FROM djactor.dead_letter"
                )
            }
            actors = {
                row[:2]: row[2:]
                for row in connection.execute(
                    "SELECT actor_type, actor_key, state, turns FROM djactor.actor"
                )
            }
            edits = {
                row[:2]: row[2]
                for row in connection.execute(
                    "SELECT actor_type, actor_key, count(*) FROM edit GROUP BY 1, 2"
                )
            }
        wrong = self.wrong
        types = {kind.name: kind for kind in self.all}
        wrong += self.misses
        for row in uneven:
            wrong.append(f"shared row {row[0]} was updated {row[1]} times, not {row[2]}")
        for uid in cancelled & {row[0] for row in ledger}:
            wrong.append(f"{uid} was cancelled, and handled")
        for uid in cancelled & dead.keys():
            wrong.append(f"{uid} was cancelled, and is a dead letter")

        # Exactly once, as often tried as demanded.
        handled: dict[str, tuple[Any, ...]] = {}
        for row in ledger:
            if row[0] in handled:
                wrong.append(f"{row[0]} was handled twice")
            handled[row[0]] = row
        for uid in handled.keys() - sent.keys():
            wrong.append(f"{uid} was handled, but never committed")
        for uid in dead.keys() - sent.keys():
            wrong.append(f"{uid} is a dead letter, but was never committed")
        for uid in handled.keys() & dead.keys():
            wrong.append(f"{uid} was handled and is a dead letter")
        for uid in self.books.rolled_back & sent.keys():
            wrong.append(f"{uid} was rolled back, and is there")
        for message in self.books.messages.values():
            if message.committed < NEVER and message.uid not in sent:
                wrong.append(f"{message.uid} was committed, and is gone")
        expired = crashed = 0
        for uid, (type_name, key, payload, deliver_at, _) in sent.items():
            kind = types[type_name]
            fail = payload.get("fail", 0)
            charged = max(0, payload.get("trouble", 0) - QUICK_TRIES)
            gone = uid not in dead and uid not in handled
            discarded = kind is self.brief and self.books.messages[uid].started < self.discarded
            if uid in cancelled or (gone and discarded):
                pass
            elif uid in dead and dead[uid][2] == "expired":
                expired += 1
            elif uid in dead and dead[uid][2] == "crashed":
                crashed += 1
            elif fail >= kind.max_attempts and kind.on_exhausted == "dead_letter":
                if dead.get(uid, ())[2:] != ("failed", kind.max_attempts):
                    wrong.append(
                        f"{uid} {type_name} {key} {payload}: not dead: {dead.get(uid)}"
                        f" {handled.get(uid)}"
                    )
            elif uid in dead and charged >= dead[uid][3] == kind.max_attempts:
                pass
            elif uid not in handled:
                wrong.append(f"{uid} {type_name} {key} {payload}: not handled: {dead.get(uid)}")
            elif kind.on_exhausted == "dead_letter" and not (
                fail <= handled[uid][4] <= fail + charged
            ):
                wrong.append(f"{uid} {type_name} {key} {payload}: {handled[uid][4]} attempts")
            if deliver_at is not None and uid in handled and handled[uid][5] < deliver_at:
                wrong.append(f"{uid} was early")

        # A kill charges one message, and max_crashes is 2.
        if 2 * crashed > self.books.counts["killed"]:
            wrong.append(f"{crashed} messages crashed")

        # The state is the fold.
        by_actor: dict[tuple[str, str], list[tuple[Any, ...]]] = defaultdict(list)
        for row in ledger:
            by_actor[row[1:3]].append(row)
        for actor, rows in by_actor.items():
            if actor[0] == self.brief.name:
                # from the first turn of its last life
                births = [i for i, row in enumerate(rows) if row[3] == 1]
                for first, end in zip([0, *births], [*births, len(rows)], strict=True):
                    if [row[3] for row in rows[first:end]] != list(range(1, end - first + 1)):
                        wrong.append(f"{actor}: turns {[row[3] for row in rows]}")
                if actor not in actors:
                    continue
                rows = rows[births[-1] :] if births else rows
            rows.sort(key=lambda row: row[3])
            if [row[3] for row in rows] != list(range(1, len(rows) + 1)):
                wrong.append(f"{actor}: turns {[row[3] for row in rows]}")
            total = sum(sent[row[0]][2]["value"] for row in rows if row[0] in sent)
            state, turns = actors.get(actor, ({}, 0))
            expected = {"turn": len(rows), "sum": total}
            if actor in edits:
                expected["edits"] = edits[actor]
            if state != expected or turns != len(rows):
                wrong.append(f"{actor}: state {state}, turns {turns}, expected {expected}")
        for actor in actors.keys() - by_actor.keys():
            wrong.append(f"{actor}: exists without a turn")

        # Order: what one turn has sent to an actor.
        checked = 0
        for _, _, payload, _, _ in sent.values():
            forward = payload.get("forward")
            if forward is None or types[forward["type"]].retry_order == "skip":
                continue
            turns = [handled[uid][3] for uid in forward["uids"] if uid in handled]
            checked += len(turns)
            if turns != sorted(turns):
                wrong.append(f"{forward['uids']}: their turns were {turns}")

        # Order: who was committed before another was inserted goes first.
        for actor, rows in by_actor.items():
            if types[actor[0]].retry_order == "skip" or actor[0] == self.brief.name:
                continue
            latest: Message | None = None
            places: dict[int, Message] = {}
            for row in rows:
                message = self.books.messages.get(row[0])
                if message is None or row[0] not in sent or sent[row[0]][4]:
                    continue
                checked += 1
                if latest is not None and message.committed < latest.started:
                    wrong.append(f"{actor}: {message.uid} came after {latest.uid}")
                if latest is None or message.started > latest.started:
                    latest = message
                before = places.get(message.transaction)
                if before is not None and before.place > message.place:
                    wrong.append(
                        f"{actor}: {message.uid} came after {before.uid} of its transaction"
                    )
                places[message.transaction] = message

        # Service, unless the queue is so small that mailboxes have to leave it.
        fairness = Fairness(self, turns_served)
        fairness.let_go(requests)
        fairness.first_come("m.fair")
        fairness.first_come("m.level")
        if self.room >= 4096:
            wrong += fairness.wrong

        self.books.counts |= {
            "cancelled": len(cancelled),
            "waits checked": fairness.checked,
            "visits in a wait": fairness.most,
            "batches waited for": fairness.waits,
            "let go late": fairness.late,
            "web ms": int(self.longest["web"] * 1000),
            "stranger ms": int(self.longest["stranger"] * 1000),
            "committed": len(sent),
            "handled": len(handled),
            "dead": len(dead),
            "expired": expired,
            "crashed": crashed,
            "order checked": checked,
            "retried": sum(1 for row in ledger if row[4] > 0),
        }
        assert wrong == [], f"{len(wrong)} contradictions, the first: " + "\n".join(wrong[:20])
        log = self.server.log_file.read_text(errors="replace")
        for evil in ("OVERLAP", "PANIC", "TRAP:", "signal 11", "signal 6"):
            found = [line for line in log.splitlines() if evil in line]
            assert found == []


@pytest.mark.parametrize("calm", [False, True], ids=["wild", "calm"])
def test_random_operations(calm: bool, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(seed)
    settings = {
        "djactor.max_workers": rng.choice([1, 2, 4]),
        "djactor.run_queue_size": rng.choice([64, 256, 131072, 131072]),
        "djactor.batch_size": rng.choice([3, 50, 1000]),
        "djactor.batch_time": rng.choice(["2ms", "10ms", "50ms"]),
        "djactor.idle_timeout": "1s",
        "djactor.poll_interval": "1h",
        "track_commit_timestamp": True,
        "max_worker_processes": 16,
        "max_wal_size": "512MB",
    }
    if WORKERS:
        settings["djactor.max_workers"] = int(WORKERS)
    with PrivateServer(settings, fsync=False) as server:
        server.sql("CREATE ROLE app LOGIN")
        server.createdb("app", owner="app")
        server.sql("CREATE EXTENSION djactor; ALTER SCHEMA public OWNER TO app", "app")
        server.sql(SCHEMA, "app", "app")
        run = Run(server, seed, calm)
        with run.connect() as connection:
            for kind in run.all:
                run.define(connection, kind, rng)
        run.go()
        run.settle()
        try:
            run.compare()
        finally:
            with capsys.disabled():
                print(", ".join(f"{k} {n}" for k, n in sorted(run.books.counts.items())))
                print("\n".join(run.wrong[:20]), flush=True)


def test_who_waits_for_a_batch_waits_for_a_turn(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(seed)
    settings = {
        "djactor.max_workers": rng.choice([1, 2]),
        "djactor.batch_size": 100000,
        "djactor.batch_time": "200ms",
        "track_commit_timestamp": True,
    }
    with PrivateServer(settings, fsync=False) as server:
        server.sql("CREATE ROLE app LOGIN")
        server.createdb("app", owner="app")
        server.sql("CREATE EXTENSION djactor; ALTER SCHEMA public OWNER TO app", "app")
        server.sql(SCHEMA, "app", "app")
        run = Run(server, seed, calm=True)
        run.prepare()
        with run.connect() as connection:
            for kind in run.all:
                run.define(connection, kind, random.Random(0))
            connection.commit()
            for _ in range(30):
                run.flood(connection, rng)
                for _ in range(10):
                    run.web(connection, rng)
        run.settle()
        try:
            run.compare()
        finally:
            with capsys.disabled():
                print(
                    ", ".join(f"{k} {n}" for k, n in sorted(run.books.counts.items())), flush=True
                )
        assert run.books.counts["batches waited for"] > 20


def test_priority_decides_in_a_full_mailbox(seed: int) -> None:
    rng = random.Random(seed)
    with PrivateServer({"djactor.batch_size": rng.choice([1, 7, 1000])}, fsync=False) as server:
        server.sql("CREATE ROLE app LOGIN")
        server.createdb("app", owner="app")
        server.sql("CREATE EXTENSION djactor; ALTER SCHEMA public OWNER TO app", "app")
        server.sql(SCHEMA, "app", "app")
        run = Run(server, seed)
        with run.connect() as connection:
            connection.autocommit = True
            run.define(connection, run.types[0], rng)
            connection.execute("SELECT djactor.pause('m.plain')")
            for i in range(300):
                connection.execute(
                    "SELECT post(%s, 'm.plain', %s, jsonb_build_object('uid', %s::text,"
                    " 'value', 1), %s, NULL, NULL)",
                    (f"p{i}", f"k{i % 3}", f"p{i}", rng.choice([-32768, -1, 0, 0, 0, 1, 5, 32767])),
                )
            expected = connection.execute(
                "SELECT actor_key, array_agg(payload->>'uid' ORDER BY priority DESC, id)"
                " FROM djactor.message GROUP BY 1 ORDER BY 1"
            ).fetchall()
            connection.execute("SELECT djactor.resume('m.plain')")
            assert connection.execute("SELECT djactor.wait_idle('60 s')").fetchone() == (True,)
            assert (
                expected
                == connection.execute(
                    "SELECT actor_key, array_agg(uid ORDER BY turn) FROM ledger"
                    " GROUP BY 1 ORDER BY 1"
                ).fetchall()
            )
