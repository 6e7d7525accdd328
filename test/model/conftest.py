"""What the tests with random operations share."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> Iterator[int]:
    value = int(os.environ.get("DJACTOR_SEED") or random.randrange(1_000_000))
    with capsys.disabled():
        print(f"\nDJACTOR_SEED={value}", flush=True)
    yield value
