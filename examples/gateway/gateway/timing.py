"""How long the steps of a request take: for the answer's header, and for the page."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from statistics import quantiles

_recent: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=1000))


class Timing:
    """The steps of one request, in milliseconds."""

    def __init__(self) -> None:
        self._steps: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._steps[name] = (time.perf_counter() - start) * 1000
            _recent[name].append(self._steps[name])

    def header(self) -> str:
        """The value of Server-Timing, which browsers' developer tools show."""
        return ", ".join(f"{name};dur={took:.2f}" for name, took in self._steps.items())


def summary() -> dict[str, dict[str, float]]:
    """p50, p95 and p99 of the last thousand of each step in this process, in milliseconds."""
    return {
        name: dict(zip(("p50", "p95", "p99"), (cuts[49], cuts[94], cuts[98]), strict=True))
        for name, took in _recent.items()
        if len(took) > 1 and (cuts := quantiles(took, n=100))
    }
