"""test/README.md names tests that exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SUFFIX = {"sql": ".sql", "specs": ".spec", "t": ".pl"}
NAMED = re.findall(
    r"`((sql|specs|t)/[^`]+)`", (TESTS / "README.md").read_text().split("## What is promised")[1]
)


def test_the_tables_name_tests() -> None:
    assert len(NAMED) > 80


@pytest.mark.parametrize(("name", "kind"), sorted(set(NAMED)))
def test_it_exists(name: str, kind: str) -> None:
    assert list(TESTS.glob(name + SUFFIX[kind]))
