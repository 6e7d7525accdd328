"""djactor.tasks.DjactorBackend: Django's tasks as messages of hosted types."""

import contextlib
import logging
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import djactor
import task_settings
from djactor import declared, registry
from djactor.hosting import logs, sync_host
from djactor.hosting.notes import Notes
from djactor.hosting.session import Options, process_name
from djactor.hosting.sync_host import SyncHost
from djactor.hosting.watchdog import Watchdog
from djactor.models import Actor, ActorType, DeadLetter, Journal, Message
from djactor.tasks import DjactorBackend, Task, TaskCrashed, compat, queues
from djactor.test import drain, wait_idle
from hosting_worker import Worker, query
from registering import drop
from shop.models import Sale
from waiting import until

READY, RUNNING, FAILED, SUCCESSFUL = (
    compat.TaskResultStatus[name] for name in ("READY", "RUNNING", "FAILED", "SUCCESSFUL")
)
QUEUES = ("default", "mail", "stubborn", "http")


@pytest.fixture(scope="module", autouse=True)
def tasks(project):
    """The module of tasks, with the settings that it needs and the queues defined."""
    with override_settings(TASKS=task_settings.TASKS):
        with connection.schema_editor() as editor:
            declared.define_registered("default", QUEUES, editor)
        import task_functions

        yield task_functions
    for queue in QUEUES:
        registry.unregister(queue)
        drop(queue)


@pytest.fixture
def worker(project):
    """A running djactor_worker for all queues."""
    running = Worker(project, "--types", *QUEUES, settings="task_settings")
    try:
        running.wait_ready(2)
        yield running
    finally:
        running.kill()


def finished(result, seconds=20):
    """Wait until it is, refreshing it."""

    def over():
        result.refresh()
        return result.is_finished

    until(over)
    return result


# Enqueueing.


def test_enqueueing_is_an_insert_in_the_transaction(tasks):
    with transaction.atomic():
        result = tasks.add.enqueue(2, b=3)
        assert Message.objects.get().pk == int(result.id)
        transaction.set_rollback(True)
    assert not Message.objects.exists()
    with pytest.raises(compat.TaskResultDoesNotExist):
        tasks.add.get_result(result.id)

    with CaptureQueriesContext(connection) as captured, transaction.atomic():
        result = tasks.add.enqueue(2, b=3)
    inserts = [one["sql"] for one in captured if one["sql"].startswith("INSERT")]
    assert len(inserts) == 1 and '"djactor"."message"' in inserts[0]
    message = Message.objects.get(pk=result.id)
    assert message.actor_type == "default"
    assert message.payload == {
        "task": "task_functions.add",
        "args": [2],
        "kwargs": {"b": 3},
        "backend": "default",
    }
    assert (result.status, result.args, result.kwargs) == (READY, [2], {"b": 3})
    assert result.enqueued_at == message.sent_at and result.enqueued_at.tzinfo is not None
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None,) * 3
    assert (result.attempts, result.errors, result.worker_ids) == (0, [], [])
    assert tasks.add.get_result(result.id) == result


def test_all_four_capabilities():
    backend = compat.task_backends["default"]
    assert isinstance(backend, DjactorBackend)
    assert backend.supports_defer and backend.supports_async_task
    assert backend.supports_get_result and backend.supports_priority


def test_a_queue_is_a_hosted_type_without_state(tasks):
    for name, attempts in (("default", 1), ("mail", 1), ("stubborn", 3)):
        one = ActorType.objects.get(name=name)
        assert one.hosted and one.stateless and one.max_attempts == attempts
    assert ActorType.objects.get(name="default").handler == "djactor.tasks.handlers.TaskHandler"
    assert ActorType.objects.get(name="http").handler == "djactor.tasks.handlers.AsyncTaskHandler"
    assert ActorType.objects.get(name="default").journal == timedelta(days=1)
    assert ActorType.objects.get(name="stubborn").journal == timedelta(hours=2)
    assert ActorType.objects.get(name="default").handler_timeout == timedelta(0)
    rates = query(
        "SELECT name, rate IS NOT NULL FROM djactor.actor_type WHERE name = ANY(%s)", [*QUEUES]
    )
    assert dict(rates) == dict.fromkeys(QUEUES, False) | {"http": True}
    tasks.sell.enqueue(1)
    drain()
    assert not Actor.objects.exists()


