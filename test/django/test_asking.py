"""Asking: one answer, from sync and async code, and no way to wait for ever."""

import asyncio
import contextlib
import os
import pickle
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.db import DatabaseError, connection, connections, transaction
from django.test import override_settings

import djactor
from djactor import listener
from djactor.models import Message, Reply
from djactor.test import drain, wait_idle
from waiting import until

TYPE = "shop.counter"


async def until_async(condition):
    await asyncio.to_thread(until, condition)


def test_ask_returns_the_answer():
    assert djactor.actor(TYPE, 1).ask({"add": 2}) == {"n": 2}
    assert djactor.actor(TYPE, 1).ask({"add": 2}) == {"n": 4}


def test_ask_takes_headers_priority_and_a_key_that_makes_it_count_once():
    options = {"idempotency_key": "once", "headers": {"tenant": "a"}, "priority": 2}
    assert djactor.actor(TYPE, 1).ask({"add": 2}, **options) == {"n": 2}
    assert asyncio.run(djactor.actor(TYPE, 1).aask({"add": 2}, **options)) == {"n": 2}
    with pytest.raises(djactor.AskTimeout), connection.cursor() as cursor:
        cursor.execute("SELECT djactor.pause(%s)", [TYPE])
        djactor.actor(TYPE, 1).ask(timeout=0.1, **options)
    message = Message.objects.get()
    assert (message.headers, message.priority, message.idempotency_key) == (
        {"tenant": "a"},
        2,
        "once",
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.resume(%s)", [TYPE])


def test_ask_inside_a_transaction_is_refused_and_sends_nothing():
    with transaction.atomic(), pytest.raises(djactor.AskInTransaction, match="before the commit"):
        djactor.actor(TYPE, 1).ask({"add": 2})
    wait_idle(60)
    assert djactor.actor(TYPE, 1).state() is None


def waits_and_holds_nothing(what):
    """A session waits in there, without a snapshot, and its transaction is a new one."""
    with connections["admin"].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query ~ %s AND pid <> pg_backend_pid()"
            " AND state = 'active' AND wait_event_type = 'Extension'"
            " AND backend_xmin IS NULL AND backend_xid IS NULL AND xact_start > query_start",
            [what],
        )
        return cursor.fetchone() == (1,)


def in_a_thread(work):
    """What ``work`` returns, later, from a thread with its own connection."""

    def with_connection():
        try:
            return work()
        finally:
            connections.close_all()

    return ThreadPoolExecutor(1).submit(with_connection)


def test_who_asks_holds_no_snapshot(paused):
    answer = in_a_thread(lambda: djactor.actor(TYPE, 1).ask({"add": 1}, timeout=60))
    until(lambda: waits_and_holds_nothing("wait_reply"), 10)
    resume_when(lambda: True)
    assert answer.result() == {"n": 1}


def test_nor_does_who_waits_for_the_workers():
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE shop_sale IN SHARE MODE")  # the turn waits for it
        djactor.actor(TYPE, 1, using="admin").send({"add": 1})
        done = in_a_thread(lambda: wait_idle(60))
        until(lambda: waits_and_holds_nothing("wait_idle"), 10)
    done.result()
    assert djactor.actor(TYPE, 1).state() == {"n": 1}


def test_in_a_transaction_one_may_still_wait_for_the_workers():
    djactor.actor(TYPE, 1).send({"add": 1})
    with transaction.atomic():
        wait_idle(60)
    assert djactor.actor(TYPE, 1).state() == {"n": 1}


def test_an_error_is_an_answer():
    with pytest.raises(djactor.AskFailed, match="told to fail") as raised:
        djactor.actor(TYPE, 1).ask({"fail": True})
    assert raised.value.error == {
        "reason": "rejected",
        "sqlstate": "JA003",
        "error": "told to fail, 100 %",
        "attempts": None,
        "last_error": None,
    }
    assert (raised.value.reason, raised.value.message) == ("rejected", "told to fail, 100 %")


