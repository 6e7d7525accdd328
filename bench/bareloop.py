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
    create(private, dbname, shape)
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        owner.execute(
            "CREATE TABLE bare_message (LIKE djactor.message INCLUDING DEFAULTS INCLUDING IDENTITY,"
            " PRIMARY KEY (id))"
        )
        owner.execute("CREATE INDEX ON bare_message (actor_key, id)")
        owner.execute("CREATE TABLE bare_actor (LIKE djactor.actor INCLUDING ALL)")
        su.execute(
            "CREATE PROCEDURE bareloop(messages regclass, actors regclass, handler regprocedure,"
            " initial_state jsonb, batch_size int) LANGUAGE c AS '$libdir/bareloop'"
        )
        call = (
            "CALL bareloop('bare_message', 'bare_actor', 'handle(jsonb, jsonb)',"
            f" '{INITIAL_STATE}', {BATCH_SIZE})"
        )
        owner.execute("SET application_name = 'bareloop'")
        owner.execute(
            "INSERT INTO bare_message (actor_type, actor_key, payload)"
            " VALUES ('bench.counter', '0', '{\"n\": 1}')"
        )
        owner.execute(call)  # one turn, so that its caches are warm
        with connect(private, dbname) as sender:
            require(insert(sender, LOOP, shape, messages) == messages, "not all was sent")
        su.execute("VACUUM (ANALYZE) bare_message")
        su.execute("CHECKPOINT")
        pid = [owner.info.backend_pid]
        before = process_times(pid)
        start = time.time()
        owner.execute(call)
        used = process_times(pid) - before
        end = last_commit(su, LOOP)
        check_books(su, LOOP, shape, messages)
    private.sql(f"DROP DATABASE {dbname}")
    return Run(messages / (end - start), used.cpu_ns / 1000 / messages)
