"""Fixtures for pytest-django: ``djactor_drain`` and ``djactor_workers``.

pytest finds them by the package's entry point; the rest is in ``djactor.test``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def djactor_drain(db: None) -> Callable[..., int]:
    """``djactor.test.drain``: the turns are part of the test's own transaction."""
    from djactor.test import drain

    return drain


@pytest.fixture
def djactor_workers(transactional_db: None) -> Callable[..., Any]:
    """``djactor.test.wait_idle``: the test commits, and the server's workers handle."""
    from djactor.test import wait_idle

    return wait_idle
