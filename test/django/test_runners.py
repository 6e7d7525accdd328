"""The suites that users write pass under every runner, while workers run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(project, *words):
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=HERE,
        env=os.environ
        | {
            "SHOP_HOST": project.host,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "django"), str(HERE)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def databases(project):
    return project.sql("SELECT datname FROM pg_database WHERE datname LIKE 'test%'")


@pytest.mark.parametrize("options", [[], ["--parallel", "2"], ["--reverse", "--shuffle", "7"]])
def test_djangos_runner(project, options):
    out = run(project, "django", "test", "shop", "--settings", "project_settings", *options)
    assert "Ran 8 tests" in out
    assert not databases(project)


def test_djangos_runner_keeps_its_databases(project):
    words = ("django", "test", "shop", "--settings", "project_settings", "--parallel", "2")
    for _ in range(2):
        assert "Ran 8 tests" in run(project, *words, "--keepdb")
    assert databases(project)
    run(project, *words, "--noinput")  # which removes them
    assert not databases(project)


@pytest.mark.parametrize("options", [[], ["-n", "2"], ["--reuse-db"], ["--create-db"]])
def test_pytest_django(project, options):
    words = ["pytest", "-p", "djactor.pytest_plugin", "-p", "no:cacheprovider", "--noconftest"]
    words += ["--ds", "project_settings", f"--rootdir={HERE}", "shop/pytest_suite.py"]
    assert "6 passed" in run(project, *words, *options)
