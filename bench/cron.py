"""Cron: how long it takes to find the next time of an expression.

What: cron expressions that are easy (each minute), hard (a 29 February that is a Sunday, 40 years
off), and on the day of a change of the clock; periods with an anchor long ago; and a thousand
random expressions.

How: one query each calls djactor.cron_next() for a thousand moments; the figure is its time
divided by these.  Of a random expression it is the least of five, which keeps other work on the
machine out of it.  So parsing the expression, looking up the zone, and the server's own work for a
function that returns a set are in it.

What would make it dishonest: counting only expressions whose next time is near, or moments far
from any change of the clock.  The hard ones are here for that, and each starts at moments that
lie close before and after changes.
"""

from __future__ import annotations

import random
import time

from common import Connection, Options, Result, connect, create_database, require, server

NAME = "cron"
DBNAME = "bench"
LIMIT = 50.0  # microseconds
ZONE = "Europe/Berlin"

HARD = {
    "each minute": "* * * * *",
    "nightly": "30 2 * * *",
    "weekdays": "0 9-17 * * mon-fri",
    "last day": "0 0 L * *",
    "leap days": "0 0 29 2 *",
    "leap days that are Sundays": "0 0 29 2 */7",
    "... each minute": "* * 29 2 */7",
    "... at any minute by the clock": "0-59 0-23 29 2 */7",
    "Friday 13": "0 0 13 */12 fri",
    "all minutes by the clock": "0-59 0-23 * * *",
}
#  the nights of the change, where the hour comes twice, and just before the longest wait
MOMENTS = [
    "2027-03-28 00:59:30+00",
    "2027-10-31 00:10:00+00",
    "2027-10-31 01:10:00+00",
    "2088-02-29 23:59:59+00",
    "2096-03-01 00:00:00+00",
]


def a_field(draw: random.Random, low: int, high: int) -> str:
    """A field of a random expression."""
    first, second = sorted((draw.randint(low, high), draw.randint(low, high)))
    step = draw.randint(1, (high - low + 1) // 2)
    return draw.choice(["*", f"*/{step}", f"{first}", f"{first}-{second}", f"{first},{second}"])


def per_call(session: Connection, call: str, moment: str, calls: int) -> float:
    """Microseconds of a call with ``moment``, a little later each time."""
    begin = time.perf_counter()
    row = session.execute(
        f"SELECT count(n) FROM (SELECT '{moment}'::timestamptz + i * interval '1 s' AS after"
        f" FROM generate_series(1, {calls}) i) m, {call} n"
    ).fetchone()
    end = time.perf_counter()
    require(row is not None and row[0] == calls, f"{call} has no next time after {moment}")
    return (end - begin) / calls * 1e6


def run(options: Options) -> Result:
    """Time the calls, and keep the slowest moment of each."""
    result = Result(NAME, "The next time of a rule")
    calls = 200 if options.quick else 1000
    draw = random.Random(5)
    with server(result, {"djactor.poll_interval": "1h"}) as private:
        create_database(private, DBNAME)
        with connect(private, DBNAME) as session:
            worst = 0.0
            for name, expression in HARD.items():
                call = f"djactor.cron_next('{expression}', m.after, '{ZONE}')"
                times = [per_call(session, call, moment, calls) for moment in MOMENTS]
                result.add(f"{name}: {expression}", "µs", [max(times)])
                worst = max(worst, *times)
            call = f"djactor.every_next('1 mon', '1900-01-31 02:30+01', m.after, '{ZONE}')"
            times = [per_call(session, call, moment, calls) for moment in MOMENTS]
            result.add("every month since 1900", "µs", [max(times)])
            worst = max(worst, *times)
            found: list[float] = []
            while len(found) < calls:
                fields = [(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)]
                expression = " ".join(a_field(draw, low, high) for low, high in fields)
                call = f"djactor.cron_next('{expression}', m.after, '{ZONE}')"
                moment = draw.choice(MOMENTS)
                found.append(min(per_call(session, call, moment, 100) for _ in range(5)))
            result.add("random expressions", "µs", found, samples=True)
            worst = max(worst, *found)
    result.promise(
        f"the next time of any rule takes less than {LIMIT:g} µs: {worst:.1f}", worst < LIMIT
    )
    return result
