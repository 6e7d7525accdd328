"""Calendars against libraries that others wrote: cronsim, and dateutil's rrule.

cronsim is followed, and not croniter, since it does what Debian's cron does on the days of the
change: what names minute and hour comes once, what has a star there goes by what the clock shows.
croniter takes day and weekday for alternatives also when one of them begins with a star.

cronsim works its way hour by hour from midnight.  Where the clock is changed at midnight it can
lose its way, and where it starts in an hour that comes the second time it says what is past.  Then
the expression is asked minute by minute, by what cronsim has read of it.  (It reads 6-6/4 as 6/4,
that is 6,10; cron and djactor as 6.  So no range here has one value.)
"""

from __future__ import annotations

import random
from calendar import isleap, weekday
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cronsim import CronSim
from dateutil import rrule, tz

from private_server import PrivateServer

MINUTE = timedelta(minutes=1)

CRON_ZONES = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",  # at midnight, until 2019
    "America/Havana",  # put forward at midnight, put back at one
    "Asia/Beirut",  # at midnight
    "Asia/Kolkata",
    "Asia/Tehran",
    "Africa/Casablanca",
    "Australia/Sydney",
    "Pacific/Auckland",
    "Pacific/Apia",  # had no 30 December 2011
]

# cronsim does not come back from these: the clock is not changed at full hours, by full hours.
ODD_ZONES = ["America/St_Johns", "Australia/Lord_Howe", "Pacific/Chatham"]

EVERY_ZONES = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Asia/Tehran",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Apia",
]

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection]:
    with PrivateServer(fsync=False) as server:
        server.sql("CREATE EXTENSION djactor")
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection


# ---------- cron ----------


