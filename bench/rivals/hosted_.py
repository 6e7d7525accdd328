"""djactor with hosted types: handlers in processes of Django, by the same rules as the others.

The messages have 1,000 keys everywhere; the order of each is kept, and checked, and each turn
leaves a new state.  The hosts run in the same virtual environment as the other rivals in Python
(uvloop is there, which ``djactor_worker`` takes by itself), with the settings of the
variant's name, nothing else.

    sleep   an async class; as many turns at a time as ``--concurrency`` says (100 by default)
    orm     a sync class, one UPDATE with the ORM in the turn's transaction; two processes as
            Celery has, four threads in each, the default.  In ``a commit each`` turns do not share
            transactions, as in Celery and Procrastinate: ``batch_size`` is 1.

    tasks   Django's tasks through ``djactor.tasks.DjactorBackend``, each with a key of its own; the
            result of each is kept.

``--verbosity 0``: no line is logged for a task.  Celery logs none by default, and django-tasks-db
is told so, too.

The word to begin is ``resume()``, and the end is the last commit, as with turns inside.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from common import admin, number, require
from hosts import PROJECT, TOP, Hosts, define
from rivals import installing
from rivals.djactor_ import Djactor
from rivals.programs import run_program
from rivals.protocol import KEYS, Case, Plan, Site, Worker

_BACKEND = "djactor.tasks.DjactorBackend"
_CLASSES = {"update": "Adder", "sleep": "Sleeper", "orm": "Orm"}
_VARIANTS: dict[str, dict[str, tuple[int, dict[str, object]]]] = {
    "sleep": {
        "concurrency 100": (20_000, {"processes": 1, "concurrency": 100}),
        "one process": (100_000, {"processes": 1, "concurrency": 1_000}),
        "two processes": (150_000, {"processes": 2, "concurrency": 1_000}),
    },
    "orm": {
        "one process": (6_000, {"processes": 1}),
        "two, a commit each": (4_000, {"processes": 2, "batch_size": 1}),
        "two processes": (10_000, {"processes": 2}),
    },
    "tasks": {
        "one process": (30_000, {"processes": 1}),
        "two processes": (50_000, {"processes": 2}),
    },
    "update": {"two processes": (100_000, {"processes": 2, "concurrency": 1_000})},
}


class _HostsWorker(Worker):
    def __init__(self, site: Site, hosts: Hosts) -> None:
        self._site = site
        self._hosts = hosts

    @property
    def pids(self) -> Sequence[int]:
        """The supervisor; its children are found."""
        return [self._hosts.process.pid]

    def go(self) -> float:
        start = time.time()
        self._site.owner.execute("SELECT djactor.resume('bench')")
        return start

    def check(self) -> None:
        self._hosts.check()

    def kill(self) -> None:
        self._hosts.kill()

    def stop(self) -> None:
        self._hosts.stop()

    def abandon(self) -> None:
        self._hosts.kill()


class Hosted(Djactor):
    """See above."""

    name = "djactor hosted"
    about = "state, effects and acknowledgement in one durable commit"
    variants = ("two processes",)  # for recovery and idle

    def install(self) -> str:
        """The tree's app, in the environment of the rivals in Python."""
        home, self._python = installing.python()
        self._program = home / "django_tasks_program.py"
        return f"this tree; Django {installing.python_version(self._python, 'django')}"

    def variants_of(self, case: Case) -> Sequence[str]:
        """Those where it is waited for something."""
        return tuple(_VARIANTS[case.handler]) if case.name in ("sleep", "orm", "tasks") else ()

    def plan(self, variant: str, case: Case) -> Plan:
        """See above."""
        messages, settings = _VARIANTS[case.handler][variant]
        return Plan(messages, settings, "per key")

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """The type, paused."""
        site.private.sql("CREATE EXTENSION djactor", site.dbname)
        alone = bool(plan.settings.get("batch_size"))
        if case.handler == "tasks":
            # as migrate defines the queue of TASKS
            site.owner.execute(
                "SELECT djactor.define_actor_type('bench', 'djactor.tasks.handlers.TaskHandler',"
                " hosted => true, stateless => true, journal => '1 day', max_attempts => 1,"
                " handler_timeout => '0'), djactor.pause('bench')"
            )
            return
        define(site.owner, "bench", _CLASSES[case.handler], alone=alone)
        site.owner.execute("SELECT djactor.pause('bench')")

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """One INSERT."""
        if case.handler == "tasks":
            site.owner.execute(
                f"""INSERT INTO djactor.message (actor_type, actor_key, payload)
                SELECT 'bench', gen_random_uuid()::text, jsonb_build_object('task',
                    'load.tasks.noop', 'args', jsonb_build_array(i), 'kwargs', '{{}}'::jsonb,
                    'backend', 'default')
                FROM generate_series(1, {plan.messages}) i"""
            )
            return
        site.owner.execute(
            f"""INSERT INTO djactor.message (actor_type, actor_key, payload)
            SELECT 'bench', (i % {case.keys or KEYS})::text,
                jsonb_build_object('n', i % 7 + 1, 'i', i)
            FROM generate_series(1, {plan.messages}) i"""
        )

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """The worker, until its hosts wait for mail."""
        settings = {name: int(str(value)) for name, value in plan.settings.items()}
        options = ["--concurrency", str(settings.get("concurrency", 100)), "--verbosity", "0"]
        hosts = Hosts(
            site.private,
            site.dbname,
            ["bench"],
            site.directory / "worker.log",
            python=self._python,
            processes=settings["processes"],
            options=options,
            extra=self._extra(site, case, plan),
        )
        worker = _HostsWorker(site, hosts)
        try:
            with admin(site.private, site.dbname) as su:
                hosts.wait_ready(su)
        except BaseException:
            hosts.kill()
            raise
        return worker

    def _extra(self, site: Site, case: Case, plan: Plan) -> dict[str, str]:
        """More of the environment."""
        if case.handler != "tasks":
            return {}
        # where the rate is measured nothing is noted
        return {"BENCH_TASKS": _BACKEND} | (
            {} if plan.messages else {"BENCH_STARTS": str(site.directory)}
        )

    def send(self, site: Site, first: int, count: int, pause: float) -> str:
        """By ``enqueue()``."""
        config = {"mode": "send", "first": first, "count": count, "pause": pause}
        environment = {
            "PYTHONPATH": f"{TOP / 'django'}:{PROJECT}",
            "BENCH_DJACTOR": "1",
            "BENCH_TASKS": _BACKEND,
            "BENCH_HOST": site.private.host,
            "BENCH_DATABASE": site.dbname,
        }
        return run_program([self._python, self._program], config, site.directory, environment)

    def check_books(self, site: Site, case: Case, plan: Plan) -> None:
        """Turns, states, order, no dead letter; in the case orm the rows, too."""
        with admin(site.private, site.dbname) as su:
            dead = number(su, "SELECT count(*) FROM djactor.dead_letter")
            require(dead == 0, f"{dead:.0f} dead letters")
            if case.handler == "tasks":
                done = number(su, "SELECT count(*) FROM djactor.journal WHERE reply ? 'value'")
                require(done == plan.messages, f"{done:.0f} results")
                return
            wrong = number(
                su,
                f"""SELECT count(*) FROM (
                    SELECT (i % {case.keys or KEYS})::text AS key, count(*) AS turns,
                        jsonb_build_object('total', sum(i % 7 + 1), 'last', max(i), 'disorder', 0)
                            AS state
                    FROM generate_series(1, {plan.messages}) i GROUP BY 1
                ) expected FULL JOIN djactor.actor a ON a.actor_key = expected.key COLLATE "C"
                WHERE (a.turns, a.state) IS DISTINCT FROM (expected.turns, expected.state)""",
            )
        require(wrong == 0, f"the states of {wrong:.0f} actors are wrong, or their order was")