def test_migrate_defines_the_queues(capsys):
    drop("mail")
    call_command("migrate", verbosity=1)
    assert "Defined the actor type mail" in capsys.readouterr().out
    call_command("migrate", verbosity=1)
    assert "mail" not in capsys.readouterr().out


# Results.


def test_a_task_is_run_by_drain(tasks):
    before = datetime.now(timezone.utc)
    result = tasks.add.enqueue(2, b=3)
    assert drain() == 1
    found = tasks.add.get_result(result.id)
    assert (found.status, found.return_value, found.errors) == (SUCCESSFUL, 5, [])
    assert found.worker_ids == [process_name()] and found.attempts == 1
    assert found.enqueued_at == result.enqueued_at
    assert before <= found.started_at <= found.finished_at <= datetime.now(timezone.utc)
    assert found.last_attempted_at == found.started_at
    assert (found.args, found.kwargs, found.task, found.backend) == (
        [2],
        {"b": 3},
        tasks.add,
        "default",
    )
    result.refresh()
    assert result == found


def test_a_failed_task(tasks):
    result = tasks.sell_and_fail.enqueue(7)
    assert drain(on_error="retry") == 0
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 1)
    (error,) = result.errors
    assert error.exception_class is ValueError
    assert "sell_and_fail" in error.traceback and "no more of it" in error.traceback
    assert result.is_finished and result.finished_at >= result.started_at
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    # what it has written and enqueued is undone
    assert not Sale.objects.exists() and not Message.objects.exists()
    assert DeadLetter.objects.get().pk == int(result.id)


def test_drain_raises_what_a_task_raises(tasks):
    tasks.never.enqueue("as it is")
    with pytest.raises(RuntimeError, match="as it is"):
        drain()


@pytest.mark.parametrize(
    ("kind", "value"), [("none", None), ("tuple", [1, 2]), ("text", "äö\\'\"{}")]
)
def test_return_values(tasks, kind, value):
    result = tasks.give.enqueue(kind)
    drain()
    result.refresh()
    assert (result.status, result.return_value) == (SUCCESSFUL, value)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("nan", ValueError),
        ("object", TypeError),
        ("bytes", ValueError),
        ("nul", ValueError),
        ("surrogate", UnicodeEncodeError),
    ],
)
def test_a_return_value_that_json_cannot_hold(tasks, kind, error):
    result = tasks.give.enqueue(kind)
    drain(on_error="retry")
    result.refresh()
    assert (result.status, len(result.errors)) == (FAILED, 1)
    if error is not None:
        assert result.errors[0].exception_class is error


def test_a_task_that_is_tried_again(tasks):
    result = tasks.third_time.enqueue()
    drain(on_error="retry")
    result.refresh()
    assert (result.status, result.attempts) == (READY, 1)
    assert [one.exception_class for one in result.errors] == [ConnectionError]
    assert result.started_at == result.last_attempted_at is not None
    assert result.finished_at is None
    first = result.started_at

    drain(on_error="retry", until=datetime.now(timezone.utc) + timedelta(minutes=1))
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, 3, 3)
    assert ["attempt 1" in result.errors[0].traceback, "attempt 2" in result.errors[1].traceback]
    assert result.worker_ids == [process_name()] * 3
    assert result.started_at == first < result.last_attempted_at <= result.finished_at


def test_the_last_of_many_attempts_are_kept(tasks):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT djactor.alter_actor_type('stubborn', max_attempts => 24, backoff => '1 ms',"
            " backoff_max => '1 ms', breaker_failures => NULL)"
        )
    try:
        result = tasks.never.enqueue()
        until(lambda: drain(on_error="retry") == 0 and not Message.objects.exists())
        result.refresh()
        assert (result.status, result.attempts, len(result.errors)) == (FAILED, 24, 20)
    finally:
        with connection.schema_editor() as editor:
            drop("stubborn")
            declared.define_registered("default", ["stubborn"], editor)


def test_redriven(tasks):
    result = tasks.sell_and_fail.enqueue(7)
    drain(on_error="retry")
    DeadLetter.objects.get().redrive()
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (READY, 1, 1)
    with mock.patch("task_functions.add") as add:
        add.enqueue.side_effect = KeyError
        drain(on_error="retry")
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 2)
    assert [one.exception_class for one in result.errors] == [ValueError, KeyError]
    DeadLetter.objects.get().redrive()
    with mock.patch("task_functions.ValueError", lambda words: None, create=True):
        drain(on_error="retry")  # `raise None` is a TypeError
    result.refresh()
    assert result.attempts == 3


