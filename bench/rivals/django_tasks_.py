"""django-tasks-db: the database backend of Django's tasks, by the author of django.tasks.

A worker, ``manage.py db_worker``, runs one task at a time; it claims it in one transaction, and
stores its result in another.  Two processes, as Celery has; while there is nothing to do it looks
each 10 ms (default: each second), since it has no other way to notice a task.  Preload is one
INSERT of rows as ``enqueue()`` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import number, require
from rivals import installing
from rivals.programs import Program, Several, run_program
from rivals.protocol import DJANGO_PROJECT, Case, Plan, Rival, Site, Worker

_TABLE = "django_tasks_database_dbtaskresult"


class DjangoTasksDb(Rival):
    """See above."""

    name = "django-tasks-db"
    about = "durable; effect and acknowledgement in two commits"
    variants = ("two processes",)
    has_django = True
    only_tasks = True

    def install(self) -> str:
        """From PyPI."""
        home, self._python = installing.python()
        self._program = home / "django_tasks_program.py"
        return installing.python_version(self._python, "django-tasks-db")

    def variants_of(self, case: Case) -> Sequence[str]:
        """It runs Django's tasks, and nothing else."""
        return self.variants if case.handler == "tasks" else ()

    def plan(self, variant: str, case: Case) -> Plan:
        """See above."""
        settings: dict[str, object] = {"interval": 0.01, "startup_delay": False, "reload": False}
        return Plan(1_500, settings)

    def _environment(self, site: Site) -> dict[str, str]:
        return DJANGO_PROJECT | {
            "BENCH_TASKS": "django_tasks_db.DatabaseBackend",
            "BENCH_HOST": site.private.host,
            "BENCH_DATABASE": site.dbname,
            "BENCH_STARTS": str(site.directory),
        }

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """Its migrations."""
        command = [self._python, self._program]
        run_program(command, {"mode": "schema"}, site.directory, self._environment(site))

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """One INSERT."""
        site.owner.execute(
            f"""INSERT INTO {_TABLE} (id, status, enqueued_at, args_kwargs, priority, task_path,
                worker_ids, queue_name, backend_name, run_after, exception_class_path, traceback)
            SELECT gen_random_uuid(), 'READY', now(),
                jsonb_build_object('args', jsonb_build_array(i), 'kwargs', '{{}}'::jsonb), 0,
                'load.tasks.noop', '[]', 'bench', 'default', '9999-01-01 00:00+00', '', ''
            FROM generate_series(1, {plan.messages}) i"""
        )

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """Two processes."""
        environment = self._environment(site)
        if plan.messages:  # the rate is measured: nothing is noted
            environment.pop("BENCH_STARTS")
        programs = []
        for n in range(2):
            settings = {**plan.settings, "worker_id": f"worker{n}"}
            config = {"mode": "work", "settings": settings}
            command = [self._python, self._program]
            programs.append(Program(command, config, site.directory, environment))
        for program in programs:
            program.wait_ready()
        return Several(programs)

    def send(self, site: Site, first: int, count: int, pause: float) -> str:
        """By ``enqueue()``."""
        config = {"mode": "send", "first": first, "count": count, "pause": pause}
        command = [self._python, self._program]
        return run_program(command, config, site.directory, self._environment(site))

    def left(self, site: Site) -> int:
        """What is not done."""
        query = f"SELECT count(*) FROM {_TABLE} WHERE status IN ('READY', 'RUNNING')"
        return int(number(site.owner, query))

    def check_books(self, site: Site, case: Case, plan: Plan) -> None:
        """None has failed."""
        query = f"SELECT count(*) FROM {_TABLE} WHERE status <> 'SUCCESSFUL'"
        require(number(site.owner, query) == 0, "tasks have failed")
