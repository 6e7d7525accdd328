"""The processes of djactor_worker: how they start, end, die and come back."""

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request

import pytest
from django.db import transaction

import djactor
from djactor.hosting import late
from djactor.models import DeadLetter, Message
from djactor.test import wait_idle
from hosting_worker import LOOPS, Worker, define, drop, query
from shop.models import Sale
from test_hosting_turns import state
from waiting import until


@pytest.fixture
def types(fresh):
    """Some hosted types, for the length of a test."""
    defined = []

    def define_types(**classes):
        for name, (cls, options) in classes.items():
            define(f"host.{name}", cls, **options)
            defined.append(f"host.{name}")
        return defined

    yield define_types
    for name in defined:
        drop(name)


@pytest.fixture
def start(fresh, types):
    """Starts workers."""
    workers = []

    def start_worker(*words, hosts=1, loop="asyncio"):
        worker = Worker(fresh, *words, loop=loop)
        workers.append(worker)
        if hosts:
            worker.wait_ready(hosts)
        return worker

    yield start_worker
    for worker in workers:
        worker.kill()


EACH = pytest.mark.parametrize(
    ("cls", "loop"),
    [("AsyncCounter", "asyncio"), ("AsyncCounter", "uvloop"), ("Counter", "asyncio")],
    ids=["asyncio", "uvloop", "sync"],
)


def fill(keys, total):
    Message.objects.bulk_create(
        Message(actor_type="host.counter", actor_key=str(i % keys), payload={"i": i, "sleep": 0.02})
        for i in range(1, total + 1)
    )


def test_it_says_what_it_serves_and_ends_with_status_0(types, start):
    types(counter=("Counter", {}), acounter=("AsyncCounter", {}))
    worker = start("--types", "host.counter", "host.acounter", hosts=2)
    worker.says("serves host.acounter: hosting_classes.AsyncCounter, async")
    worker.says("serves host.counter: hosting_classes.Counter, sync")
    assert worker.end() == 0, worker.log()
    assert worker.hosts() == []


@EACH
def test_sigterm_lets_running_turns_end_and_gives_the_rest_back(types, start, cls, loop):
    types(counter=("Careless" if cls == "AsyncCounter" else "SlowThread", {}))
    worker = start(
        "--types", "host.counter", "--concurrency", 2, "--threads", 1, "--grace", 20, loop=loop
    )
    query("SELECT djactor.pause('host.counter')")
    for key in range(6):
        djactor.actor("host.counter", key).send({"sleep": 1})
    query("SELECT djactor.resume('host.counter')")
    until(lambda: query("SELECT coalesce(sum(claims), 0) FROM djactor.host")[0][0] > 0)
    time.sleep(0.3)
    began = time.monotonic()
    assert worker.end() == 0, worker.log()
    assert time.monotonic() - began < 10
    left = Message.objects.count()
    assert 1 <= left <= 5
    assert query("SELECT max(attempts) FROM djactor.message") == [(0,)]
    start("--types", "host.counter")
    wait_idle(60)
    assert query("SELECT sum(turns) FROM djactor.actor WHERE actor_type = 'host.counter'") == [(6,)]


def test_after_the_grace_turns_are_given_back_uncharged(types, start):
    types(careless=("Careless", {}))
    worker = start("--types", "host.careless", "--grace", 0.5)
    djactor.actor("host.careless", 1).send({"do": "hang"})
    until(lambda: query("SELECT coalesce(sum(claims), 0) FROM djactor.host")[0][0] > 0)
    assert worker.end(signal.SIGINT) == 0, worker.log()
    message = Message.objects.get()
    assert message.attempts == 0
    message.cancel()


def test_a_second_signal_ends_at_once(types, start):
    types(careless=("Careless", {}))
    worker = start("--types", "host.careless", "--grace", 60)
    djactor.actor("host.careless", 1).send({"do": "hang"})
    until(lambda: query("SELECT coalesce(sum(claims), 0) FROM djactor.host")[0][0] > 0)
    worker.process.terminate()
    time.sleep(0.5)
    assert worker.process.poll() is None
    began = time.monotonic()
    assert worker.end() == 0, worker.log()
    assert time.monotonic() - began < 10
    until(lambda: worker.hosts() == [])
    query("SELECT djactor.cancel(id) FROM djactor.message")


