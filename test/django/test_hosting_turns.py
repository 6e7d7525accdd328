"""Turns in a worker of Django: state, order, errors, the ORM, what a turn may do."""

import logging
import threading
import time
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from django.db import connection, transaction

import djactor
from djactor import listener
from djactor.hosting import late
from djactor.models import Actor, DeadLetter, Message
from djactor.test import wait_idle
from hosting_worker import LOOPS, query, serving
from shop.models import Sale
from waiting import until

TYPES = {
    "host.counter": ("Counter", {}),
    "host.acounter": ("AsyncCounter", {}),
    "host.looped": ("Looped", {}),
    "host.driven": ("Driven", {}),
    "host.mixed": ("Mixed", {"max_attempts": 1}),
    "host.seller": ("Seller", {"max_attempts": 1}),
    "host.alone": ("Seller", {"batch_size": 1}),
    "host.aseller": ("AsyncSeller", {"max_attempts": 1}),
    "host.forwarder": ("Forwarder", {"max_attempts": 1}),
    "host.asker": ("Asker", {}),
    "host.syncasker": ("SyncAsker", {}),
    "host.collected": ("Collected", {}),
    "host.careless": ("Careless", {"max_attempts": 1, "handler_timeout": "300 ms"}),
    "host.versioned": ("Versioned", {}),
}
BOTH = pytest.mark.parametrize("counter", ["host.counter", "host.acounter"])


@pytest.fixture(scope="module", params=LOOPS)
def worker(project, request):
    with serving(project, TYPES, request.param) as running:
        running.loop = request.param
        yield running


@pytest.fixture(autouse=True)
def clean(fresh):
    """Before the module's worker is asked for, nothing is there; after a test nothing is left."""
    yield


def state(name, key=1):
    return djactor.actor(name, key).state()


def letter():
    return DeadLetter.objects.get()


def runs_of(name, file, messages, keys=1_000):
    """Have these handled by so many actors; returns the numbers of those that have run."""
    query("SELECT djactor.pause(%s)", name)
    for i, message in enumerate(messages):
        djactor.actor(name, i % keys).send(message | {"i": i, "file": str(file)})
    query("SELECT djactor.resume(%s)", name)
    wait_idle(60)
    return [int(line) for line in file.read_text().split()]


@pytest.mark.parametrize(
    "how",
    [
        "plain",
        "with_parameters",
        "many",
        "by_the_driver",
        "by_copy",
        "in_a_pipeline",
        "by_a_cursor_of_the_server",
        "after_an_error",
        "with_the_orm",
    ],
)
def test_each_turn_of_a_batch_is_its_own_however_it_asks_the_database(worker, how, tmp_path):
    runs = runs_of("host.driven", tmp_path / "runs", [{"how": how}] * 300, keys=20)
    assert not DeadLetter.objects.exists()
    for key in range(20):
        assert Actor.objects.get(actor_key=str(key)).turns == 15
        assert state("host.driven", key) == {"trap": "100%s 'n' \\", "found": [str(key), "%s"]}
    if how != "after_an_error":
        assert sorted(runs) == list(range(300))


def test_async_turns_run_in_the_loop_that_was_chosen(worker):
    assert djactor.actor("host.looped", 1).ask({}, timeout=30) == {"loop": worker.loop}


@BOTH
def test_the_class_of_an_inside_type_runs_unchanged(worker, counter):
    actor = djactor.actor(counter, 7)
    assert actor.ask({"add": 2}, timeout=30) == {"n": 2}
    assert actor.ask({"add": 3}, timeout=30) == {"n": 5}
    assert actor.state() == {"number": 7, "n": 5, "seen": [None, None]}


@BOTH
def test_messages_of_a_key_are_handled_in_their_order(worker, counter):
    for i in range(200):
        djactor.actor(counter, i % 3).send({"i": i})
    wait_idle(60)
    for key in range(3):
        assert state(counter, key)["seen"] == list(range(key, 200, 3))