def a_part(draw: random.Random, low: int, high: int, names: list[str]) -> str:
    def value(number: int) -> str:
        if names and number - low < len(names) and draw.random() < 0.3:
            name = names[number - low]
            return name if draw.random() < 0.5 else name.lower()
        return str(number)

    first, second = sorted(draw.sample(range(low, high + 1), 2))
    step = draw.randint(1, (high - low + 1) // 2)
    return draw.choices(
        [
            value(first),
            f"{value(first)}-{value(second)}",
            f"{value(first)}-{value(second)}/{step}",
            f"{value(first)}/{step}",
        ],
        [6, 2, 1, 0.5],
    )[0]


def a_field(draw: random.Random, low: int, high: int, star: float, names: list[str]) -> str:
    if draw.random() < star:
        step = draw.randint(2, (high - low + 1) // 2)
        return "*" if draw.random() < 0.6 else f"*/{step}"
    parts = [a_part(draw, low, high, names) for _ in range(draw.choice([1, 1, 1, 2, 3]))]
    if low == 1 and high == 31 and draw.random() < 0.1:
        parts[0] = "L"
    return ",".join(parts)


def an_expression(draw: random.Random) -> str:
    return " ".join(
        [
            a_field(draw, 0, 59, 0.3, []),
            a_field(draw, 0, 23, 0.4, []),
            a_field(draw, 1, 31, 0.5, []),
            a_field(draw, 1, 12, 0.7, MONTHS),
            a_field(draw, 0, 7, 0.6, WEEKDAYS),
        ]
    )


def changes_of(zone: str) -> list[datetime]:
    """The moments from 1991 to 2035 at which a clock was or will be changed."""
    info, found = ZoneInfo(zone), []
    moment = datetime(1991, 1, 1, tzinfo=UTC)
    while moment.year < 2035:
        later = moment + timedelta(days=1)
        if moment.astimezone(info).utcoffset() != later.astimezone(info).utcoffset():
            low, high = moment, later
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) / 2
                middle = middle.replace(microsecond=0)
                if middle.astimezone(info).utcoffset() == low.astimezone(info).utcoffset():
                    low = middle
                else:
                    high = middle
            found.append(high)
        moment = later
    return found


def cronsim_next(expression: str, after: datetime, zone: str, count: int) -> list[datetime]:
    """What cronsim says, without what is not after that moment."""
    found: list[datetime] = []
    last = after
    for moment in CronSim(expression, after.astimezone(ZoneInfo(zone))):
        moment = moment.astimezone(UTC)
        if moment > last:
            found.append(moment)
            last = moment
        if len(found) == count:
            break
    return found


def wall_matches(cron: CronSim, wall: datetime) -> bool:
    return (
        wall.month in cron.months
        and cron.match_day(wall.date())
        and wall.hour in cron.hours
        and wall.minute in cron.minutes
    )


def minute_by_minute(
    expression: str, after: datetime, zone: str, until: datetime
) -> list[datetime]:
    """All times up to a moment, the hard way."""
    cron = CronSim(expression, datetime(2000, 1, 1, tzinfo=ZoneInfo(zone)))
    info, found = ZoneInfo(zone), set()
    moment = (after - timedelta(days=2)).replace(second=0, microsecond=0)
    shown: set[datetime] = set()
    before: datetime | None = None
    while moment <= until:
        wall = moment.astimezone(info).replace(tzinfo=None)
        if not cron.fixup_tz:
            if wall_matches(cron, wall):
                found.add(moment)
        else:
            # all that the clock shows now for the first time, or has passed over
            passed = wall if before is None or before >= wall else before + MINUTE
            while passed <= wall:
                if passed not in shown and wall_matches(cron, passed):
                    found.add(moment)
                shown.add(passed)
                passed += MINUTE
        before = wall if before is None else max(before, wall)
        moment += MINUTE
    return sorted(m for m in found if m > after)


def some_cases(
    draw: random.Random, zones: list[str], count: int
) -> Iterator[tuple[str, datetime, str]]:
    changes = {zone: changes_of(zone) for zone in zones}
    for _ in range(count):
        zone = draw.choice(zones)
        if changes[zone] and draw.random() < 0.5:
            after = draw.choice(changes[zone]) + timedelta(minutes=draw.randint(-2000, 300))
        else:
            after = datetime(1991, 1, 1, tzinfo=UTC) + timedelta(
                seconds=draw.randint(0, 1_400_000_000)
            )
        after += timedelta(seconds=draw.choice([0, 0, 17]), microseconds=draw.choice([0, 250_000]))
        yield an_expression(draw), after, zone


def djactor_next(
    connection: psycopg.Connection, expression: str, after: datetime, zone: str
) -> list[datetime]:
    """Four times; none if the expression is refused."""
    try:
        rows = connection.execute(
            "SELECT djactor.cron_next(%s, %s, %s, 4)", (expression, after, zone)
        ).fetchall()
    except psycopg.errors.InvalidParameterValue:
        return []
    return [row[0] for row in rows]


def test_cron(connection: psycopg.Connection) -> None:
    refused = lost = 0
    for expression, after, zone in some_cases(random.Random(17), CRON_ZONES, 10_000):
        try:
            expected = cronsim_next(expression, after, zone, 4)
        except Exception:
            expected = []
        got = djactor_next(connection, expression, after, zone)
        if not expected or not got:
            assert got == expected == [], f"{expression} after {after} in {zone}"
            refused += 1
            continue
        if got != expected:
            until = max(got[-1], expected[-1])
            assert until - after < timedelta(days=60), (
                f"{expression} after {after} in {zone}: {got}, {expected}"
            )
            truth = minute_by_minute(expression, after, zone, until)[:4]
            assert got == truth, f"{expression} after {after} in {zone}: {got}, {expected}, {truth}"
            lost += 1
    print(f"{refused} refused by both, {lost} where cronsim has lost its way")
    assert refused < 100
    assert lost < 100


def test_cron_by_the_minute(connection: psycopg.Connection) -> None:
    """Where cronsim cannot be asked: on the days of the change, and one before and after."""
    draw = random.Random(18)
    zones = [*ODD_ZONES, "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia"]
    for zone in zones:
        for change in draw.sample(changes_of(zone), 4):
            after, until = change - timedelta(days=1, hours=6), change + timedelta(days=1)
            for _ in range(5):
                expression = " ".join([*an_expression(draw).split()[:2], "* * *"])
                got = [
                    row[0]
                    for row in connection.execute(
                        "SELECT t FROM djactor.cron_next(%s, %s, %s, 4000) t WHERE t <= %s",
                        (expression, after, zone, until),
                    )
                ]
                assert got == minute_by_minute(expression, after, zone, until), (
                    f"{expression} after {after} in {zone}"
                )


def test_never(connection: psycopg.Connection) -> None:
    """What never comes true is refused, what does in 40 years is not."""
    for expression in ("0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30,31 FEB */2", "*/5 * 31 4 *"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="never comes true"):
            connection.execute("SELECT djactor.cron_next(%s)", (expression,))
    found = connection.execute(
        "SELECT djactor.cron_next('0 0 29 2 */7', '2072-03-01', 'UTC', 2)"
    ).fetchall()
    sundays = [y for y in range(2073, 2200) if isleap(y) and weekday(y, 2, 29) == 6]
    assert [row[0].year for row in found] == sundays[:2]


# ---------- every ----------

RULES = {
    "1 day": (1, rrule.DAILY),
    "3 days": (3, rrule.DAILY),
    "7 days": (1, rrule.WEEKLY),
    "14 days": (2, rrule.WEEKLY),
    "1 mon": (1, rrule.MONTHLY),
    "3 mons": (3, rrule.MONTHLY),
    "1 year": (1, rrule.YEARLY),
}

ANCHORS = [
    datetime(1999, 1, 31, 2, 30),
    datetime(2000, 2, 29, 0, 0),
    datetime(2001, 11, 30, 0, 15),
    datetime(2004, 3, 28, 12, 0, 0, 250_000),
    datetime(2005, 5, 31, 23, 30),
]


def rrule_times(every: str, anchor: datetime) -> Iterator[datetime]:
    """Times on a clock that nobody changes; a month without that day has its last one."""
    interval, frequency = RULES[every]
    more = {}
    if frequency >= rrule.WEEKLY or anchor.day <= 28:
        pass
    elif frequency == rrule.YEARLY:
        more = {"bymonth": anchor.month, "bymonthday": range(28, anchor.day + 1), "bysetpos": -1}
    else:
        more = {"bymonthday": range(28, anchor.day + 1), "bysetpos": -1}
    for wall in rrule.rrule(
        frequency, dtstart=anchor, interval=interval, until=anchor + timedelta(days=7305), **more
    ):
        yield wall.replace(microsecond=anchor.microsecond)


def moment_of(wall: datetime, zone: str) -> datetime:
    """The first moment at which the clock shows that, or the first one after it."""
    info = tz.gettz(zone)
    assert info is not None
    while not tz.datetime_exists(wall, info):
        wall = wall.replace(second=0, microsecond=0) + MINUTE
    return wall.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)


