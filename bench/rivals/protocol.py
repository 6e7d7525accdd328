"""What a rival is to the benchmark: a small class for each, and what they exchange.

A rival says how it is installed, how its schema is made, how messages are put
into it in bulk, how its worker is started, and how to see that nothing is left.
Everything that decides a figure (clock, CPU, books) is in measure.py, the same
for all of them; nothing of it is left to the rival's class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import Connection, number
from private_server import PrivateServer

KEYS = 1_000
# Where the rivals that use Django find the benchmarks' project.
DJANGO_PROJECT = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent / "project")}


class Skip(Exception):
    """A rival that cannot be measured here; the message says why in one line."""


@dataclass(frozen=True)
class Case:
    """One shape of load.

    ``keys`` is 0 where no order is asked for: any message may go at any time.
    Handlers: ``noop`` returns; ``update`` adds to the row of the message's key in
    the table ``state`` (djactor: to the actor's state); ``sleep`` waits 10 ms; ``orm``
    adds to the row with Django's ORM; ``tasks`` is a no-op task of a framework in Python.
    """

    name: str
    title: str
    handler: str
    keys: int
    snapshot: bool = False
    only_best: bool = False  # only with the last variant of each rival


CASES = (
    Case("noop", "no key, no-op", "noop", 0),
    Case("keys", "1,000 keys, in order per key, one row UPDATE each", "update", KEYS),
    Case("hot", "one hot key, in order, one row UPDATE each", "update", 1),
    Case(
        "sleep",
        "the handler sleeps 10 ms; no key (djactor: 1,000 keys, in order per key)",
        "sleep",
        0,
        only_best=True,
    ),
    Case(
        "orm",
        "1,000 keys, in order per key, one row UPDATE each with Django's ORM, durable",
        "orm",
        KEYS,
        only_best=True,
    ),
    Case(
        "tasks",
        "no-op tasks: Django's, whose results are kept (djactor, django-tasks-db), and others'",
        "tasks",
        0,
        only_best=True,
    ),
    Case(
        "snapshot",
        "1,000 keys, one row UPDATE each, an old snapshot held open",
        "update",
        KEYS,
        snapshot=True,
        only_best=True,
    ),
)


@dataclass(frozen=True)
class Plan:
    """How one rival runs one case: how many messages, with which settings.

    ``order`` is what it promises there, as the table shows it.  ``settings`` is
    handed to the rival's program as it is, and printed.
    """

    messages: int
    settings: dict[str, object] = field(default_factory=dict)
    order: str = ""


@dataclass
class Site:
    """Where one run takes place: a database of its own on the common server."""

    private: PrivateServer
    dbname: str
    owner: Connection
    directory: Path  # empty, for whatever the run needs

    def url(self) -> str:
        """The database as a URL, which drivers without libpq understand."""
        return f"postgresql://bench@/{self.dbname}?host={self.private.host}"


class Worker(ABC):
    """A started worker that waits for the word to begin."""

    handled: int | None = None  # calls of its handler, if it counts them, once it has ended

    @property
    def pids(self) -> Sequence[int]:
        """Its processes outside the server, without their children."""
        return ()

    @abstractmethod
    def go(self) -> float:
        """Let it begin; returns when that was (``time.time()``)."""

    def check(self) -> None:  # noqa: B027
        """Raise if it has ended by itself."""

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        raise NotImplementedError

    @abstractmethod
    def stop(self) -> None:
        """End it in peace."""

    def abandon(self) -> None:
        """End it at once; what it has in hand does not matter any more."""
        self.stop()


class Rival(ABC):
    """One of those that are compared."""

    name: str
    about: str  # what acknowledges, and how durable that is
    variants: tuple[str, ...] = ("default", "tuned")
    in_state = True  # the effect is in the table state
    has_django = False  # handlers can use Django: it runs the cases orm and tasks
    only_tasks = False  # it runs nothing but the case tasks
    version = ""

    @abstractmethod
    def install(self) -> str:
        """Get it from its registry, if it is not there; returns its version."""

    def open(self, directory: Path) -> None:  # noqa: B027
        """Start what it needs beside the server, say a broker."""

    def suspend(self) -> None:  # noqa: B027
        """Keep it from disturbing others until the next run."""

    def close(self) -> None:  # noqa: B027
        """Stop that."""

    @property
    def pids(self) -> Sequence[int]:
        """Processes of open(), whose CPU counts."""
        return ()

    def variants_of(self, case: Case) -> Sequence[str]:
        """The variants that run a case."""
        if case.handler in ("orm", "tasks") and not self.has_django:
            return ()
        return self.variants[-1:] if case.only_best else self.variants

    @abstractmethod
    def plan(self, variant: str, case: Case) -> Plan:
        """The settings for a case."""

    @abstractmethod
    def prepare(self, site: Site, case: Case, plan: Plan) -> None:
        """Make its schema in the new database."""

    @abstractmethod
    def preload(self, site: Site, case: Case, plan: Plan) -> None:
        """Send ``plan.messages`` messages: number i has n = i % 7 + 1 and the key i % KEYS."""

    @abstractmethod
    def start(self, site: Site, case: Case, plan: Plan) -> Worker:
        """Start its worker."""

    @abstractmethod
    def left(self, site: Site) -> int:
        """How many messages are not acknowledged yet."""

    def send(self, site: Site, first: int, count: int, pause: float) -> str:
        """Send so many messages of the case ``tasks``, each committed alone, at these intervals.

        Returns:
            JSON: when each was committed, by its number; from ``first`` on.
        """
        raise NotImplementedError

    def any_left(self, site: Site) -> bool:
        """The same, only whether; asked often, so it should be cheap."""
        return self.left(site) > 0

    def finished_at(self, site: Site) -> float:
        """When the last message was acknowledged, asked once none is left."""
        query = "SELECT extract(epoch FROM timestamp) FROM pg_last_committed_xact()"
        row = site.owner.execute(query).fetchone()
        return float(row[0]) if row else 0.0

    def effect(self, site: Site) -> float:
        """The sum of what the handlers have added."""
        return number(site.owner, "SELECT sum(total) FROM state")

    def check_books(self, site: Site, case: Case, plan: Plan) -> None:  # noqa: B027
        """Raise if something was lost; the worker has ended and nothing is left."""