def test_a_redriven_task_that_succeeds(tasks, tmp_path):
    path = tmp_path / "missing" / "file"
    result = tasks.note.enqueue(str(path), "word")
    drain(on_error="retry")
    result.refresh()
    assert result.errors[0].exception_class is FileNotFoundError
    path.parent.mkdir()
    DeadLetter.objects.get().redrive()
    drain()
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (SUCCESSFUL, 2, 1)


def test_cancelled(tasks):
    result = tasks.add.enqueue(1)
    assert Message.objects.get().cancel()
    with pytest.raises(compat.TaskResultDoesNotExist):
        result.refresh()


@pytest.mark.parametrize(
    "result_id",
    [
        "unknown",
        "",
        "-1",
        "999999999999",
        "9" * 40,
        str(uuid.uuid4()),
        "1.5",
        " 1",
        "\u0661",
        None,
        12,
    ],
)
def test_a_result_that_does_not_exist(tasks, result_id):
    with pytest.raises(compat.TaskResultDoesNotExist):
        compat.task_backends["default"].get_result(result_id)
    with pytest.raises(compat.TaskResultDoesNotExist):
        async_to_sync(tasks.add.aget_result)(result_id)


def test_a_result_of_somebody_else(tasks):
    result = tasks.fetch.enqueue(1)
    with pytest.raises(compat.TaskResultDoesNotExist):
        compat.task_backends["default"].get_result(result.id)
    with pytest.raises(compat.TaskResultDoesNotExist):
        message = djactor.actor("shop.counter", 1).send({"add": 1}, delay=timedelta(hours=1))
        tasks.add.get_result(str(message))
    other = tasks.sell.enqueue(1)
    with pytest.raises(Exception, match="does not match"):
        tasks.add.get_result(other.id)


def test_async_forms(tasks):
    async def all_of_it():
        result = await tasks.add.aenqueue(4)
        found = await tasks.add.aget_result(result.id)
        assert found == result
        many = await tasks.add.aenqueue_many([[1], [2]])
        return result, many

    result, many = async_to_sync(all_of_it)()
    drain()
    async_to_sync(result.arefresh)()
    assert result.return_value == 5
    async_to_sync(many[1].arefresh)()
    assert many[1].return_value == 3


def test_without_time_zones(tasks):
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin"):
        result = tasks.add.using(run_after=datetime.now() + timedelta(seconds=0.2)).enqueue(1)
        assert result.enqueued_at.tzinfo is None
        assert drain() == 0
        until(lambda: drain() == 1)
        result.refresh()
        assert result.started_at.tzinfo is None
        assert abs(datetime.now() - result.finished_at) < timedelta(minutes=1)
        assert result.task.run_after.tzinfo is None


# Options of a task.


def test_a_task_of_its_own_class(tasks):
    task = tasks.add.using(key=7, idempotency_key="once", priority=5, queue_name="mail")
    assert isinstance(task, Task)
    assert (task.key, task.idempotency_key, task.priority) == (7, "once", 5)
    assert task.using(priority=0).key == 7
    assert tasks.add.key is None
    result = task.enqueue(1)
    message = Message.objects.get()
    assert (message.actor_type, message.actor_key, message.priority) == ("mail", "7", 5)
    found = tasks.add.get_result(result.id)
    assert (found.task.key, found.task.idempotency_key) == ("7", "once")
    assert (found.task.priority, found.task.queue_name) == (5, "mail")
    drain()
    found.refresh()
    assert found.status == SUCCESSFUL


def test_each_task_has_a_key_of_its_own(tasks):
    for _ in range(3):
        tasks.add.enqueue(1)
    assert len(set(Message.objects.values_list("actor_key", flat=True))) == 3


def test_a_key_keeps_the_order(tasks, worker, tmp_path):
    path = tmp_path / "log"
    results = [tasks.nap.using(key="ann").enqueue(str(path), number) for number in range(5)]
    for result in results:
        finished(result)
    lines = [f"{word} {number}" for number in range(5) for word in ("begin", "end")]
    assert path.read_text().split("\n")[:-1] == lines


def test_without_a_key_tasks_run_side_by_side(tasks, worker, tmp_path):
    path = tmp_path / "log"
    results = tasks.nap.enqueue_many([(str(path), number) for number in range(8)])
    for result in results:
        finished(result)
    lines = path.read_text().split("\n")[:-1]
    assert len(lines) == 16
    assert [line.split()[0] for line in lines] != ["begin", "end"] * 8


