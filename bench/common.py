"""What the benchmarks share: a server, databases, connections, clocks and results.

Every benchmark is a module with ``run(options) -> Result``.  It starts a server
of its own (tools/private_server.py), so that nothing that another one left
behind (bloat, warm caches, sleeping workers) enters its figures, and the server
is gone when it returns.

What always holds:

* ``fsync``, ``synchronous_commit`` and ``full_page_writes`` are on unless a
  benchmark says otherwise beside its figure.  A data directory on a tmpfs makes
  fsync mean nothing; the report names the file system, look at it.
* Types belong to an ordinary role that owns its database, and that role sends.
  Only what an operator does (CREATE EXTENSION, VACUUM, CHECKPOINT, looking into
  statistics) is done as superuser.
* A figure is never the best of its runs.  All values go to the JSON file, the
  table shows their median with the extremes.
* CPU time is the kernel's own account of one process in nanoseconds
  (/proc/PID/schedstat), not ticks of 10 ms.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from private_server import PrivateServer

OWNER = "bench"
Connection = psycopg.Connection[tuple[Any, ...]]
Found = TypeVar("Found")

# shared_buffers holds all that a benchmark touches, and no checkpoint that it
# did not ask for falls into a measurement: a run lasts seconds, a checkpoint's
# place in it would be luck.  Dirty pages still get their full-page images after
# the checkpoint before each run.
SETTINGS: dict[str, str | int | float | bool] = {
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "track_commit_timestamp": "on",
}


@dataclass
class Options:
    """What the command line asks for."""

    runs: int
    quick: bool
    minutes: float = 3.0  # of the benchmark sizes
    rounds: int = 1  # of the benchmark neighbours
    cases: tuple[int, ...] = ()  # of neighbours; empty: all
    against: Path | None = None  # programs of a server with another build, for neighbours
    watch: float = 20.0  # seconds for which neighbours watches what is put off


@dataclass
class Figure:
    """One measured quantity with every value that was taken.

    A figure of ``runs`` has a value per run, one of ``samples`` a value per
    event, of which percentiles mean something.
    """

    name: str
    unit: str
    values: list[float]
    samples: bool = False

    @property
    def median(self) -> float:
        """Half of the values are at most this."""
        return statistics.median(self.values)

    def percentile(self, percent: float) -> float:
        """The smallest value that so many percent of the values do not exceed."""
        ordered = sorted(self.values)
        rank = -(-len(ordered) * percent // 100)  # rounded up: never flattering
        return ordered[max(0, int(rank) - 1)]


@dataclass
class Bounded:
    """A measured quantity with its bound, and what another build showed beside it.

    ``pick`` says which of the values is judged, those of all rounds: the median, or the worst one.
    A value that is not a number was not there to be measured.
    """

    name: str
    unit: str
    values: list[float]
    most: float | None = None
    least: float | None = None
    pick: str = "median"  # or "max", "min"
    of_before: float | None = None  # at least so many times what the other build showed
    before: list[float] = field(default_factory=list)

    def _picked(self, values: list[float]) -> float:
        there = [value for value in values if not math.isnan(value)]
        if not there:
            return math.nan
        of: dict[str, Callable[[list[float]], float]]
        of = {"median": statistics.median, "max": max, "min": min}
        return of[self.pick](there)

    @property
    def value(self) -> float:
        """The one that is judged."""
        return self._picked(self.values)

    @property
    def value_before(self) -> float:
        """The same of the other build."""
        return self._picked(self.before)

    @property
    def ratio(self) -> float:
        """Times what the other build showed; the median of the rounds one by one."""
        pairs = zip(self.values, self.before, strict=False)  # one may have ended early
        return statistics.median([value / before for value, before in pairs])

    @property
    def bound(self) -> str:
        """In words, for tables."""
        words = []
        if self.most is not None:
            words.append(f"at most {self.most:,g}")
        if self.least is not None:
            words.append(f"at least {self.least:,g}")
        if self.of_before is not None:
            words.append(f"{self.of_before:g} of before")
        return ", ".join(words)

    @property
    def holds(self) -> bool | None:
        """Whether the bound was kept; None: nothing to judge."""
        value = self.value
        if math.isnan(value):
            return None
        judged = []
        if self.most is not None:
            judged.append(value <= self.most)
        if self.least is not None:
            judged.append(value >= self.least)
        if self.of_before is not None and self.before:
            judged.append(self.ratio >= self.of_before)
        return all(judged) if judged else None


@dataclass
class Promise:
    """Something that djactor promises with a number, and whether it held here."""

    text: str
    holds: bool


@dataclass
class Result:
    """What a benchmark found."""

    name: str
    title: str
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    bounded: list[Bounded] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)  # for plots
    seconds: float = 0.0
    disturbance: float = 0.0  # cores that others used meanwhile

    def add(
        self, name: str, unit: str, values: Sequence[float], *, samples: bool = False
    ) -> Figure:
        """Note a figure."""
        figure = Figure(name, unit, list(values), samples)
        self.figures.append(figure)
        return figure

    def promise(self, text: str, holds: bool) -> None:
        """Note whether a promise held."""
        self.promises.append(Promise(text, holds))

    @property
    def holds(self) -> bool:
        """Whether every promise and every bound was kept."""
        return all(p.holds for p in self.promises) and all(
            row.holds is not False for row in self.bounded
        )


class BenchmarkError(Exception):
    """The measurement is void: what was measured is not what it claims to be."""


def require(condition: bool, what: str) -> None:
    """Stop a benchmark whose books do not balance: its figures would be worthless."""
    if not condition:
        raise BenchmarkError(what)


def found(value: Found | None, what: str) -> Found:
    """Require that there is something, and return it."""
    if value is None:
        raise BenchmarkError(what)
    return value


# Server, databases, connections.


@contextmanager
def server(
    result: Result,
    settings: Mapping[str, str | int | float | bool] | None = None,
    bindir: Path | None = None,
    directory: Path | None = None,
) -> Iterator[PrivateServer]:
    """A server with the common settings and a benchmark's own, which the report lists.

    ``bindir`` names the programs of another build than this tree's, ``directory`` another
    place for the data than the usual one.
    """
    merged = SETTINGS | dict(settings or {})
    result.settings |= merged
    with PrivateServer(merged, bindir=bindir, directory=directory) as private:
        private.createuser(OWNER)
        try:
            yield private
        except (BenchmarkError, psycopg.Error) as error:
            log = private.log_tail(15)
            raise BenchmarkError(f"{error}\nthe server's log ends with\n{log}") from error


@contextmanager
def connect(private: PrivateServer, dbname: str, user: str = OWNER) -> Iterator[Connection]:
    """A session in autocommit mode."""
    with psycopg.connect(private.dsn(dbname, user), autocommit=True) as connection:
        yield connection


@contextmanager
def admin(private: PrivateServer, dbname: str) -> Iterator[Connection]:
    """A superuser's session in autocommit mode."""
    with connect(private, dbname, private.superuser) as connection:
        yield connection


