"""The yardstick: the same work by a bare loop, which djactor is compared with.

The loop is yardstick/bareloop.c, whose head says what it does and what it does
without.  It is compiled here and installed into the private copy of the server that
the benchmarks run on, so nothing has to be prepared.

Its tables are ``bare_message``, with all columns and defaults of ``djactor.message``,
so that the same rows are read, and indexes on (id) and on (actor_key, id); and ``bare_actor``,
LIKE ``djactor.actor`` with indexes and fillfactor.  A batch has as many messages as one of
djactor's may have.  What favours the loop: two indexes instead of three, the second one
on plain columns; no row in ``actor_identity`` for a new actor; messages of an actor are read
in a row, so few actors are written in each batch; nobody listens for new mail.

What would make the comparison dishonest: a loop that does less than the job (its books
are checked as those of djactor are), or one made slow so that a ratio looks well.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from common import BenchmarkError, admin, connect, process_times, require
from private_server import PrivateServer
from workload import INITIAL_STATE, LOOP, Run, Shape, check_books, create, insert, last_commit

SOURCE = Path(__file__).resolve().parent / "yardstick"
BATCH_SIZE = 1_000  # djactor.batch_size, its default


def build(private: PrivateServer) -> None:
    """Compile the loop and install it where this server looks for modules."""
    arguments = ["-f", str(SOURCE / "Makefile"), f"PG_CONFIG={private.bindir / 'pg_config'}"]
    # Options of a make above us are not meant for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment.pop("MFLAGS", None)
    with tempfile.TemporaryDirectory(dir=os.environ.get("DJACTOR_TMPDIR")) as directory:
        made = subprocess.run(
            ["make", "-s", "-C", directory, *arguments, "install"],
            capture_output=True,
            text=True,
            env=environment,
        )
    if made.returncode != 0:
        raise BenchmarkError(f"the yardstick was not built:\n{made.stdout}{made.stderr}")


def run_once(private: PrivateServer, dbname: str, shape: Shape, messages: int) -> Run:
    """One run in a new database; the clock starts just before the CALL is sent."""
    with Loop(private, dbname, shape, messages) as loop:
        start = time.time()
        cpu_ns = loop.call()
        end = loop.check()
    return Run(messages / (end - start), cpu_ns / 1000 / messages)


def run_side_by_side(
    private: PrivateServer, dbname: str, shape: Shape, messages: int, loops: int
) -> Run:
    """Several loops at once, each with its share of the messages in a database of its own.

    What they reach beside what one reaches is all that this machine has for a second
    process of this kind: the loops share no table, no lock and no row.
    """
    share = messages // loops
    with ExitStack() as stack, ThreadPoolExecutor(loops) as threads:
        all_loops = [
            stack.enter_context(Loop(private, f"{dbname}_{n}", shape, share)) for n in range(loops)
        ]
        start = time.time()
        cpu_ns = sum(threads.map(Loop.call, all_loops))
        end = max(loop.check() for loop in all_loops)
    return Run(share * loops / (end - start), cpu_ns / 1000 / (share * loops))


class Loop:
    """A bare loop in a new database, its messages waiting and its caches warm."""

    def __init__(self, private: PrivateServer, dbname: str, shape: Shape, messages: int) -> None:
        self.private, self.dbname, self.shape, self.messages = private, dbname, shape, messages
        self.stack = ExitStack()

    def __enter__(self) -> Loop:
        create(self.private, self.dbname, self.shape)
        self.owner = self.stack.enter_context(connect(self.private, self.dbname))
        self.su = self.stack.enter_context(admin(self.private, self.dbname))
        self.owner.execute(
            "CREATE TABLE bare_message (LIKE djactor.message INCLUDING DEFAULTS INCLUDING IDENTITY,"
            " PRIMARY KEY (id))"
        )
        self.owner.execute("CREATE INDEX ON bare_message (actor_key, id)")
        self.owner.execute("CREATE TABLE bare_actor (LIKE djactor.actor INCLUDING ALL)")
        self.su.execute(
            "CREATE PROCEDURE bareloop(messages regclass, actors regclass, handler regprocedure,"
            " initial_state jsonb, batch_size int) LANGUAGE c AS '$libdir/bareloop'"
        )
        self.owner.execute("SET application_name = 'bareloop'")
        self.owner.execute(
            "INSERT INTO bare_message (actor_type, actor_key, payload)"
            " VALUES ('bench.counter', '0', '{\"n\": 1}')"
        )
        self.call()  # one turn, so that its caches are warm
        with connect(self.private, self.dbname) as sender:
            sent = insert(sender, LOOP, self.shape, self.messages)
            require(sent == self.messages, "not all was sent")
        self.su.execute("VACUUM (ANALYZE) bare_message")
        self.su.execute("CHECKPOINT")
        return self

    def call(self) -> int:
        """Handle what waits; the nanoseconds of CPU that it took."""
        pid = [self.owner.info.backend_pid]
        before = process_times(pid)
        self.owner.execute(
            "CALL bareloop('bare_message', 'bare_actor', 'handle(jsonb, jsonb)',"
            f" '{INITIAL_STATE}', {BATCH_SIZE})"
        )
        return (process_times(pid) - before).cpu_ns

    def check(self) -> float:
        """Check the books; the time of the last commit."""
        check_books(self.su, LOOP, self.shape, self.messages)
        return last_commit(self.su, LOOP)

    def __exit__(self, *_error: object) -> None:
        self.stack.close()
        self.private.sql(f"DROP DATABASE {self.dbname}")
