"""Routed: what a message costs that goes to an actor of another node, beside one that stays.

What: CPU of both servers for each message, sent and handled by a small SQL handler, by
1,000 in an INSERT, one in a transaction, and one in a transaction that also writes a row of the
sender's: into ``djactor.message`` and into ``djactor_cluster.message`` for the sender's own node,
and into the latter for the other node, by the transports ``outbox``, ``direct`` and, where the
server has it, ``citus``, which commits the last of these in two phases.

Promised is that by ``citus`` a message of 1,000 costs at most three times, and one by itself at
most four times, what it costs by ``djactor.message`` in such a transaction.  The outbox writes each
message three times, and postgres_fdw makes each row parameters of an INSERT: these are without a
promise.

How: two servers, each with one worker; the actors are on one of them or the other.  CPU is the
kernel's account of all processes of both servers, also of those that have ended, by the number of
messages.  The cases take turns in each run.  Commits are durable.

Which way it errs: what the servers do for themselves, as a maintenance daemon does, is in the
figures.  It is little beside some thousand messages.

What would make it dishonest: messages that are not handled (they are counted), or a connection to
the other node that is made anew for each (a session sends them all, as a web application would).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common import (
    Connection,
    Options,
    Result,
    connect,
    create_database,
    number,
    require,
    server,
)
from private_server import PrivateServer

NAME = "routed"
BULK = 1_000  # messages of an INSERT
ACTORS = 100
MOST_BULK, MOST_SINGLE = 3.0, 4.0  # times what a local message costs
HANDLER = """CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1)
$$"""
INSERT = """INSERT INTO {table} (actor_type, actor_key, payload)
    SELECT 'bench.type', '@{node}/' || g %% {actors}, '{{"a": 1}}' FROM generate_series(1, %s) g"""


NOTE = "INSERT INTO note (said) VALUES ('sent')"


@dataclass(frozen=True)
class Way:
    """How many messages a transaction sends, and what else it does."""

    title: str
    each: int
    statements: int
    most: float  # times what a local message costs
    noted: bool = False  # it writes a row of the sender's


@dataclass(frozen=True)
class Case:
    """Where messages go, and how."""

    title: str
    table: str
    node: int  # of the actors
    bounded: bool = True


class Cluster:
    """Two servers; messages are sent on the first."""

    def __init__(self, stack: ExitStack, result: Result, transport: str) -> None:
        libraries = "citus, djactor" if transport == "citus" else "djactor"
        settings: dict[str, str | int] = {
            "shared_preload_libraries": libraries,
            "djactor.poll_interval": "1h",
            "djactor.idle_timeout": "1h",
            "djactor.max_workers": 1,
            "max_worker_processes": 20,
            "autovacuum": "off",
        }
        if transport == "citus":
            settings |= {"max_prepared_transactions": 50, "wal_level": "logical"}
        self.transport = transport
        self.servers = [stack.enter_context(server(result, settings)) for _ in range(2)]
        for private in self.servers:
            create_database(private, "bench")
            with connect(private, "bench") as owner:
                owner.execute(HANDLER)
                owner.execute("CREATE TABLE note (said text)")
                owner.execute("SELECT djactor.define_actor_type('bench.type', 'handle')")
            private.sql("CREATE EXTENSION djactor_cluster CASCADE", "bench")
        if transport == "citus":
            self._join_citus()
        else:
            self._join(transport)
        self.numbers = [
            int(private.sql("SELECT djactor_cluster.this_node()", "bench"))
            for private in self.servers
        ]
        self.sessions = [stack.enter_context(connect(private, "bench")) for private in self.servers]

    def _join(self, transport: str) -> None:
        for here, private in enumerate(self.servers, 1):
            there = 3 - here
            private.sql(
                f"""SELECT djactor_cluster.set_up({here}, '{{1,2}}', 'bench');
                CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (
                    host '{self.servers[there - 1].host}', port '{private.port}', dbname 'bench');
                CREATE USER MAPPING FOR bench SERVER other
                    OPTIONS (user 'bench', password_required 'false');
                SELECT djactor_cluster.add_node({there}, 'other', '{transport}')""",
                "bench",
            )

    def _join_citus(self) -> None:
        for private in self.servers:
            private.sql(f"ALTER SYSTEM SET citus.local_hostname = '{private.host}'", "bench")
            private.sql("SELECT pg_reload_conf()", "bench")
            private.sql("CREATE EXTENSION citus", "bench")
        first, second = self.servers
        first.sql(f"SELECT citus_set_coordinator_host('{first.host}', {first.port})", "bench")
        first.sql(f"SELECT citus_add_node('{second.host}', {second.port})", "bench")
        first.sql(
            "CALL djactor_cluster.set_up_citus('bench',"
            """ user_options => '{"password_required": "false"}')""",
            "bench",
        )

    def cases(self) -> list[Case]:
        """Those of the transport; those of the own node are measured beside each."""
        here, there = self.numbers
        return [
            Case("djactor.message", "djactor.message", here),
            Case("djactor_cluster.message, own node", "djactor_cluster.message", here, False),
            Case(f"{self.transport}", "djactor_cluster.message", there, self.transport == "citus"),
        ]

    def turns(self) -> float:
        """Of all actors."""
        query = "SELECT coalesce(sum(turns), 0) FROM djactor.actor WHERE actor_type = 'bench.type'"
        return sum(number(session, query) for session in self.sessions)

    def wait(self) -> None:
        """Until no message waits."""
        waiting = """SELECT count(*) FROM (SELECT FROM djactor.message
            UNION ALL SELECT FROM djactor_cluster.message) waiting"""
        while any(number(session, waiting) for session in self.sessions):
            self.sessions[0].execute("SELECT pg_sleep(0.05)")

    def cost(self, case: Case, way: Way, statements: int) -> float:
        """CPU (µs) of a message, sent by so many INSERTs."""
        before, used = self.turns(), self._cpu()
        sql = INSERT.format(table=case.table, node=case.node, actors=ACTORS)
        for _ in range(statements):
            send(self.sessions[0], sql, way)
        while self.turns() - before < statements * way.each:
            self.sessions[0].execute("SELECT pg_sleep(0.05)")
        used = self._cpu() - used
        self.wait()
        sent = statements * way.each
        require(self.turns() - before == sent, "messages were lost, or doubled")
        return used / 1000 / sent

    def _cpu(self) -> float:
        return sum(cpu_ns(private.pid or 0) for private in self.servers)


def send(owner: Connection, sql: str, way: Way) -> None:
    """One INSERT, which commits."""
    if not way.noted:
        owner.execute(sql, [way.each])
        return
    with owner.transaction():
        owner.execute(NOTE)
        owner.execute(sql, [way.each])


def cpu_ns(postmaster: int) -> float:
    """CPU of a server's processes, those that have ended included."""
    tick = 1e9 / os.sysconf("SC_CLK_TCK")
    fields = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    total = sum(int(field) for field in fields[11:15]) * tick
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return total + sum(
        int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) for child in children
    )


