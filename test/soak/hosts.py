"""Kills: hosts, their sessions and the server die a thousand times; the books are right.

``make soak-hosts`` kills a thousand times, ``make soak-hosts ARGS="--kills 100"`` a hundred.  Three
hosts (``test/model/host.py``) run the turns of a hosted type, and mail keeps coming to KEYS actors.
Meanwhile hosts are killed with SIGKILL, their sessions terminated, backends of theirs killed with
SIGKILL, which takes the whole server down and up again, and states are edited by hand.

What must hold at the end:

* each message was handled once: the handler writes down its id, with its turn, in a table;
* each actor handled its messages in the order in which they were sent;
* each actor's state is the sum over its messages, and no edit by hand was lost;
* no message is a dead letter, and none is left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from private_server import PrivateServer

HOST = Path(__file__).parent.parent / "model" / "host.py"
TYPE = "soak.hosted"
KEYS = 200
HOSTS = 3
WAITING = 2000  # messages, at the least, while processes are killed
PAUSE = 0.25  # seconds between two kills
PATIENCE = 180.0  # seconds for the rest of the mail

SCHEMA = """
CREATE TABLE ledger (number bigint NOT NULL, actor_key text NOT NULL,
    serial bigint GENERATED ALWAYS AS IDENTITY);
CREATE FUNCTION work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger VALUES ((message->>'number')::bigint, (djactor.self()).actor_key);
    PERFORM pg_sleep(random() * 0.004);
    RETURN state || jsonb_build_object(
        'last', message->'number',
        'sum', coalesce((state->>'sum')::bigint, 0) + (message->>'value')::bigint,
        'disorder', coalesce((state->>'disorder')::int, 0) +
            (coalesce((state->>'last')::bigint, 0) >= (message->>'number')::bigint)::int);
END $$;
"""


class Kills:
    """One run."""

    def __init__(self, server: PrivateServer, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.sent = 0
        self.edits = 0
        self.counts = {"hosts": 0, "sessions": 0, "servers": 0}
        self.hosts: list[subprocess.Popen[bytes]] = []
        self.connection = self.connect()

    def connect(self) -> psycopg.Connection[Any]:
        end = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(self.server.dsn(), autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def start_hosts(self) -> None:
        while len(self.hosts) < HOSTS:
            command = [sys.executable, HOST, self.server.dsn(), TYPE]
            self.hosts.append(subprocess.Popen(command))

    def end_hosts(self) -> None:
        for host in self.hosts:
            host.kill()
            host.wait()
        self.hosts.clear()

    def send(self) -> None:
        """Keep mail waiting; each actor gets its messages in ascending order."""
        row = self.connection.execute("SELECT count(*) FROM djactor.message").fetchone()
        if row is None or row[0] >= WAITING:
            return
        first, last = self.sent + 1, self.sent + WAITING
        self.connection.execute(
            "INSERT INTO djactor.message (actor_type, actor_key, payload)"
            " SELECT %s, (i %% %s)::text, jsonb_build_object('number', i, 'value', i %% 7)"
            " FROM generate_series(%s::bigint, %s::bigint) i",
            (TYPE, KEYS, first, last),
        )
        self.sent = last

    def victim(self) -> int | None:
        """The backend of a host, or None."""
        row = self.connection.execute(
            "SELECT pid FROM djactor.host ORDER BY random() LIMIT 1"
        ).fetchone()
        return None if row is None else int(row[0])

    def kill(self) -> None:
        """Kill something."""
        which = self.random.random()
        if which < 0.6:
            host = self.hosts.pop(self.random.randrange(len(self.hosts)))
            host.kill()
            host.wait()
            self.counts["hosts"] += 1
        elif which < 0.95:
            pid = self.victim()
            if pid is not None:
                self.connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
                self.counts["sessions"] += 1
        else:
            pid = self.victim()
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.counts["servers"] += 1

    def edit(self) -> None:
        """Change some states by hand."""
        keys = [str(self.random.randrange(KEYS)) for _ in range(10)]
        done = self.connection.execute(
            "UPDATE djactor.actor SET state = state || jsonb_build_object("
            " 'edits', coalesce((state->>'edits')::int, 0) + 1) WHERE actor_key = ANY (%s)",
            (keys,),
        )
        self.edits += done.rowcount

    def go(self, kills: int) -> None:
        """Kill so often, while mail keeps coming."""
        said = 0
        while sum(self.counts.values()) < kills:
            try:
                self.start_hosts()
                self.send()
                self.edit()
                self.kill()
            except psycopg.OperationalError:
                # the server goes down; what an edit or a send has become is not known
                self.connection.close()
                self.connection = self.connect()
                self.count_again()
            time.sleep(self.random.random() * 2 * PAUSE)
            if sum(self.counts.values()) >= said + 100:
                said += 100
                print(f"{said} kills, {self.sent} messages sent", flush=True)

    def count_again(self) -> None:
        """What was sent and edited, according to the tables."""
        row = self.connection.execute(
            "SELECT greatest((SELECT max((payload->>'number')::bigint) FROM djactor.message),"
            " (SELECT max(number) FROM ledger), 0),"
            " (SELECT coalesce(sum((state->>'edits')::int), 0) FROM djactor.actor)"
        ).fetchone()
        assert row is not None
        self.sent, self.edits = row

    def settle(self) -> None:
        """Let the hosts handle what is left."""
        self.start_hosts()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            row = self.connection.execute("SELECT EXISTS (SELECT FROM djactor.message)").fetchone()
            if row == (False,):
                return
            time.sleep(0.2)

    def wrong(self) -> list[str]:
        """What is not as it must be."""
        row = self.connection.execute(
            "SELECT (SELECT count(*) FROM djactor.message),"
            " (SELECT count(*) FROM djactor.dead_letter),"
            " (SELECT count(*) FROM ledger), (SELECT count(DISTINCT number) FROM ledger),"
            " coalesce(sum((state->>'sum')::bigint), 0), coalesce(sum(turns), 0),"
            " coalesce(sum((state->>'disorder')::int), 0), coalesce(sum((state->>'edits')::int), 0)"
            " FROM djactor.actor"
        ).fetchone()
        assert row is not None
        names = ("left", "dead", "handled", "different", "sum", "turns", "disorder", "edits")
        total = sum(i % 7 for i in range(1, self.sent + 1))
        expected = (0, 0, self.sent, self.sent, total, self.sent, 0, self.edits)
        return [
            f"{name}: {is_}, not {should}"
            for name, is_, should in zip(names, row, expected, strict=True)
            if is_ != should
        ]


def main() -> int:
    """Run it; the result is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    settings = {"djactor.max_crashes": 1000, "max_worker_processes": 16}
    with PrivateServer(settings) as server:
        server.sql("CREATE EXTENSION djactor")
        server.sql(SCHEMA)
        server.sql(f"SELECT djactor.define_actor_type('{TYPE}', NULL, hosted => true)")
        run = Kills(server, options.seed)
        try:
            run.go(options.kills)
            run.settle()
            wrong = run.wrong()
        finally:
            run.end_hosts()
        print(f"{run.counts}, {run.sent} messages, {run.edits} edits", flush=True)
        print("\n".join(wrong) or "all is right")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
