"""docs/protocol.md: the client that it ends with runs, and the page names each function."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from private_server import PrivateServer

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "protocol.md").read_text()
SCRIPT = (TOP / "sql" / "djactor.sql").read_text()
LINES_OF_CLIENT = 70


def client() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return str(code)


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection[Any]]:
    with (
        PrivateServer(fsync=False) as server,
        psycopg.connect(server.dsn(), autocommit=True) as connection,
    ):
        connection.execute("CREATE EXTENSION djactor")
        (definition,) = re.findall(r"^```sql\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
        connection.execute(definition)
        yield connection


@pytest.fixture
def host(connection: psycopg.Connection[Any], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    program = tmp_path / "client.py"
    program.write_text(client())
    environment = {
        **os.environ,
        "DATABASE_URL": connection.info.dsn,
        "ACTOR_TYPES": "shop.payment",
    }
    process = subprocess.Popen([sys.executable, str(program)], env=environment, text=True)
    yield process
    process.kill()
    process.wait()


def eventually(connection: psycopg.Connection[Any], query: str) -> None:
    """Wait until a query says true."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        row = connection.execute(query).fetchone()
        if row is not None and row[0]:
            return
        time.sleep(0.02)
    raise AssertionError(f"still not so: {query}")


def test_the_client_is_short() -> None:
    assert len(client().splitlines()) <= LINES_OF_CLIENT


def test_the_client_handles_fails_and_replies(
    connection: psycopg.Connection[Any], host: subprocess.Popen[str]
) -> None:
    connection.execute(
        "INSERT INTO djactor.message (actor_type, actor_key)"
        " SELECT 'shop.payment', (i % 7)::text FROM generate_series(1, 700) i"
    )
    eventually(
        connection,
        "SELECT count(*) = 7 AND bool_and(state = '{\"count\": 100}' AND turns = 100)"
        " FROM djactor.actor",
    )
    reply = connection.execute(
        "CALL djactor.ask('shop.payment', '1', '{}', timeout => '30 s')"
    ).fetchone()
    assert reply == ({"thanks": "1"},)
    connection.execute("SELECT djactor.send('shop.payment', '1', '{\"fail\": true}')")
    eventually(
        connection,
        "SELECT last_error = 'ValueError(''asked to fail'')' AND attempts > 0 FROM djactor.message",
    )
    assert host.poll() is None


def test_the_page_names_each_function_of_hosts() -> None:
    section = SCRIPT[SCRIPT.index("---------- hosts") : SCRIPT.index("---------- views")]
    names = set(re.findall(r"^CREATE (?:FUNCTION|PROCEDURE) djactor\.(\w+)", section, re.MULTILINE))
    headings = " ".join(re.findall(r"^### (.*)$", PAGE, flags=re.MULTILINE))
    assert names
    assert {name for name in names if f"{name}(" not in headings} == set()