def has_citus(private: PrivateServer) -> bool:
    """Whether the server under test has Citus."""
    return private.sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'") == "1"


def run(options: Options) -> Result:
    """Measure each transport beside local messages."""
    result = Result(NAME, "Messages to actors of another node")
    bulks, singles = (2, 20) if options.quick else (20, 500)
    ways = [
        Way("1,000 a transaction", BULK, bulks, MOST_BULK),
        Way("1 a transaction", 1, singles, MOST_SINGLE),
        Way("1 a transaction, with a row", 1, singles, MOST_SINGLE, noted=True),
    ]
    with ExitStack() as stack:
        clusters = [Cluster(stack, result, "outbox"), Cluster(stack, result, "direct")]
        if has_citus(clusters[0].servers[0]):
            clusters.append(Cluster(stack, result, "citus"))
        for way in ways:
            for cluster in clusters:
                for case in cluster.cases():
                    cluster.cost(case, way, 3)  # workers come, and connections
            costs: dict[tuple[str, Case], list[float]] = {}
            for _ in range(options.runs):
                for cluster in clusters:
                    for case in cluster.cases():
                        costs.setdefault((cluster.transport, case), []).append(
                            cluster.cost(case, way, way.statements)
                        )
            report(result, way, costs)
    return result


def report(result: Result, way: Way, costs: dict[tuple[str, Case], list[float]]) -> None:
    """Adds the figures of one way of sending, and its promises."""
    local = 0.0
    for (transport, case), values in costs.items():
        title = f"{way.title}: {case.title}"
        if case.title != transport:
            title += f" (beside {transport})"
        median = result.add(title, "µs of CPU", values).median
        if case.table == "djactor.message":
            local = median
        elif case.bounded:
            result.promise(
                f"{way.title}, by {transport}: {median / local:.2f} times"
                f" a local message (at most {way.most:.0f})",
                median <= way.most * local,
            )
