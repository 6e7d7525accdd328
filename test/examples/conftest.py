"""Examples as their users meet them: over HTTP, with workers, and with processes killed.

Each module has one site.  ``books(site)`` waits until all that was sent has been handled, also
while the server restarts after a crash; ``kill_worker(site)`` kills one with SIGKILL, which takes
the whole server through its crash recovery.
"""

import contextlib
import os
import signal
import time

import httpx
import pytest

from private_server import ServerError

PATIENCE = 60  # seconds to wait for what must happen


def until(holds):
    """Wait until it holds; the result is what it returned. An unreachable server is waited for."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(ServerError):
            if found := holds():
                return found
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="session", name="until")
def _until():
    return until


@pytest.fixture(scope="session")
def idle():
    """``idle(site)``: returns when nothing waits any more, and nothing was given up."""

    def wait(site):
        until(lambda: site.sql("SELECT djactor.wait_idle('10 s')") == "t")
        assert site.sql("SELECT actor_key, reason, error FROM djactor.dead_letter") == ""

    return wait


@pytest.fixture(scope="session")
def kill_worker():
    """``kill_worker(site)``: one that is at work, if any is."""

    def killed(site):
        for pid in site.sql("SELECT pid FROM djactor.worker ORDER BY state = 'idle'").split():
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(int(pid), signal.SIGKILL)
                return True
        return False

    def kill(site):
        until(lambda: killed(site))

    return kill


@pytest.fixture(scope="module")
def http(site):
    """A client of the site that uses no connection which uvicorn may be closing, after 5 s."""
    limits = httpx.Limits(keepalive_expiry=1)
    with httpx.Client(base_url=site.url, timeout=PATIENCE, limits=limits) as client:
        yield client
