"""A Django project whose files a page has: ``run_tests()`` runs its tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from private_server import PrivateServer

ROOT = Path(__file__).parents[2]
SETTINGS = """
SECRET_KEY = "tests keep no secrets"
INSTALLED_APPS = ["djactor", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "mysite"}}
USE_TZ = True
"""


@pytest.fixture(scope="session")
def blocks() -> Callable[[str, str], list[str]]:
    """``blocks(page, language)``: the blocks of code of a page, or of a part of one."""

    def find(page: str, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)

    return find


@pytest.fixture(scope="module")
def mysite() -> Iterator[PrivateServer]:
    """A server with a database for a project, whose role may create test databases."""
    with PrivateServer(fsync=False) as server:
        server.sql("CREATE ROLE me LOGIN CREATEDB")
        server.createdb("mysite", owner="me")
        yield server


@pytest.fixture
def run_tests(mysite: PrivateServer, tmp_path: Path) -> Callable[..., str]:
    """``run_tests(actors="...", tests="...")``: runs the tests of an app with these files.

    Names without a suffix are modules of the app ``shop``; others are files, by their path in it.
    The result is what the runner of Django said.
    """

    def run(files: dict[str, str] | None = None, settings: str = "", **modules: str) -> str:
        app = tmp_path / "shop"
        app.mkdir()
        (app / "__init__.py").write_text("")
        (tmp_path / "site_settings.py").write_text(SETTINGS + settings)
        for name, text in {f"{module}.py": modules[module] for module in modules}.items():
            (app / name).write_text(text)
        for name, text in (files or {}).items():
            (app / name).parent.mkdir(parents=True, exist_ok=True)
            (app / name).write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "django", "test", "shop", "--noinput"],
            cwd=tmp_path,
            env=os.environ
            | {
                "PGHOST": mysite.host,
                "PGUSER": "me",
                "DJANGO_SETTINGS_MODULE": "site_settings",
                "PYTHONPATH": f"{ROOT / 'django'}{os.pathsep}{tmp_path}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run