@BOTH
def test_a_failure_is_retried_and_ends_in_dead_letter_with_its_traceback(worker, counter):
    query("SELECT djactor.alter_actor_type(%s, max_attempts => 2, backoff => '10 ms')", counter)
    actor = djactor.actor(counter, 1)
    actor.send({"add": 1})
    actor.send({"fail": True})
    actor.send({"add": 1})
    wait_idle(60)
    found = letter()
    assert (found.reason, found.sqlstate, found.attempts) == ("failed", "38000", 2)
    assert found.error.startswith("ValueError: told to fail")
    assert "Traceback" in found.context and "hosting_classes.py" in found.context
    assert "async_host.py" not in found.context and "sync_host.py" not in found.context
    assert state(counter)["n"] == 2
    worker.says("ValueError: told to fail")


@BOTH
def test_reject_gives_a_message_up_at_once(worker, counter):
    with pytest.raises(djactor.AskFailed) as caught:
        djactor.actor(counter, 1).ask({"reject": True}, timeout=30)
    assert (caught.value.reason, caught.value.message) == ("rejected", "not today")
    assert letter().attempts <= 1
    assert not Actor.objects.filter(actor_type=counter).exists()


def test_orm_writes_of_a_sync_turn_are_one_commit_with_it(worker):
    actor = djactor.actor("host.seller", 1)
    assert actor.ask({"product": 1, "send": 9}, timeout=30) == {"sold": 1}
    assert Sale.objects.filter(product=1).count() == 1
    wait_idle(60)
    assert djactor.actor("shop.counter", 9).state() == {"n": 5}
    actor.send({"product": 2, "fail": True})
    wait_idle(60)
    assert letter().reason == "failed"
    assert not Sale.objects.filter(product=2).exists()
    assert actor.state() == {"sold": 1}


def test_what_an_orm_send_in_a_turn_sends_knows_its_sender(worker):
    query("SELECT djactor.pause('shop.counter')")
    try:
        djactor.actor("host.seller", "s").ask({"product": 1, "send": 9}, timeout=30)
        sent = Message.objects.get(actor_type="shop.counter")
        assert (sent.sender_type, sent.sender_key) == ("host.seller", "s")
    finally:
        query("SELECT djactor.resume('shop.counter')")
    wait_idle(60)


def test_a_transaction_that_is_marked_for_rollback_is_a_failure(worker):
    djactor.actor("host.seller", 1).send({"product": 3, "leave_broken": True})
    wait_idle(60)
    assert "marked for a rollback" in letter().error
    assert not Sale.objects.exists()


def test_a_failure_in_a_batch_is_its_own_alone(worker):
    query("SELECT djactor.pause('host.seller')")
    for i in range(40):
        djactor.actor("host.seller", i % 4).send({"product": i, "fail": i == 17})
    query("SELECT djactor.resume('host.seller')")
    wait_idle(60)
    assert letter().payload["product"] == 17
    sold = sorted(Sale.objects.values_list("product", flat=True))
    assert sold == [i for i in range(40) if i != 17]


def test_turns_with_statements_and_turns_without_share_a_batch(worker, tmp_path):
    messages = [{"write": i % 7 < 4} for i in range(300)]
    runs = runs_of("host.mixed", tmp_path / "runs", messages, keys=60)
    assert sorted(runs) == list(range(300))
    assert Sale.objects.count() == sum(message["write"] for message in messages)


def test_a_sync_turn_without_statements_does_not_run_again_when_others_of_its_batch_fail(
    worker, tmp_path
):
    failing = {100, 150, 160, 200}
    messages = [{"write": i % 5 == 0, "fail": i in failing} for i in range(250)]
    runs = runs_of("host.mixed", tmp_path / "runs", messages)
    assert [runs.count(i) for i in range(250) if i % 5] == [1] * 200
    assert {letter.payload["i"] for letter in DeadLetter.objects.all()} == failing
    sold = set(Sale.objects.values_list("product", flat=True))
    assert sold == set(range(0, 250, 5)) - failing


def test_a_turn_that_fails_at_its_end_is_the_one_that_failed(worker, tmp_path):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE mixed_parent (id int PRIMARY KEY)")
        cursor.execute(
            "CREATE TABLE mixed_child"
            " (id int REFERENCES mixed_parent DEFERRABLE INITIALLY DEFERRED)"
        )
    messages = [{"write": True, "orphan": i in (100, 200)} for i in range(250)]
    runs_of("host.mixed", tmp_path / "runs", messages)
    letters = DeadLetter.objects.all()
    assert {letter.payload["i"]: letter.sqlstate for letter in letters} == {
        100: "23503",
        200: "23503",
    }
    sold = set(Sale.objects.values_list("product", flat=True))
    assert sold == set(range(250)) - {100, 200}
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE mixed_child, mixed_parent")


