"""Prepared: what a message costs that is sent in two phases, as clusters send them.

What: CPU of the sender's session and of djactor's processes for each message, with
0, 100 and 400 further actor types in the database, of which none has mail.  Each
message is sent in a transaction of its own, by

prepared    PREPARE TRANSACTION and COMMIT PREPARED;
plain       an ordinary commit, to compare with.

Promised is that further types cost next to nothing: COMMIT PREPARED pushes the mailboxes
that its transaction has sent to, and sweeps no type queue.

How: one session sends so many messages to one hundred actors, as fast as it can, and waits
until they are handled.  CPU is the kernel's account of the session's process and of
launcher and worker in that time, by the number of messages.  Ways to send and
numbers of types take turns in each run.

What would make it dishonest: a worker that is still occupied with the sweeps that follow
the definition of a type (the pool is waited for before each run); gids that the server
does not know (none is started anew in between).
"""

from __future__ import annotations

import time

from common import (
    Options,
    Result,
    admin,
    connect,
    create_database,
    djactor_pids,
    number,
    process_times,
    require,
    server,
)
from private_server import PrivateServer

NAME = "prepared"
TYPES = (0, 100, 400)
ACTORS = 100
MOST = 1.25  # of the CPU with no further types

HANDLER = """CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql
AS $$ BEGIN RETURN state; END $$"""


def database(types: int) -> str:
    """The name of the database with so many further types."""
    return f"bench{types}"


def prepare(private: PrivateServer, types: int) -> None:
    """Make a database with a type that gets mail, and so many others."""
    create_database(private, database(types))
    with connect(private, database(types)) as owner:
        owner.execute(HANDLER)
        owner.execute("SELECT djactor.define_actor_type('bench.type', 'handle')")
        owner.execute(
            "SELECT count(djactor.define_actor_type('bench.further' || i, 'handle'))"
            " FROM generate_series(1, %s) i",
            [types],
        )


def cost(private: PrivateServer, types: int, messages: int, phases: int) -> float:
    """CPU (µs) of a message, sent in one phase or two."""
    dbname = database(types)
    send = "SELECT djactor.send('bench.type', %s)"
    with connect(private, dbname) as owner, admin(private, dbname) as su:
        owner.execute(send, ["first"], prepare=True)
        owner.execute("SELECT djactor.wait_idle('30 s')")
        time.sleep(0.5)  # sweeps, and what the launcher does
        turns = number(su, "SELECT sum(turns) FROM djactor.actor")
        pids = [*djactor_pids(su), owner.info.backend_pid]
        before = process_times(pids)
        for i in range(messages):
            owner.execute("BEGIN")
            owner.execute(send, [f"k{i % ACTORS}"], prepare=True)
            if phases == 2:
                owner.execute(f"PREPARE TRANSACTION 'bench {i}'")
                owner.execute(f"COMMIT PREPARED 'bench {i}'")
            else:
                owner.execute("COMMIT")
        done = owner.execute("SELECT djactor.wait_idle('60 s')").fetchone()
        used = process_times(pids) - before
        require(done == (True,), "messages wait")
        require(djactor_pids(su) == pids[:-1], "processes of djactor came or went")
        handled = number(su, "SELECT sum(turns) FROM djactor.actor") - turns
        require(handled == messages, f"{messages} sent, {handled:.0f} handled")
    return used.cpu_ns / 1000 / messages


def run(options: Options) -> Result:
    """Measure both ways to send, with ever more types."""
    result = Result(NAME, "Messages that are sent by COMMIT PREPARED")
    messages = 100 if options.quick else 1_000
    settings: dict[str, str | int] = {
        "djactor.poll_interval": "1h",
        "djactor.idle_timeout": "1h",
        "djactor.max_workers": len(TYPES),
        "max_prepared_transactions": 10,
        "autovacuum": "off",
    }
    costs: dict[tuple[int, int], list[float]] = {}
    with server(result, settings) as private:
        for types in TYPES:
            prepare(private, types)
        for _ in range(options.runs):
            for phases in (1, 2):
                for types in TYPES:
                    value = cost(private, types, messages, phases)
                    costs.setdefault((phases, types), []).append(value)
    medians = {}
    for (phases, types), values in costs.items():
        how = "prepared" if phases == 2 else "plain"
        figure = result.add(f"{how}, {types} further types", "µs of CPU", values)
        medians[phases, types] = figure.median
    most = max(TYPES)
    ratio = medians[2, most] / medians[2, 0]
    result.promise(
        f"with {most} further types a prepared message costs {ratio:.2f} times what it costs"
        f" with none (at most {MOST})",
        ratio <= MOST,
    )
    return result
