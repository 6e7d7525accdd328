"""What ``djactor_status`` and ``djactor_top`` print: the live page's figures as lines of text."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError, connections

from djactor import cluster
from djactor.admin import live
from djactor.admin.display import duration, shortened

_TYPES = (
    "type",
    "waiting",
    "oldest",
    "retrying",
    "dead",
    "handled",
    "failed",
    "turns/s",
    "run p95",
)
_PUT_OFF = ("put off", "key", "times", "oldest", "why")
_MOST = 10  # mailboxes that were put off
_WORKERS = ("worker", "role", "state", "for", "type", "message")
_HOSTS = ("host", "name", "version", "role", "state", "for", "claims", "lease", "types")


def of_all(using: str | None, default: str) -> list[str]:
    """``lines()`` of a database, or of each node of a cluster.

    Args:
        using: Alias of the database; None means all nodes.
        default: Alias of the database, if there is no cluster.

    Raises:
        DatabaseError: The role may not read the views; or the only database cannot be reached.
    """
    nodes = cluster.nodes()
    if using is not None or not nodes:
        return lines(using or default)
    out: list[str] = []
    for number, alias in sorted(nodes.items()):
        out += [*([""] if out else []), f"node {number}, {alias}", ""]
        try:
            out += lines(alias)
        except OperationalError as error:
            connections[alias].close()
            out.append(f"no connection: {str(error).strip()}")
    return out


def lines(using: str) -> list[str]:
    """The state of the database; a ``+`` after a number says that there are more.

    Raises:
        DatabaseError: The role may not read the views.
    """
    now = live.snapshot(using)
    out = []
    if now["held"]:
        out += ["This database is held: it is a copy. SELECT djactor.resume() lets it run.", ""]
    out += _table((*_TYPES, ""), [_type(row) for row in now["types"]], numbers=range(1, 9))
    if now["more_types"]:
        out.append(f"and {now['more_types']} types more")
    mail, letters = ("+" if now[name] else "" for name in ("more", "more_letters"))
    out += [
        "",
        f"{now['waiting']:,}{mail} wait, {now['retrying']:,}{mail} are to be retried,"
        f" {now['scheduled']:,}{mail} are scheduled; {now['letters']:,}{letters} dead letters;"
        f" {now['rate']:,.0f} turns/s",
        "",
    ]
    put_off = live.put_off(using)
    if put_off:
        out += _table(_PUT_OFF, [_put_off(row) for row in put_off[:_MOST]], numbers=(2, 3))
        if len(put_off) > _MOST:
            out.append("and others")
        out.append("")
    out += _table(_WORKERS, [_worker(row) for row in now["workers"]], numbers=[0])
    if now["hosts"]:
        out += ["", *_table(_HOSTS, [_host(row) for row in now["hosts"]], numbers=(0, 6))]
    return out


def _type(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["name"],
        f"{row['waiting']:,}",
        duration(row["oldest"]),
        f"{row['retrying']:,}",
        f"{row['letters']:,}",
        f"{row['handled']:,}",
        f"{row['failed']:,}",
        f"{row['rate']:,.0f}",
        duration(row["run"]),
        "; ".join(filter(None, (row["note"] or _state(row), _late(row)))),
    )


def _state(row: dict[str, Any]) -> str:
    return "" if row["state"] == "running" else row["state"]


def _late(row: dict[str, Any]) -> str:
    return f"waits {duration(row['wait'])}, target {duration(row['target'])}" if row["late"] else ""


def _worker(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["pid"],
        row["role"],
        row["state"],
        duration(row["seconds"]),
        row["type"],
        row["message"] or "",
    )


def _host(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["pid"],
        shortened(row["name"]),
        shortened(row["version"]),
        row["role"],
        row["state"],
        duration(row["seconds"]),
        f"{row['claims']:,}",
        duration(row["lease"]),
        shortened(", ".join(row["types"])),
    )


def _put_off(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["actor_type"],
        shortened(row["actor_key"]),
        f"{row['put_offs']:,}",
        duration(row["age"]),
        shortened(row["error"] or ""),
    )


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]], numbers: Any) -> list[str]:
    cells = [head, *[tuple(map(str, row)) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(widths[i]) if i in numbers else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ).rstrip()
        for row in cells
    ]