def create_database(private: PrivateServer, dbname: str) -> None:
    """A database of the ordinary role, with the extension."""
    private.createdb(dbname, owner=OWNER)
    private.sql("CREATE EXTENSION djactor", dbname)


def scalar(connection: Connection, query: str, parameters: Sequence[object] = ()) -> object:
    """The one value that a query returns."""
    row = connection.execute(query, parameters or None).fetchone()
    return found(row, f"no row from: {query}")[0]


def number(connection: Connection, query: str, parameters: Sequence[object] = ()) -> float:
    """The one number that a query returns; NULL is 0."""
    value = scalar(connection, query, parameters)
    return float(value or 0)  # type: ignore[arg-type]


# Processes.


@dataclass(frozen=True)
class CpuUse:
    """CPU seconds that the whole machine has used so far, and those of ours."""

    machine: float
    ours: float

    @staticmethod
    def now() -> CpuUse:
        """Look.

        A server's processes count as ours once it has stopped, since the
        postmaster, a child of this process, has waited for all of them by then.
        """
        # user nice system idle iowait irq softirq steal (guest times are in user)
        ticks = [int(field) for field in Path("/proc/stat").read_text().split()[1:9]]
        machine = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return CpuUse(machine, sum(os.times()[:4]))


@dataclass(frozen=True)
class ProcessTimes:
    """What the kernel has counted of some processes so far."""

    cpu_ns: int
    ticks: int
    switches: int

    def __sub__(self, earlier: ProcessTimes) -> ProcessTimes:
        return ProcessTimes(
            self.cpu_ns - earlier.cpu_ns,
            self.ticks - earlier.ticks,
            self.switches - earlier.switches,
        )


def process_times(pids: Sequence[int]) -> ProcessTimes:
    """CPU time (ns and ticks) and context switches of processes, summed."""
    cpu_ns = ticks = switches = 0
    for pid in pids:
        proc = Path(f"/proc/{pid}")
        cpu_ns += int((proc / "schedstat").read_text().split()[0])
        # The name in parentheses may hold blanks; utime and stime are fields 14 and 15.
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for line in (proc / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                switches += int(line.split()[1])
    return ProcessTimes(cpu_ns, ticks, switches)


def djactor_pids(connection: Connection) -> list[int]:
    """The processes of djactor in the whole server."""
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'djactor%' ORDER BY pid"
    ).fetchall()
    return [row[0] for row in rows]


def worker_pids(connection: Connection) -> list[int]:
    """The workers of djactor in the whole server."""
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'djactor worker' ORDER BY pid"
    ).fetchall()
    return [row[0] for row in rows]
