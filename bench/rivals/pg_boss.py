"""pg-boss: Node.js, fetches by polling, in batches if asked to.

Order per key: a queue of the policy ``key_strict_fifo`` with a ``singletonKey`` for each job.  A
batch has at most one job of each key then.  Preload is its own ``insert()``, 10,000 jobs at a
time.

The default polls each two seconds for one job.  Tuned: batches of 500 that follow each other
without a pause while they are full; the handler of a batch updates all its rows with one
statement.  For the hot key a batch cannot have more than one job; there two workers go on without
a pause as long as the queue's statistics, which are refreshed each second, say that jobs are
ready.
"""

from __future__ import annotations

from common import number
from rivals import installing
from rivals.programs import Program, run_program
from rivals.protocol import KEYS, Case, Plan, Rival, Site, Worker

_BATCHES: dict[str, object] = {
    "batchSize": 500,
    "localConcurrency": 4,
    "burstWhenBatchFull": True,
    "pollingIntervalSeconds": 0.5,
}
_STATISTICS = dict.fromkeys(
    ("monitorIntervalSeconds", "superviseIntervalSeconds", "queueCacheIntervalSeconds"), 1
)
_KEYS: dict[str, object] = {**_BATCHES, "localConcurrency": 2}
_TUNED: dict[str, dict[str, object]] = {
    "keys": _KEYS,
    "snapshot": _KEYS,
    "hot": {
        "localConcurrency": 2,
        "burstWhenReadyExceeds": 1,
        "pollingIntervalSeconds": 0.5,
        "boss": _STATISTICS,
    },
}


class PgBoss(Rival):
    """See above."""

    name = "pg-boss"
    about = "durable; effect and acknowledgement in two commits"

    def install(self) -> str:
        """From npm, with the Node that it needs."""
        self._home, self._node = installing.npm("pg_boss")
        return installing.npm_version(self._home, "pg-boss")

    def plan(self, variant: str, case: Case) -> Plan:
        """See the settings above."""
        order = "per key (key_strict_fifo)" if case.keys else ""
        if variant == "default":
            return Plan(100, {}, order)
        messages = {"noop": 80_000, "hot": 600, "sleep": 80_000}.get(case.name, 15_000)
        return Plan(messages, _TUNED.get(case.name, _BATCHES), order)

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """It makes its schema when it starts, in preload()."""

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """Schema, queue, jobs."""
        config = {
            "mode": "preload",
            "url": site.url(),
            "settings": {},
            "policy": "key_strict_fifo" if case.keys else "standard",
            "messages": plan.messages,
            "keys": case.keys or KEYS,
        }
        run_program([self._node, self._home / "worker.mjs"], config, site.directory)

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """One Node process."""
        config = {"url": site.url(), "handler": case.handler, "settings": plan.settings}
        command = [self._node, self._home / "worker.mjs"]
        worker = Program(command, {"mode": "work", **config}, site.directory)
        worker.wait_ready()
        return worker

    _LEFT = "FROM pgboss.job WHERE name = 'bench' AND state < 'completed'"

    def left(self, site: Site) -> int:
        """A job that is done stays, as completed."""
        return int(number(site.owner, f"SELECT count(*) {self._LEFT}"))

    def any_left(self, site: Site) -> bool:
        """Whether there is any."""
        return bool(number(site.owner, f"SELECT EXISTS (SELECT {self._LEFT})::int"))
