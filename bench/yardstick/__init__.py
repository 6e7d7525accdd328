"""The bare loop of yardstick.c: built, given the same messages, and timed.

What it is and what it leaves out stands at the head of yardstick.c.  It runs in
the session that calls it, not in a worker, on tables of its own in the same
server, so it meets the same disk, the same settings and the same minute as
djactor's run beside it.

The clock starts just before the CALL is sent and stops at the commit of the
actor row that was written last, as it does for djactor.  The books are checked
the same way: every actor's state is the sum of what it was sent, no message is
left.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from common import OWNER, BenchmarkError, admin, connect, number, require, scalar
from private_server import PrivateServer

HERE = Path(__file__).resolve().parent
BATCH = 1_000  # as djactor.batch_size


def build(directory: str | None = None) -> Path:
    """Compile the module for the server at hand; a directory of its own, which stays.

    Raises BenchmarkError with the compiler's words.
    """
    where = Path(tempfile.mkdtemp(dir=directory or os.environ.get("DJACTOR_TMPDIR")))
    config = Path(os.environ["DJACTOR_PREFIX"]) / "pg_config"
    command = ["make", "-f", str(HERE / "Makefile"), f"PG_CONFIG={config}", "with_llvm=no"]
    made = subprocess.run(command, cwd=where, capture_output=True, text=True)
    if made.returncode != 0:
        raise BenchmarkError(f"the bare loop cannot be compiled:\n{made.stdout}{made.stderr}")
    where.chmod(0o755)
    return where / "yardstick.so"


def prepare(private: PrivateServer, dbname: str, library: Path, handler: str) -> None:
    """Empty tables and the procedure, in a database that has djactor and ``written``.

    handler is what follows CREATE FUNCTION f(state jsonb, message jsonb).
    """
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        owner.execute(
            f"CREATE FUNCTION handle_bare(state jsonb, message jsonb) {handler} LANGUAGE plpgsql"
        )
        owner.execute(
            """
            CREATE TABLE yardstick_actor
                (actor_key text COLLATE "C" NOT NULL, state jsonb NOT NULL, turns bigint NOT NULL)
                WITH (fillfactor = 50);
            CREATE INDEX yardstick_actor_key ON yardstick_actor (actor_key)"""
        )
        su.execute(
            f"""
            CREATE TABLE yardstick_message (LIKE djactor.message INCLUDING DEFAULTS);
            ALTER TABLE yardstick_message OWNER TO {OWNER};
            CREATE INDEX yardstick_message_key ON yardstick_message (actor_key, id);
            CREATE PROCEDURE yardstick_run(handler regprocedure, batch int, keeps_state boolean)
                LANGUAGE c AS '{library}', 'yardstick_run'"""
        )


def run_once(private: PrivateServer, dbname: str, actors: int, messages: int, keeps: bool) -> float:
    """Messages a second of one run; the tables are filled before and empty afterwards."""
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        owner.execute("TRUNCATE yardstick_actor, yardstick_message")
        owner.execute(
            """INSERT INTO yardstick_actor SELECT i::text, '{"total": 0}', 0"""
            f" FROM generate_series(0, {actors - 1}) i"
        )
        owner.execute(
            f"""
            INSERT INTO yardstick_message (id, actor_type, actor_key, payload)
            SELECT i, 'bench.counter', (i % {actors})::text, jsonb_build_object('n', i % 7 + 1)
            FROM generate_series(1, {messages}) i"""
        )
        su.execute("VACUUM (ANALYZE) yardstick_message")
        su.execute("VACUUM (ANALYZE) yardstick_actor")
        su.execute("CHECKPOINT")
        start = time.time()
        owner.execute(f"CALL yardstick_run('handle_bare(jsonb, jsonb)', {BATCH}, {keeps})")
        end = number(
            su,
            "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) FROM yardstick_actor",
        )
        left = number(su, "SELECT count(*) FROM yardstick_message")
        turns = number(su, "SELECT sum(turns) FROM yardstick_actor")
        require(left == 0 and turns == messages, f"the bare loop: {left} left, {turns} turns")
        if not keeps:
            total = scalar(su, "SELECT sum((state->>'total')::bigint) FROM yardstick_actor")
            expected = sum(i % 7 + 1 for i in range(1, messages + 1))
            require(total == expected, f"the bare loop: the states sum up to {total}")
    return messages / (end - start)
