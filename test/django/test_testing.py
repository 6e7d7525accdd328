"""What djactor.test offers beside drain(): inline(), capture_sends() and Turn; and time."""

import contextlib
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

import pytest
import time_machine
from django.core import mail
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction
from django.test import override_settings
from django.utils import timezone as django_timezone
from freezegun import freeze_time

import djactor
from djactor.hosting import current
from djactor.messages import InvalidMessage
from djactor.models import ActorType, DeadLetter, Message
from djactor.operations import DefinePythonActorType, DropActorType
from djactor.test import Sent, Timer, Turn, capture_sends, drain, inline, wait_idle
from message_classes import AddItem, AsyncWish, Cart, Line, RemoveItem
from registering import registered
from shop import actors
from shop.models import Sale

HERE = Path(__file__).resolve().parent
FUTURE = datetime(2040, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


@contextlib.contextmanager
def in_a_test_case():
    """As TestCase runs a test: in a transaction that is rolled back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


# ---------- inline() ----------


@pytest.fixture(scope="module")
def inside(project):
    """Two types that PostgreSQL runs."""
    project.sql("CREATE EXTENSION IF NOT EXISTS djactor_python CASCADE", "shop")
    types = {"shop.notification": "NotificationActor", "shop.closing": "Closing"}
    with connections["admin"].schema_editor() as editor:
        for name, cls in types.items():
            one = DefinePythonActorType(name, f"shop.actors.{cls}", owner="shop")
            one.database_forwards("shop", editor, None, None)
    yield
    with connections["admin"].schema_editor() as editor:
        for name in types:
            DropActorType(name, True).database_forwards("shop", editor, None, None)


def definitions():
    found = ActorType.objects.filter(name__in=["shop.notification", "shop.closing"])
    return list(found.order_by("name").values())


def test_classes_inside_run_in_the_process_of_the_test(inside):
    before = definitions()
    seen = []

    def handle_message(self, message):
        seen.append(message)
        mail.EmailMessage("Hello", "hello", None, ["ann@example.org"]).send()
        return {"count": len(seen)}

    with (
        in_a_test_case(),
        mock.patch.object(actors.NotificationActor, "handle_message", handle_message),
        override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"),
    ):
        mail.outbox = []
        with inline():
            djactor.actor("shop.closing", "k").send({})  # sends to the other
            djactor.actor("shop.notification", 8).send({"a": 1})
            assert drain() == 3
        assert seen == [{"from": "k"}, {"a": 1}] or seen == [{"a": 1}, {"from": "k"}]
        assert len(mail.outbox) == 2
        assert djactor.actor("shop.notification", 8).state() == {"user_id": 8, "messages": []}
        djactor.actor("shop.notification", 9).send({"b": 1})
        assert drain() == 1 and len(seen) == 2  # inside again, where nothing is replaced
        assert djactor.actor("shop.notification", 9).state()["messages"] == [{"b": 1}]
        del mail.outbox
    assert definitions() == before


def test_outside_of_transactions_no_worker_takes_them_meanwhile(inside):
    before = definitions()
    with inline():
        djactor.actor("shop.notification", 8).send({"a": 1})
        with pytest.raises(AssertionError, match=r"No process hosts shop\.notification"):
            wait_idle(0.3)
        assert drain() == 1
    assert definitions() == before
    djactor.actor("shop.notification", 8).send({"a": 2})
    wait_idle(30)
    assert djactor.actor("shop.notification", 8).state()["messages"] == [{"a": 1}, {"a": 2}]


def test_some_types_may_be_named(inside):
    with in_a_test_case(), inline("shop.notification"):
        assert [one["hosted"] for one in definitions()].count(True) == 1
    for wrong in ("shop.counter", "shop.nothing"):
        with pytest.raises(LookupError, match=f"runs the actor type '{wrong}'"), inline(wrong):
            pass


def test_the_types_are_inside_again_whatever_happens(inside):
    before = definitions()
    with pytest.raises(ZeroDivisionError), inline():
        raise ZeroDivisionError
    assert definitions() == before
    with pytest.raises(DatabaseError, match="division by zero"), transaction.atomic(), inline():
        connection.cursor().execute("SELECT 1 / 0")
    assert definitions() == before
    with transaction.atomic(), inline():
        transaction.set_rollback(True)
    assert definitions() == before


def test_without_classes_inside_nothing_changes(project):
    with inline(using="guest"):
        pass


# ---------- capture_sends() ----------


def test_sends_of_a_block_are_captured():
    at = django_timezone.now() + HOUR
    with registered((Cart, "shop.cart", {"hosted": True})), in_a_test_case():
        call_command("migrate", verbosity=0)
        djactor.actor("shop.counter", 1).send({"add": 1})
        with capture_sends() as sent:
            djactor.actor("shop.counter", 2).send({"add": 2}, priority=3, deliver_at=at)
            djactor.actor(Cart, 7).send_many([AddItem("x"), {"@type": "AddItem"}])
            Message.objects.bulk_create([Message(actor_type="shop.counter", actor_key="o")])
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT djactor.send('shop.counter', 's', '1', headers => '{\"a\": 1}')"
                )
            with contextlib.suppress(ZeroDivisionError), transaction.atomic():
                djactor.actor("shop.counter", 3).send({})
                raise ZeroDivisionError
        djactor.actor("shop.counter", 4).send({})
        assert sent == [
            Sent("shop.counter", "2", {"add": 2}, {"priority": 3, "deliver_at": at}),
            Sent("shop.cart", "7", {"@type": "AddItem", "sku": "x", "n": 1}),
            Sent("shop.cart", "7", {"@type": "AddItem"}),
            Sent("shop.counter", "o", {}),
            Sent("shop.counter", "s", 1, {"headers": {"a": 1}}),
        ]
        assert sent[1].message == AddItem("x") and sent[0].message == {"add": 2}
        with pytest.raises(InvalidMessage, match="sku: is missing"):
            _ = sent[2].message
        assert sorted(one.id for one in sent) == [one.id for one in sent]


class Forwarding:
    def handle_message(self, message: dict):
        if message["left"]:
            current().send("shop.forwarding", 1, {"left": message["left"] - 1})
            current().send("shop.counter", 1, {"add": message["left"]})


def test_sends_of_turns_in_the_block_are_captured():
    with registered((Forwarding, "shop.forwarding", {"hosted": True})), in_a_test_case():
        call_command("migrate", verbosity=0)
        with capture_sends() as outer:
            djactor.actor("shop.forwarding", 1).send({"left": 2})
            with capture_sends() as sent:
                assert drain(max=1) == 1
                assert drain() == 4
        assert [(one.type, one.payload) for one in sent] == [
            ("shop.forwarding", {"left": 1}),
            ("shop.counter", {"add": 2}),
            ("shop.forwarding", {"left": 0}),
            ("shop.counter", {"add": 1}),
        ]
        assert outer[1:] == sent and drain() == 0


def test_capturing_changes_nothing_of_drain():
    with in_a_test_case():
        djactor.actor("shop.counter", 1).send({"add": 1}, delay=HOUR)
        djactor.actor("shop.counter", 1).send({"add": "x"})
        with capture_sends() as sent:
            with pytest.raises(DatabaseError, match="invalid input syntax"), transaction.atomic():
                drain()
            assert drain(on_error="retry") == 0
            assert drain(on_error="retry", until=django_timezone.now() + 2 * HOUR) == 1
        assert sent == [] and DeadLetter.objects.count() == 1


def test_a_transaction_that_has_failed_does_not_hide_the_error():
    with pytest.raises(DatabaseError, match="division"), transaction.atomic(), capture_sends():
        connection.cursor().execute("SELECT 1 / 0")
    with transaction.atomic(), capture_sends() as sent:
        djactor.actor("shop.counter", 1).send({})
        transaction.set_rollback(True)
    assert sent == []


# ---------- time ----------


class Clock:
    """Writes down what time it is."""

    def __init__(self, key: str):
        self.times = []

    def handle_message(self, message: dict):
        self.times.append(django_timezone.now().isoformat())
        Sale.objects.create(product=1, amount=django_timezone.now().year)
        mail.EmailMessage("Tick", "tock", None, ["ann@example.org"]).send()
        if message.get("after"):
            current().set_timer("again", at=django_timezone.now() + HOUR)


class AsyncClock:
    def __init__(self, key: str):
        self.times = []

    async def handle_message(self, message: dict):
        self.times.append(django_timezone.now().isoformat())
        await current().in_commit(Sale.objects.create, product=1, amount=2040)


@pytest.fixture
def clocks(fresh):
    with (
        registered(
            (Clock, "shop.clock", {"hosted": True}), (AsyncClock, "shop.aclock", {"hosted": True})
        ),
        override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"),
    ):
        call_command("migrate", verbosity=0)
        mail.outbox = []
        yield
        del mail.outbox


FROZEN = pytest.mark.parametrize(
    "frozen", [freeze_time, lambda at: time_machine.travel(at, tick=False)], ids=["fg", "tm"]
)


@FROZEN
@pytest.mark.parametrize("name", ["shop.clock", "shop.aclock"])
def test_handlers_have_the_time_of_the_test(clocks, frozen, name):
    # local time is not UTC, as in most projects
    with override_settings(TIME_ZONE="Asia/Tokyo"), in_a_test_case(), frozen(FUTURE):
        djactor.actor(name, 1).send({})
        djactor.actor(name, 1).send({}, delay=HOUR)
        assert drain() == 1
        assert djactor.actor(name, 1).state()["times"] == [FUTURE.isoformat()]
        assert Sale.objects.get().amount == 2040
        assert drain(until=django_timezone.now() + HOUR / 2) == 0
        assert drain(until=django_timezone.now() + HOUR) == 1
        assert len(mail.outbox) == (2 if name == "shop.clock" else 0)


@FROZEN
def test_time_that_a_test_moves_is_passed_on_by_until(clocks, frozen):
    with in_a_test_case():
        with frozen(FUTURE):
            djactor.actor("shop.clock", 1).send({"after": True})
            assert drain() == 1
        with frozen(FUTURE + HOUR):
            assert drain(until=django_timezone.now()) == 1
        times = djactor.actor("shop.clock", 1).state()["times"]
        assert times == [FUTURE.isoformat(), (FUTURE + HOUR).isoformat()]


@FROZEN
def test_waiting_ends_although_time_stands_still(clocks, frozen):
    djactor.actor("shop.clock", 1).send({})
    with frozen(FUTURE), pytest.raises(AssertionError, match="messages still wait"):
        wait_idle(0.3)


# ---------- Turn ----------


class Busy(djactor.PythonActor):
    """Does all that a turn can do."""

    count = 0

    def __init__(self, key: int):
        self.key = key

    def handle_message(self, message: dict):
        turn = current()
        self.count += 1
        self.seen = [turn.kind, turn.headers, turn.turns, turn.attempts, turn.wants_reply]
        if message.get("fail"):
            raise ValueError("told to fail")
        if message.get("reject"):
            self.reject("not today")
        if message.get("stop"):
            self.stop()
            return
        number = self.send("shop.counter", 5, {"add": 2}, priority=3, headers={"a": 1})
        djactor.actor("shop.counter", 6).send({"add": 1}, delay=HOUR)
        djactor.actor("shop.counter", 6).send_many([{"add": 1}], wants_reply=True)
        self.set_timer("later", 60, Line("x"), every="1 mon")
        turn.set_timer("gone", HOUR)
        assert turn.cancel_timer("gone") is True and turn.cancel_timer("none") is False
        turn.reply({"earlier": True}, 17)
        turn.reply_error("no", 18)
        turn.watch("shop.counter", 5)
        turn.unwatch("shop.counter", 6)
        turn.execute("SELECT %s", [1])
        turn.stash()
        turn.unstash_all()
        turn.defer_reply()
        assert isinstance(number, int)
        return {"count": self.count}


def test_a_turn_needs_no_database():
    turn = Turn(Busy, key=7)
    done = turn.handle({"a": 1}, headers={"tenant": "x"}, attempts=2)
    assert done.state == {"key": 7, "count": 1, "seen": ["user", {"tenant": "x"}, 0, 2, False]}
    assert done.reply == {"count": 1} and done.error is None
    first, second, third = done.sends
    assert first == Sent("shop.counter", "5", {"add": 2}, {"priority": 3, "headers": {"a": 1}})
    assert (second.key, second.payload) == ("6", {"add": 1})
    assert second.options.keys() == {"deliver_at", "headers"}
    options = {"wants_reply": True, "headers": {"tenant": "x"}}  # these pass on
    assert third == Sent("shop.counter", "6", {"add": 1}, options)
    minute = timedelta(minutes=1)
    payload = {"@type": "Line", "sku": "x", "n": 1}
    assert done.timers["later"].after == minute and done.timers["later"].payload == payload
    assert done.timers["later"].rule["every"] == "1 mon" and set(done.timers) == {"later"}
    assert done.cancelled == ["gone", "none"]
    assert (done.replies, done.errors) == ({17: {"earlier": True}}, {18: "no"})
    assert (done.watched, done.unwatched) == ([("shop.counter", "5")], [("shop.counter", "6")])
    assert done.executed == [("SELECT %s", (1,))]
    assert done.deferred and done.stashed and done.unstashed and not done.stopped


def test_a_turn_goes_on_from_the_state_of_the_last_one():
    turn = Turn(Busy, key=7)
    turn.handle()
    assert turn.handle().state["count"] == 2 and turn.turns == 2
    with pytest.raises(ValueError, match="told to fail"):
        turn.handle({"fail": True})
    with pytest.raises(djactor.Reject, match="not today"):
        turn.handle({"reject": True})
    assert turn.state["count"] == 2
    done = turn.handle({"stop": True})
    assert done.stopped and done.state is None
    assert turn.handle().state["count"] == 1
    given = {"key": 8, "count": 7, "seen": []}
    assert Turn(Busy, key=8, state=given).handle().reply == {"count": 8}
    assert given["count"] == 7
    assert Turn(Busy, key=8).handle(kind="timer", meta={"name": "x"}).state["seen"][0] == "timer"
    with pytest.raises(RuntimeError, match="there is no current turn"):
        current()


def test_a_turn_takes_typed_messages_and_rejects_as_the_handler_does():
    with registered_only(Cart, "shop.cart", initial_state={"more": 1}):
        turn = Turn(Cart, key=7)
        assert turn.handle(AddItem("x", 2)).reply == {"n": 2}
        assert turn.state == {"number": 7, "items": {"x": 2}, "name": "", "more": 1}
        assert turn.handle(RemoveItem("x")).reply == {"@type": "Line", "sku": "removed", "n": 0}
        with pytest.raises(djactor.Reject, match="AddItem: sku: is missing; n: 'x' is not an int"):
            turn.handle({"@type": "AddItem", "n": "x"})


@contextlib.contextmanager
def registered_only(cls, name, **options):
    djactor.register(cls, name, **options)
    try:
        yield
    finally:
        djactor.registry.unregister(name)


def test_sends_that_are_merged_say_how():
    class Indexing:
        def handle_message(self, message: dict):
            turn = current()
            turn.send("shop.counter", 1, coalesce_key="k", coalesce_mode="keep")
            turn.send("shop.counter", 1, coalesce_key="k", debounce=HOUR, debounce_limit=2 * HOUR)
            djactor.actor("shop.counter", 1).send(coalesce_key="k", debounce=HOUR)

    keep, limited, debounced = (one.options for one in Turn(Indexing).handle().sends)
    assert keep == {"coalesce_key": "k", "coalesce_mode": "keep"}
    assert limited.pop("coalesce_until") - limited.pop("deliver_at") == HOUR
    assert debounced.pop("deliver_at") > datetime.now(timezone.utc)
    assert limited == debounced == {"coalesce_key": "k", "coalesce_mode": "debounce"}


def test_async_handlers_run_to_their_end():
    class Committing:
        async def handle_message(self, message: dict):
            turn = current()
            self.n = await turn.in_commit(len, [1, 2])
            assert turn.send("shop.counter", 1) is None
            turn.set_timer("later", HOUR)

    done = Turn(Committing).handle()
    assert done.state == {"n": 2} and done.sends == [Sent("shop.counter", "1", {})]
    assert done.timers == {"later": Timer("later", HOUR, {})}
    with registered_only(Cart, "shop.cart"):
        done = Turn(AsyncWish, "a").handle({"send": "y"})
        assert done.sends == [Sent("shop.cart", "7", {"@type": "RemoveItem", "sku": "y"})]
        assert done.sends[0].message == RemoveItem("y")


async def awaited():
    return await Turn(AsyncWish, "a").ahandle(AddItem("x")), await Turn(Busy).ahandle({})


def test_async_tests_await_a_turn():
    import asyncio

    wish, busy = asyncio.run(awaited())
    assert wish.reply == {"sku": "x"} and busy.reply == {"count": 1}


def test_an_older_state_is_upgraded():
    class Upgraded(Busy):
        @staticmethod
        def upgrade_state(state, from_version):
            return state | {"count": 10 * from_version}

    turn = Turn(Upgraded, state={"key": 1}, from_version=2)
    assert [turn.handle().reply, turn.handle().reply] == [{"count": 21}, {"count": 22}]


def test_what_cannot_be_said_of_a_message_is_refused():
    with pytest.raises(TypeError, match="a message has no header"):
        Turn(Busy).handle({}, header={})
    with pytest.raises(TypeError, match="cannot hold"):
        Turn(Busy).handle({"a": object()})
    with pytest.raises(ValueError, match="1 to 512 bytes"):
        Turn(Busy, key="")
    with pytest.raises(TypeError, match="not a class"):
        Turn(7)


def test_a_turn_works_where_there_is_no_server():
    code = (
        "from djactor.test import Turn\nfrom message_classes import *\n"
        "assert Turn(Wish, 'a').handle(AddItem('x')).state == {'seen': [['x', 1]]}"
    )
    subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{code}"],
        env={
            "PYTHONPATH": f"{HERE.parents[1] / 'django'}:{HERE}",
            "DJANGO_SETTINGS_MODULE": "project_settings",
        },
        check=True,
        timeout=60,
    )