def test_a_batch_is_over_if_somebody_waits_for_its_locks(fresh):
    def wait():
        Sale.objects.update(amount=3)
        connection.close()

    Sale.objects.create(product=1, amount=1)
    waiting = threading.Thread(target=wait)
    with transaction.atomic():
        Sale.objects.update(amount=2)
        batch = late.Batch("default")
        batch.is_open = True
        assert not batch.is_over(100.0, 100.005)
        assert not batch.is_over(100.0, 100.020)
        waiting.start()
        until(lambda: query("SELECT djactor.waited_for()") == [(True,)])
        assert not batch.is_over(100.0, 100.025)  # it has just been looked at
        assert batch.is_over(100.0, 100.031)
        assert batch.waited_for
    waiting.join()
    assert late.Batch("default").is_over(100.0, 100.051)
    assert late.Batch("default", late.SHORT).is_over(100.0, 100.011)


def test_with_batch_size_1_each_sync_turn_has_a_transaction_of_its_own(worker):
    query("SELECT djactor.pause('host.alone')")
    for i in range(20):
        djactor.actor("host.alone", i % 4).send({"product": i})
    query("SELECT djactor.resume('host.alone')")
    wait_idle(60)
    assert query("SELECT count(DISTINCT xmin::text) FROM shop_sale") == [(20,)]


def test_in_commit_runs_the_orm_in_the_final_transaction(worker):
    actor = djactor.actor("host.aseller", 1)
    assert actor.ask({"product": 4}, timeout=30) == {"sold": 1}
    sale = Sale.objects.get(product=4, amount=1)  # shop.counter writes down what it adds, too
    assert actor.state() == {"sold": 1, "last": sale.pk}
    wait_idle(60)
    assert djactor.actor("shop.counter", 4).state() == {"n": 7}
    actor.send({"product": 5, "fail": True})
    wait_idle(60)
    assert "told to fail" in letter().error
    assert not Sale.objects.filter(product=5).exists()
    assert actor.state()["sold"] == 1
    assert djactor.actor("shop.counter", 5).state() is None


def test_an_async_turn_sends_with_its_commit(worker):
    djactor.actor("host.forwarder", "f").send({"to": 3, "execute": True}, headers={"a": 1})
    wait_idle(60)
    assert djactor.actor("shop.counter", 3).state() == {"n": 7}
    assert Sale.objects.filter(product=77).count() == 1
    assert state("host.forwarder", "f") == {"key": "f", "kinds": ["user"]}


def test_an_async_turn_sets_timers(worker):
    djactor.actor("host.forwarder", "t").send({"timer": True})
    until(lambda: "meta" in (state("host.forwarder", "t") or {}))
    assert state("host.forwarder", "t") == {
        "key": "t",
        "kinds": ["user", "timer"],
        "meta": "later",
    }


def test_an_async_turn_replies_and_stops(worker):
    actor = djactor.actor("host.forwarder", "r")
    assert actor.ask({"answer": True}, timeout=30) == {"by": "reply()"}
    actor.send({"stop": True})
    wait_idle(60)
    assert actor.state() is None


def test_what_the_server_refuses_at_the_end_of_an_async_turn_is_its_failure(worker):
    for key in range(5):
        djactor.actor("host.forwarder", key).send({"to": 6})
    djactor.actor("host.forwarder", 9).send({"nowhere": True})
    wait_idle(60)
    found = letter()
    assert found.actor_key == "9" and "shop.nowhere" in found.error
    assert found.sqlstate == "42704"
    assert djactor.actor("shop.counter", 6).state() == {"n": 35}


@pytest.mark.parametrize("asker", ["host.asker", "host.syncasker"])
def test_a_turn_knows_when_its_message_was_sent(worker, asker):
    query("SELECT djactor.pause(%s)", asker)
    djactor.actor(asker, 1).send({"when": True})
    sent_at = Message.objects.get().sent_at
    query("SELECT djactor.resume(%s)", asker)
    wait_idle(60)
    assert datetime.fromisoformat(state(asker)["sent_at"]) == sent_at


