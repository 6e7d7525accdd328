"""River: Go, fetches with SKIP LOCKED, completes in batches.

It has no order per key in its free version, so the cases with keys run unordered here, with up to
as many jobs at a time as it has workers.  Preload is its own ``InsertManyFast`` (COPY).

The default is the one of its README: 100 workers.  Tuned: 1,000 workers (a fetch takes as many
jobs as there are idle workers), a fetch each 2 ms, 30 connections (4 for the one hot row).
"""

from __future__ import annotations

from common import number
from rivals import installing
from rivals.programs import Program, run_program
from rivals.protocol import KEYS, Case, Plan, Rival, Site, Worker

_DEFAULT: dict[str, object] = {"MaxWorkers": 100}
_TUNED: dict[str, object] = {
    "MaxWorkers": 1_000,
    "FetchCooldownMs": 2,
    "FetchPollIntervalMs": 100,
    "MaxConns": 30,
}


class River(Rival):
    """See above."""

    name = "River"
    about = "durable; effect and acknowledgement in two commits"

    def install(self) -> str:
        """From the Go module proxy."""
        self._program = installing.go("river")
        return installing.go_version("river", "github.com/riverqueue/river")

    def plan(self, variant: str, case: Case) -> Plan:
        """See the settings above."""
        order = "none: unordered" if case.keys else ""
        if variant == "default":
            return Plan(3_000, _DEFAULT, order)
        messages = {"noop": 50_000, "hot": 6_000, "sleep": 50_000}.get(case.name, 15_000)
        # Updates of one row wait for each other, the more the more connections there are.
        settings = {**_TUNED, "MaxConns": 4} if case.keys == 1 else _TUNED
        return Plan(messages, settings, order)

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """Its migrations are run in preload()."""

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """Schema and jobs."""
        config = {
            "mode": "preload",
            "url": site.url(),
            "messages": plan.messages,
            "keys": case.keys or KEYS,
        }
        run_program([self._program], config, site.directory)

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """One Go process."""
        config = {"url": site.url(), "handler": case.handler, "settings": plan.settings}
        worker = Program([self._program], {"mode": "work", **config}, site.directory)
        worker.wait_ready()
        return worker

    # What its index for fetching has; completed jobs stay in the table.
    _LEFT = "FROM river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled')"

    def left(self, site: Site) -> int:
        """A job that is done stays, as completed."""
        return int(number(site.owner, f"SELECT count(*) {self._LEFT}"))

    def any_left(self, site: Site) -> bool:
        """Whether there is any."""
        return bool(number(site.owner, f"SELECT EXISTS (SELECT {self._LEFT})::int"))