def send_to_many(keys):
    Message.objects.bulk_create(
        Message(actor_type="host.slow", actor_key=str(key), payload={}) for key in range(keys)
    )


def test_nobody_waits_behind_a_sync_turn_that_lasts(types, start):
    types(slow=("SlowThread", {}))
    start("--types", "host.slow", "--threads", 2)
    send_to_many(300)
    wait_idle(60)  # from now on a thread takes many mailboxes at once
    query("SELECT djactor.pause('host.slow')")
    djactor.actor("host.slow", "slow").send({"sleep": 4})
    send_to_many(20)
    query("SELECT djactor.resume('host.slow')")
    until(lambda: Message.objects.count() == 1, 3)
    assert Message.objects.get().actor_key == "slow"
    wait_idle(60)
    assert not DeadLetter.objects.exists()


def test_sync_turns_that_wait_a_little_run_beside_each_other(types, start):
    types(counter=("Beside", {}))
    start("--types", "host.counter", "--threads", 4)
    Message.objects.bulk_create(
        Message(actor_type="host.counter", actor_key=str(key), payload={}) for key in range(500)
    )
    wait_idle(60)
    assert query("SELECT max((state->>'most')::int) FROM djactor.actor") >= [(3,)]


def test_nobody_waits_behind_async_turns_that_last(types, start):
    types(counter=("Hasty", {"handler_timeout": "10 min"}))
    start("--types", "host.counter", "--concurrency", 20)
    # those that come first are quick, so that mail is taken ahead, then nothing ends any more
    Message.objects.bulk_create(
        Message(
            actor_type="host.counter",
            actor_key=str(key),
            payload={"sleep": 600 if 600 <= key < 620 else 0.001},
        )
        for key in range(660)
    )
    until(lambda: Message.objects.count() == 60)
    until(lambda: query("SELECT sum(claims) FROM djactor.host") == [(20,)])
    slow = Message.objects.filter(payload__sleep=600).values_list("id", flat=True)
    query("SELECT djactor.cancel(id, running => true) FROM unnest(%s) id", list(slow))
    wait_idle(60)
    assert query("SELECT count(*) FROM djactor.actor WHERE actor_type = 'host.counter'") == [(640,)]
    assert not DeadLetter.objects.exists()


def test_who_waits_for_a_lock_of_sync_turns_waits_for_the_one_that_runs(types, start, tmp_path):
    types(lasting=("Lasting", {}))
    start("--types", "host.lasting", "--threads", 1)
    runs = tmp_path / "runs"
    runs.touch()
    sale = Sale.objects.create(product=0, amount=0)
    query("SELECT djactor.pause('host.lasting')")
    for i in range(210):
        djactor.actor("host.lasting", 1).send({"file": str(runs), "i": i})
    query("SELECT djactor.resume('host.lasting')")
    until(lambda: len(runs.read_text().split()) > 5)  # of a transaction of a hundred, two seconds
    before = len(runs.read_text().split())
    with transaction.atomic():
        Sale.objects.select_for_update().get(product=0)
        waited = len(runs.read_text().split()) - before
    assert waited < 50
    wait_idle(60)
    sale.refresh_from_db()
    assert sale.amount == 210


def test_after_a_turn_that_lasts_transactions_are_short(types, start):
    types(sharing=("Sharing", {}))
    start("--types", "host.sharing", "--threads", 1)
    actor = djactor.actor("host.sharing", 1)
    assert actor.ask({"sleep": 0}, timeout=30) == {"longest": late.LONG}
    actor.ask({"sleep": 0.2}, timeout=30)
    assert actor.ask({"sleep": 0}, timeout=30) == {"longest": late.SHORT}


