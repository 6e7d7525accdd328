"""The benchmarks: ``make bench``, or ``make bench ARGS="--quick latency"``.

Runs the named ones (default: the standard ones) one after the other, never two at a
time, prints a table for each and a PASS or FAIL for each promise that has a number, writes
all values to bench/results, and from the newest of them the page bench/results.md and the
plots in bench/plots (with --quick or --case all of it below bench/results/quick).  The exit status
is 0 only if every promise held and every benchmark could vouch for its own figures.

What would make the whole dishonest: running it on a machine with other work, which
shows in the load at the top and in the CPU that others used meanwhile (what the machine
used less what our processes did; their disk writes do not show there, but
in the durable commits that ``latency`` times); or taking ``--quick``, made to try
the programs, for a measurement.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from types import ModuleType

import psycopg

import concurrency
import cron
import flatness
import hosted
import idle
import idle_at_scale
import latency
import matrix
import memory
import neighbours
import nodes
import notifies
import plots
import prepared
import report
import response
import routed
import sender
import sizes
import throughput
from common import BenchmarkError, CpuUse, Options
from private_server import ServerError

STANDARD: dict[str, ModuleType] = {
    module.NAME: module for module in (throughput, response, sender, concurrency, notifies, idle)
}
# Those that take long run when they are named, or with --all.
LONG: dict[str, ModuleType] = {
    module.NAME: module
    for module in (
        hosted,
        neighbours,
        latency,
        matrix,
        flatness,
        memory,
        idle_at_scale,
        sizes,
        cron,
        prepared,
        nodes,
        routed,
    )
}
BENCHMARKS = STANDARD | LONG


def parse_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"benchmarks: {', '.join(STANDARD)}; and, taking long: {', '.join(LONG)}",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="BENCHMARK",
        help="which ones to run (default: not the long ones)",
    )
    parser.add_argument("--all", action="store_true", help="the long ones too")
    parser.add_argument("--runs", type=int, help="runs of each figure (default: 5; quick: 1)")
    parser.add_argument("--minutes", type=float, default=3.0, help="of sizes (default: 3)")
    parser.add_argument(
        "--case",
        type=int,
        action="append",
        default=[],
        dest="cases",
        metavar="N",
        help="of neighbours: only this case, and others so named",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="DIRECTORY",
        help="of neighbours: the server's programs of another build, to be measured beside",
    )
    parser.add_argument(
        "--watch",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="of neighbours: how long it watches what is put off (default: 20)",
    )
    parser.add_argument("--quick", action="store_true", help="few samples, to try the programs")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if unknown := sorted(set(arguments.cases) - set(neighbours.CASES)):
        parser.error(f"neighbours has no case {unknown[0]}")
    if arguments.against is not None and not (arguments.against / "postgres").exists():
        parser.error(f"no server's programs in {arguments.against}")
    arguments.rounds = arguments.runs or 1
    if arguments.runs is None:
        arguments.runs = 1 if arguments.quick else 5
    if arguments.runs < 1:
        parser.error("--runs starts at 1")
    return arguments


def main() -> int:
    """Run, print, judge."""
    arguments = parse_arguments()
    options = Options(
        runs=arguments.runs,
        quick=arguments.quick,
        minutes=arguments.minutes,
        rounds=arguments.rounds,
        cases=tuple(arguments.cases),
        against=arguments.against,
        watch=arguments.watch,
    )
    where = report.machine()
    report.print_machine(where)
    passed = True
    part = options.quick or bool(options.cases)  # of a benchmark: never shown as its figures
    directory = report.QUICK_RESULTS if part else report.RESULTS
    for name in arguments.names or (BENCHMARKS if arguments.all else STANDARD):
        began, cpu = time.monotonic(), CpuUse.now()
        try:
            result = BENCHMARKS[name].run(options)
        except (BenchmarkError, ServerError, psycopg.Error) as error:
            print(f"\n{name}\n  FAIL  not measured: {error}", flush=True)
            passed = False
            continue
        result.seconds, used = time.monotonic() - began, CpuUse.now()
        others = (used.machine - cpu.machine) - (used.ours - cpu.ours)
        result.disturbance = max(0.0, others) / result.seconds
        report.print_result(result)
        sys.stdout.flush()
        report.save(where, result, directory)
        passed = passed and result.holds
    kept = report.newest(directory)
    if part:
        plots.draw(kept, directory)
        report.write_page(kept, directory / "results.md")
    else:
        plots.draw(kept, report.PLOTS)
        report.write_page(kept)
    print(f"\n{'PASS' if passed else 'FAIL'}  {'all promises held' if passed else 'see above'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
