"""examples/events: each event counts once, whatever happens; alerts come, stay and go."""

import concurrent.futures
import datetime
import itertools
import json
import os
import random
import signal
import time

import httpx
import pytest

IDS = itertools.count(1)
DEVICES = itertools.count(1)


@pytest.fixture(scope="module")
def site(example_server):
    return example_server("events", fsync=False)  # processes are killed, the machine is not


@pytest.fixture
def device(site):
    """One that nobody has heard of yet."""
    return f"device-{next(DEVICES)}"


@pytest.fixture
def paused(site):
    """No device's actor does anything until ``resume()``."""
    site.sql("SELECT djactor.pause('events.device')")
    yield lambda: site.sql("SELECT djactor.resume('events.device')")
    site.sql("SELECT djactor.resume('events.device')")


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def event(device, value=20, at=None):
    at = (at or now()).isoformat()
    return {"id": f"e{next(IDS)}", "device": device, "at": at, "value": value}


def speaks_seldom(site, device):
    """Nobody takes it for silent, however long the test takes."""
    site.sql(f"INSERT INTO events_device (name, silent_after) VALUES ('{device}', '1 h')")


def state(site, device):
    """``state(site, device)(path)``: a part of the state, as text."""
    return lambda path: site.sql(
        f"SELECT state #>> '{path}' FROM djactor.actor"
        f" WHERE actor_type = 'events.device' AND actor_key = '{device}'"
    )


def totals(site, device):
    """Count and total of all its minutes."""
    return site.sql(
        f"SELECT sum(count), sum(total)::int FROM events_minute WHERE device_id = '{device}'"
    )


def alerts(site, device):
    return site.sql(
        "SELECT kind, value::int, resolved_at IS NOT NULL FROM events_alert"
        f" WHERE device_id = '{device}' ORDER BY id"
    ).split()


#
# In
#


def test_an_event_or_a_list_of_them_is_taken_and_counted(site, http, device, idle):
    one = http.post("/events/", json=event(device, 20.5))
    assert (one.status_code, one.json()) == (202, {"accepted": 1})
    many = http.post("/events/", json=[event(device, "21.25"), event(device, 22)])
    assert (many.status_code, many.json()) == (202, {"accepted": 2})
    idle(site)
    minutes = (
        "SELECT sum(count), sum(total), min(low), max(high) FROM events_minute"
        f" WHERE device_id = '{device}'"
    )
    assert site.sql(minutes) == "3|63.750|20.500|22.000"
    assert state(site, device)("{value}") == "22"


@pytest.mark.parametrize(
    ("wrong", "field", "code"),
    [
        ({"id": None}, "id", "required"),
        ({"id": "a b"}, "id", "invalid"),
        ({"id": "\ud800"}, "id", "invalid"),
        ({"device": "no/slash"}, "device", "invalid"),
        ({"device": "x" * 51}, "device", "max_length"),
        ({"at": "yesterday"}, "at", "invalid"),
        ({"at": 5}, "at", "invalid"),
        ({"at": "2999-01-01T00:00:00Z"}, "at", "future"),
        ({"value": "warm"}, "value", "invalid"),
        ({"value": float("nan")}, "value", "invalid"),
        ({"value": [1]}, "value", "invalid"),
        ({"value": 1e30}, "value", "max_digits"),
    ],
)
def test_a_wrong_event_is_named_and_nothing_of_its_batch_is_taken(
    site, http, device, idle, wrong, field, code
):
    batch = [event(device), event(device) | wrong]
    answer = http.post("/events/", content=json.dumps(batch))  # NaN, too
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["index"] == 1
    assert [found["code"] for found in error["errors"][field]] == [code]
    idle(site)
    assert state(site, device)("{}") == ""


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_a_400(http, body):
    answer = http.post("/events/", content=body)
    assert (answer.status_code, answer.json()) == (400, {"errors": "The body is not JSON."})


@pytest.mark.parametrize("body", ["[7]", '"text"', "null", "[[]]"])
def test_what_is_no_event_lacks_all_fields(http, body):
    answer = http.post("/events/", content=body)
    assert answer.status_code == 400
    assert set(answer.json()["errors"][0]["errors"]) == {"id", "device", "at", "value"}


def test_too_many_at_once_is_a_413(http, device):
    assert http.post("/events/", json=[event(device)] * 1001).status_code == 413


def test_an_event_that_is_sent_again_counts_once(site, http, device, idle):
    again = event(device, 7)
    assert http.post("/events/", json=[again, again, event(device, 1)]).status_code == 202
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: http.post("/events/", json=again).status_code, range(16))
        assert set(answers) == {202}
    idle(site)
    assert http.post("/events/", json=again).status_code == 202
    idle(site)
    assert totals(site, device) == "2|8"


def test_a_full_mailbox_pushes_back_and_nothing_is_lost(site, http, device, idle, paused):
    mail = [[event(device, 1) for _ in range(1000)] for _ in range(6)]
    answers = [http.post("/events/", json=batch) for batch in mail]
    assert [answer.status_code for answer in answers] == [202] * 5 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert http.post("/events/", json=event(f"{device}-other")).status_code == 202
    paused()
    idle(site)
    assert http.post("/events/", json=mail[-1]).status_code == 202
    idle(site)
    assert totals(site, device) == "6000|6000"


