"""docs/contract.md names for each point the tests that show it: they exist, none is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "contract.md").read_text()
POINTS = [*range(1, 30), 31, 32, 33]


def references() -> dict[int, list[str]]:
    """The tests that the page names for each point, by its number."""
    points = re.findall(r"^\*\*(\d+)\. .*? — \*([^*]+)\*$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return {int(number): re.split(r",\s+", names) for number, names in points}


def files(reference: str) -> list[Path]:
    """The files that are meant, in the shorthand that the page explains."""
    name = reference.strip("`")
    if re.fullmatch(r"\d\d", name):
        return list(TOP.glob(f"test/sql/contract_{name}_*.sql"))
    if re.fullmatch(r"s\d\d", name):
        return list(TOP.glob(f"test/specs/contract-{name[1:]}-*.spec"))
    if re.fullmatch(r"t/\d{3}", name):
        return list(TOP.glob(f"test/{name}_*.pl"))
    if name.startswith("test/"):
        return [TOP / name] if (TOP / name).exists() else []
    return [
        path
        for path in (TOP / "test/sql" / f"{name}.sql", TOP / "test/specs" / f"{name}.spec")
        if path.exists()
    ]


def test_each_point_has_its_number() -> None:
    assert sorted(references()) == POINTS


@pytest.mark.parametrize("point", POINTS)
def test_the_tests_of_a_point_exist(point: int) -> None:
    names = references()[point]
    assert names
    for name in names:
        assert files(name), f"point {point} names {name}, which does not exist"


def test_each_test_of_the_contract_is_named() -> None:
    named = {path for names in references().values() for name in names for path in files(name)}
    tests = {*TOP.glob("test/sql/contract_*.sql"), *TOP.glob("test/specs/contract-*.spec")}
    assert tests <= named
    for path in tests:
        point = int(re.findall(r"\d\d", path.name)[0])
        assert path in {file for name in references()[point] for file in files(name)}
        assert path.stem in (TOP / "test" / schedule(path)).read_text().split()


def schedule(path: Path) -> str:
    """The schedule that a test has to stand in."""
    return "schedule" if path.suffix == ".sql" else "isolation_schedule"
