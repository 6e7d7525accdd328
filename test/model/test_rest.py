"""Mail comes to rest: no wake-up is lost, whatever comes at the same time.

Elsewhere there is always more mail, and the next message makes up for a wake-up that was lost.
Here three clients do a few things at once, then nobody does anything, and everything has to be
handled; then come the next few.  They send in all ways, to types inside and hosted, and pause,
resume and redefine these, lock actors, cancel and notify.  Polling is off, and the host takes only
when it is told.  Two processes that compute keep the processors busy, so that everybody is
interrupted at any point.

The seed is printed; DJACTOR_SEED repeats the choices (not their timing).  DJACTOR_SECONDS says how
long to go on.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from private_server import PrivateServer, end_with

CLIENTS = 3
SECONDS = float(os.environ.get("DJACTOR_SECONDS", "15"))
PATIENCE = float(os.environ.get("DJACTOR_PATIENCE", "60"))  # for a burst to be handled
HOST = Path(__file__).with_name("host.py")
INSIDE, HOSTED = "rest.inside", "rest.hosted"
SCHEMA = """
    CREATE FUNCTION work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$
        SELECT jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1)
    $$;
    SELECT djactor.define_actor_type('rest.inside', 'work');
    SELECT djactor.define_actor_type('rest.hosted', NULL, hosted => true)"""


class Client:
    """A session, and what it does at random.

    Attributes:
        did: What it did in the present burst.
    """

    def __init__(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        self.did: list[str] = []
        self._connection = connection
        self._rng = rng
        self._type = self._key = ""
        self._deeds: list[Callable[[], None]] = [
            *[self.sends] * 6,
            self.sends_many,
            self.sends_for_later,
            self.sends_slowly,
            self.rolls_back,
            self.rolls_back_in_part,
            self.prepares,
            *[self.pauses_type] * 5,
            self.pauses_actor,
            self.redefines,
            self.locks,
            self.cancels,
            self.notifies,
        ]

    def act(self) -> None:
        """Do a few things."""
        self.did.clear()
        for _ in range(self._rng.randrange(1, 5)):
            self._type = self._rng.choice([INSIDE, HOSTED])
            self._key = str(self._rng.randrange(3))
            deed = self._rng.choice(self._deeds)
            self.did.append(f"{deed.__name__} {self._type} {self._key}")
            deed()

    def _call(self, function: str) -> None:
        self._connection.execute(f"SELECT djactor.{function}", {"t": self._type, "k": self._key})

    def _wait(self) -> None:
        time.sleep(self._rng.choice([0.0, self._rng.random() * 0.01]))

    def sends(self, n: int = 1, delay: int = 0) -> None:
        self._connection.execute(
            """INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at)
            SELECT %s, %s, '1', clock_timestamp() + make_interval(secs => %s / 1000.0)
            FROM generate_series(1, %s)""",
            (self._type, self._key, delay, n),
        )

    def sends_many(self) -> None:
        self.sends(self._rng.randrange(2, 200))

    def sends_for_later(self) -> None:
        self.sends(delay=self._rng.randrange(1, 60))

    def sends_slowly(self) -> None:
        with self._connection.transaction():
            self.sends()
            self._wait()

    def rolls_back(self) -> None:
        with self._connection.transaction(force_rollback=True):
            self.sends()

    def rolls_back_in_part(self) -> None:
        with self._connection.transaction():
            self.sends()
            with self._connection.transaction(force_rollback=True):
                self.sends()

    def prepares(self) -> None:
        gid = f"rest{self._rng.randrange(10**9)}"
        self._connection.execute("BEGIN")
        self.sends()
        self._connection.execute(f"PREPARE TRANSACTION '{gid}'")
        self._wait()
        self._connection.execute(f"COMMIT PREPARED '{gid}'")

    def pauses_type(self) -> None:
        self._call("pause(%(t)s)")
        self.sends()
        self._wait()
        self._call("resume(%(t)s)")

    def pauses_actor(self) -> None:
        self.sends()
        # it may not be there yet
        with contextlib.suppress(psycopg.errors.UndefinedObject):
            self._call("pause(%(t)s, %(k)s)")
            self.sends()
            self._call("resume(%(t)s, %(k)s)")

    def redefines(self) -> None:
        options = "concurrency => 1", "concurrency => NULL", "batch_size => 1", "batch_size => NULL"
        self._call(f"alter_actor_type(%(t)s, {self._rng.choice(options)})")

    def locks(self) -> None:
        with self._connection.transaction():
            self._connection.execute(
                "SELECT FROM djactor.actor WHERE actor_type = %s AND actor_key = %s FOR UPDATE",
                (self._type, self._key),
            )
            self._wait()

    def cancels(self) -> None:
        self._connection.execute(
            """SELECT djactor.cancel(id) FROM djactor.message
            WHERE actor_type = %s AND actor_key = %s LIMIT 1""",
            (self._type, self._key),
        )

    def notifies(self) -> None:
        self._connection.execute(f"NOTIFY {self._rng.choice(['djactor_host', 'elsewhere'])}")


@contextlib.contextmanager
def running(*commands: list[str]) -> Iterator[None]:
    """Processes, for as long as the block lasts."""
    processes = [
        subprocess.Popen(command, preexec_fn=end_with(os.getpid())) for command in commands
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def burst(clients: list[Client]) -> None:
    """All clients act at once.

    Raises:
        BaseException: What one of them has raised.
    """
    errors: list[BaseException] = []

    def act(client: Client) -> None:
        try:
            client.act()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=act, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_every_burst_comes_to_rest(
    workers: int, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(seed)
    settings = {
        "djactor.max_workers": workers,
        "djactor.poll_interval": "1h",
        "max_prepared_transactions": 2 * CLIENTS,
    }
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(PrivateServer(settings))
        server.sql("CREATE ROLE app LOGIN")
        server.createdb("app", owner="app")
        server.sql("CREATE EXTENSION djactor; ALTER SCHEMA public OWNER TO app", "app")
        server.sql(SCHEMA, "app", "app")
        busy = [sys.executable, "-c", "while True: pass"]
        host = [sys.executable, str(HOST), server.dsn("app", "app"), HOSTED]
        stack.enter_context(running(busy, busy, host))
        watcher, *sessions = (
            stack.enter_context(psycopg.connect(server.dsn("app", "app"), autocommit=True))
            for _ in range(1 + CLIENTS)
        )
        clients = [Client(session, random.Random(rng.random())) for session in sessions]
        bursts = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            burst(clients)
            bursts += 1
            idle = watcher.execute(
                "SELECT djactor.wait_idle(make_interval(secs => %s))", (PATIENCE,)
            ).fetchone()
            assert idle == (True,), (
                bursts,
                [client.did for client in clients],
                watcher.execute(
                    "SELECT actor_type, actor_key, aside FROM djactor.message"
                ).fetchall(),
                watcher.execute("SELECT id, state, claims FROM djactor.host").fetchall(),
            )
        with capsys.disabled():
            print(f"{bursts} bursts", flush=True)
        assert bursts > 10
        assert watcher.execute("SELECT count(*) FROM djactor.dead_letter").fetchone() == (0,)