@EACH
def test_a_killed_process_loses_nothing_and_repeats_nothing(types, start, cls, loop):
    types(counter=(cls, {}))
    worker = start("--types", "host.counter", "--processes", 2, hosts=2, loop=loop)
    total, keys = 1500, 50
    query("SELECT djactor.pause('host.counter')")
    fill(keys, total)
    query("SELECT djactor.resume('host.counter')")
    kills = 5
    for kill in range(1, kills + 1):
        # at an even distance in handled messages, since a fast machine would be done in no time
        until(lambda at=total * kill // (kills + 1): total - Message.objects.count() >= at, 120)
        os.kill(until(worker.children)[0], signal.SIGKILL)
        until(lambda said=kill: worker.log().count("has died (SIGKILL)") == said)
    until(lambda: not Message.objects.exists(), 120)
    assert not DeadLetter.objects.exists()
    for key in range(keys):
        seen = state("host.counter", key)["seen"]
        assert seen == [i for i in range(1, total + 1) if i % keys == key]
    assert worker.end() == 0, worker.log()


@pytest.mark.parametrize(
    ("cls", "poison"), [("Careless", {"do": "kill"}), ("SlowThread", {"kill": True})]
)
def test_a_message_that_kills_its_process_is_given_up_and_others_are_not_charged(
    types, start, cls, poison
):
    types(careless=(cls, {}))
    worker = start("--types", "host.careless", "--threads", 1)
    query("SELECT djactor.pause('host.careless')")
    for key in range(100):
        sleep = 0.2 if cls == "Careless" else 0
        djactor.actor("host.careless", key).send(poison if key == 50 else {"sleep": sleep})
    query("SELECT djactor.resume('host.careless')")
    until(lambda: not Message.objects.exists(), 120)
    letter = DeadLetter.objects.get()
    assert (letter.actor_key, letter.reason) == ("50", "crashed")
    assert worker.log().count("has died") <= 4, worker.log()
    turns = "SELECT count(*), min(turns), max(turns) FROM djactor.actor WHERE actor_type = %s"
    assert query(turns, "host.careless") == [(99, 1, 1)]
    assert worker.end() == 0, worker.log()


@pytest.mark.parametrize("loop", LOOPS)
def test_one_that_swallows_cancellation_is_named_and_its_process_replaced(types, start, loop):
    types(careless=("Careless", {"handler_timeout": "200 ms"}))
    worker = start("--types", "host.careless", "--grace", 1.5, loop=loop)
    before = worker.hosts()
    djactor.actor("host.careless", "s").send({"do": "swallow"})
    djactor.actor("host.careless", "t").send({})
    worker.says("the handler of host.careless s does not end although it was cancelled")
    worker.says("it is replaced")
    until(lambda: DeadLetter.objects.exists(), 120)
    letter = DeadLetter.objects.get()
    assert (letter.actor_key, letter.reason) == ("s", "crashed")
    assert state("host.careless", "t") == {"did": None}
    assert worker.hosts() != before


def test_a_sync_turn_over_its_time_limit_has_its_process_replaced(types, start):
    types(slow=("SlowThread", {"handler_timeout": "200 ms"}))
    worker = start("--types", "host.slow", "--grace", 0.5)
    query("SELECT djactor.send('host.slow', 's', '{\"sleep\": 3600}')")
    djactor.actor("host.slow", "t").send({})
    until(lambda: DeadLetter.objects.exists(), 120)
    letter = DeadLetter.objects.get()
    assert (letter.actor_key, letter.reason) == ("s", "crashed")
    assert "is over its time limit" in worker.log()
    until(lambda: state("host.slow", "t") is not None)


def test_the_health_endpoint(types, start):
    types(counter=("Counter", {}))
    worker = start("--types", "host.counter", "--health", 0, "--processes", 2, hosts=2)
    port = int(re.search(r"health: port (\d+)", worker.log())[1])

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, None

    assert get("/live")[0] == 200
    until(lambda: get("/ready")[0] == 200)
    assert len(get("/ready")[1]["ready"]) == 2
    assert get("/nothing")[0] == 404
    os.kill(worker.children()[0], signal.SIGKILL)
    until(lambda: get("/ready")[0] == 503)
    until(lambda: get("/ready")[0] == 200)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--types", "shop.nothing"], "is not defined in the database 'default': run migrate"),
        (["--types", "shop.counter"], "runs inside PostgreSQL"),
        (["--types", "host.nobody"], "has no Nobody"),
        (["--database", "nowhere"], "there is no database 'nowhere'"),
        (["--processes", "0"], "--processes is a number of at least 1"),
    ],
)
def test_what_cannot_be_served_is_said(types, start, words, said):
    types(nobody=("Nobody", {}))
    worker = start(*words, hosts=0)
    assert worker.process.wait(60) == 1
    assert said in worker.log()


