"""Matrix: throughput of every shape of load, preloaded and with steady senders.

What: 1,000 keys, one key and 100,000 keys; each handler (no-op, adding to the state,
also writing a row); one, two and four workers; a preloaded backlog and steady senders; and the
yardstick, which is one process, preloaded.  How, and what the senders have to do with the
cores, is told in throughput.py.

With 100,000 keys each actor gets one message, its first: what is measured there is how
fast actors come into being, for djactor with a row in ``actor_identity`` too.

Three servers run, one for each number of workers; those that are not measured sleep.
Four workers on a machine with two cores are slower than two for that reason; the row is
there to show by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import bareloop
from common import Options, Result, server
from throughput import SETTINGS
from workload import HANDLERS, Run, Shape, run_preloaded, run_steady

NAME = "matrix"
MESSAGES = 100_000
ACTORS = (1_000, 1, 100_000)


def run(options: Options) -> Result:
    """All cases, round after round."""
    messages = 20_000 if options.quick else MESSAGES
    result = Result(NAME, f"Messages handled in a second, all shapes ({messages:,} a run)")
    shapes = [Shape(actors, handler) for actors in ACTORS for handler in HANDLERS]
    runs: dict[str, list[Run]] = {}
    with (
        server(result, SETTINGS | {"djactor.max_workers": 4}) as four,
        server(result, SETTINGS | {"djactor.max_workers": 2}) as two,
        server(result, SETTINGS | {"djactor.max_workers": 1}) as one,
    ):
        result.settings["djactor.max_workers"] = "1, 2 and 4"
        bareloop.build(one)
        for i in range(options.runs):
            for n, shape in enumerate(shapes):
                cases: dict[str, Callable[[str], Run]] = {
                    "bare loop": partial(bareloop.run_once, one, shape=shape, messages=messages)
                }
                for workers, private in ((1, one), (2, two), (4, four)):
                    for way, measure in (("preloaded", run_preloaded), ("steady", run_steady)):
                        cases[f"{way}, workers: {workers}"] = partial(
                            measure, private, shape=shape, messages=messages, workers=workers
                        )
                for k, (case, call) in enumerate(cases.items()):
                    one_run = call(f"bench_{i}_{n}_{k}")
                    runs.setdefault(f"{shape.title}, {case}", []).append(one_run)
    for title, done in runs.items():
        result.add(title, "messages/s", [run.rate for run in done])
    for shape in shapes:
        base = runs[f"{shape.title}, preloaded, workers: 1"]
        for other, text, upside_down in (
            ("bare loop", "djactor / bare loop", True),
            ("preloaded, workers: 2", "two workers / one", False),
            ("preloaded, workers: 4", "four workers / one", False),
        ):
            pairs = zip(runs[f"{shape.title}, {other}"], base, strict=True)
            ratios = [b.rate / o.rate if upside_down else o.rate / b.rate for o, b in pairs]
            result.add(f"{shape.title}: {text}", "times", ratios)
    return result
