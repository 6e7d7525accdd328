"""docs/time.md: what its tables say of the days of the change is so, and its SQL runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_server import PrivateServer

PAGE = (Path(__file__).parents[2] / "docs" / "time.md").read_text()
ZONE = "Europe/Berlin"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose heading has this."""
    lines = PAGE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|") and heading in line)
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert found
    return found


CHANGES = rows("28 March 2027")
MONTHS = rows("next")


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with PrivateServer(fsync=False) as server:
        server.sql("CREATE EXTENSION djactor")
        yield server


def times(server: PrivateServer, rule: str, after: str, count: int, form: str) -> list[str]:
    """What a rule of the page has after a moment."""
    rule = rule.strip("`")
    cron = re.fullmatch(r"cron => ('[^']*')", rule)
    every = re.fullmatch(r"every => ('[^']*'), at => ('[^']*')", rule)
    if cron:
        call = f"djactor.cron_next({cron[1]}, '{after}', '{ZONE}', {count})"
    else:
        assert every, rule
        call = f"djactor.every_next({every[1]}, {every[2]}, '{after}', '{ZONE}', {count})"
    shown = server.sql(f"SET TimeZone = '{ZONE}'; SELECT to_char(t, '{form}') FROM {call} t")
    return shown.removeprefix("SET\n").split("\n")


@pytest.mark.parametrize("row", CHANGES, ids=[row[0] for row in CHANGES])
def test_days_of_the_change(server: PrivateServer, row: list[str]) -> None:
    rule, *days = row
    for day, says in zip(("2027-03-28", "2027-10-31"), days, strict=True):
        found = times(server, rule, f"{day} 00:59:59.999 {ZONE}", 8, "YYYY-MM-DD HH24:MITZH")
        found = [time[11:] for time in found if time.startswith(day) and time[11:13] < "04"]
        assert ", ".join(found) == says.replace("never", ""), f"{rule} on {day}"


@pytest.mark.parametrize("row", MONTHS, ids=[row[0] for row in MONTHS])
def test_months(server: PrivateServer, row: list[str]) -> None:
    rule, says = row
    expected = says.split(", ")
    anchor = rule.strip("`").split("'")[3]
    assert times(server, rule, anchor, len(expected), "YYYY-MM-DD HH24:MITZH") == expected


def test_the_sql_runs(server: PrivateServer) -> None:
    server.sql(
        "CREATE FUNCTION report(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS 'SELECT';"
        "SELECT djactor.define_actor_type('shop.report', 'report')"
    )
    (block,) = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    shown = server.sql(block).strip().split("\n")
    assert len(shown) == 2 + 12
