"""Fixtures for pytest-django; pytest finds them by the package's entry point.

Each is what ``djactor.test`` has of that name, with the database that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from djactor.test import Sent, Turn


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


@pytest.fixture
def djactor_inline(db: None) -> Iterator[Callable[..., int]]:
    """The whole test is in a block of ``djactor.test.inline()``; the fixture is ``drain``."""
    from djactor.test import drain, inline

    with inline():
        yield drain


@pytest.fixture
def djactor_capture_sends(db: None) -> Callable[..., AbstractContextManager[list[Sent]]]:
    """``djactor.test.capture_sends``: what is sent in a block."""
    from djactor.test import capture_sends

    return capture_sends


@pytest.fixture
def djactor_turn() -> type[Turn]:
    """``djactor.test.Turn``: a turn without a database."""
    from djactor.test import Turn

    return Turn
