"""Waiting for what will be true in a moment."""

import time


def until(condition, seconds=60):
    """Until ``condition()`` is true; errors: AssertionError, if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
