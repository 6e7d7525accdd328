"""The rivals, side by side: ``make bench-rivals``.

Each round measures everybody once in each case, one after the other, then comes the next
round; so what disturbs the machine for a minute meets all of them, and djactor's figure
is one of the same hour.  Everybody who needs PostgreSQL uses the same server, with
``fsync`` and ``synchronous_commit`` on and djactor's library loaded (it has nothing to do but in
djactor's own runs).  Who cannot be installed or started is skipped with a line that says why.

Results: the terminal; bench/rivals/results.md; bench/plots/rivals.png; all values in
bench/results.  A part of it (``--quick``, ``--cases``, names, fewer than five runs) goes to
bench/results only.

What would make the whole dishonest: see measure.py for a run; settings that a rival's
manual would not advise, or a version that is not its latest (see the pins in the folders
beside this file); a machine with other work, which each run looks for and the head reports.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg

import report
from common import BenchmarkError, Result, server
from private_server import ServerError
from rivals import extras, output
from rivals.celery_ import CeleryRabbitMQ, CeleryRedis
from rivals.djactor_ import Djactor
from rivals.django_tasks_ import DjangoTasksDb
from rivals.graphile_worker import GraphileWorker
from rivals.hosted_ import Hosted
from rivals.measure import Ground, run_once
from rivals.output import Comparison, Row
from rivals.pg_boss import PgBoss
from rivals.pgq import Pgq
from rivals.procrastinate_ import Procrastinate
from rivals.protocol import CASES, Rival, Skip
from rivals.river_ import River

OURS: tuple[type[Rival], ...] = (Djactor, Hosted)
RIVALS: tuple[type[Rival], ...] = (
    *OURS,
    GraphileWorker,
    PgBoss,
    Procrastinate,
    DjangoTasksDb,
    CeleryRedis,
    CeleryRabbitMQ,
    Pgq,
    River,
)
EXTRAS = ("recovery", "idle", "start")
PLOT = report.HERE / "plots" / "rivals.png"
TABLE = report.HERE / "rivals" / "results.md"
_FAILED = (BenchmarkError, ServerError, psycopg.Error, OSError)


def parse_arguments() -> argparse.Namespace:
    """What the command line says."""
    names = [rival.name.lower() for rival in RIVALS if rival not in OURS]
    cases = [case.name for case in CASES]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"rivals: {', '.join(names)}; cases: {', '.join([*cases, *EXTRAS])}",
    )
    parser.add_argument(
        "names", nargs="*", metavar="RIVAL", help="whom to compare djactor with (default: all)"
    )
    parser.add_argument("--runs", type=int, help="runs of each figure (default: 5; quick: 1)")
    parser.add_argument("--cases", help="which, separated by commas (default: all)")
    parser.add_argument(
        "--limit", type=float, help="seconds after which a run is stopped (default: 3; quick: 1)"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages, to try it")
    arguments = parser.parse_args()
    arguments.partial = bool(arguments.names or arguments.cases or arguments.quick)
    arguments.cases = arguments.cases.split(",") if arguments.cases else [*cases, *EXTRAS]
    arguments.names = [name.lower() for name in arguments.names] or names
    for given, known in ((arguments.names, names), (arguments.cases, [*cases, *EXTRAS])):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"no such: {', '.join(unknown)}; there are {', '.join(known)}")
    if arguments.runs is None:
        arguments.runs = 1 if arguments.quick else 5
    if arguments.runs < 1:
        parser.error("--runs starts at 1")
    arguments.partial = arguments.partial or arguments.runs < 5
    arguments.tasks = (
        sorted(arguments.cases) == ["start", "tasks"]
        and arguments.runs >= 5
        and not arguments.quick
    )
    if arguments.limit is None:
        arguments.limit = 1.0 if arguments.quick else 3.0
    return arguments


def install(names: list[str], skipped: dict[str, str]) -> list[Rival]:
    """Those that can be had; djactor always."""
    rivals = []
    for kind in RIVALS:
        if kind not in OURS and kind.name.lower() not in names:
            continue
        rival = kind()
        try:
            rival.version = rival.install()
        except Skip as why:
            skipped[rival.name] = str(why)
            print(f"SKIP {rival.name}: {why}", flush=True)
            continue
        print(f"{rival.name} {rival.version}", flush=True)
        rivals.append(rival)
    return rivals


def rows_of(rivals: list[Rival], cases: list[str], quick: bool) -> list[Row]:
    """All that is to be measured."""
    rows = []
    for case in CASES:
        for rival in rivals if case.name in cases else []:
            for variant in rival.variants_of(case):
                plan = rival.plan(variant, case)
                if quick:
                    plan = dataclasses.replace(plan, messages=max(20, plan.messages // 10))
                rows.append(Row(rival, variant, case, plan))
    return rows


def measure(ground: Ground, rows: list[Row], runs: int, limit: float) -> None:
    """The rounds."""
    for i in range(runs):
        for row in rows:
            what = f"round {i + 1}  {row.case.name:9} {row.label}"
            try:
                run = run_once(ground, row.rival, row.case, row.plan, limit)
            except _FAILED as error:
                row.error = str(error).splitlines()[0]
                print(f"{what}: FAIL {error}", flush=True)
                continue
            row.runs.append(run)
            print(f"{what}: {output.shown(run.rate)} messages/s", flush=True)


def measure_extras(
    ground: Ground, rivals: list[Rival], comparison: Comparison, arguments: argparse.Namespace
) -> None:
    """Recovery, idle and the start of tasks, once for each."""
    quick = arguments.quick
    for rival in rivals:
        label = f"{rival.name}, {rival.variants[-1]}"
        if "start" in arguments.cases and extras.can_start(rival):
            try:
                count = 50 if quick else 200
                comparison.starts[label] = extras.start(ground, rival, count)
            except _FAILED as error:
                comparison.starts[label] = f"FAIL {str(error).splitlines()[0]}"
            print(f"start     {label}: {comparison.starts[label]}", flush=True)
        if rival.only_tasks:
            continue
        if "recovery" in arguments.cases:
            try:
                limit, divisor = (5.0, 10) if quick else (10.0, 1)
                comparison.recoveries[label] = extras.recovery(ground, rival, limit, divisor)
            except _FAILED as error:
                comparison.recoveries[label] = f"FAIL {str(error).splitlines()[0]}"
            print(f"recovery  {label}: {comparison.recoveries[label]}", flush=True)
        if "idle" in arguments.cases:
            try:
                comparison.idle[label] = extras.idle(ground, rival, 1 if quick else 10)
            except _FAILED as error:
                comparison.idle[label] = f"FAIL {str(error).splitlines()[0]}"
            print(f"idle      {label}: {comparison.idle[label]}", flush=True)


def head_of(where: report.Machine) -> str:
    """The machine, as the other benchmarks show it."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        report.print_machine(where)
    return text.getvalue().rstrip()