def test_without_hosted_types_it_says_so(fresh, start, monkeypatch):
    monkeypatch.setenv("SHOP_WITHOUT_ACTORS", "1")
    worker = start(hosts=0)
    assert worker.process.wait(60) == 1
    assert "no actor types are registered as hosted" in worker.log()


def test_it_comes_back_when_the_server_restarts(types, start, fresh):
    from django.db import connections

    types(counter=("Counter", {}), acounter=("AsyncCounter", {}))
    worker = start("--types", "host.counter", "host.acounter", hosts=2)
    connections.close_all()
    fresh.restart()
    until(lambda: len(worker.hosts()) == 2)
    assert djactor.actor("host.counter", 1).ask({"add": 1}, timeout=30) == {"n": 1}
    assert djactor.actor("host.acounter", 1).ask({"add": 1}, timeout=30) == {"n": 1}
    assert len(worker.children()) == 1
    assert worker.end() == 0, worker.log()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_terminated_session_is_opened_anew(types, start, loop):
    types(counter=("Counter", {}), acounter=("AsyncCounter", {}))
    worker = start("--types", "host.counter", "host.acounter", hosts=2, loop=loop)
    before = {host[0] for host in worker.hosts()}
    query("SELECT pg_terminate_backend(pid) FROM djactor.host")
    try:
        until(lambda: len({host[0] for host in worker.hosts()} - before) == 2, 20)
    except AssertionError:
        print(before, worker.hosts(), worker.log())
        raise
    assert djactor.actor("host.counter", 1).ask({"add": 1}, timeout=30) == {"n": 1}
    assert djactor.actor("host.acounter", 1).ask({"add": 1}, timeout=30) == {"n": 1}


def test_children_end_when_their_supervisor_is_killed(types, start):
    types(counter=("Counter", {}))
    worker = start("--types", "host.counter")
    worker.process.kill()
    worker.process.wait()
    until(lambda: worker.hosts() == [])


@EACH
def test_terminated_sessions_lose_nothing_and_repeat_nothing(types, start, cls, loop):
    types(counter=(cls, {}))
    worker = start("--types", "host.counter", loop=loop)
    total, keys = 2000, 40
    query("SELECT djactor.pause('host.counter')")
    fill(keys, total)
    query("SELECT djactor.resume('host.counter')")
    for _ in range(6):
        time.sleep(0.2)
        query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'djactor%%' AND backend_type = 'client backend'"
            " OR pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND query LIKE '%%djactor%%' AND pid <> pg_backend_pid())"
        )
    until(lambda: not Message.objects.exists(), 120)
    assert not DeadLetter.objects.exists()
    for key in range(keys):
        seen = state("host.counter", key)["seen"]
        assert seen == [i for i in range(1, total + 1) if i % keys == key]
    assert worker.end() == 0, worker.log()