@pytest.mark.parametrize(
    ("error", "reason", "said", "message"),
    [
        ("no stock", "error", "no stock", "no stock"),
        (
            {"code": 7, "message": "no stock"},
            "error",
            {"code": 7, "message": "no stock"},
            "no stock",
        ),
        ({"reason": "sold"}, "error", {"reason": "sold"}, "It failed."),
        (None, "error", None, "It failed."),
        (
            {"reason": "failed", "sqlstate": "38000", "error": "x\nDETAIL:  Traceback"},
            "failed",
            "x\nDETAIL:  Traceback",
            "It failed.",
        ),
        (
            {"reason": "rejected", "sqlstate": "JA003", "error": "sold out\nDETAIL:  Traceback"},
            "rejected",
            "sold out\nDETAIL:  Traceback",
            "sold out",
        ),
    ],
)
def test_an_error_has_one_shape_and_a_text_for_users(error, reason, said, message):
    failed = djactor.AskFailed(1, error)
    assert set(failed.error) == {"reason", "sqlstate", "error", "attempts", "last_error"}
    assert (failed.reason, failed.error["error"], failed.message) == (reason, said, message)
    again = pickle.loads(pickle.dumps(failed))
    assert (again.error, again.message) == (failed.error, message)


def test_who_waited_in_vain_learns_which_attempts_have_failed(project):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT djactor.define_actor_type('shop.slow', 'counter_handle', backoff => '4 s')"
        )
    try:
        with pytest.raises(djactor.AskTimeout, match="failed attempts: 1") as raised:
            djactor.actor("shop.slow", 1).ask({"add": "no number"}, timeout=1)
        assert raised.value.attempts == 1
        assert "invalid input syntax" in raised.value.last_error
        until(lambda: Reply.objects.filter(message_id=raised.value.message_id).exists())
        with pytest.raises(djactor.AskFailed) as late:
            djactor.actor("shop.slow", 1)._answer(raised.value.message_id, 0.0, 1.0)
        assert (late.value.reason, late.value.message) == ("expired", "It took too long.")
        assert late.value.error["attempts"] == 1
        assert "invalid input syntax" in late.value.error["last_error"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT djactor.drop_actor_type('shop.slow', discard => true)")


def test_no_answer_in_time_is_an_error_that_names_the_message(paused):
    with pytest.raises(djactor.AskTimeout, match=r"within 0\.2 s") as raised:
        djactor.actor(TYPE, 1).ask({"add": 1}, timeout=0.2)
    assert raised.value.message_id > 0


def sent_asks(*payloads):
    return [djactor.actor(TYPE, i).send(each, wants_reply=True) for i, each in enumerate(payloads)]


async def await_all(ids, **options):
    """Twice at once, which must not matter; the ids by an iterator."""
    both = await asyncio.gather(
        djactor.await_replies(iter(ids), **options), djactor.await_replies(ids, **options)
    )
    assert list(both[0]) == list(both[1])
    return both[0]


WAYS = pytest.mark.parametrize(
    "wait",
    [djactor.wait_replies, lambda ids, **options: asyncio.run(await_all(ids, **options))],
    ids=["wait_replies", "await_replies"],
)


@WAYS
def test_many_answers_are_waited_for_at_once(wait, paused):
    ids = sent_asks({"add": 1}, {"fail": True}, {"add": 3})
    done = in_a_thread(lambda: wait([ids[2], *ids], timeout=60))
    until(lambda: waits_and_holds_nothing("wait_replies") or listeners(), 10)
    resume_when(lambda: True)
    found = done.result()
    assert list(found) == [ids[2], ids[0], ids[1]]
    assert (found[ids[0]], found[ids[2]]) == ({"n": 1}, {"n": 3})
    assert isinstance(found[ids[1]], djactor.AskFailed)
    assert (found[ids[1]].message_id, found[ids[1]].reason) == (ids[1], "rejected")
    assert list(wait(ids, timeout=0)) == ids


@WAYS
def test_what_is_not_answered_in_time_is_left_out(wait, paused):
    assert wait([]) == {}
    ids = sent_asks({"add": 1})
    began = time.monotonic()
    assert wait(ids, timeout=0.3) == {}
    assert 0.3 <= time.monotonic() - began < 10
    (plain,) = [djactor.actor(TYPE, 1).send({"add": 1})]
    with pytest.raises(DatabaseError, match="wants no reply"):
        wait([*ids, plain])


def test_a_statement_timeout_does_not_end_the_wait_for_many(paused):
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '300 ms'")
    try:
        assert djactor.wait_replies(sent_asks({"add": 1}), timeout=0.8) == {}
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout")


def test_in_a_transaction_answers_that_are_there_can_be_had(paused):
    with (
        pytest.raises(djactor.AskInTransaction, match="has sent the message"),
        transaction.atomic(),
    ):
        djactor.wait_replies(sent_asks({"add": 1}))
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.resume(%s)", [TYPE])
    with transaction.atomic():
        (ask,) = sent_asks({"add": 1})
        drain()
        assert djactor.wait_replies([ask]) == {ask: {"n": 1}}


def ask_many(count, first=0, before_the_end=lambda: None):
    """Answers of ``count`` actors that are asked at once, and the connections that brought them."""

    async def run():
        answers = await asyncio.gather(
            *(
                djactor.actor(TYPE, first + key).aask({"add": key}, timeout=60)
                for key in range(count)
            )
        )
        found = await asyncio.to_thread(listeners)
        await asyncio.to_thread(before_the_end)
        return answers, found

    return asyncio.run(run())


def listeners():
    """Process ids of the connections that wait for answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'djactor answers'"
            )
            return [row[0] for row in cursor.fetchall()]
    finally:
        connections.close_all()


def resume_when(condition):
    """From a thread: once it is true, the actors that ``paused`` has stopped go on."""
    while not condition():
        time.sleep(0.01)
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.resume(%s)", [TYPE])
    connections.close_all()


def test_five_hundred_wait_on_one_connection():
    answers, found = ask_many(500)
    assert answers == [{"n": key} for key in range(500)]
    assert len(found) == 1


@override_settings(DJACTOR={"LISTEN": False})
def test_without_listen_one_connection_looks_for_all_answers():
    answers, found = ask_many(50)
    assert answers == [{"n": key} for key in range(50)]
    assert len(found) == 1


def test_all_event_loops_share_the_connection_which_outlives_none_of_them():
    # Else the first loop might end before the last begins.
    all_answered = threading.Barrier(4, timeout=60)
    with ThreadPoolExecutor(4) as threads:
        done = list(
            threads.map(lambda first: ask_many(20, first, all_answered.wait), range(0, 80, 20))
        )
    assert [answers for answers, _ in done] == [[{"n": key} for key in range(20)]] * 4
    assert len({pid for _, found in done for pid in found}) == 1
    until(lambda: not listeners())


def test_a_lost_connection_loses_no_answer(paused, caplog):
    def lose():
        fresh = set(listeners())
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) pid", [list(fresh)])
        resume_when(lambda: set(listeners()) - fresh)

    async def run():
        answer = asyncio.ensure_future(djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60))
        await until_async(listeners)
        await asyncio.to_thread(lose)
        return await answer

    assert asyncio.run(run()) == {"n": 1}
    assert "the connection for answers failed, trying again" in caplog.text


def test_no_notification_harms_who_waits(paused, caplog):
    def notify():
        with connection.cursor() as cursor:
            for payload in ("", "\u00b2", "9" * 5_000, "-1", "1,,x"):  # anybody may notify
                cursor.execute("SELECT pg_notify('djactor_reply', %s)", [payload])

    async def run():
        answer = asyncio.ensure_future(djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60))
        await until_async(listeners)
        await asyncio.to_thread(notify)
        await asyncio.to_thread(resume_when, listeners)
        return await answer

    assert asyncio.run(run()) == {"n": 1}
    assert not caplog.records


def test_a_restart_of_the_server_loses_no_answer(paused, project):
    async def run():
        answer = asyncio.ensure_future(djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60))
        await until_async(listeners)
        project.restart()  # here, since the server ends with the thread that started it
        await sync_to_async(connections.close_all)()
        await asyncio.to_thread(resume_when, listeners)
        return await answer

    connections.close_all()
    assert asyncio.run(run()) == {"n": 1}


def test_answers_come_without_the_connection_too(monkeypatch):
    def refuse(*args, **options):
        raise psycopg.OperationalError("no more connections")

    monkeypatch.setattr(psycopg, "connect", refuse)
    assert asyncio.run(djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60)) == {"n": 1}


@pytest.fixture
def many_descriptors():
    """The next descriptor is above 1,023, and so are the listener's."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(2048, limits[1])), limits[1]))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    while opened[-1] < 1100:
        opened.append(os.dup(opened[0]))
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_many_open_files_are_not_in_the_way_of_answers(many_descriptors, monkeypatch, caplog):
    monkeypatch.setattr(listener, "_all", {})
    answers, found = ask_many(3, before_the_end=listener.close)
    assert answers == [{"n": key} for key in range(3)]
    assert len(found) == 1
    assert "failed" not in caplog.text


def test_a_thread_that_has_died_is_replaced(paused, monkeypatch):
    deaths = []
    connect = listener.Listener._connect

    def die_once(self):
        if not deaths:
            deaths.append(threading.current_thread())
            raise SystemExit
        return connect(self)

    async def run():
        answer = asyncio.ensure_future(djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60))
        await until_async(lambda: deaths and not deaths[0].is_alive())
        await until_async(listeners)  # while one waits
        await asyncio.to_thread(resume_when, lambda: True)
        return await answer

    listener.close()
    monkeypatch.setattr(listener.Listener, "_connect", die_once)
    assert asyncio.run(run()) == {"n": 1}


