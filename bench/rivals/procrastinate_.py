"""Procrastinate: Python, asyncio, fetches and finishes one job at a time.

Order per key: jobs with the same ``lock`` run one after the other.  Preload is its own SQL function
``procrastinate_defer_jobs_v1``, which takes an array; it is what ``batch_defer`` calls.

The default is one job at a time, polling each 5 s.  Tuned: two processes, since one uses one core
and is limited by it (Celery has two by default), 20 jobs at a time in each, jobs deleted when they
are done, a connection for each; where there are locks the next job of a lock is found by polling,
so that is set to 10 ms.  In the case ``orm`` the task is a sync function, which Procrastinate runs
in asyncio's pool of threads, with Django's connections, which stay open.  For the one hot key
several at a time are slower than one, which has nothing to wait for.
"""

from __future__ import annotations

from common import number, require
from rivals import installing
from rivals.programs import Program, Several, run_program
from rivals.protocol import DJANGO_PROJECT, KEYS, Case, Plan, Rival, Site, Worker

_TUNED: dict[str, object] = {
    "processes": 2,
    "concurrency": 20,
    "delete_jobs": "always",
    "pool": 22,
}


def _task(case: Case) -> str:
    return "noop" if case.handler == "tasks" else case.handler


class Procrastinate(Rival):
    """See above."""

    name = "Procrastinate"
    about = "durable; effect and acknowledgement in two commits"
    has_django = True

    def install(self) -> str:
        """From PyPI."""
        home, self._python = installing.python()
        self._program = home / "procrastinate_worker.py"
        return installing.python_version(self._python, "procrastinate")

    def plan(self, variant: str, case: Case) -> Plan:
        """See the settings above."""
        order = "per key (lock)" if case.keys else ""
        if variant == "default":
            return Plan({"hot": 50, "sleep": 300}.get(case.name, 1_000), {}, order)
        settings = dict(_TUNED)
        if case.keys == 1:
            settings = {"delete_jobs": "always"}
        elif case.keys:
            settings["fetch_job_polling_interval"] = 0.01
        return Plan({"hot": 300}.get(case.name, 2_500), settings, order)

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """Its schema."""
        config = {"mode": "schema", "url": site.url(), "settings": {}}
        run_program([self._python, self._program], config, site.directory)

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """One call of its function."""
        key = f"(i % {case.keys or KEYS})::text"
        lock = key if case.keys else "NULL"
        site.owner.execute(
            f"""SELECT cardinality(procrastinate_defer_jobs_v1((
                SELECT array_agg((
                    'default', '{_task(case)}', 0, {lock}, NULL,
                    jsonb_build_object('key', {key}, 'n', i % 7 + 1), NULL
                )::procrastinate_job_to_defer_v1 ORDER BY i)
                FROM generate_series(1, {plan.messages}) i)))"""
        )

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """Python processes."""
        settings = dict(plan.settings)
        count = int(str(settings.pop("processes", 1)))
        config = {"mode": "work", "url": site.url(), "settings": settings}
        config |= {"host": site.private.host, "database": site.dbname, "handler": case.handler}
        config |= {"starts": "" if plan.messages else str(site.directory)}
        command = [self._python, self._program]
        programs = [Program(command, config, site.directory, DJANGO_PROJECT) for _ in range(count)]
        for program in programs:
            program.wait_ready()
        return Several(programs)

    def send(self, site: Site, first: int, count: int, pause: float) -> str:
        """By ``defer()``."""
        config = {"mode": "send", "url": site.url(), "first": first, "count": count, "pause": pause}
        return run_program([self._python, self._program], config, site.directory)

    _LEFT = "FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"

    def left(self, site: Site) -> int:
        """A job that is done is deleted or has another status."""
        return int(number(site.owner, f"SELECT count(*) {self._LEFT}"))

    def any_left(self, site: Site) -> bool:
        """Whether there is any."""
        return bool(number(site.owner, f"SELECT EXISTS (SELECT {self._LEFT})::int"))

    def check_books(self, site: Site, case: Case, plan: Plan) -> None:
        """None has failed."""
        query = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"
        require(number(site.owner, query) == 0, "jobs have failed")
