"""What tests of several directories share: examples, served."""

import contextlib
from pathlib import Path

import pytest

from django_site import DjangoSite
from private_server import PrivateServer

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


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
