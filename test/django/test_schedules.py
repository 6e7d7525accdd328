"""Schedules: timers that are set, seen to and ended by way of Django."""

import asyncio
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import override_settings

import djactor
from djactor import schedules
from djactor.fields import Interval
from djactor.models import Message, Timer
from djactor.test import drain, wait_idle

TYPE = "shop.counter"
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def counter():
    return djactor.actor(TYPE, 7)


def as_stored(column):
    """A column of the only timer, as the server writes it."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column}::text FROM djactor.timer")
        ((text,),) = cursor.fetchall()
        return text


def test_a_cron_expression_in_a_zone(counter):
    due = counter.schedule(
        "nightly", cron="0 2 * * *", time_zone="Europe/Berlin", payload={"add": 5}
    )
    assert due > datetime.now(UTC) and due.astimezone(BERLIN).time().isoformat() == "02:00:00"
    timer = Timer.objects.get()
    assert (timer.cron, timer.time_zone, timer.every) == ("0 2 * * *", "Europe/Berlin", None)
    assert timer.pk == (TYPE, "7", "nightly") and timer.due_at == due
    times = counter.timer_next("nightly", 3)
    assert times[0] == due and times == timer.next_times(3)
    assert [at.astimezone(BERLIN).hour for at in times] == [2, 2, 2]


def test_said_again_it_leaves_the_next_firing_alone(counter):
    rule = {"cron": "0 2 * * *", "time_zone": BERLIN, "payload": {"add": 1}}
    due = counter.schedule("nightly", **rule)
    before = Timer.objects.get().message_id
    assert counter.schedule("nightly", **rule) == due
    assert Timer.objects.get().message_id == before
    assert counter.schedule("nightly", **rule | {"cron": "0 3 * * *"}) != due


def test_it_is_part_of_the_transaction(counter):
    with transaction.atomic():
        counter.schedule("nightly", cron="@daily")
        transaction.set_rollback(True)
    assert not Timer.objects.exists()


@pytest.mark.parametrize(
    ("every", "stored"),
    [
        (timedelta(days=1), "1 day"),
        (timedelta(hours=6, milliseconds=1), "06:00:00.001"),
        (timedelta(days=7, hours=1), "7 days 01:00:00"),
        (timedelta(hours=24), "1 day"),  # to Python the same
        ("24 hours", "24:00:00"),
        ("1 mon", "1 mon"),
        (Interval.of(1, timedelta(days=2, hours=3)), "1 mon 2 days 03:00:00"),
    ],
)
def test_periods_are_taken_as_they_are(counter, every, stored):
    counter.schedule("often", every=every)
    assert as_stored("every") == stored


@pytest.mark.parametrize("given", [BERLIN, "Europe/Berlin"])
def test_zones_are_taken_as_they_are(counter, given):
    counter.schedule("often", every="1 day", time_zone=given)
    assert as_stored("time_zone") == "Europe/Berlin"


def test_utc_of_datetime_is_a_zone(counter):
    counter.schedule("often", every="1 day", time_zone=UTC)
    assert as_stored("time_zone") == "UTC"


def test_a_month_counts_from_its_anchor(counter):
    at = datetime(2027, 1, 31, 9, tzinfo=BERLIN)
    assert counter.schedule("fee", every="1 mon", at=at, time_zone=BERLIN) == at
    timer = Timer.objects.get()
    assert timer.anchor == at and str(timer.every) == "1 mon"
    days = [when.astimezone(BERLIN).strftime("%m-%d %H") for when in timer.next_times(4)]
    assert days == ["01-31 09", "02-28 09", "03-31 09", "04-30 09"]
    # What was read may be given back
    assert counter.schedule("fee", every=timer.every, at=timer.anchor, time_zone=BERLIN) == at
    assert Timer.objects.get().message_id == timer.message_id


def test_at_and_after_fire_once(counter):
    counter.schedule("later", after=timedelta(hours=1), payload={"add": 2})
    timer = Timer.objects.get()
    assert timedelta(minutes=59) < timer.due_at - datetime.now(UTC) <= timedelta(hours=1)
    assert (timer.every, timer.cron, timer.catch_up) == (None, None, "once")
    counter.schedule("later", at="2027-01-31 09:00 Europe/Berlin")
    assert Timer.objects.get().due_at == datetime(2027, 1, 31, 9, tzinfo=BERLIN)


def test_it_fires_and_tells_what_became_of_it(counter):
    counter.schedule("hourly", every=timedelta(hours=1), payload={"add": 2}, catch_up="skip")
    number = counter.run_now("hourly")
    wait_idle(60)
    assert not Message.objects.filter(pk=number).exists() and counter.state() == {"n": 2}
    timer = Timer.objects.get()
    assert (timer.last_outcome, timer.catch_up) == ("handled", "skip")
    assert timer.last_fired_at and timer.due_at > datetime.now(UTC)


def test_in_a_test_time_passes(counter):
    with transaction.atomic():
        counter.schedule("hourly", every=timedelta(hours=1), payload={"add": 2})
        drain(until=datetime.now(UTC) + timedelta(hours=3, minutes=1))
        assert counter.state() == {"n": 6}
        transaction.set_rollback(True)


@pytest.mark.parametrize("by", ["actor", "row"])
def test_one_timer_is_paused_and_resumed(counter, by):
    due = counter.schedule("nightly", cron="0 2 * * *")
    if by == "actor":
        counter.pause_timer("nightly")
    else:
        Timer.objects.get().pause()
    timer = Timer.objects.get()
    assert timer.paused_at and timer.message_id is None and timer.next_times(3) == []
    if by == "actor":
        counter.resume_timer("nightly")
    else:
        timer.resume()
    timer = Timer.objects.get()
    assert timer.paused_at is None and timer.next_times() == [due]


def test_it_is_ended(counter):
    counter.schedule("nightly", cron="0 2 * * *")
    assert counter.unschedule("nightly") is True
    assert counter.unschedule("nightly") is False
    counter.schedule("nightly", cron="0 2 * * *")
    timer = Timer.objects.get()
    assert timer.unschedule() is True and not Message.objects.exists()
    for act in (timer.run_now, timer.pause, timer.resume):
        with pytest.raises(djactor.UnknownTimer, match='has no timer "nightly"'):
            act()


def test_from_async_code(counter, paused):
    async def all_of_it():
        due = await counter.aschedule("nightly", cron="0 2 * * *", payload={"add": 1})
        assert await counter.atimer_next("nightly") == [due]
        await counter.apause_timer("nightly")
        assert await counter.atimer_next("nightly") == []
        await counter.aresume_timer("nightly")
        number = await counter.arun_now("nightly")
        assert await counter.aunschedule("nightly")
        return number

    assert asyncio.run(all_of_it()) > 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"cron": "0 2 * *"}, "cron"),
        ({"cron": "0 2 * * *", "time_zone": "Europe/Atlantis"}, "Europe/Atlantis"),
        ({"cron": "0 2 * * *", "every": timedelta(days=1)}, "every"),
        ({"every": timedelta(0)}, "period|every"),
        ({"every": timedelta(seconds=-1)}, "period|every"),
        ({"every": "often"}, "often"),
        ({"at": "soon"}, "soon"),
        ({"cron": "0 2 * * *", "catch_up": "twice"}, "catch_up"),
        ({}, "timer"),
    ],
)
def test_what_the_server_refuses_says_what(counter, rule, words):
    with pytest.raises(DatabaseError, match=words):
        counter.schedule("bad", **rule)


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        ({"every": 5}, TypeError, "every is a timedelta"),
        ({"after": 5}, TypeError, "after is a timedelta"),
        ({"at": 5}, TypeError, "at is a datetime"),
        ({"at": datetime(2027, 1, 1)}, ValueError, "with a time zone"),
        ({"every": "1 day", "time_zone": timezone(timedelta(hours=1))}, TypeError, "time_zone"),
        ({"cron": "@daily", "payload": {"x": object()}}, TypeError, "payload"),
    ],
)
def test_what_cannot_be_converted_says_so(counter, rule, error, words):
    with pytest.raises(error, match=words):
        counter.schedule("bad", **rule)


def test_without_zones_a_datetime_is_one_of_the_project():
    with override_settings(USE_TZ=False):
        assert schedules.moment(datetime(2027, 1, 1, 9)) == "2027-01-01T09:00:00"


def test_of_a_type_that_nobody_has_defined():
    with pytest.raises(djactor.UnknownActorType):
        djactor.actor("shop.nothing", 1).schedule("nightly", cron="@daily")


def test_the_examples_of_the_documentation_do_what_they_say(capsys):
    page = (Path(__file__).parents[2] / "docs" / "django.md").read_text()
    section = page.split("\n## Schedules\n")[1].split("\n## ")[0]
    calls, migration = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.define_actor_type('shop.report', 'counter_handle')")
        try:
            exec(calls, {"djactor": djactor})
            printed = capsys.readouterr().out
            assert re.findall(r"2027, (\d+, \d+)", printed) == ["1, 31", "2, 28", "3, 31"]
            assert sorted(Timer.objects.values_list("name", flat=True)) == ["monthly", "nightly"]
            names = {}
            exec(migration, names)
            with connection.schema_editor() as editor:
                for operation in (names["nightly"], *names["operations"]):
                    operation.database_forwards("shop", editor, None, None)
            assert Timer.objects.get(name="nightly").cron == "30 3 * * *"
        finally:
            wait_idle(60, "shop.report")
            cursor.execute("SELECT djactor.drop_actor_type('shop.report', discard => true)")