def test_a_claim_that_has_ended_is_freed_at_once(worker):
    for i in range(100):
        djactor.actor("host.collected", i).send({})
    wait_idle(60)
    assert djactor.actor("host.collected", 1).ask({"count": True}, timeout=30)["claims"] < 20


@pytest.mark.parametrize("asker", ["host.asker", "host.syncasker"])
def test_no_turn_waits_for_another_actor(worker, asker):
    answer = djactor.actor(asker, 1).ask({}, timeout=30)
    assert "inside a turn" in answer["error"] and "wants_reply" in answer["error"]


def test_a_time_limit_ends_an_async_turn(worker):
    djactor.actor("host.careless", 1).send({"do": "hang"})
    wait_idle(60)
    found = letter()
    assert (found.reason, found.sqlstate) == ("failed", "57014")
    assert "time limit" in found.error


def test_a_handler_that_blocks_the_event_loop_is_named_with_its_stack(worker):
    djactor.actor("host.careless", "b").send({"do": "block"})
    worker.says("the handler of host.careless b blocks the event loop")
    assert "time.sleep(1.6)" in worker.log()
    wait_idle(60)


def test_state_that_json_would_change_fails_the_turn(worker):
    djactor.actor("host.careless", 1).send({"do": "tuple"})
    wait_idle(60)
    assert letter().sqlstate == "22032"
    assert 'attribute "pair" of Careless' in letter().error


def test_log_records_say_which_turn_they_belong_to(worker):
    djactor.actor("host.careless", "l").send({"do": "log"})
    worker.says("hello from l")


def test_the_filter_marks_records_outside_of_turns():
    from djactor.hosting.logs import TurnFilter

    record = logging.LogRecord("a", logging.INFO, "b", 1, "c", (), None)
    assert TurnFilter().filter(record)
    assert (record.actor_type, record.actor_key, record.message_id) == (None, None, None)


def test_an_older_state_is_upgraded_before_its_next_message(worker):
    query("SELECT djactor.pause('host.versioned')")
    actor = djactor.actor("host.versioned", 1)
    actor.send({"word": "new"})
    query("SELECT djactor.resume('host.versioned')")
    wait_idle(60)
    with connection.cursor() as cursor:
        cursor.execute(
            'UPDATE djactor.actor SET state = \'{"text": "a b"}\' WHERE actor_type = %s',
            ["host.versioned"],
        )
    query("SELECT djactor.alter_actor_type('host.versioned', state_version => 2)")
    actor.send({"word": "newer"})
    wait_idle(60)
    assert actor.state() == {"words": ["v1", "a", "b", "newer"]}
    assert Actor.objects.get(actor_type="host.versioned").state_version == 2


def test_a_slow_sync_turn_is_named(worker):
    djactor.actor("host.seller", 1).send({"product": 1, "sleep": 1.5})
    worker.says("the turn of host.seller 1 keeps its transaction open")
    wait_idle(60)


class Ringing:
    """Hears what hosts are told, and by which session."""

    def __init__(self):
        parameters = listener.parameters("admin", "test") | {"autocommit": True}
        self._connection = psycopg.connect(**parameters)
        self._connection.execute("LISTEN djactor_host")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._connection.close()

    def heard(self):
        """For each notification its payload, and its session, or the number that this had."""
        found = list(self._connection.notifies(timeout=0))
        sessions = self._connection.execute(
            "SELECT pid, backend_type, application_name, query FROM pg_stat_activity"
        )
        known = {pid: words for pid, *words in sessions}
        return [(one.payload, known.get(one.pid, one.pid)) for one in found]