def test_without_a_thread_answers_come_too(monkeypatch, caplog):
    start = threading.Thread.start

    def refuse(self):
        if self.name.startswith("djactor-answers"):
            raise RuntimeError("can't start new thread")
        start(self)

    listener.close()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert asyncio.run(djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60)) == {"n": 1}
    assert "no thread to wait for answers" in caplog.text


def test_a_fork_has_a_connection_of_its_own():
    async def run():
        assert await djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60) == {"n": 1}
        (parents,) = await asyncio.to_thread(listeners)
        child = os.fork()
        if child == 0:
            ask_in_child(parents)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60) == {"n": 2}
        await until_async(lambda: listeners() == [parents])  # the child's ends after the child

    asyncio.run(run())


def ask_in_child(parents):
    code = 1
    try:
        # The parent's, and not ours to renew: Django's connection, asgiref's thread.
        for each in connections.all(initialized_only=True):
            each.connection = None
        SyncToAsync.single_thread_executor = ThreadPoolExecutor(1)
        with ThreadPoolExecutor(1) as thread:  # here is a loop already
            ((answer,), found) = thread.submit(ask_many, 1, 1).result()
        code = 0 if answer == {"n": 1} and parents in found and len(found) == 2 else 2
    finally:
        os._exit(code)


