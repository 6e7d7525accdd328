"""The site of docs/: it builds without a warning, and its Python reference names what is public."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.util.inventory import InventoryFile

import djactor
import djactor_python

TOP = Path(__file__).parents[2]
PAGES = sorted((TOP / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def documented(docs_site: Path) -> set[str]:
    """The full names of what the site's reference has."""
    inventory = InventoryFile.loads((docs_site / "objects.inv").read_bytes(), uri="")
    return {
        name for kind, items in inventory.data.items() if kind.startswith("py:") for name in items
    }


def test_each_page_is_there(docs_site: Path) -> None:
    assert len(PAGES) > 20
    for page in PAGES:
        assert (docs_site / page.relative_to(TOP)).with_suffix(".html").exists()
    assert 'url=docs/index.html"' in (docs_site / "index.html").read_text()


def test_nothing_is_loaded_from_elsewhere(docs_site: Path) -> None:
    for page in docs_site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]* rel=\"stylesheet\"[^>]* href=\"([^\"]+)\"", text)
        assert not [url for url in loaded if re.match(r"\w+:|//", url)], page
    for style in docs_site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//", style.read_text()), style


def public(module: ModuleType) -> list[str]:
    """What a module offers: by its ``__all__``, else the classes and functions that it defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]
    return [f"{module.__name__}.{name}" for name in names]


@pytest.mark.parametrize(
    "name",
    ["djactor", "djactor.hosting", "djactor.tasks", "djactor.test", "djactor_python"],
)
def test_the_reference_names_what_a_module_exports(documented: set[str], name: str) -> None:
    module = importlib.import_module(name) if name.startswith("djactor.") else None
    module = module or {"djactor": djactor, "djactor_python": djactor_python}[name]
    assert {each for each in public(module) if each not in documented} <= {
        "djactor.hosting.Reject"  # which is djactor.Reject
    }


def test_the_reference_has_what_the_pages_import(documented: set[str]) -> None:
    text = "".join(page.read_text() for page in [TOP / "README.md", *PAGES])
    imported = {
        f"{module}.{name}"
        for module, names in re.findall(r"from (djactor[\w.]*) import ([\w, ]+)", text)
        for name in re.split(r", *", names)
    }
    assert len(imported) > 10
    assert imported <= documented


@pytest.mark.parametrize("name", ["models", "operations"])
def test_the_reference_has_each_model_and_operation(documented: set[str], name: str) -> None:
    source = (TOP / f"django/djactor/{name}.py").read_text()
    classes = re.findall(r"^class ([A-Z]\w+)", source, re.MULTILINE)
    assert {f"djactor.{name}.{each}" for each in classes} <= documented


def test_the_commands_are_there(docs_site: Path) -> None:
    page = (docs_site / "docs/python.html").read_text()
    commands = (TOP / "django/djactor/management/commands").glob("djactor_*.py")
    names = [path.stem for path in commands]
    assert len(names) > 6
    for name in names:
        assert f'id="{name.replace("_", "-")}"' in page
    assert "--dry-run" in page


def test_words_are_found(docs_site: Path) -> None:
    index = (docs_site / "searchindex.js").read_text()
    for word in ("redriv", "idempot", "debounc", "mailbox_limit"):  # stems
        assert word in index


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("# A page\n\n[nowhere](nowhere.md)\n", "nowhere"),
        ("# A page\n\n[no such heading](#none)\n", "none"),
        ("# A page\n\n```{eval-rst}\n.. autofunction:: djactor.no_such\n```\n", "no_such"),
    ],
    ids=["a missing file", "a missing heading", "a missing function"],
)
def test_a_mistake_fails_the_build(tmp_path: Path, build_site, page: str, told: str) -> None:
    """As in a tree that has one page only."""
    (tmp_path / "docs").mkdir()
    for name in ("conf.py", "_site"):
        (tmp_path / "docs" / name).symlink_to(TOP / "docs" / name)
    (tmp_path / "docs" / "index.md").write_text(page)
    done: subprocess.CompletedProcess[str] = build_site(tmp_path, tmp_path / "built")
    assert done.returncode != 0
    assert told in done.stderr