def test_an_idle_host_makes_no_queries_and_takes_no_time(worker):
    # mail that waits for something else, and notifications that are for somebody else, are no work
    actor = djactor.actor("host.acounter", 1)
    actor.ask({}, timeout=30)
    query("SELECT djactor.pause('host.acounter', '1')")
    actor.send({})

    def queries():
        """What each session has executed last, and when."""
        return set(
            query(
                "SELECT pid, query_start, query FROM pg_stat_activity"
                " WHERE application_name = 'djactor host'"
            )
        )

    def switches():
        """How often each process, or a thread of it, has fallen asleep."""
        return [
            sum(
                int(line.split()[1])
                for status in Path(f"/proc/{pid}/task").glob("*/status")
                for line in status.read_text().splitlines()
                if line.startswith("voluntary_ctxt_switches")
            )
            for pid in worker.children()
        ]

    time.sleep(4)  # the watchdog falls asleep, and who is woken by any notification
    seen = []
    with Ringing() as ringing:
        for _ in range(3):  # the tests before may have left something to tell hosts of
            before = queries(), switches()
            query("SELECT pg_notify('elsewhere', '')")
            time.sleep(11)  # a heartbeat is in that
            news = queries() - before[0]
            woken = [after - until for until, after in zip(before[1], switches(), strict=True)]
            if all("djactor.heartbeat" in text for _, _, text in news):
                break
            seen.append((sorted((pid, text[-50:]) for pid, _, text in news), ringing.heard()))
        else:
            pytest.fail(f"what hosts have executed last, and who has told them, each time: {seen}")
    assert max(woken) < 40, woken  # by 100, who looks ten times a second


def claims():
    return query("SELECT coalesce(sum(claims), 0) FROM djactor.host")[0][0]


def test_an_async_turn_ends_when_its_message_is_cancelled(worker):
    actor = djactor.actor("host.acounter", 1)
    ask = actor.send({"sleep": 300}, wants_reply=True)
    behind = actor.send({"sleep": 300}, wants_reply=True)  # taken with it, perhaps
    until(claims)
    assert djactor.cancel(behind, running=True) in ("waiting", "running")
    assert djactor.cancel(ask, running=True) == "running"
    found = djactor.wait_replies([ask, behind], timeout=30)
    assert [failed.reason for failed in found.values()] == ["cancelled", "cancelled"]
    assert actor.ask({"add": 3}, timeout=30) == {"n": 3}
    assert djactor.cancel(ask) == "gone"
    assert not DeadLetter.objects.exists()


def test_no_cancel_comes_too_early_for_a_host(worker):
    for n in range(200):  # the host takes some of them at the moment of the cancel
        asked = djactor.actor("host.acounter", n).send({"sleep": 300}, wants_reply=True)
        time.sleep(n % 20 * 0.0002)
        djactor.cancel(asked, running=True)
        until(lambda: not claims(), 10)


def test_a_host_without_room_hears_of_cancels_too(worker):
    asks = [
        djactor.actor("host.acounter", key).send({"sleep": 300}, wants_reply=True)
        for key in range(100)
    ]
    until(lambda: claims() == 100)
    waits = djactor.actor("host.acounter", 1000).send({"add": 1}, wants_reply=True)
    assert djactor.wait_replies([waits], timeout=0.5) == {}
    assert djactor.cancel(asks[7], running=True) == "running"
    assert djactor.wait_replies([waits], timeout=8) == {waits: {"n": 1}}
    assert {djactor.cancel(ask, running=True) for ask in asks} == {"running", "gone"}
    wait_idle(60)


def test_a_sync_turn_is_undone_when_its_message_is_cancelled(worker):
    actor = djactor.actor("host.seller", 1)
    ask = actor.send({"product": 5, "sleep": 1}, wants_reply=True)
    until(claims)
    assert djactor.cancel(ask, running=True) == "running"
    assert actor.ask({"product": 6}, timeout=30) == {"sold": 1}
    assert djactor.wait_replies([ask])[ask].reason == "cancelled"
    assert not Sale.objects.filter(product=5).exists()
    assert not DeadLetter.objects.exists()


def test_a_statement_of_a_sync_turn_is_cancelled(worker):
    actor = djactor.actor("host.seller", 1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE shop_sale IN SHARE MODE")  # the turn waits for it
        ask = djactor.actor("host.seller", 1, using="admin").send({"product": 5}, wants_reply=True)
        until(claims)
        assert djactor.cancel(ask, running=True, using="admin") == "running"
        until(lambda: not claims())
    assert djactor.wait_replies([ask], timeout=30)[ask].reason == "cancelled"
    assert actor.ask({"product": 6}, timeout=30) == {"sold": 1}