#
# Order
#


def test_a_senders_events_are_handled_in_its_order(site, http, device, idle):
    at = now()
    sent = list(range(1, 121))
    for first in range(0, 120, 6):
        batch = [event(device, value, at) for value in sent[first : first + 6]]
        assert http.post("/events/", json=batch).status_code == 202
    idle(site)
    assert state(site, device)("{recent}") == str(sent[-40:])


def test_late_events_count_in_their_own_minute_and_change_nothing_else(site, http, device, idle):
    speaks_seldom(site, device)
    start = now().replace(second=30, microsecond=0) - datetime.timedelta(minutes=10)
    minutes = [start + datetime.timedelta(minutes=minute) for minute in range(5)]
    for minute in (0, 4, 2, 1, 3, 2):
        # The late ones would have been hot, then.
        value = minute if minute in (0, 4) else 100 + minute
        assert http.post("/events/", json=event(device, value, minutes[minute])).status_code == 202
    idle(site)
    counted = (
        f"SELECT count, total::int FROM events_minute WHERE device_id = '{device}' ORDER BY minute"
    )
    assert site.sql(counted).split() == ["1|0", "1|101", "2|204", "1|103", "1|4"]
    assert [state(site, device)(path) for path in ("{value}", "{count}", "{late}")] == [
        *("4", "6", "4")
    ]
    assert alerts(site, device) == []


#
# Alerts
#


def test_hot_is_raised_once_stays_between_the_limits_and_is_resolved_below(
    site, http, device, idle
):
    speaks_seldom(site, device)
    seen = []
    for value in (80, 81, 85, 79, 76, 82, 75, 74.9, 79, 90):
        assert http.post("/events/", json=event(device, value)).status_code == 202
        idle(site)
        seen.append(state(site, device)("{alerts}"))
    hot = '["hot"]'
    assert seen == ["[]", hot, hot, hot, hot, hot, hot, "[]", "[]", hot]
    assert alerts(site, device) == ["hot|81|t", "hot|90|f"]


def test_a_silent_device_is_noticed_and_heard_again(site, http, device, idle, until):
    site.sql(f"INSERT INTO events_device (name, silent_after) VALUES ('{device}', '0.5 s')")
    assert http.post("/events/", json=event(device)).status_code == 202
    assert until(lambda: alerts(site, device)) == ["silent||f"]
    assert http.post("/events/", json=event(device)).status_code == 202
    idle(site)
    assert alerts(site, device)[0] == "silent||t"
    assert until(lambda: alerts(site, device)[1:]) == ["silent||f"]  # silent again


def test_a_device_that_speaks_is_not_silent(site, http, device, idle):
    site.sql(f"INSERT INTO events_device (name, silent_after) VALUES ('{device}', '1 min')")
    due = (
        "SELECT extract(epoch FROM due_at) FROM djactor.timer"
        f" WHERE actor_key = '{device}' AND name = 'silent'"
    )
    assert http.post("/events/", json=event(device)).status_code == 202
    idle(site)
    first = float(site.sql(due))
    assert http.post("/events/", json=event(device)).status_code == 202
    idle(site)
    assert float(site.sql(due)) > first
    assert alerts(site, device) == []


#
# Killed
#


def send_through_everything(http, batch):
    """Send it until it is accepted, as the documentation of the site tells senders to."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = http.post("/events/", json=batch)
        except httpx.TransportError:
            continue
        if answer.status_code == 202:
            return
        assert answer.status_code in (429, 503), answer.text
        assert int(answer.headers["Retry-After"]) > 0
        time.sleep(0.05)
    raise AssertionError("was never accepted")


def test_totals_are_what_was_sent_though_workers_are_killed_meanwhile(
    site, http, idle, kill_worker
):
    devices = [f"killed-{number}" for number in range(10)]
    chance = random.Random(1)
    sent = [
        [event(chance.choice(devices), chance.randrange(100)) for _ in range(20)]
        for _ in range(240)
    ]
    flat = [one for batch in sent for one in batch]
    answered = itertools.count(1)

    def send(batch):
        send_through_everything(http, batch)
        return next(answered)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in concurrent.futures.as_completed([pool.submit(send, batch) for batch in sent]):
            if done.result() in (60, 160):
                kill_worker(site)
    for batch in chance.sample(sent, 30):  # some senders did not get the answer
        send_through_everything(http, batch)
    idle(site)
    for device in devices:
        mine = [one["value"] for one in flat if one["device"] == device]
        assert totals(site, device) == f"{len(mine)}|{sum(mine)}"
        assert state(site, device)("{count}") == str(len(mine))


def test_a_timer_outlives_the_server(site, http, device, idle, until):
    site.sql(f"INSERT INTO events_device (name, silent_after) VALUES ('{device}', '2 s')")
    send_through_everything(http, [event(device)])
    idle(site)
    os.kill(site.server.pid, signal.SIGQUIT)
    until(lambda: site.server.pid is None)
    site.server.restart("immediate")
    assert until(lambda: alerts(site, device)) == ["silent||f"]


def test_models_and_migrations_agree(site):
    site.manage("makemigrations", "--check", "--dry-run")