def test_autoreload_starts_anew_when_code_has_changed(types, start, tmp_path, monkeypatch):
    module = tmp_path / "changing_code.py"
    text = """
class Actor:
    def handle_message(self, message):
        return {"version": VERSION}
"""
    module.write_text(text.replace("VERSION", "1"))
    monkeypatch.setenv("SHOP_EXTRA_PATH", str(tmp_path))
    types(changing=("Counter", {}))
    query("SELECT djactor.alter_actor_type('host.changing', handler => 'changing_code.Actor')")
    start("--types", "host.changing", "--autoreload")
    actor = djactor.actor("host.changing", 1)
    assert actor.ask({}, timeout=30) == {"version": 1}
    time.sleep(1.5)  # so that the file's time differs
    module.write_text(text.replace("VERSION", "22"))
    until(lambda: actor.ask({}, timeout=30) == {"version": 22})


RELEASE = """
import djactor


@djactor.register("host.released", hosted=True, state_version={version})
class Released:
    def __init__(self, key):
        self.v{version} = 0

    def handle_message(self, message):
        self.v{version} += 1
        return {{"release": {version}, "state": dict(self.__dict__)}}
"""
UPGRADE = """
    @staticmethod
    def upgrade_state(state, from_version):
        return {"v2": 10 * state["v1"]}
"""


def release(folder, version, text):
    """A project whose app has this release of a class."""
    (folder / "released").mkdir(parents=True)
    (folder / "released" / "__init__.py").write_text("")
    (folder / "released" / "actors.py").write_text(text)
    (folder / "release_settings.py").write_text(
        "from project_settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'released']\n"
    )
    return folder


@pytest.fixture
def releases(fresh, tmp_path, monkeypatch):
    """``releases(version)`` starts a worker of that release; the type is as the first one wants."""
    workers = []
    folders = {
        1: release(tmp_path / "one", 1, RELEASE.format(version=1)),
        2: release(tmp_path / "two", 2, RELEASE.format(version=2) + UPGRADE),
    }

    def start_release(version):
        monkeypatch.setenv("SHOP_EXTRA_PATH", str(folders[version]))
        words = "--types", "host.released", "--code-version", f"release {version}"
        workers.append(Worker(fresh, *words, settings="release_settings"))
        return workers[-1]

    query(
        "SELECT djactor.define_actor_type("
        "'host.released', 'released.actors.Released', hosted => true)"
    )
    yield start_release
    for worker in workers:
        worker.kill()
    drop("host.released")


def test_old_code_does_not_run_on_the_states_of_new_code(releases):
    actor = djactor.actor("host.released", "a")
    old = releases(1)
    assert actor.ask({}, timeout=60) == {"release": 1, "state": {"v1": 1}}
    # the migration of the new release: the worker of the old one is still there
    query("SELECT djactor.alter_actor_type('host.released', state_version => 2)")
    actor.send({})
    old.says("had 1 when this process began")
    old.says("have version 2 in the database 'default', and 1 in this code: deploy the code")
    assert Message.objects.get().attempts == 0
    new = releases(2)
    wait_idle(60)
    assert actor.state() == {"v2": 11}
    assert old.process.poll() is None  # it looks again, until it is replaced
    assert [name for (name,) in query("SELECT version FROM djactor.host")] == ["release 2"]
    for _ in range(20):
        assert actor.ask({}, timeout=60)["release"] == 2
    assert not DeadLetter.objects.exists()
    assert new.process.poll() is None
    again = releases(1)
    assert again.process.wait(60) == 1
    assert "deploy the code that knows them" in again.log()


def test_new_code_waits_for_its_migration(releases):
    worker = releases(2)
    assert worker.process.wait(60) == 1
    assert "have version 1 in the database 'default', and 2 in this code: run migrate" in (
        worker.log()
    )


def test_two_releases_that_share_a_state_version_run_side_by_side(releases):
    djactor.actor("host.released", "a").send({})
    first = releases(1)
    wait_idle(60)
    second = releases(1)
    until(lambda: len(query("SELECT 1 FROM djactor.host")) == 2)
    for key in range(20):
        assert djactor.actor("host.released", key).ask({}, timeout=60)["release"] == 1
    assert first.end() == 0, first.log()
    assert djactor.actor("host.released", "a").ask({}, timeout=60)["state"] == {"v1": 2}
    assert second.end() == 0, second.log()
