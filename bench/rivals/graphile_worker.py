"""graphile-worker: Node.js, one transaction to fetch and one to complete, or batches of both.

Order per key: jobs of one ``queueName`` run one after the other.  Preload is its own
SQL function ``add_jobs``, which takes an array.

Tuned after its page "Performance": concurrent jobs, a local queue, completions in batches, no log
line for each success.  With a job queue for each key a fetch gives at most one job of each, and
the next job of a queue is found by polling; so for the hot key it polls each millisecond, one job
at a time, which was the fastest of several settings (longer local queues and more jobs at a time
only add to the polling).
"""

from __future__ import annotations

from common import number
from rivals import installing
from rivals.programs import Program, run_program
from rivals.protocol import KEYS, Case, Plan, Rival, Site, Worker

_TUNED: dict[str, object] = {
    "concurrentJobs": 24,
    "maxPoolSize": 25,
    "localQueue": {"size": 500, "refetchDelay": {"durationMs": 10}},
    "completeJobBatchDelay": 0,
    "failJobBatchDelay": 0,
}
_TUNED_HOT: dict[str, object] = {"pollInterval": 1}


class GraphileWorker(Rival):
    """See above."""

    name = "graphile-worker"
    about = "durable; effect and acknowledgement in two commits"

    def install(self) -> str:
        """From npm, with the Node that it needs."""
        self._home, self._node = installing.npm("graphile_worker")
        return installing.npm_version(self._home, "graphile-worker")

    def plan(self, variant: str, case: Case) -> Plan:
        """See the settings above."""
        order = "per key (queueName)" if case.keys else ""
        if variant == "default":
            return Plan({"sleep": 250}.get(case.handler, 3_000), {}, order)
        settings = {**(_TUNED_HOT if case.keys == 1 else _TUNED), "NO_LOG_SUCCESS": "1"}
        messages = {"noop": 60_000, "hot": 600, "sleep": 5_000}.get(case.name, 8_000)
        return Plan(messages, settings, order)

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """Its migrations."""
        config = {"mode": "migrate", "url": site.url(), "settings": {}}
        run_program([self._node, self._home / "worker.mjs"], config, site.directory)

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """One call of add_jobs."""
        key = f"(i % {case.keys or KEYS})::text"
        queue = key if case.keys else "NULL"
        site.owner.execute(
            f"""SELECT count(*) FROM graphile_worker.add_jobs((
                SELECT array_agg((
                    'bench', json_build_object('key', {key}, 'n', i % 7 + 1), {queue},
                    NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec ORDER BY i)
                FROM generate_series(1, {plan.messages}) i))"""
        )

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """One Node process."""
        settings = {k: v for k, v in plan.settings.items() if k != "NO_LOG_SUCCESS"}
        env = {"NO_LOG_SUCCESS": "1"} if "NO_LOG_SUCCESS" in plan.settings else {}
        config = {"url": site.url(), "handler": case.handler, "settings": settings}
        command = [self._node, self._home / "worker.mjs"]
        worker = Program(command, {"mode": "work", **config}, site.directory, env)
        worker.wait_ready()
        return worker

    def left(self, site: Site) -> int:
        """A job that is done is deleted."""
        return int(number(site.owner, "SELECT count(*) FROM graphile_worker._private_jobs"))

    def any_left(self, site: Site) -> bool:
        """Whether there is any."""
        query = "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)::int"
        return bool(number(site.owner, query))
