"""Case 9: the speed that all this may not cost, and a second worker.

9   As ``throughput`` measures it: mail for 1,000 actors and for one hot actor that add to their
    state, waiting before the clock starts, handled by one worker; the same 1,000 by two workers,
    which share no row; and the yardstick, a bare loop, in one process and in two.  What a second
    worker brings is judged by what a second bare loop brings, in the same round: that is what
    the machine has.  With another build beside, the rates are judged by its rates, round by round.
    The bare loops always run on this tree's server, since they know its tables.  A second loop
    has a database of its own, so it shares no page with the first one; two workers share the
    pages of one database.

What would make it dishonest: see throughput.py; rounds of one build first and of the other
afterwards.
"""

from __future__ import annotations

import bareloop
from beside.case import Build, Case, Rows, Settings
from common import Bounded
from workload import Shape, run_preloaded

MESSAGES = 300_000
MANY = Shape(1_000, "add")
HOT = Shape(1, "add")
ROUNDS = 11  # a single run of a second or two varies by a third; the median of these by some 5 %
OF_BEFORE = 0.95
OF_LOOPS = 0.95
SETTINGS: Settings = {"djactor.idle_timeout": "10min", "shared_buffers": "512MB"}


def scaling(build: Build) -> Rows:
    """Case 9, one round."""
    messages = build.count(MESSAGES)
    with build.server({**SETTINGS, "djactor.max_workers": 1}) as one:
        many = run_preloaded(one, "many", MANY, messages, 1).rate
        hot = run_preloaded(one, "hot", HOT, messages, 1).rate
    with build.server({**SETTINGS, "djactor.max_workers": 2}) as two:
        both = run_preloaded(two, "two", MANY, messages, 2).rate
    with Build("yardstick", None, build.options).server(SETTINGS) as own:
        bareloop.build(own)
        loop = bareloop.run_once(own, "loop", MANY, messages).rate
        loops = bareloop.run_side_by_side(own, "loops", MANY, messages, 2).rate
    yield Bounded(f"{MANY.title}, one worker", "messages/s", [many], of_before=OF_BEFORE)
    yield Bounded(f"{HOT.title}, one worker", "messages/s", [hot], of_before=OF_BEFORE)
    yield Bounded(f"{MANY.title}, two workers", "messages/s", [both])
    yield Bounded("two workers / one", "times", [both / many])
    yield Bounded("two bare loops / one", "times", [loops / loop])
    yield Bounded(
        "what a second worker brings / what a second bare loop brings",
        "times",
        [both / many / (loops / loop)],
        least=OF_LOOPS,
    )


CASES = (Case(9, "A second worker", scaling, ROUNDS),)
