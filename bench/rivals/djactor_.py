"""djactor itself, by the same rules as the others.

One worker (``concurrency => 1``) stands against one worker process of a rival, and is what the
ratios are of; the default of the server, four workers, stands beside it.  The equivalent of a
handler that updates the row of its key is one that returns the actor's new state.
There are no messages without a key: where no order is asked for, they are spread over 1,000 keys.

The sleeping handler stands for one that reaches outside the database; docs/sql.md advises
``batch_size => 1`` for those, and one worker does one thing at a time.  Hosted types are for
those; see hosted_.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence

import psycopg

from common import admin, number, require, worker_pids
from rivals.protocol import KEYS, Case, Plan, Rival, Site, Worker

_BODY = {
    "noop": "RETURNS void AS $$ BEGIN END $$",
    "update": """RETURNS jsonb AS $$ BEGIN RETURN jsonb_build_object('total',
        (state->>'total')::bigint + (message->>'n')::bigint); END $$""",
    "sleep": "RETURNS void AS $$ BEGIN PERFORM pg_sleep(0.01); END $$",
}


class _Resume(Worker):
    """The worker is a process of the server; the word to begin is resume()."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def go(self) -> float:
        start = time.time()
        self._site.owner.execute("SELECT djactor.resume('bench')")
        return start

    def kill(self) -> None:
        """A backend that is killed has PostgreSQL restart all of them."""
        with admin(self._site.private, self._site.dbname) as su:
            for pid in worker_pids(su):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(psycopg.Error):
            while True:
                self._site.owner.execute("SELECT pg_sleep(0.001)")

    def stop(self) -> None:
        self._site.owner.execute("SELECT djactor.pause('bench')")


class Djactor(Rival):
    """See above."""

    name = "djactor"
    about = "state, effects and acknowledgement in one durable commit for many messages"
    variants: tuple[str, ...] = ("default", "one worker")
    in_state = False  # but in its actors

    def install(self) -> str:
        """It is built by tools/with-env."""
        return "this tree"

    def variants_of(self, case: Case) -> Sequence[str]:
        """Both, in every case that can be had in the server."""
        return () if case.handler in ("orm", "tasks") else self.variants

    def plan(self, variant: str, case: Case) -> Plan:
        """Few messages where the handler sleeps."""
        settings: dict[str, object] = {"concurrency": 1} if variant == "one worker" else {}
        if case.handler == "sleep":
            settings["batch_size"] = 1
            return Plan(250 if variant == "one worker" else 1_000, settings, "per key")
        return Plan(200_000, settings, "per key")

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """The type; one turn, so that a worker exists and is warm; then a pause."""
        site.private.sql("CREATE EXTENSION djactor", site.dbname)
        body = _BODY[case.handler]
        site.owner.execute(
            f"CREATE FUNCTION handle(state jsonb, message jsonb) {body} LANGUAGE plpgsql"
        )
        options = "".join(f", {name} => {value}" for name, value in plan.settings.items())
        site.owner.execute(
            f"""SELECT djactor.define_actor_type('bench', 'handle',
                initial_state => '{{"total": 0}}'{options})"""
        )
        site.owner.execute("SELECT djactor.send('bench', '0', '{\"n\": 0}')")
        warm = site.owner.execute("SELECT djactor.wait_idle('30 s')").fetchone()
        require(warm == (True,), "the worker does not start")
        site.owner.execute("SELECT djactor.pause('bench')")

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """One INSERT."""
        site.owner.execute(
            f"""INSERT INTO djactor.message (actor_type, actor_key, payload)
            SELECT 'bench', (i % {case.keys or KEYS})::text, jsonb_build_object('n', i % 7 + 1)
            FROM generate_series(1, {plan.messages}) i"""
        )

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """Nothing to start."""
        return _Resume(site)

    def left(self, site: Site) -> int:
        """What is in the mailboxes."""
        return int(number(site.owner, "SELECT count(*) FROM djactor.message"))

    def any_left(self, site: Site) -> bool:
        """Whether there is anything."""
        return bool(number(site.owner, "SELECT EXISTS (SELECT FROM djactor.message)::int"))

    def effect(self, site: Site) -> float:
        """The sum of the states."""
        query = "SELECT sum((state->>'total')::bigint) FROM djactor.actor"
        return number(site.owner, query)

    def check_books(self, site: Site, case: Case, plan: Plan) -> None:
        """Turns, states, no dead letter."""
        total = "sum(i % 7 + 1)" if case.handler == "update" else "0"
        with admin(site.private, site.dbname) as su:
            dead = number(su, "SELECT count(*) FROM djactor.dead_letter")
            require(dead == 0, f"{dead:.0f} dead letters")
            wrong = number(
                su,
                f"""SELECT count(*) FROM (
                    SELECT (i % {case.keys or KEYS})::text AS key, count(*) AS n, {total} AS total
                    FROM generate_series(1, {plan.messages}) i GROUP BY 1
                ) expected FULL JOIN djactor.actor a ON a.actor_key = expected.key COLLATE "C"
                WHERE a.turns IS DISTINCT FROM
                        coalesce(expected.n, 0) + (a.actor_key = '0')::int -- the one before
                    OR (a.state->>'total')::bigint IS DISTINCT FROM coalesce(expected.total, 0)""",
            )
        require(wrong == 0, f"the states of {wrong:.0f} actors are wrong")
