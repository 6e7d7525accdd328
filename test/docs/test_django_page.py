"""docs/django.md: the quick start is followed as it stands, in an empty folder; the rest compiles.

Blocks after a line that ends in a file's name go to the end of that file; indented lines are
commands (but for pip, since the tests have the app on Python's path); a block of Python without a
file is typed into the shell, and prints what its comments say.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from private_server import PrivateServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "django.md").read_text()
STEP = re.compile(
    r"`(?P<file>[\w/]+\.\w+)`:\n\n```\w+\n(?P<content>.*?)^```$"
    r"|^    (?P<command>\w.*?)$"
    r"|^```python\n(?P<typed>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


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

        def run(command: str, typed: str = "") -> str:
            done = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env=environment,
                input=typed,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}"
            return done.stdout

        said = {}
        for step in STEP.finditer(section("Quick start")):
            if step["file"]:
                with (tmp_path / step["file"]).open("a") as file:
                    file.write(step["content"])
            elif step["typed"]:
                shown = run("python manage.py shell", step["typed"])
                expected = re.findall(r"^print.*# (\{.*)$", step["typed"], flags=re.MULTILINE)
                assert expected and shown.splitlines()[-len(expected) :] == expected
            elif not step["command"].startswith("pip "):
                said[step["command"]] = run(step["command"])

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
