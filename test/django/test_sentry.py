"""Sentry: what fails is an event of its real client, by Django's logging."""

import io
import json
import logging
from contextlib import contextmanager

import pytest
import sentry_sdk
from django.core.management import call_command
from django.db import connection
from sentry_sdk.transport import Transport

import djactor
from djactor.models import DeadLetter
from djactor.test import wait_idle
from hosting_worker import Worker, define, drop, query
from waiting import until, until_visible

TYPE = "shop.counter"
HOSTED = {
    "host.counter": ("Counter", {"max_attempts": 2, "backoff": "10 ms"}),
    "host.acounter": ("AsyncCounter", {"max_attempts": 2, "backoff": "10 ms"}),
}
BOTH = pytest.mark.parametrize("counter", HOSTED)


@pytest.fixture(scope="module")
def hosts(project, tmp_path_factory):
    """A worker whose project reports to Sentry; what is yielded is the file of the events."""
    file = tmp_path_factory.mktemp("sentry") / "events"
    file.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_EVENTS", str(file))
        for name, (cls, options) in HOSTED.items():
            define(name, cls, **options)
        worker = Worker(
            project, "--types", *HOSTED, "--threads", 2, "--grace", 5, settings="sentry_settings"
        )
    try:
        worker.wait_ready(2)
        yield file
        assert worker.end() == 0, worker.log()
    finally:
        worker.kill()
        for name in HOSTED:
            drop(name)


@pytest.fixture
def reported(hosts, fresh):
    """``reported(2)``: the two events of this test."""
    wait_idle(60)
    with hosts.open("r+") as opened:
        opened.truncate()

    def read(count):
        def events():
            return [json.loads(line) for line in hosts.read_text().splitlines()]

        until(lambda: len(events()) >= count)
        assert len(events()) == count
        return events()

    return read


@BOTH
def test_each_attempt_that_fails_is_one_event(reported, counter):
    sent = djactor.actor(counter, 7).send({"fail": True})
    wait_idle(60)
    events = reported(2)
    assert [event["contexts"]["djactor"]["attempt"] for event in events] == [1, 2]
    for event in events:
        assert event["level"] == "error" and event["logger"] == "djactor.worker"
        (exception,) = event["exception"]["values"]
        assert (exception["type"], exception["value"]) == ("ValueError", "told to fail")
        files = [frame["filename"] for frame in exception["stacktrace"]["frames"]]
        assert files[-1] == "hosting_classes.py"
        assert event["tags"] == {
            "djactor.actor_type": counter,
            "djactor.actor_key": "7",
            "djactor.message_id": str(sent),
        }
        assert event["contexts"]["djactor"]["kind"] == "user"
        assert "fingerprint" not in event or event["fingerprint"] == ["{{ default }}"]


@BOTH
def test_a_failure_beside_others_is_reported_once(reported, counter):
    query("SELECT djactor.pause(%s)", counter)
    ids = [djactor.actor(counter, i % 4).send({"fail": True} if i == 17 else {}) for i in range(40)]
    query("SELECT djactor.resume(%s)", counter)
    wait_idle(60)
    tags = [event["tags"]["djactor.message_id"] for event in reported(2)]
    assert tags == [str(ids[17])] * 2


@BOTH
def test_a_reject_is_no_event(reported, counter):
    djactor.actor(counter, 1).send({"reject": True})
    djactor.actor(counter, 1).send({"fail": True})
    wait_idle(60)
    assert DeadLetter.objects.filter(reason="rejected").count() == 1
    assert [event["exception"]["values"][0]["type"] for event in reported(2)] == ["ValueError"] * 2


# ---------- inside the server ----------


class ToList(Transport):
    events: list = []

    def capture_envelope(self, envelope):
        if envelope.get_event() is not None:
            self.events.append(envelope.get_event())


@contextmanager
def sentry():
    ToList.events = []
    sentry_sdk.init(dsn="https://key@sentry.example.org/1", transport=ToList)
    try:
        yield ToList.events
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)


def logged(**options):
    until_visible()
    out = io.StringIO()
    call_command("djactor_letters", lag=0.0, stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def failing(fresh):
    """A type inside the server whose messages fail with different numbers."""
    with connection.cursor() as cursor:
        cursor.execute("""
            CREATE FUNCTION sentry_fails(state jsonb, message jsonb) RETURNS jsonb
            LANGUAGE plpgsql AS $$
            BEGIN
                IF message ? 'reject' THEN
                    PERFORM djactor.reject('not today');
                END IF;
                RAISE EXCEPTION 'order % is "%"', message ->> 'n', message ->> 'is';
            END $$""")
        cursor.execute(
            "SELECT djactor.define_actor_type('sentry', 'sentry_fails', max_attempts => 1)"
        )
    yield djactor.actor("sentry", "k")
    drop("sentry")
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION sentry_fails")


def test_a_dead_letter_is_logged_and_so_an_event(failing, caplog, tmp_path):
    sent = failing.send({"n": 1, "is": "lost"})
    failing.send({"n": 2, "is": "late"})
    failing.send({"reject": True})
    wait_idle(60)
    position = tmp_path / "position"
    with sentry() as events, caplog.at_level(logging.INFO, "djactor.dead_letter"):
        assert logged(position=position) == "3 logged\n"
        assert logged(position=position) == "0 logged\n"
    first, second, rejected = caplog.records
    assert first.levelno == second.levelno == logging.ERROR and rejected.levelno == logging.INFO
    assert first.getMessage().startswith(
        f'message {sent} to sentry k was given up (failed): order 1 is "lost"'
    )
    assert (first.actor_type, first.actor_key, first.message_id) == ("sentry", "k", sent)
    one, other = events
    assert one["fingerprint"] == other["fingerprint"]
    assert one["fingerprint"][:4] == ["djactor", "sentry", "failed", "P0001"]
    assert one["tags"]["djactor.message_id"] == str(sent)
    assert one["contexts"]["djactor"]["sqlstate"] == "P0001"
    assert "sentry_fails" in one["contexts"]["djactor"]["context"]


def test_what_a_host_has_logged_is_not_logged_again(reported, caplog):
    djactor.actor("host.counter", 1).send({"fail": True})
    wait_idle(60)
    query("SELECT djactor.pause('host.counter')")
    expires = query("SELECT now() + interval '10 ms'")[0][0]
    djactor.actor("host.counter", 2).send({}, expires_at=expires)
    query("SELECT djactor.resume('host.counter')")
    wait_idle(60)
    reasons = set(DeadLetter.objects.values_list("reason", flat=True))
    with caplog.at_level(logging.INFO, "djactor.dead_letter"):
        logged()
    assert "failed" in reasons
    assert {record.args[3] for record in caplog.records} == reasons - {"failed"}
    reported(2)


def test_without_sentry_it_is_logged_all_the_same(failing, caplog):
    failing.send({"n": 1, "is": "lost"})
    wait_idle(60)
    with caplog.at_level(logging.ERROR, "djactor.dead_letter"):
        assert logged() == "1 logged\n"
    assert "was given up" in caplog.text