@pytest.mark.parametrize("zone", EVERY_ZONES)
def test_every(connection: psycopg.Connection, zone: str) -> None:
    for every in RULES:
        for anchor in ANCHORS:
            moments = [moment_of(wall, zone) for wall in rrule_times(every, anchor)]
            assert len(moments) >= 20
            expected = sorted(set(moments[1:]) - {moments[0]})
            got = [
                row[0]
                for row in connection.execute(
                    "SELECT djactor.every_next(%s, %s, %s, %s, %s)",
                    (every, moments[0], moments[0], zone, len(expected)),
                )
            ]
            assert got == expected, f"{every} from {anchor} in {zone}"
            # from any moment on, not only from the last time
            for after in random.Random(3).sample(moments[:-1], 5):
                for usec in (-1, 0, 1):
                    after = max(after + timedelta(microseconds=usec), moments[0])
                    row = connection.execute(
                        "SELECT djactor.every_next(%s, %s, %s, %s)",
                        (every, moments[0], after, zone),
                    ).fetchone()
                    assert row is not None
                    assert row[0] == next(m for m in expected if m > after)


def test_a_span_knows_no_clock(connection: psycopg.Connection) -> None:
    anchor = datetime(2020, 1, 1, tzinfo=UTC)
    got = connection.execute(
        "SELECT djactor.every_next('36 h', %s, %s, 'Europe/Berlin', 1000)", (anchor, anchor)
    ).fetchall()
    assert [row[0] for row in got] == [anchor + i * timedelta(hours=36) for i in range(1, 1001)]