def test_an_idempotency_key(tasks):
    once = tasks.sell.using(idempotency_key="order 7")
    first, second = once.enqueue(1, amount=5), once.enqueue(1, amount=6)
    other = tasks.add.using(idempotency_key="order 7").enqueue(1)
    with_key = tasks.sell.using(idempotency_key="order 7", key="b").enqueue(2)
    second.refresh()
    assert second.status == READY
    drain()
    assert sorted(Sale.objects.values_list("product", "amount")) == [(1, 5), (2, 1)]
    for result in (first, second, other, with_key):
        result.refresh()
        assert result.status == SUCCESSFUL
    assert second.started_at == first.started_at
    third = once.enqueue(1)
    drain()
    third.refresh()
    assert (third.status, third.finished_at) == (SUCCESSFUL, first.finished_at)
    assert Sale.objects.count() == 2
    long = tasks.add.using(idempotency_key="x" * 600)
    assert long.enqueue(1).id != long.enqueue(1).id
    assert drain() == 1


def test_run_after(tasks):
    when = datetime.now(timezone.utc) + timedelta(hours=1)
    result = tasks.add.using(run_after=when).enqueue(1)
    assert Message.objects.get().deliver_at == when
    assert drain() == 0
    result.refresh()
    assert (result.status, result.task.run_after) == (READY, when)
    assert drain(until=when + timedelta(seconds=1)) == 1
    result.refresh()
    assert result.status == SUCCESSFUL


def test_priority_within_a_key(tasks, tmp_path):
    path = tmp_path / "log"
    for priority in (0, -100, 100, 7, 0):
        tasks.note.using(key="k", priority=priority).enqueue(str(path), priority)
    drain()
    assert path.read_text().split() == ["100", "7", "0", "0", "-100"]


def test_many_by_one_statement(tasks):
    with CaptureQueriesContext(connection) as captured:
        results = tasks.add.enqueue_many(
            ([number] if number % 2 else {"a": number, "b": 2} for number in range(2000)),
            key=lambda a, b=0: None if a < 1000 else f"key {a % 10}",
        )
    assert sum(one["sql"].startswith("INSERT") for one in captured) == 1
    assert len({result.id for result in results}) == 2000
    assert len(set(Message.objects.values_list("actor_key", flat=True))) == 1010
    assert results[3].args == [3] and results[4].kwargs == {"a": 4, "b": 2}
    assert drain() == 2000
    for number in (3, 4, 1999):
        results[number].refresh()
        assert results[number].return_value == number + (1 if number % 2 else 2)
    assert tasks.add.enqueue_many([]) == []
    with pytest.raises(TypeError, match="a list or a dict"):
        tasks.add.enqueue_many([[1], 2])
    with pytest.raises(TypeError):
        tasks.add.enqueue_many([[1], [object()]])
    assert not Message.objects.exists()


def test_priority_among_tasks(tasks, project, tmp_path):
    path = tmp_path / "log"
    priorities = [0, -100, 100, 7, 0, 100, -1]
    results = [
        tasks.note.using(priority=priority).enqueue(str(path), f"{priority}.{n}")
        for n, priority in enumerate(priorities)
    ]
    one = Worker(project, "--types", *QUEUES, "--threads", 1, settings="task_settings")
    try:
        for result in results:
            finished(result)
    finally:
        one.kill()
    assert path.read_text().split() == ["100.2", "100.5", "7.3", "0.0", "0.4", "-1.6", "-100.1"]


# Running.


def test_sync_and_async_tasks_run_in_a_worker(tasks, worker):
    results = [
        tasks.add.enqueue(1),
        tasks.sell.enqueue(2),
        tasks.sell_later.enqueue(3),
        tasks.fetch.enqueue(4),
        tasks.fetch_sync.enqueue(5),
        tasks.about.enqueue("a", "b"),
    ]
    values = [finished(result).return_value for result in results]
    assert values[:5] == [2, None, True, {"page": 4}, "sold"]
    attempt, result_id, status, workers, words = values[5]
    assert (attempt, result_id, status, words) == (1, results[5].id, "RUNNING", ["a", "b"])
    assert workers == results[5].worker_ids
    assert sorted(Sale.objects.values_list("product", "amount")) == [(2, 1), (3, 3), (5, 4)]
    pids = {str(pid) for (pid,) in query("SELECT pid FROM djactor.host")}
    for result in results:
        (name,) = result.worker_ids
        assert name.rpartition(":")[2].isdecimal() and name.rpartition(":")[2] not in pids
    assert not query("SELECT FROM djactor.message")


