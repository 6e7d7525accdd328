"""Commands that read what the server appends to a table: in pages, from where they left off.

Rows are read in the order of their times.  A row becomes visible when its transaction commits,
which may be later than others with later times.  So a page ends before the oldest transaction of a
worker has begun, and before a moment ago (``--lag``), for transactions that this role may not see.
A row that a client's transaction has kept open for longer than that is passed over.

Where a command is, it writes into a file, after each page and when the page is dealt with.  So one
that is killed does a page again, and leaves none out.
"""

from __future__ import annotations

import json
import logging
import os
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand, CommandError
from django.db import DataError, InterfaceError, OperationalError, connections

from djactor import conf

logger = logging.getLogger("djactor.following")

PAGE = 500  # rows

_HORIZON = """
    SELECT least(clock_timestamp() - make_interval(secs => %s), min(xact_start))
    FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'djactor worker'"""


class Source(NamedTuple):
    """A table, or a part of it, that is read.

    Attributes:
        name: Its name in the file of positions.
        sql: The statement up to its WHERE, whose table is called ``r``.
        where: Which rows.
        params: Parameters of ``where``.
        column: The name of the column by whose times the rows are read.
    """

    name: str
    sql: str
    where: str
    params: Sequence[Any]
    column: str


class FollowingCommand(BaseCommand):
    """Reads some sources once, or again and again."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """From where on, and how often."""
        parser.add_argument("--database", help="alias of the database")
        parser.add_argument(
            "--since",
            help="from then on: a time such as 2026-11-29T12:00Z, or how long ago, such as '1 hour'"
            " (default: what there is; with --follow: now)",
        )
        parser.add_argument(
            "--position",
            type=Path,
            metavar="FILE",
            help="go on where the last run with this file has stopped",
        )
        parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
        parser.add_argument(
            "--interval",
            type=_seconds,
            default=5.0,
            help="seconds between two looks, with --follow (default 5)",
        )
        parser.add_argument(
            "--lag",
            type=_seconds,
            default=5.0,
            help="leave rows alone that are younger than so many seconds (default 5)",
        )

    def sources(self, using: str) -> list[Source]:
        """What is read now."""
        raise NotImplementedError

    def take(self, source: Source, rows: list[dict[str, Any]]) -> None:
        """Deal with a page; when this returns, it is done."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        """Read what there is, or until told otherwise.

        Raises:
            CommandError: ``--since`` is no time, or the file cannot be read or written.
        """
        self.using: str = options["database"] or conf.get("DATABASE")
        self.count = 0
        path: Path | None = options["position"]
        positions = _read(path)
        follow = options["follow"]
        try:
            since = _since(self.using, options["since"], follow)
            while True:
                try:
                    self._look(positions, since, options["lag"], path)
                except (OperationalError, InterfaceError) as error:
                    if not follow:
                        raise
                    logger.warning("no connection, trying again: %s", str(error).strip())
                    connections[self.using].close()
                if not follow:
                    break
                time.sleep(options["interval"])
        except KeyboardInterrupt:
            pass

    def _look(
        self, positions: dict[str, tuple[str, int]], since: str, lag: float, path: Path | None
    ) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_HORIZON, [lag])
            (horizon,) = cursor.fetchone()
        for source in self.sources(self.using):
            for rows in _pages(self.using, source, positions, since, horizon):
                self.take(source, rows)
                self.count += len(rows)
                last = rows[-1]
                positions[source.name] = (last[source.column].isoformat(), last["id"])
                _write(path, positions)


def _pages(
    using: str,
    source: Source,
    positions: dict[str, tuple[str, int]],
    since: str,
    horizon: datetime,
) -> Iterator[list[dict[str, Any]]]:
    sql = (
        f"{source.sql} WHERE {source.where} AND r.{source.column} >= %s::timestamptz"
        f" AND (r.{source.column}, r.id) > (%s::timestamptz, %s) AND r.{source.column} < %s"
        f" ORDER BY r.{source.column}, r.id LIMIT {PAGE}"
    )
    while True:
        at, last = positions.get(source.name, (since, 0))
        with connections[using].cursor() as cursor:
            cursor.execute(sql, [*source.params, at, at, last, horizon])
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        if rows:
            yield rows
        if len(rows) < PAGE:
            return


def _since(using: str, text: str | None, follow: bool) -> str:
    if text is None:
        return datetime.now(timezone.utc).isoformat() if follow else "-infinity"
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        try:
            with connections[using].cursor() as cursor:
                cursor.execute("SELECT clock_timestamp() - %s::interval", [text])
                found = cursor.fetchone()[0]
        except DataError:
            raise CommandError(f"--since is neither a time nor a span of time: {text}") from None
    if found.tzinfo is None:
        raise CommandError(f"--since needs a time zone, such as {text}Z")
    return found.isoformat()


def _read(path: Path | None) -> dict[str, tuple[str, int]]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text())
        return {name: (str(at), int(last)) for name, (at, last) in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CommandError(f"the positions cannot be read from {path}: {error}") from None


def _write(path: Path | None, positions: dict[str, tuple[str, int]]) -> None:
    if path is None:
        return
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("w") as file:
            json.dump(positions, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise CommandError(f"the positions cannot be written to {path}: {error}") from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= timedelta(days=1).total_seconds():
        raise ArgumentTypeError("a number of seconds from 0 to 86400")
    return seconds
