"""What tests of several directories share: examples, served, and the site of docs/, built."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from django_site import DjangoSite
from private_server import PrivateServer

TOP = Path(__file__).resolve().parents[1]
EXAMPLES = TOP / "examples"


@pytest.fixture(scope="module")
def example_server():
    """``example_server(name, **settings)``: a DjangoSite of ``examples/<name>``, for the module.

    The project's package is ``<name>site``, its environment variables begin with ``<NAME>_DB``;
    ``settings`` are the PostgreSQL server's.
    """
    with contextlib.ExitStack() as stack:

        def start(name, **settings):
            server = stack.enter_context(PrivateServer({"max_worker_processes": 16} | settings))
            return stack.enter_context(
                DjangoSite(EXAMPLES / name, f"{name}site", f"{name.upper()}_DB", server)
            )

        yield start


@pytest.fixture(scope="session")
def build_site():
    """``build_site(tree, into)``: builds the pages of a tree as tools/docs does."""

    def build(tree, into):
        options = ["-b", "html", "-c", "docs", "-W", "--keep-going", "-q", "-E", "-j", "2"]
        return subprocess.run(
            [sys.executable, "-m", "sphinx", *options, "-d", into / "doctrees", ".", into / "html"],
            cwd=tree,
            capture_output=True,
            text=True,
        )

    return build


@pytest.fixture(scope="session")
def docs_site(build_site, tmp_path_factory):
    """The directory of the site, built once."""
    into = tmp_path_factory.mktemp("site")
    done = build_site(TOP, into)
    assert done.returncode == 0, done.stderr
    return into / "html"
