"""Throughput: how many messages a second workers handle, and a bare loop beside them.

What: 100,000 messages inserted by one statement, handled in PL/pgSQL (workload.py):
1,000 actors and one hot actor that add to their state, with one worker; the same 1,000
with two workers; and the yardstick (bareloop.py), a loop without anything that makes an
actor runtime, in the same run: alone, and two of them in two databases, which shows what this
machine has for a second process.  One case has steady senders instead of a backlog.
The benchmark ``matrix`` has all shapes.

preloaded   The type is paused.  INSERT, VACUUM (ANALYZE), CHECKPOINT.  The clock
            starts just before ``resume()`` is sent.  What rivals' benchmarks
            measure: the workers alone, with all work waiting.
steady      Two processes send 100 rows a statement, each durably, at the highest rate
            that leaves at most 10,000 messages waiting.  They share the cores with the
            workers: on two cores this is the rate of the whole, sending and handling,
            not that of the worker.

How: ``djactor.max_workers`` is 1, or 2 on a second server, which is idle meanwhile.  Further
workers are started before the clock is (``djactor.idle_timeout`` keeps them); what
their start takes is not contained.  The runs of all cases are interleaved, so
that a disturbance hits all alike, and each has a database of its own, so nobody's dead rows
are in the way.  Ratios are those of the runs of one round, one by one.

What would make it dishonest: a type that handles without keeping state (the no-op
is in the matrix, but judged are those that add); fsync off; counting messages that were merely
fetched (the books are checked after each run); a second worker that had nothing to do; a crippled
yardstick.  A run that starts before the machine has calmed down measures the
machine: look at the load that the report shows.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import bareloop
from common import Options, Result, server
from workload import Run, Shape, run_preloaded, run_steady

NAME = "throughput"
MESSAGES = 100_000
PROMISED = 150_000
OF_THE_LOOP = 2 / 3
OF_ONE_WORKER = 1.7
MANY = Shape(1_000, "add")
HOT = Shape(1, "add")
SETTINGS: dict[str, str | int | float | bool] = {"djactor.idle_timeout": "10min"}


def run(options: Options) -> Result:
    """All cases, round after round."""
    messages = 30_000 if options.quick else MESSAGES
    result = Result(NAME, f"Messages handled in a second ({messages:,} a run)")
    with (
        server(result, SETTINGS | {"djactor.max_workers": 2}) as two,
        server(result, SETTINGS | {"djactor.max_workers": 1}) as one,
    ):
        result.settings["djactor.max_workers"] = "1 and 2"
        bareloop.build(one)
        cases: dict[str, Callable[[str], Run]] = {
            "many": lambda name: run_preloaded(one, name, MANY, messages, 1),
            "many, bare": lambda name: bareloop.run_once(one, name, MANY, messages),
            "hot": lambda name: run_preloaded(one, name, HOT, messages, 1),
            "hot, bare": lambda name: bareloop.run_once(one, name, HOT, messages),
            "two": lambda name: run_preloaded(two, name, MANY, messages, 2),
            "two, bare": lambda name: bareloop.run_side_by_side(one, name, MANY, messages, 2),
            "steady": lambda name: run_steady(one, name, MANY, messages, 1),
        }
        runs: dict[str, list[Run]] = {case: [] for case in cases}
        for i in range(options.runs):
            for n, (case, measure) in enumerate(cases.items()):
                runs[case].append(measure(f"bench_{i}_{n}"))

    rates = {case: [run.rate for run in done] for case, done in runs.items()}

    def ratio(title: str, case: str, base: str, promised: float | None = None) -> None:
        figure = result.add(
            title, "times", [a / b for a, b in zip(rates[case], rates[base], strict=True)]
        )
        if promised is not None:
            result.promise(
                f"{title}: at least {promised:.2f}: {figure.median:.2f}", figure.median >= promised
            )

    titles = {
        "many": f"{MANY.title}, one worker",
        "many, bare": f"{MANY.title}, bare loop",
        "hot": f"{HOT.title}, one worker",
        "hot, bare": f"{HOT.title}, bare loop",
        "two": f"{MANY.title}, two workers",
        "two, bare": f"{MANY.title}, two bare loops side by side",
        "steady": f"{MANY.title}, one worker, steady senders",
    }
    for case in cases:
        result.add(titles[case], "messages/s", rates[case])
    for case in ("many", "hot"):
        median = statistics.median(rates[case])
        result.promise(
            f"{titles[case]}: at least {PROMISED:,} messages/s: {median:,.0f}", median >= PROMISED
        )
    ratio("1,000 actors: djactor / bare loop", "many", "many, bare", OF_THE_LOOP)
    ratio("one actor: djactor / bare loop", "hot", "hot, bare", OF_THE_LOOP)
    ratio("1,000 actors: two workers / one", "two", "many", OF_ONE_WORKER)
    ratio("1,000 actors: two bare loops / one", "two, bare", "many, bare")
    ratio("1,000 actors: steady senders / preloaded", "steady", "many")
    for case, done in runs.items():
        result.add(f"CPU: {titles[case]}", "µs/message", [run.cpu_us for run in done])
    return result
