"""docs/django.md: the quick start is followed as it stands; the rest compiles."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import quick_start
from private_server import PrivateServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "django.md").read_text()


def test_the_quick_start_does_what_it_says(tmp_path: Path) -> None:
    with PrivateServer(fsync=False) as server:
        server.sql("CREATE ROLE me LOGIN")
        server.createdb("mysite", owner="me")
        environment = os.environ | {
            "PGHOST": server.host,
            "PGUSER": "me",
            "PYTHONPATH": str(ROOT / "django"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        said = quick_start.follow(PAGE, tmp_path, environment)

    assert len(said) == 5
    assert "no issues" in said["python manage.py check --database default"]
    assert "WARNINGS" not in said["python manage.py migrate"]
    status = said["python manage.py djactor_status"]
    assert re.search(r"^shop\.counter +0 +0 +0 +2 ", status, flags=re.MULTILINE), status


@pytest.mark.parametrize(
    "block", re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
)
def test_each_block_of_python_is_python(block: str) -> None:
    compile(block, "docs/django.md", "exec")


def test_each_link_within_the_page_leads_somewhere() -> None:
    heads = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    places = {head.lower().replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= places