def test_failures_in_a_worker(tasks, worker):
    failing = [tasks.sell_and_fail.enqueue(1), tasks.fetch.enqueue(-1), tasks.never.enqueue()]
    third = tasks.third_time.enqueue()
    errors = [[one.exception_class for one in finished(result).errors] for result in failing]
    assert errors == [[ValueError], [LookupError], [RuntimeError] * 3]
    assert [result.status for result in failing] == [FAILED] * 3
    assert [result.attempts for result in failing] == [1, 1, 3]
    assert finished(third).return_value == 3
    assert [one.exception_class for one in third.errors] == [ConnectionError] * 2
    assert len(third.worker_ids) == 3


def test_a_task_without_statements_holds_no_transaction(tasks, worker, tmp_path):
    path = tmp_path / "go"
    with_statement = tasks.sell_and_wait.enqueue(1, str(path))
    without = tasks.wait_for.enqueue(str(path))
    for result in (with_statement, without):

        def runs(result=result):
            result.refresh()
            return result.status == RUNNING

        until(runs)
    until(lambda: _idle_in_transaction() == 1)
    time.sleep(0.3)
    assert _idle_in_transaction() == 1
    path.touch()
    assert finished(without).return_value == finished(with_statement).return_value == "seen"
    assert Sale.objects.count() == 1


def _idle_in_transaction():
    return query(
        "SELECT count(*)::int FROM pg_stat_activity WHERE state = 'idle in transaction'"
        " AND pid <> pg_backend_pid()"
    )[0][0]


def test_mail_is_taken_while_a_thread_waits_for_its_commit():
    notes = Notes()
    options = Options(alias="default", direct="default", threads=2)
    host = SyncHost(options, {}, notes, Watchdog(notes))
    host._running = 1
    waiting = threading.Thread(target=host._wait_for_room, daemon=True)
    with mock.patch.object(sync_host, "LOOK", 60):
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        with host.committing():
            waiting.join(10)
            assert not waiting.is_alive()
    assert host._running == 1


def test_a_failure_repeats_no_task_without_statements(tasks, project, tmp_path):
    path = tmp_path / "log"
    results, failing, sold = [], [], []
    for number in range(30):
        results.append(tasks.note.enqueue(str(path), number))
        if number % 10 == 5:
            failing += [tasks.give.enqueue("object"), tasks.sell_and_fail.enqueue(number)]
        if number % 3 == 0:
            sold.append(tasks.sell.enqueue(number))
    one = Worker(project, "--types", *QUEUES, "--threads", 1, settings="task_settings")
    try:
        assert {finished(result).status for result in results + sold} == {SUCCESSFUL}
        assert {finished(result).status for result in failing} == {FAILED}
    finally:
        one.kill()
    assert sorted(map(int, path.read_text().split())) == list(range(30))
    assert sorted(Sale.objects.values_list("product", flat=True)) == list(range(0, 30, 3))
    for result in results + sold:
        assert result.attempts == 1
        assert result.enqueued_at <= result.started_at <= result.finished_at


def pause_queues(word):
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT djactor.{word}(name) FROM djactor.actor_type WHERE name = ANY (%s)",
            [list(QUEUES)],
        )


def test_a_key_with_and_without_statements(tasks, worker, tmp_path):
    path = tmp_path / "log"
    results = []
    keyed = {"key": "k"}
    for number in range(100):  # the worker sees that tasks are short
        short = tasks.note.using(**keyed).enqueue(str(tmp_path / "short"), number)
    assert finished(short).status == SUCCESSFUL
    pause_queues("pause")  # so that those that follow share a transaction
    for number in range(30):
        results.append(tasks.note.using(**keyed).enqueue(str(path), number))
        results.append(tasks.sell.using(**keyed).enqueue(number))
    failing = tasks.sell_and_fail.using(key="k").enqueue(1)
    last = tasks.note.using(key="k").enqueue(str(path), 99)
    pause_queues("resume")
    assert {finished(result).status for result in [*results, last]} == {SUCCESSFUL}
    assert finished(failing).status == FAILED
    assert path.read_text().split() == [*map(str, range(30)), "99"]
    assert Sale.objects.count() == 30


