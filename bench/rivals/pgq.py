"""PGQ: batches of events between two ticks, from C and PL/pgSQL functions in the server.

One consumer gets all events in the order of their transactions, so there is more order than per
key, and nothing runs in parallel.  Effects and acknowledgement of a batch are one transaction, as
with djactor; an event that fails takes its batch along.  Preload is its ``insert_event``.

Ticks are made with the preload, each so many events as the ticker pgqd would let come together
under load: 500 (``ticker_max_count``) by default, where the consumer is a Python program that
sends an UPDATE for each event.  Tuned: 10,000, and the loop over the events is a PL/pgSQL
function in the server.  With many updates of one row in one transaction (hot key, old snapshot)
fewer events a batch are faster: 200 and 2,000.
"""

from __future__ import annotations

import os
from pathlib import Path

from common import admin, number
from rivals import installing
from rivals.programs import Program
from rivals.protocol import KEYS, Case, Plan, Rival, Site, Skip, Worker

_BODY = {
    "noop": "NULL;",
    "update": """message := event.ev_data::jsonb;
            UPDATE state SET total = total + (message->>'n')::bigint
            WHERE key = message->>'key';""",
    "sleep": "PERFORM pg_sleep(0.01);",
}


def _path(pg_config: str | Path, option: str) -> Path:
    return Path(installing.output([pg_config, option], "pg_config").strip())


class Pgq(Rival):
    """See above."""

    name = "PGQ"
    about = "durable; effects and acknowledgement of a batch in one commit"

    def install(self) -> str:
        """From Debian, then linked into this run's copy of the server, which is older."""
        _, self._python = installing.python()
        real = installing.output([installing.TOP / "tools" / "pg-config"], "pg-config").strip()
        copy = Path(os.environ["DJACTOR_PREFIX"]) / "pg_config"
        version = installing.output([real, "--version"], "pg_config").split()[1]
        major = version.partition(".")[0]
        control = _path(real, "--sharedir") / "extension" / "pgq.control"
        if not str(real).startswith("/usr/lib/postgresql/") and not control.exists():
            raise Skip(f"{real} is not Debian's server and has no PGQ")
        installing.debian({f"postgresql-{major}-pgq3": control})
        for option, folder in (("--pkglibdir", ""), ("--sharedir", "extension")):
            target = _path(copy, option) / folder
            for file in (_path(real, option) / folder).glob("pgq*"):
                if file.is_file() and not (target / file.name).exists():
                    (target / file.name).symlink_to(file)
        for line in control.read_text().splitlines():
            if line.startswith("default_version"):
                return line.partition("=")[2].strip(" '")
        return "unknown"

    def plan(self, variant: str, case: Case) -> Plan:
        """See the settings above."""
        order = "all in order, one consumer" if case.keys else ""
        if variant == "default":
            messages = {"noop": 200_000, "sleep": 250}.get(case.handler, 12_000)
            tick = 50 if case.handler == "sleep" else 500
            return Plan(messages, {"tick": tick}, order)
        messages = {"noop": 200_000, "sleep": 250, "hot": 30_000, "snapshot": 40_000}.get(
            case.name, 80_000
        )
        tick = {"sleep": 50, "hot": 200, "snapshot": 2_000}.get(case.name, 10_000)
        return Plan(messages, {"tick": tick, "in_server": True}, order)

    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """Extension, queue, consumer."""
        with admin(site.private, site.dbname) as su:
            su.execute("CREATE EXTENSION pgq")
            su.execute("GRANT pgq_admin TO bench")
        site.owner.execute("SELECT pgq.create_queue('bench')")
        site.owner.execute("SELECT pgq.register_consumer('bench', 'bench')")
        site.owner.execute(
            "SELECT pgq.set_queue_config('bench', 'ticker_max_count', %s)",
            [str(plan.settings["tick"])],
        )
        site.owner.execute(
            f"""CREATE FUNCTION consume(batch bigint) RETURNS bigint LANGUAGE plpgsql AS $$
            DECLARE event record; message jsonb; n bigint := 0;
            BEGIN
                FOR event IN SELECT * FROM pgq.get_batch_events(batch) LOOP
                    {_BODY[case.handler]}
                    n := n + 1;
                END LOOP;
                RETURN n;
            END $$"""
        )

    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """Events and ticks, each a transaction."""
        step = int(str(plan.settings["tick"]))
        for first in range(1, plan.messages + 1, step):
            site.owner.execute(
                f"""SELECT count(pgq.insert_event('bench', 'message', json_build_object(
                    'key', (i % {case.keys or KEYS})::text, 'n', i % 7 + 1)::text))
                FROM generate_series({first}, {min(first + step - 1, plan.messages)}) i"""
            )
            site.owner.execute("SELECT pgq.force_tick('bench')")
            site.owner.execute("SELECT pgq.ticker('bench')")

    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """One Python process."""
        config = {"url": site.url(), "handler": case.handler, "settings": plan.settings}
        program = installing.CACHE / "python" / "pgq_consumer.py"
        worker = Program([self._python, program], config, site.directory)
        worker.wait_ready()
        return worker

    def left(self, site: Site) -> int:
        """Events after the consumer's last finished tick."""
        return int(
            number(
                site.owner,
                """SELECT (SELECT max(tick_event_seq) FROM pgq.tick) - tick_event_seq
                FROM pgq.subscription JOIN pgq.tick ON tick_id = sub_last_tick""",
            )
        )