def save(where: report.Machine, comparison: Comparison, arguments: argparse.Namespace) -> None:
    """Tables, plot and all values."""
    partial = arguments.partial
    report.RESULTS.mkdir(exist_ok=True)
    stamp = where.date[:19].replace(":", "").replace("T", "-")
    values = [
        {
            "rival": row.rival.name,
            "version": row.rival.version,
            "variant": row.variant,
            "case": row.case.name,
            "plan": dataclasses.asdict(row.plan),
            "runs": [dataclasses.asdict(run) for run in row.runs],
            "error": row.error,
        }
        for row in comparison.rows
    ]
    everything = {
        "machine": dataclasses.asdict(where),
        "rows": values,
        "skipped": comparison.skipped,
        "recovery": {
            name: found if isinstance(found, str) else dataclasses.asdict(found)
            for name, found in comparison.recoveries.items()
        },
        "idle": comparison.idle,
        "start": {
            name: found if isinstance(found, str) else dataclasses.asdict(found)
            for name, found in comparison.starts.items()
        },
    }
    raw = report.RESULTS / f"{stamp}-rivals.json"
    raw.write_text(json.dumps(everything, indent=1))
    table = report.RESULTS / f"{stamp}-rivals.md" if partial else TABLE
    picture = report.RESULTS / f"{stamp}-rivals.png" if partial else PLOT
    if arguments.tasks:
        table = report.TASKS
    table.write_text(output.markdown(comparison))
    output.plot(comparison, picture)
    print(f"\nwritten: {table}, {picture}, {raw}")


def main() -> int:
    """Install, measure, print, write."""
    arguments = parse_arguments()
    where = report.machine()
    comparison = Comparison(head_of(where), [], {}, {}, {}, {}, [])
    print(comparison.head)
    rivals = install(arguments.names, comparison.skipped)
    began = time.monotonic()
    parent = os.environ.get("DJACTOR_TMPDIR", "/tmp")
    result = Result("rivals", "")
    with (
        tempfile.TemporaryDirectory(prefix="rivals-", dir=parent) as directory,
        contextlib.ExitStack() as services,
        server(result) as private,
    ):
        for rival in list(rivals):
            services.callback(rival.close)
            try:
                rival.open(Path(directory))
            except Skip as why:
                comparison.skipped[rival.name] = str(why)
                print(f"SKIP {rival.name}: {why}", flush=True)
                rivals.remove(rival)
        ground = Ground(private, Path(directory))
        comparison.rows = rows_of(rivals, arguments.cases, arguments.quick)
        measure(ground, comparison.rows, arguments.runs, arguments.limit)
        measure_extras(ground, rivals, comparison, arguments)

    comparison.rows = [row for row in comparison.rows if row.runs or row.error]
    settings = ", ".join(f"{name} = {value}" for name, value in result.settings.items())
    others = [run.others for row in comparison.rows for run in row.runs] or [0.0]
    comparison.notes = [
        f"Server: fsync = on, {settings}.",
        f"Medians of {arguments.runs} runs (least to greatest). A run is stopped after"
        f" {arguments.limit:g} s; its figure is the rate until then. Other work on the machine"
        f" during the runs: {statistics.median(others):.2f} cores at the median,"
        f" {max(others):.2f} at most.",
        "Ratios are those of the medians; djactor's is the one with one worker, in the case `sleep`"
        " the hosted type in one process, in the cases `orm` and `tasks` in two.",
    ]
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        comparison.notes.append(
            "Everything that was measured ran at a real-time priority: other programs had what it"
            " left."
        )
    if statistics.median(others) > report.DISTURBED:
        comparison.notes.append("WARNING: the machine was disturbed; do not use these figures.")
    if arguments.quick:
        comparison.notes.append("QUICK: made to try the programs, no measurement.")
    print("\n" + output.markdown(comparison))
    save(where, comparison, arguments)
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if any(row.error for row in comparison.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