def test_aask_fails_and_times_out_like_ask(paused):
    async def late():
        await djactor.actor(TYPE, 1).aask({"add": 1}, timeout=0.2)

    with pytest.raises(djactor.AskTimeout):
        asyncio.run(late())


async def ask_while_threads_are_busy():
    busy = asyncio.ensure_future(sync_to_async(time.sleep)(0.5))
    await asyncio.sleep(0)  # it begins
    await djactor.actor(TYPE, 1).aask({"add": 1}, timeout=0.3)
    await busy


@pytest.mark.parametrize(
    "ask",
    [
        lambda: djactor.actor(TYPE, 1).ask({"add": 1}, timeout=0.1),
        lambda: asyncio.run(ask_while_threads_are_busy()),
    ],
    ids=["ask", "aask, sent late"],
)
def test_what_nobody_waits_for_any_more_is_not_run(paused, ask):
    with pytest.raises(djactor.AskTimeout):
        ask()
    resume_when(lambda: True)
    wait_idle(60)
    assert djactor.actor(TYPE, 1).state() is None


def test_the_connection_takes_the_parameters_of_its_alias(project, tmp_path, monkeypatch):
    """A service, options for the server, and what only Django understands: a pool."""
    (tmp_path / "services").write_text(f"[shop]\nhost={project.host}\ndbname=shop\nuser=shop\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    connections.settings["served"] = connections.settings["default"] | {
        **dict.fromkeys(("HOST", "NAME", "USER"), ""),
        "OPTIONS": {
            "service": "shop",
            "application_name": "served",
            "options": "-c lock_timeout=5s",
            "pool": {"min_size": 1, "max_size": 2},
        },
    }

    async def run():
        ask = djactor.actor(TYPE, 1, using="served").aask({"add": 1}, timeout=60)
        return await ask, await asyncio.to_thread(sessions)

    def sessions():
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT usename FROM pg_stat_activity WHERE application_name = 'served'"
                    " AND query ~ 'LISTEN djactor_reply|FROM djactor.reply'"
                )
                return cursor.fetchall()
        finally:
            connections.close_all()

    try:
        answer, found = asyncio.run(run())
    finally:
        listener.close("served")
        connections["served"].close_pool()
        del connections.settings["served"]
    assert answer == {"n": 1}
    assert found == [("shop",)]