def test_on_commit_in_a_task(tasks, worker, tmp_path):
    path = tmp_path / "log"
    result = finished(tasks.note_on_commit.enqueue(str(path), "committed"))
    assert result.status == SUCCESSFUL
    until(path.exists)
    assert path.read_text().split() == ["committed"]
    assert finished(tasks.note_on_commit.enqueue(str(path), "fails")).status == FAILED
    assert path.read_text().split() == ["committed"]


@pytest.mark.parametrize("name", ["wait_for", "wait_for_file"])
def test_a_running_task_is_running(tasks, worker, tmp_path, name):
    path = tmp_path / "go"
    task = getattr(tasks, name)
    later = task.using(key="k").enqueue(str(path))
    behind = task.using(key="k").enqueue(str(path))

    def runs():
        later.refresh()
        return later.status == RUNNING

    until(runs)
    assert later.attempts == 1 and later.worker_ids[0].rpartition(":")[2].isdecimal()
    assert later.started_at == later.last_attempted_at >= later.enqueued_at
    assert later.finished_at is None and not later.is_finished
    behind.refresh()
    assert (behind.status, behind.attempts) == (READY, 0)
    path.touch()
    workers = later.worker_ids
    assert finished(later).worker_ids == workers
    assert finished(behind).return_value == "seen"


def test_a_task_whose_worker_is_killed(tasks, project, tmp_path):
    path = tmp_path / "go"
    with_crash = Worker(project, "--types", *QUEUES, settings="task_settings")
    try:
        with_crash.wait_ready(2)
        result = tasks.wait_for.enqueue(str(path))

        def status():
            result.refresh()
            return result.status

        until(lambda: status() == RUNNING)
        first = result.worker_ids
        with_crash.kill()
        until(lambda: status() == READY)
        path.touch()
        other = Worker(project, "--types", *QUEUES, settings="task_settings")
        try:
            assert finished(result).return_value == "seen"
            assert result.worker_ids[-1] != first[0]
        finally:
            other.kill()
    finally:
        with_crash.kill()


def test_a_task_that_kills_its_process(tasks, worker):
    result = finished(tasks.die.enqueue(), 60)
    assert result.status == FAILED
    assert result.errors[-1].exception_class is TaskCrashed
    assert result.attempts >= 2


def test_a_task_that_the_code_does_not_have(tasks, worker):
    with mock.patch.object(Task, "module_path", "task_functions.gone"):
        gone = tasks.add.enqueue(1)
    with mock.patch.object(Task, "module_path", "task_functions.not_a_task"):
        wrong = tasks.add.enqueue(1)
    until(lambda: DeadLetter.objects.count() == 2)
    assert {one.pk for one in DeadLetter.objects.all()} == {int(gone.id), int(wrong.id)}
    with pytest.raises(ImportError):
        gone.refresh()
    with pytest.raises(TypeError, match="not a task"):
        wrong.refresh()


def test_a_message_that_is_no_task(tasks):
    djactor.actor("default", "x").send({"hello": 1})
    drain(on_error="retry")
    letter = DeadLetter.objects.get()
    assert letter.reason == "rejected" and "no task" in letter.error
    with pytest.raises(compat.TaskResultDoesNotExist):
        tasks.add.get_result(str(letter.pk))


def test_what_a_task_enqueues_goes_with_it(tasks, worker):
    outer = tasks.sell_twice.enqueue(1)
    inner = tasks.sell.get_result(finished(outer).return_value)
    finished(inner)
    assert sorted(Sale.objects.values_list("amount", flat=True)) == [1, 2]
    assert Journal.objects.get(pk=inner.id).cause_id == int(outer.id)


def test_many_in_a_worker(tasks, worker):
    results = tasks.add.enqueue_many([[number] for number in range(500)])
    fetched = tasks.fetch.enqueue_many([[number] for number in range(500)])
    wait_idle(30)
    for number in (0, 250, 499):
        assert finished(results[number]).return_value == number + 1
        assert finished(fetched[number]).return_value == {"page": number}
    assert Journal.objects.count() == 1000


