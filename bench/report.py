"""The report: on which machine, under which settings, what was found.

A figure without its machine is worthless, so the report begins with it: CPU model,
cores that this process may use, memory, kernel, file system of the data directory,
load before the start, versions, revision of the tree, date.  The load is there
to give a disturbed run away.  Nothing here measures; what could make the page dishonest is
leaving values out, so each figure shows its extremes and the JSON file keeps
every value.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from common import Bounded, Figure, Promise, Result

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
QUICK_RESULTS = RESULTS / "quick"  # of --quick: to try the programs, never shown as figures
PLOTS = HERE / "plots"
PAGE = HERE / "results.md"
TASKS = HERE / "rivals" / "tasks.md"  # written by `make bench-rivals`
DISTURBED = 0.2  # cores


@dataclass
class Machine:
    """Where and with what the benchmarks ran."""

    date: str
    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    filesystem: str
    load: str
    server: str
    python: str
    psycopg: str
    revision: str


def _output(*command: str | Path) -> str:
    try:
        result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()


def machine() -> Machine:
    """Look at the machine, before anything runs."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    directory = os.environ.get("DJACTOR_TMPDIR", "/tmp")
    filesystem = _output("df", "--output=fstype,source", directory).splitlines()[-1:]
    bindir = Path(os.environ.get("DJACTOR_PREFIX", ""))
    return Machine(
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        cpu=models[0] if models else platform.processor() or "unknown",
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(memory / 2**30, 1),
        kernel=platform.release(),
        filesystem=" ".join(filesystem[0].split()) if filesystem else "unknown",
        load="{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
        server=_output(bindir / "postgres", "--version"),
        python=platform.python_version(),
        psycopg=psycopg.__version__,
        revision=_output("git", "describe", "--always", "--dirty"),
    )


def print_machine(where: Machine) -> None:
    """The head of the report."""
    print(f"date        {where.date}")
    print(f"machine     {where.cpu}, {where.cores} cores, {where.memory_gb} GB")
    print(f"system      Linux {where.kernel}; data on {where.filesystem}; load {where.load}")
    print(f"server      {where.server}")
    print(f"clients     Python {where.python}, psycopg {where.psycopg}")
    print(f"revision    {where.revision}")
    if where.filesystem.startswith(("tmpfs", "ramfs")):
        print("WARNING     the data directory is in memory: fsync costs nothing here")
    if float(where.load.split()[0]) > 0.5 * where.cores:
        print("WARNING     the machine was busy before the start")


def _shown(value: float) -> str:
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "never"
    if value == 0 or (value == int(value) and abs(value) < 100):
        return f"{value:.0f}"
    if abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _row(figure: Figure) -> list[str]:
    values = figure.values
    if len(values) == 1:
        columns = [_shown(values[0]), "", "", "", ""]
    else:
        columns = [_shown(figure.median), _shown(min(values)), "", "", _shown(max(values))]
    if figure.samples:
        columns[2:4] = [_shown(figure.percentile(95)), _shown(figure.percentile(99))]
    return [figure.name, *columns, str(len(values)), figure.unit]


HEAD = ["", "median", "min", "p95", "p99", "max", "n", ""]
BOUNDED_HEAD = ["", "now", "before", "", "bound", ""]


def _bounded_row(row: Bounded) -> list[str]:
    verdict = {True: "PASS", False: "FAIL", None: ""}[row.holds]
    before = _shown(row.value_before) if row.before else ""
    return [row.name, _shown(row.value), before, row.unit, row.bound, verdict]


