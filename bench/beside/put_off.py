"""Case 6: what is nobody's fault, and may last for ever.

6   Six types whose handlers always raise 58P01 (a missing file), 53000 (no resources), 57014
    (cancelled), 25006 (a read-only server), 40001 (serialization) or send to their own full mailbox
    (53400), a message each; backoff 100 ms, max_attempts 5.  Beside them a healthy type is
    served all the time, five messages a second.  Watched for 20 s (``--watch``): how often was
    the handler called, how many attempts were charged, did the message end in dead_letter, could an
    operator read in its row what is wrong, and how many lines of the log name the error?  Quick
    tries at first and then a backoff that doubles make some dozen calls.
    25006 and 40001 may go on for ever: a server may be read-only, and whom a handler
    conflicts with may be anybody; what is said of the others' dead letters is not judged there.
    And a type with ``batch_size => 1`` and a mailbox limit of 100, whose messages all fail for
    good: single messages are sent whenever fewer than 90 wait, until there are 150 dead letters.
    None may be refused.

What would make it dishonest: a server without other work, where "it fails alone" cannot be told
from "all fails"; an error that its message's row shows only when it is dead.
"""

from __future__ import annotations

import re
import time

import psycopg

from beside.case import NEVER, Build, Case, Database, Rows
from common import BenchmarkError, Bounded, number
from private_server import PrivateServer

RAISED = ("58P01", "53000", "57014", "25006", "40001")
FULL = "53400"
FOR_EVER = ("25006", "40001")  # need not end in dead_letter
MOST_CALLS = 25
OWN_LIMIT = 10
SHOWN = 5.0  # seconds until an operator can see it
HEALTHY_PAUSE = 0.2  # seconds
LIMIT = 100  # of the mailbox whose count may drift
FAILURES = 150
PATIENCE = 30.0  # seconds
FREE = LIMIT // 10


def log_lines(private: PrivateServer, error: str) -> int:
    """Lines of the log above DEBUG that name an error."""
    level = re.compile(r"\b(LOG|INFO|NOTICE|WARNING|ERROR|FATAL):")
    lines = private.log_file.read_text(errors="replace").splitlines()
    return sum(1 for line in lines if error in line and level.search(line))


def what(sqlstate: str) -> str:
    """The error's text: the log knows it by that."""
    if sqlstate == FULL:
        return "is full"
    return f"raised on purpose: {sqlstate}"


def put_off(build: Build) -> Rows:
    """Case 6."""
    seconds = build.seconds(build.options.watch)
    with build.server({"djactor.max_workers": 4}) as private, Database(private) as db:
        yield from _always_raised(private, db, seconds)
    with build.server({"djactor.max_workers": 4}) as private, Database(private) as db:
        yield _refused(db)


def _define(db: Database) -> None:
    policy = {"max_attempts": 5, "backoff": "100 ms"}
    for sqlstate in RAISED:
        db.owner.execute(f'CREATE SEQUENCE "calls {sqlstate}"')
        db.handler(
            f"raise_{sqlstate}",
            f"""PERFORM nextval('"calls {sqlstate}"');"""
            f" RAISE EXCEPTION USING MESSAGE = '{what(sqlstate)}', ERRCODE = '{sqlstate}';",
        )
        db.define(f"bench.{sqlstate}", f"raise_{sqlstate}", **policy)
    db.owner.execute(f'CREATE SEQUENCE "calls {FULL}"')
    db.handler(
        "send_on",
        f"""IF message ? 'first' THEN PERFORM nextval('"calls {FULL}"');"""
        f" PERFORM djactor.send('bench.{FULL}', 'one') FROM generate_series(1, {OWN_LIMIT});"
        " END IF;",
    )
    db.define(f"bench.{FULL}", "send_on", mailbox_limit=OWN_LIMIT, **policy)
    db.handler("healthy", "NULL;")
    db.define("bench.healthy", "healthy")


def _always_raised(private: PrivateServer, db: Database, seconds: float) -> Rows:
    _define(db)
    db.owner.execute("SELECT djactor.pause(%s)", [f"bench.{FULL}"])
    db.send([(f"bench.{FULL}", "one", {"first": True}), (f"bench.{FULL}", "one", {})])
    db.send((f"bench.{sqlstate}", "one", {}) for sqlstate in RAISED)
    db.resume(f"bench.{FULL}")
    start = time.monotonic()
    dead: dict[str, float] = {}
    shown: dict[str, float] = {}
    while (passed := time.monotonic() - start) < seconds:
        db.send([("bench.healthy", "one", {})])
        for (actor_type,) in db.su.execute(
            "SELECT DISTINCT actor_type FROM djactor.message WHERE last_error IS NOT NULL"
        ).fetchall():
            shown.setdefault(actor_type, passed)
        for (actor_type,) in db.su.execute("SELECT actor_type FROM djactor.dead_letter").fetchall():
            dead.setdefault(actor_type, passed)
            shown.setdefault(actor_type, passed)
        time.sleep(HEALTHY_PAUSE)
    for sqlstate in (*RAISED, FULL):
        name = f"bench.{sqlstate}"
        calls = db.calls(f'"calls {sqlstate}"')
        attempts = number(
            db.su,
            "SELECT max(attempts) FROM (SELECT actor_type, attempts FROM djactor.message"
            " UNION ALL SELECT actor_type, attempts FROM djactor.dead_letter) m"
            " WHERE actor_type = %s",
            [name],
        )
        lines = log_lines(private, what(sqlstate))
        title = f"{sqlstate}, {seconds:g} s"
        yield Bounded(f"{title}: calls", "calls", [float(calls)], most=MOST_CALLS, pick="max")
        yield Bounded(f"{title}: attempts charged", "attempts", [attempts])
        yield Bounded(
            f"{title}: dead letter after",
            "s",
            [dead.get(name, NEVER)],
            most=None if sqlstate in FOR_EVER else seconds,
            pick="max",
        )
        yield Bounded(
            f"{title}: last_error shown after",
            "s",
            [shown.get(name, NEVER)],
            most=SHOWN,
            pick="max",
        )
        yield Bounded(f"{title}: lines of the log", "lines", [float(lines)], least=1, pick="min")


def _refused(db: Database) -> Bounded:
    """How many sends a mailbox refused that had room.

    The mailbox is never empty, since an empty one is forgotten with its count.
    """
    db.handler("fail", "PERFORM pg_sleep(0.005); RAISE EXCEPTION 'given up';")
    db.define(
        "bench.limited",
        "fail",
        batch_size=1,
        mailbox_limit=LIMIT,
        max_attempts=1,
        breaker_failures=1_000_000,
    )
    refused = 0
    over = time.monotonic() + PATIENCE
    while number(db.su, "SELECT count(*) FROM djactor.dead_letter") < FAILURES:
        if time.monotonic() > over:
            raise BenchmarkError(f"no {FAILURES} dead letters within {PATIENCE:g} s")
        waiting = int(number(db.su, "SELECT count(*) FROM djactor.message"))
        for _ in range(LIMIT - FREE - waiting):
            try:
                db.send([("bench.limited", "one", {})])
            except psycopg.errors.ConfigurationLimitExceeded:
                refused += 1
        time.sleep(0.005)
    return Bounded(
        f"mailbox_limit {LIMIT}, {FAILURES} dead letters: refused with {FREE} free",
        "messages",
        [float(refused)],
        most=0,
        pick="max",
    )


CASES = (Case(6, "What is put off", put_off),)