def test_all_statuses_in_a_test_case(tasks):
    with transaction.atomic():  # as TestCase does it
        good = tasks.about.enqueue()
        good.refresh()
        assert good.status == READY
        drain()
        good.refresh()
        assert (good.status, good.return_value[2]) == (SUCCESSFUL, "RUNNING")
        bad, later = tasks.never.enqueue(), tasks.add.enqueue(1)
        drain(on_error="retry")
        bad.refresh()
        assert (bad.status, bad.attempts) == (READY, 1)
        drain(on_error="retry", until=datetime.now(timezone.utc) + timedelta(hours=1))
        bad.refresh()
        assert (bad.status, bad.attempts) == (FAILED, 3)
        later.refresh()
        assert later.status == SUCCESSFUL
        transaction.set_rollback(True)
    with pytest.raises(compat.TaskResultDoesNotExist):
        good.refresh()


# Signals.


@pytest.fixture
def heard():
    """What signals have said: their names, ids, statuses, senders."""
    found = []

    def hear(name):
        def receiver(sender, task_result, **kwargs):
            found.append((name, task_result.id, task_result.status, sender))

        return receiver

    signals = {
        name: getattr(compat, f"task_{name}") for name in ("enqueued", "started", "finished")
    }
    receivers = {name: hear(name) for name in signals}
    for name, signal in signals.items():
        signal.connect(receivers[name])
    yield found
    for name, signal in signals.items():
        signal.disconnect(receivers[name])


def test_signals(tasks, heard):
    good, bad = tasks.add.enqueue(1), tasks.never.enqueue()
    fetched = tasks.fetch.enqueue(1)
    assert heard == [("enqueued", one.id, READY, DjactorBackend) for one in (good, bad, fetched)]
    del heard[:]
    drain(on_error="retry", until=datetime.now(timezone.utc) + timedelta(minutes=1))
    of = {one.id: [word[0::2] for word in heard if word[1] == one.id] for one in (good, bad)}
    assert of[good.id] == [("started", RUNNING), ("finished", SUCCESSFUL)]
    assert of[bad.id] == [("started", RUNNING)] * 3 + [("finished", FAILED)]
    assert ("finished", fetched.id, SUCCESSFUL, DjactorBackend) in heard


@pytest.mark.parametrize(("verbosity", "lines"), [(0, 0), (1, 2)])
def test_what_a_worker_logs_of_a_task(tasks, project, verbosity, lines):
    one = Worker(project, "--types", *QUEUES, "--verbosity", verbosity, settings="task_settings")
    try:
        good, bad = tasks.add.enqueue(1), tasks.sell_and_fail.enqueue(1)
        assert (finished(good).status, finished(bad).status) == (SUCCESSFUL, FAILED)
        one.says(f"Task id={bad.id} ")
        assert one.log().count(f"Task id={good.id} ") == lines
    finally:
        one.kill()


def test_a_quiet_worker_makes_no_records_of_tasks():
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in ("django.tasks", "django_tasks")]
    with contextlib.ExitStack() as stack:
        stack.callback(root.manager._clear_cache)
        stack.enter_context(mock.patch.object(root, "handlers", []))
        for one in (root, *loggers):
            stack.enter_context(mock.patch.object(one, "level", one.level))
        logs.to_stderr(0)
        assert [handler.level for handler in root.handlers] == [logging.WARNING]
        assert not any(one.isEnabledFor(logging.INFO) for one in loggers)
        assert all(one.isEnabledFor(logging.WARNING) for one in loggers)


def test_one_receiver_alone_hears(tasks):
    own = compat._signals.log_task_finished
    assert compat.task_finished.disconnect(own)
    found = []

    def receiver(task_result, **kwargs):
        found.append((task_result.id, task_result.status))

    compat.task_finished.connect(receiver)
    try:
        result = tasks.add.enqueue(1)
        with mock.patch.object(compat.logger, "level", logging.ERROR):
            compat.logger.manager._clear_cache()
            drain()
    finally:
        compat.logger.manager._clear_cache()
        compat.task_finished.disconnect(receiver)
        compat.task_finished.connect(own)
    assert found == [(result.id, SUCCESSFUL)]


def test_the_result_that_a_task_was_given_is_updated(tasks):
    tasks.about.enqueue("a", "b")
    with mock.patch.object(compat, "TaskContext", wraps=compat.TaskContext) as context:
        drain()
    given = context.call_args.kwargs["task_result"]
    assert given.status == SUCCESSFUL
    assert given.finished_at is not None


def test_a_receiver_that_fails_after_the_end(tasks):
    def fail(**kwargs):
        raise RuntimeError("a receiver")

    compat.task_finished.connect(fail)
    try:
        result = tasks.add.enqueue(1)
        drain()
        result.refresh()
        assert result.status == SUCCESSFUL
    finally:
        compat.task_finished.disconnect(fail)