def _print_table(rows: list[list[str]], left: set[int]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(("  " + "  ".join(cells)).rstrip())


def print_result(result: Result) -> None:
    """A benchmark's part of the report."""
    print(
        f"\n{result.name}: {result.title}   ({result.seconds:.0f} s; other work on the machine:"
        f" {result.disturbance:.2f} cores)"
    )
    if result.disturbance > DISTURBED:
        print("  WARNING: the machine was disturbed; do not use these figures")
    settings = ", ".join(f"{name} = {value}" for name, value in result.settings.items())
    print(f"  settings: fsync = on, {settings}")
    for note in result.notes:
        print(f"  {note}")
    if result.figures:
        _print_table([HEAD, *(_row(figure) for figure in result.figures)], {0, len(HEAD) - 1})
    if result.bounded:
        _print_table([BOUNDED_HEAD, *(_bounded_row(row) for row in result.bounded)], {0, 3, 4, 5})
    for promise in result.promises:
        print(f"  {'PASS' if promise.holds else 'FAIL'}  {promise.text}")


def save(where: Machine, result: Result, directory: Path = RESULTS) -> Path:
    """Keep every value."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = where.date[:19].replace(":", "").replace("T", "-")
    path = directory / f"{stamp}-{result.name}.json"
    path.write_text(json.dumps({"machine": asdict(where), "result": asdict(result)}, indent=1))
    return path


def newest(directory: Path = RESULTS) -> list[tuple[Machine, Result]]:
    """What was kept last of each benchmark, by name."""
    kept: dict[str, tuple[Machine, Result]] = {}
    for path in sorted(directory.glob("*.json")):  # names begin with the date
        content = json.loads(path.read_text())
        fields = content.get("result")
        if fields is None:
            continue  # a comparison with other queues, which has a page of its own
        fields["figures"] = [Figure(**figure) for figure in fields["figures"]]
        fields["bounded"] = [Bounded(**row) for row in fields.get("bounded", [])]
        fields["promises"] = [Promise(**promise) for promise in fields["promises"]]
        kept[fields["name"]] = (Machine(**content["machine"]), Result(**fields))
    return [kept[name] for name in sorted(kept)]


def _markdown(where: Machine, result: Result) -> list[str]:
    settings = ", ".join(f"{name} = {value}" for name, value in result.settings.items())
    rows = []
    if result.figures:
        rows = [HEAD, ["---"] + ["---:"] * (len(HEAD) - 2) + ["---"]]
        rows += [_row(figure) for figure in result.figures]
    if result.bounded:
        rows += [BOUNDED_HEAD, ["---", "---:", "---:", "---", "---", "---"]]
        rows += [_bounded_row(row) for row in result.bounded]
    plot = PLOTS / f"{result.name}.png"
    lines = [
        f"## {result.name}: {result.title}",
        "",
        f"{where.date}, djactor {where.revision}, {where.server}, Python {where.python},"
        f" psycopg {where.psycopg}; {where.cpu}, {where.cores} cores, {where.memory_gb} GB,"
        f" Linux {where.kernel}, data on {where.filesystem}; load before {where.load},"
        f" other work meanwhile {result.disturbance:.2f} cores; took {result.seconds:.0f} s.",
        "",
        f"Settings: fsync = on, {settings}.",
        "",
    ]
    if result.disturbance > DISTURBED:
        lines += ["**The machine was disturbed: do not use these figures.**", ""]
    lines += [line for note in result.notes for line in (note, "")]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines.append("")
    lines += [f"- {'PASS' if p.holds else 'FAIL'}: {p.text}" for p in result.promises]
    if plot.exists():
        lines += ["", f"![{result.title}](plots/{plot.name})"]
    return [*lines, ""]


def write_page(kept: list[tuple[Machine, Result]], path: Path = PAGE) -> None:
    """All tables as one page, and at its end how tasks compare with those of rivals."""
    lines = [
        "# Results",
        "",
        "Written by `make bench`: the newest run of each benchmark, each with its own machine and"
        " date. README.md tells how to read the tables.",
        "",
    ]
    for where, result in kept:
        lines += _markdown(where, result)
    if TASKS.exists():
        lines.append(f"#{TASKS.read_text()}")
    path.write_text("\n".join(lines).rstrip() + "\n")