@pytest.fixture
def impatient():
    """The alias ``impatient``, whose statements are cancelled after 0.3 s."""
    connections.settings["impatient"] = connections.settings["default"] | {
        "OPTIONS": {"options": "-c statement_timeout=300"}
    }
    connections.databases["impatient"] = connections.settings["impatient"]
    yield "impatient"
    listener.close("impatient")
    connections["impatient"].close()
    del connections.settings["impatient"]


def test_a_statement_timeout_does_not_end_an_ask(paused, impatient):
    resumed = in_a_thread(lambda: (time.sleep(1.2), resume_when(lambda: True)))
    assert djactor.actor(TYPE, 1, using=impatient).ask({"add": 1}, timeout=60) == {"n": 1}
    resumed.result()


def test_nor_does_an_ask_under_a_statement_timeout_wait_too_long(paused, impatient):
    began = time.monotonic()
    with pytest.raises(djactor.AskTimeout, match=r"within 0\.8 s") as raised:
        djactor.actor(TYPE, 1, using=impatient).ask({"add": 1}, timeout=0.8)
    assert 0.8 <= time.monotonic() - began < 30
    assert raised.value.message_id == Message.objects.get().pk


@pytest.mark.parametrize("atomic", [False, True])
def test_a_statement_timeout_does_not_end_a_wait_for_the_workers(impatient, atomic):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE shop_sale IN SHARE MODE")  # the turn waits for it
        djactor.actor(TYPE, 1, using="admin").send({"add": 1})

        def wait():
            with transaction.atomic(using=impatient) if atomic else contextlib.nullcontext():
                with pytest.raises(AssertionError, match=r"after 0\.8 s"):
                    wait_idle(0.8, using=impatient)
                wait_idle(60, using=impatient)

        done = in_a_thread(wait)
        time.sleep(1.5)
    done.result()
    assert djactor.actor(TYPE, 1).state() == {"n": 1}


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
def test_who_is_interrupted_while_he_asks_knows_the_message(paused, function):
    def ask():
        try:
            djactor.actor(TYPE, 1).ask({"add": 1}, timeout=60)
        except djactor.AskTimeout as error:
            return error.message_id, djactor.actor(TYPE, 1).state()

    asked = in_a_thread(ask)
    until(lambda: waits_and_holds_nothing("wait_reply"), 10)
    with connections["admin"].cursor() as cursor:
        cursor.execute(
            f"SELECT {function}(pid) FROM pg_stat_activity"
            " WHERE query ~ 'CALL djactor.wait_reply' AND pid <> pg_backend_pid()"
        )
    assert asked.result() == (Message.objects.get().pk, None)
