"""docs/catalog.md is what tools/reference.py makes; sql.md and rows.md leave nothing out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import reference
from private_server import PrivateServer

DOCS = Path(__file__).parents[2] / "docs"
SQL = (DOCS / "sql.md").read_text()
ROWS = (DOCS / "rows.md").read_text()
CATALOG = (DOCS / "catalog.md").read_text()
Blocks = Callable[[str, str], list[str]]


def part(title: str) -> str:
    return CATALOG.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_catalog_is_up_to_date() -> None:
    assert reference.page() == CATALOG, "call `make reference`"


def test_each_setting_is_explained() -> None:
    settings = re.findall(r"^\| `(djactor[\w.]+)`", part("Settings"), re.MULTILINE)
    assert len(settings) > 10
    explained = SQL.split("\n## Settings\n")[1].split("\n## ")[0]
    assert [name for name in settings if f"| `{name}` |" not in explained] == []


def test_each_sqlstate_is_explained() -> None:
    states = re.findall(r"^### (\w{5}) ", part("Errors"), re.MULTILINE)
    assert "JA001" in states and len(states) > 20
    explained = SQL.split("\n## Errors\n")[1].split("\n## ")[0]
    assert [state for state in states if state not in explained] == []


# Defaults of columns, triggers, parts of indexes, views, aggregates; what the server calls itself.
INTERNAL = {
    *("check_preload", "handle_python", "python_directory", "progress_list"),
    *("current_cause", "current_headers", "current_sender_key", "current_sender_type"),
    *("current_trace", "mailbox_position", "name_hash"),
    *("home_changed", "message_arrived", "message_sent", "refuse_write"),
    *("stat_percentile_add", "stat_percentile_end"),
}


def test_each_function_is_explained() -> None:
    pages = SQL + (DOCS / "protocol.md").read_text()
    names = re.findall(r"^### djactor\.(\w+)\(\)", part("Functions and procedures"), re.MULTILINE)
    assert {name for name in names if not re.search(rf"\b{name}(\(|`)", pages)} == INTERNAL


def test_each_table_has_its_rows_explained() -> None:
    tables = re.findall(r"^### djactor\.(\w+)$", part("Tables"), re.MULTILINE)
    assert re.findall(r"^## djactor\.(\w+)$", ROWS, re.MULTILINE) != []
    assert set(re.findall(r"^## djactor\.(\w+)$", ROWS, re.MULTILINE)) == set(tables)
    assert set(re.findall(r"^\| `(\w+)` \| [^|]*\|[^|]*\|[^|]*\|$", ROWS, re.MULTILINE)) == {
        *tables
    }


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with PrivateServer(fsync=False) as server:
        server.sql(
            "CREATE EXTENSION djactor;"
            "CREATE FUNCTION f(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS"
            " $$BEGIN IF message ? 'fail' THEN RAISE 'told to fail'; END IF; END$$;"
            "SELECT djactor.define_actor_type('t', 'f', max_attempts => 1, journal => '1 day');"
            "SELECT djactor.define_actor_type('r', 'f', backoff => '1 h');"
            "SELECT djactor.define_actor_type('p', 'f');"
            "SELECT djactor.pause('p');"
            "SELECT djactor.send('t', 'k');"
            "SELECT djactor.send('t', 'k', '{\"fail\": 1}');"
            "SELECT djactor.send('r', 'k', '{\"fail\": 1}');"
            "SELECT djactor.send('t', 'later', deliver_at => now() + '1 day');"
            "SELECT djactor.send('p', 'k');"
            "INSERT INTO djactor.stat_history SELECT 't', date_trunc('minute', now())"
            " - interval '1 h' * n, 1, 7, 2, 0, 0, 0, 0, 0, '{0,0,0,0,7}', '{7}'"
            " FROM generate_series(1, 2) n;"
        )
        server.sql(
            "DO $$BEGIN WHILE NOT EXISTS (SELECT FROM djactor.dead_letter)"
            " OR NOT EXISTS (SELECT FROM djactor.message WHERE attempts > 0)"
            " LOOP PERFORM pg_sleep(0.05); END LOOP; END$$"
        )
        yield server


def test_the_queries_run(server: PrivateServer, blocks: Blocks) -> None:
    shown = [server.sql(query).splitlines() for query in blocks(ROWS, "sql")]
    why, actors, dead, journal, history, workers, sizes = shown
    assert len(why) == 3
    assert any("|attempt 2 at " in line and line.endswith(": told to fail") for line in why)
    assert any("|scheduled for " in line for line in why)
    assert any("|its type is paused: " in line for line in why)
    assert any(line.startswith("t|1|1|") for line in actors)
    assert dead[0].startswith("t|failed|P0001|told to fail|1|")
    assert journal[0].startswith("t|1|")
    assert sum(line.endswith("|t|7|2|00:00:00.000005") for line in history) == 2
    assert workers
    assert len(sizes) >= 11
