"""What CONTRIBUTING.md and docs/glossary.md say of src/ is so."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).resolve().parents[2]
SOURCE = {path: path.read_text() for path in sorted((TOP / "src").rglob("*.[ch]"))}
ANSWERS = (TOP / "CONTRIBUTING.md").read_text().split("## Where is it?")[1]
GLOSSARY = (TOP / "docs/glossary.md").read_text()
CODE = re.compile(r"`([^`]+)`")


def rows(table: str) -> list[list[str]]:
    """Cells of the rows of all tables, without the heads."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_ten_questions_are_answered_by_files_that_exist() -> None:
    questions = [row for row in rows(ANSWERS) if row[0].endswith("?")]
    assert len(questions) == 10
    for _question, answer in questions:
        files = [name for name in CODE.findall(answer) if re.fullmatch(r"[a-z]+/\w+\.[ch]", name)]
        assert files, answer
        for name in files:
            assert (TOP / "src" / name).exists(), name


def test_functions_that_answer_stand_in_the_file_named_before_them() -> None:
    for _question, answer in (row for row in rows(ANSWERS) if row[0].endswith("?")):
        text = ""
        for name in CODE.findall(answer):
            if re.fullmatch(r"[a-z]+/\w+\.[ch]", name):
                text = SOURCE[TOP / "src" / name]
            elif name.startswith("dja_"):
                assert re.search(rf"\b{name.removesuffix('()')}\b", text), name


@pytest.mark.parametrize("row", rows(GLOSSARY), ids=lambda row: row[0])
def test_names_of_the_glossary_are_in_use(row: list[str]) -> None:
    code = "\n".join(SOURCE.values())
    for name in CODE.findall(row[2] if len(row) > 2 else ""):
        if name.endswith(".c"):
            assert any(path.name == name for path in SOURCE), name
        else:
            pattern = re.escape(name).replace(r"\*", r"\w+")
            assert re.search(rf"(?<!\w){pattern}", code), name


def test_each_word_of_the_glossary_has_one_meaning() -> None:
    words = [row[0] for row in rows(GLOSSARY) if row[0] != "word"]
    assert len(words) == len(set(words))
    assert len(words) >= 30


def test_the_page_of_layers_names_each_file() -> None:
    page = (TOP / "src/README.md").read_text()
    for path in SOURCE:
        if path.suffix == ".c" and path.parent.name != "src":
            name = f"{path.parent.name}/{path.name}"
            assert name in page, name


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The lint step, about a copy of src/."""
    spec = importlib.util.spec_from_file_location("check_layers", TOP / "tools/check_layers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SOURCE", shutil.copytree(TOP / "src", tmp_path / "src"))
    return module


def test_no_layer_uses_a_higher_one(layers: ModuleType) -> None:
    assert layers.main() == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('#include "sql/send.h"', 'uses "sql/send.h", which stands higher: src/sql/send.h'),
        ("void f(void) { dja_give_up(); }", "uses dja_give_up, which stands higher"),
    ],
    ids=["an #include", "a call without an #include"],
)
def test_a_use_that_runs_up_is_told(
    layers: ModuleType, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    with (layers.SOURCE / "base/json.c").open("a") as file:
        file.write(line + "\n")
    assert layers.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("src/base/json.c:")
    assert told in error


def test_a_folder_that_is_no_layer_is_told(
    layers: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (layers.SOURCE / "misc").mkdir()
    (layers.SOURCE / "misc/some.c").write_text("int dja_some;\n")
    assert layers.main() == 1
    assert "no layer is named misc" in capsys.readouterr().err
