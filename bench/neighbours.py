"""Neighbours: what batches do to everybody beside them, and whether anybody is harmed.

    make bench ARGS="neighbours"                          all cases
    make bench ARGS="neighbours --case 1 --case 5"        two of them
    make bench ARGS="neighbours --against DIRECTORY"      beside another build of djactor, whose
                                                          server's programs lie in the directory

The other benchmarks show what batches gain; this one shows what they may not cost.  The rule:
nobody can tell from outside that there are batches, except by the speed.

1  A slow turn and strangers      3  Shared rows     5  Somebody's open transaction   7  Waiting
2  Fairness                       4  Web requests    6  What is put off               8  Places

and 9, a second worker beside a second bare loop.  The files of ``beside`` say how each is
measured, which way it errs and what would make it dishonest.

Each row is a quantity, most with a bound that it has to keep.  With ``--against`` each case runs
on both builds in turn, a round of one and a round of the other, and both columns are shown;
judged is this tree's.  ``--runs`` says how many rounds; a row shows the median of its values or,
where it promises something to each single neighbour, the worst.

Settings are the defaults where nothing else is said.  What all rows share: two cores have a server,
a load and a client that looks on, so a rate here is not that of ``throughput``.  A disturbed
machine makes times longer, so it can make a bound fail, and hardly ever hold.
"""

from __future__ import annotations

import sys
import time

import psycopg

import beside.case
from beside import held, places, put_off, scaling, shared, slow, waiting
from beside.case import Build, Case
from common import SETTINGS, BenchmarkError, Bounded, Options, Result
from private_server import ServerError

NAME = "neighbours"
FILES = (slow, shared, held, put_off, waiting, places, scaling)
CASES: dict[int, Case] = {case.number: case for file in FILES for case in file.CASES}


class Findings:
    """The rows of one case and one build, over its rounds."""

    def __init__(self, case: Case, build: Build) -> None:
        self.case, self.build = case, build
        self.rows: dict[str, Bounded] = {}
        self.error: Exception | None = None

    def measure(self) -> None:
        """One round; an error ends the case for this build, and keeps what was found before it."""
        if self.error is not None:
            return
        try:
            for row in self.case.measure(self.build):
                row.name = f"{self.case.number}: {row.name}"
                values = ", ".join(f"{value:,.4g}" for value in row.values)
                _say(f"    {row.name} [{self.build.title}]: {values} {row.unit}")
                if row.name in self.rows:
                    self.rows[row.name].values += row.values
                else:
                    self.rows[row.name] = row
        except (BenchmarkError, ServerError, psycopg.Error) as error:
            self.error = error
            _say(f"    not measured: {error}")


def _say(text: str) -> None:
    """Tell who waits how far it is."""
    print(text, file=sys.stderr, flush=True)


def run(options: Options) -> Result:
    """The cases that were asked for, one after the other, on one build or two."""
    result = Result(NAME, "What batches do to everybody beside them")
    builds = [Build("now", None, options)]
    if options.against is not None:
        builds.append(Build("before", options.against, options))
        result.notes.append("before: a server of another build, each case in turn with this tree's")
    for number in options.cases or sorted(CASES):
        case, began = CASES[number], time.monotonic()
        _say(f"  case {number}: {case.title}")
        found = [Findings(case, build) for build in builds]
        for i in range(1 if options.quick else case.rounds * options.rounds):
            for one in found if i % 2 == 0 else reversed(found):
                one.measure()
        _add(result, *found)
        _say(f"  case {number} took {time.monotonic() - began:.0f} s")
    for build in builds:
        for name, values in build.curves.items():
            result.series[f"{name}, {build.title}"] = (
                [float(i) for i in range(len(values))],
                values,
            )
    result.settings = {**SETTINGS, **beside.case.SETTINGS, "djactor.max_workers": "as the rows say"}
    return result


def _add(result: Result, now: Findings, before: Findings | None = None) -> None:
    """Put the rows of both builds side by side."""
    for name, row in now.rows.items():
        if before is not None and name in before.rows:
            row.before = before.rows[name].values
        result.bounded.append(row)
    if before is not None and before.error is not None:
        result.notes.append(f"case {before.case.number} was not measured before: {before.error}")
    if now.error is not None:
        result.promise(f"case {now.case.number} was not measured: {now.error}", False)