# What cannot be.


def test_a_task_that_is_not_at_module_level():
    def inner():
        pass

    with pytest.raises(compat.InvalidTask, match="module level"):
        Task(func=inner)
    with pytest.raises(compat.InvalidTask, match="module level"):
        Task(func=Decimal)


@pytest.mark.parametrize(
    "options",
    [
        {"queue_name": "unknown"},
        {"priority": 101},
        {"priority": -101},
        {"priority": 1.5},
        {"run_after": datetime(2030, 1, 1)},
        {"key": ""},
        {"key": "x" * 513},
        {"key": 1.5},
        {"key": True},
        {"idempotency_key": 5},
        {"idempotency_key": ""},
    ],
)
def test_options_that_cannot_be(tasks, options):
    with pytest.raises(compat.InvalidTask):
        tasks.add.using(**options)


def test_options_that_do_not_exist(tasks):
    with pytest.raises(TypeError):
        tasks.add.using(max_attempts=3)


@pytest.mark.parametrize(
    "value",
    [object(), Decimal(1), datetime.now(), {1, 2}, b"\xff", float("nan"), float("inf"), "a\x00b"],
)
def test_arguments_that_json_cannot_hold(tasks, value):
    with pytest.raises((TypeError, ValueError)), transaction.atomic():
        tasks.add.enqueue(value)
    with pytest.raises((TypeError, ValueError)), transaction.atomic():
        tasks.add.enqueue(1, b={"deep": [value]})
    assert not Message.objects.exists()


def test_a_queue_that_was_not_defined(tasks):
    drop("mail")
    try:
        with pytest.raises(djactor.UnknownActorType):
            tasks.add.using(queue_name="mail").enqueue(1)
    finally:
        call_command("migrate", verbosity=0)


def _said(**entry):
    with override_settings(TASKS={"default": {"BACKEND": queues.BACKEND} | entry}):
        try:
            return [one for one in run_checks() if one.id == "djactor.E008"]
        finally:
            for name in entry.get("QUEUES") or []:
                if name not in QUEUES:
                    registry.unregister(name)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"QUEUES": []}, "has no QUEUES"),
        ({"OPTIONS": {"max_attemps": 3}}, "'max_attemps' is not known"),
        ({"OPTIONS": {"stateless": False}}, "'stateless' is chosen by djactor"),
        ({"OPTIONS": {"async_queues": "default"}}, "not all QUEUES"),
        ({"OPTIONS": {"async_queues": ["other"]}}, "not all QUEUES"),
    ],
)
def test_checks_of_the_settings(entry, words):
    (error,) = _said(**entry)
    assert words in error.msg and error.hint


def test_check_of_a_queue_with_the_name_of_a_type():
    class Mail:
        def handle_message(self, message):
            pass

    registry.register(Mail, "post", hosted=True)
    (error,) = _said(QUEUES=["post"])
    assert "the actor type of" in error.msg
    registry.unregister("post")


def test_check_of_two_backends_with_one_queue():
    both = {name: {"BACKEND": queues.BACKEND} for name in ("default", "other")}
    with override_settings(TASKS=both):
        found = [one for one in run_checks() if one.id == "djactor.E008"]
    assert len(found) == 2 and "belongs to TASKS['other'], too" in found[0].msg


def test_nothing_is_wrong_with_these_settings():
    assert not [one for one in run_checks() if one.id == "djactor.E008"]


def test_a_database_that_is_not_postgresql(tasks):
    with override_settings(DJACTOR={"DATABASE": "lite"}):
        with pytest.raises(ImproperlyConfigured, match="needs PostgreSQL"):
            tasks.add.enqueue(1)
        found = [one for one in run_checks() if one.id == "djactor.E008"]
        assert len(found) == 3  # one for each backend
        assert all("is not PostgreSQL" in one.msg for one in found)


def test_without_the_app(tasks):
    with mock.patch("django.apps.apps.is_installed", lambda name: name != "djactor"):
        with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
            tasks.add.enqueue(1)
        assert "not installed" in compat.task_backends["default"].check()[0].msg


def test_a_role_that_may_not_ask_for_hosts(tasks):
    result = tasks.add.enqueue(1)
    with mock.patch.dict("djactor.tasks.results._may_ask", {"default": False}):
        assert tasks.add.get_result(result.id).status == READY
        drain()
        assert tasks.add.get_result(result.id).status == SUCCESSFUL
