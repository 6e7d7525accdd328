"""Nodes: what a message costs on the nodes of a cluster, if keys talk locally.

What: CPU of the senders' sessions and of djactor's processes for each message, in a database
alone and on clusters of 1, 2 and 4 nodes that all work at once.  Pairs of actors, both on the
same node, send a message to and fro with ``djactor.send()``: each turn asks where a key lives.

Promised is that the rate for each second of CPU on any number of nodes is 0.8 of that of the
database alone.  So machines bring what they cost, as long as keys that talk are on one of them.

How: the nodes are databases of one server, each with one worker.  The machines of a real cluster
share nothing; here they share caches, buffers and the disk, so the error goes against djactor.
CPU is the kernel's account of the processes, by the number of messages.  The clusters take
turns in each run.

What would make it dishonest: workers that come or go (each database has its own, and there is no
place for more); messages that are not handled (they are counted).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from common import (
    Connection,
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

NAME = "nodes"
NODES = (1, 2, 4)
PAIRS = 100  # on each node
LEAST = 0.8  # of the rate of a database alone

HANDLER = """CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF (message->>'hops')::int > 0 THEN
        PERFORM djactor.send('bench.type', message->>'other', jsonb_build_object(
            'hops', (message->>'hops')::int - 1, 'other', (djactor.self()).actor_key));
    END IF;
    RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
END $$"""
START = """SELECT count(djactor.send('bench.type', %(node)s || 'a' || k,
    jsonb_build_object('hops', %(hops)s::int, 'other', %(node)s || 'b' || k)))
    FROM generate_series(1, %(pairs)s) k"""


def databases(nodes: int) -> list[str]:
    """The names of a cluster's databases; 0 nodes are a database alone."""
    return [f"nodes{nodes}_{number}" for number in range(1, nodes + 1)] or ["alone"]


def prepare(private: PrivateServer, nodes: int) -> None:
    """Make the databases, and connect them."""
    names = databases(nodes)
    numbers = ",".join(str(i) for i in range(1, nodes + 1))
    for name in names:
        create_database(private, name)
        with connect(private, name) as owner:
            owner.execute(HANDLER)
            # one worker is enough for it, so none comes from another database's place
            owner.execute(
                "SELECT djactor.define_actor_type('bench.type', 'handle', concurrency => 1)"
            )
    for here in range(1, nodes + 1):
        sql = "CREATE EXTENSION djactor_cluster CASCADE;"
        sql += f"SELECT djactor_cluster.set_up({here}, '{{{numbers}}}', 'bench');"
        for there in range(1, nodes + 1):
            if there != here:
                sql += f"""
                    CREATE SERVER node{there} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (
                        host '{private.host}', port '{private.port}', dbname '{names[there - 1]}');
                    CREATE USER MAPPING FOR bench SERVER node{there}
                        OPTIONS (user 'bench', password_required 'false');
                    SELECT djactor_cluster.add_node({there}, 'node{there}');"""
        private.sql(sql, names[here - 1])


def start(owner: Connection, node: int, hops: int, pairs: int = PAIRS) -> None:
    """Send to a node, and wait until all is handled."""
    owner.execute(START, {"node": f"@{node}/", "hops": hops, "pairs": pairs})
    done = owner.execute("SELECT djactor.wait_idle('120 s')").fetchone()
    require(done == (True,), "messages wait")


def cost(private: PrivateServer, nodes: int, hops: int) -> float:
    """CPU (µs) of a message, with all nodes at work."""
    with ExitStack() as stack:
        names = databases(nodes)
        owners = [stack.enter_context(connect(private, name)) for name in names]
        sus = [stack.enter_context(admin(private, name)) for name in names]
        for node, owner in enumerate(owners, 1):
            start(owner, node, 1)
        turns = "SELECT sum(turns) FROM djactor.actor WHERE actor_type = 'bench.type'"
        before = [number(su, turns) for su in sus]
        pids = [*djactor_pids(sus[0]), *(owner.info.backend_pid for owner in owners)]
        times = process_times(pids)
        with ThreadPoolExecutor(len(owners)) as pool:
            list(pool.map(lambda one: start(one[1], one[0], hops), enumerate(owners, 1)))
        used = process_times(pids) - times
        require(djactor_pids(sus[0]) == pids[: -len(owners)], "processes of djactor came or went")
        handled = sum(number(su, turns) for su in sus) - sum(before)
        messages = PAIRS * (hops + 1) * len(owners)
        require(handled == messages, f"{messages} sent, {handled:.0f} handled")
    return used.cpu_ns / 1000 / messages


def run(options: Options) -> Result:
    """Measure a database alone, and clusters."""
    result = Result(NAME, "Messages between keys of one node, on clusters")
    hops = 9 if options.quick else 199
    settings: dict[str, str | int] = {
        "djactor.poll_interval": "1h",
        "djactor.idle_timeout": "1h",
        "djactor.max_workers": 1 + sum(NODES),
        "max_worker_processes": 20,
        "autovacuum": "off",
    }
    costs: dict[int, list[float]] = {}
    with server(result, settings) as private:
        for nodes in (0, *NODES):
            prepare(private, nodes)
            for node, name in enumerate(databases(nodes), 1):
                with connect(private, name) as owner:
                    start(owner, node, 0, 1)  # its worker comes, and stays
        for _ in range(options.runs):
            for nodes in (0, *NODES):
                costs.setdefault(nodes, []).append(cost(private, nodes, hops))
    medians = {}
    for nodes, values in costs.items():
        name = f"{nodes} node{'s' if nodes > 1 else ''}" if nodes else "a database alone"
        medians[nodes] = result.add(name, "µs of CPU", values).median
    for nodes in NODES:
        ratio = medians[0] / medians[nodes]
        result.promise(
            f"with {nodes} node{'s' if nodes > 1 else ''} the rate for each second of CPU is"
            f" {ratio:.2f} of that of a database alone (at least {LEAST})",
            ratio >= LEAST,
        )
    return result
