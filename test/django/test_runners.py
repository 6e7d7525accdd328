"""The suites that users write pass under every runner, while workers run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(project, *words, folder=HERE):
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-m", *words],
        cwd=folder,
        env=os.environ
        | {
            "SHOP_HOST": project.host,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "django"), str(folder)]),
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


def test_djangos_runner(project):
    options = ["--settings", "project_settings", "--reverse", "--shuffle", "7"]
    assert "Ran 13 tests" in run(project, "django", "test", "shop", *options)
    assert not databases(project)


def test_djangos_runner_in_parallel_and_with_the_databases_kept(project):
    options = ["--settings", "project_settings", "--parallel", "2", "--keepdb"]
    for _ in range(2):
        assert "Ran 13 tests" in run(project, "django", "test", "shop", *options)
    kept = databases(project).split()
    assert len(kept) == 3
    for name in kept:
        project.sql(f"DROP DATABASE {name}")


# The second makes a database that the third throws away.
@pytest.mark.parametrize("options", [["-n", "2"], ["--reuse-db"], ["--create-db"]])
def test_pytest_django(project, options):
    words = ["pytest", "-p", "djactor.pytest_plugin", "-p", "no:cacheprovider", "--noconftest"]
    words += ["--ds", "project_settings", f"--rootdir={HERE}", "shop/pytest_suite.py"]
    assert "6 passed" in run(project, *words, *options)


def test_pytest_django_without_migrations(project):
    words = ["pytest", "-p", "djactor.pytest_plugin", "-p", "no:cacheprovider", "--noconftest"]
    words += ["--ds", "project_settings", f"--rootdir={HERE}", "--nomigrations", "--create-db"]
    assert "6 passed" in run(project, *words, "shop/pytest_suite_without_migrations.py")


def test_hosted_actors_with_djangos_runner(project):
    options = ["--settings", "desk_settings", "--shuffle", "7"]
    assert "Ran 8 tests" in run(project, "django", "test", "desk", *options)
    assert "Ran 8 tests" in run(project, "django", "test", "desk", *options, "--parallel", "2")
    assert not databases(project)


@pytest.mark.parametrize("options", [["-n", "2"], ["--nomigrations"]])
def test_hosted_actors_with_pytest(project, options):
    words = ["pytest", "-p", "djactor.pytest_plugin", "-p", "no:cacheprovider", "--noconftest"]
    words += ["--ds", "desk_settings", f"--rootdir={HERE}", "--create-db", "desk/pytest_suite.py"]
    assert "6 passed" in run(project, *words, *options)
