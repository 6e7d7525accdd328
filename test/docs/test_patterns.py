"""docs/patterns.md, run as it stands: each block of SQL, and what the page shows of its output.

A block marked ``text`` is what psql shows for the block of SQL before it; the blanks at the ends of
lines do not count.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from private_server import PrivateServer

PAGE = Path(__file__).parents[2] / "docs" / "patterns.md"


@dataclass(frozen=True)
class Example:
    """A block of SQL, the section that it stands in, and its output, if the page shows it."""

    section: str
    sql: str
    shown: str | None


def examples() -> Iterator[tuple[str, list[Example]]]:
    """The sections of the page that have examples, with these."""
    for section in PAGE.read_text().split("\n## ")[1:]:
        title = section.splitlines()[0]
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
        found: list[Example] = []
        for language, text in blocks:
            if language == "sql":
                found.append(Example(title, text, None))
            else:
                assert language == "text", f"what is a block of {language}?"
                assert found and found[-1].shown is None, f"no SQL before the output in {title}"
                found[-1] = Example(title, found[-1].sql, text)
        yield title, found


def without_blanks(text: str) -> list[str]:
    """The lines, without blanks at their ends and without empty lines at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with PrivateServer(fsync=False) as server:
        server.sql("CREATE EXTENSION djactor")
        yield server


def psql(server: PrivateServer, script: str) -> subprocess.CompletedProcess[str]:
    command = [server.bindir / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", server.dsn()]
    return subprocess.run(command, input=script, capture_output=True, text=True)


def test_the_page_has_all_patterns() -> None:
    titles = [title.split(":")[0] for title, _ in examples()]
    assert titles == [
        "Saga",
        "Aggregator",
        "Rate limiter",
        "Debounce",
        "Scheduler",
        "Fan-out",
        "Progress",
    ]
    for title, found in examples():
        assert any(example.shown for example in found), f"{title} shows no result"


@pytest.mark.parametrize(
    ("title", "found"), list(examples()), ids=[title.split(":")[0] for title, _ in examples()]
)
def test_pattern(server: PrivateServer, title: str, found: list[Example]) -> None:
    for example in found:
        result = psql(server, example.sql)
        assert result.returncode == 0, f"{title}: {result.stderr}"
        assert "WARNING" not in result.stderr, result.stderr
        if example.shown is not None:
            assert without_blanks(result.stdout) == without_blanks(example.shown)
    assert server.sql("SELECT count(*) FROM djactor.dead_letter WHERE reason <> 'rejected'") == "0"
    assert re.search(r"PANIC|TRAP:|terminated by signal", server.log_tail(1000)) is None
