"""djactor_call: one turn in the foreground."""

import io
import json
from datetime import datetime, timedelta, timezone

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

import djactor
from djactor.hosting import current
from djactor.models import Actor, DeadLetter, Message, Timer
from djactor.test import wait_idle
from hosted_classes import Basket
from registering import registered, registered_sql
from shop.models import Sale
from waiting import until

TYPE = "shop.cart"
COUNTER = "shop.counter"


class Cart:
    """Does what a turn can do."""

    def __init__(self, number: int):
        self.number = number
        self.items = []

    def handle_message(self, message: dict):
        turn = current()
        self.items.append(message["op"])
        Sale.objects.create(product=self.number, amount=1)
        if message["op"] == "fail":
            raise ValueError("no more room")
        if message["op"] == "stop":
            turn.stop()
            return None
        turn.send(COUNTER, 5, {"add": 2})
        turn.set_timer("remind", timedelta(hours=1), {"about": "cart"})
        turn.cancel_timer("old")
        return {"items": len(self.items)}


class AsyncCart(Cart):
    """The same, awaited."""

    async def handle_message(self, message: dict):
        turn = current()
        turn.send(COUNTER, 5, {"add": 2})
        await turn.in_commit(Sale.objects.create, product=self.number, amount=1)
        self.items.append(message["op"])
        return {"items": len(self.items)}


@pytest.fixture(autouse=True)
def types(fresh):
    with registered((Cart, TYPE, {"hosted": True}), (AsyncCart, "shop.slow", {"hosted": True})):
        call_command("migrate", verbosity=0)
        yield


@pytest.fixture
def counter_waits(fresh):
    """What is sent to the counter stays where it can be seen."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.pause(%s)", [COUNTER])
        yield
        cursor.execute("SELECT djactor.resume(%s)", [COUNTER])


def call(*words, **options):
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("djactor_call", *map(str, words), stdout=out, stderr=err, **options)
    except CommandError as error:
        assert error.returncode == 1
        return [*out.getvalue().splitlines(), str(error)], err.getvalue()
    return out.getvalue().splitlines(), err.getvalue()


ADD = '{"op": "add"}'


def test_a_turn_of_a_class_is_run_and_shown(counter_waits):
    lines, _ = call(TYPE, 7, ADD)
    assert lines[0].startswith("message ")
    assert lines[0].endswith(f"handled by the class {__name__}.Cart, in this process")
    assert lines[1] == "state before: none"
    assert json.loads(lines[2].removeprefix("state after: ")) == {"number": 7, "items": ["add"]}
    assert lines[3:5] == ['reply: {"items": 1}', 'sent: shop.counter 5 {"add": 2} (user)']
    assert lines[5].startswith("timer: set remind: due ") and '{"about": "cart"}' in lines[5]
    assert lines[6:] == ["committed"]
    assert djactor.actor(TYPE, 7).state() == {"number": 7, "items": ["add"]}
    assert (Sale.objects.count(), Message.objects.filter(kind="user").count()) == (1, 1)
    djactor.actor(TYPE, 7).schedule("old", after=timedelta(hours=2))
    lines, _ = call(TYPE, 7, ADD)
    assert "state before: {" in lines[1] and lines[-2:] == ["timer: ended old", "committed"]


def test_a_dry_run_leaves_nothing(counter_waits):
    lines, _ = call(TYPE, 7, ADD, "--dry-run")
    assert lines[3] == 'reply: {"items": 1}'
    assert lines[-1] == "rolled back: nothing of it remains in the database"
    for model in (Sale, Actor, Message, Timer):
        assert not model.objects.exists()


def test_an_async_turn_is_run_to_its_end(counter_waits):
    lines, _ = call("shop.slow", 7, ADD)
    assert lines[3:5] == ['reply: {"items": 1}', 'sent: shop.counter 5 {"add": 2} (user)']
    assert lines[-1] == "committed" and Sale.objects.count() == 1


def test_an_actor_that_stops_has_no_state(counter_waits):
    call(TYPE, 7, ADD)
    lines, _ = call(TYPE, 7, '{"op": "stop"}')
    assert "state after: none" in lines and "timer: ended remind" in lines
    assert not Actor.objects.exists()


def test_a_handler_inside_is_run_and_shown(fresh):
    lines, _ = call(COUNTER, 7, '{"add": 3}')
    assert "counter_handle(jsonb,jsonb), inside" in lines[0]
    assert lines[1:] == [
        "state before: none",
        'state after: {"n": 3}',
        'reply: {"n": 3}',
        "committed",
    ]
    lines, _ = call(COUNTER, 7, '{"add": 4}', "--dry-run")
    assert lines[1:3] == ['state before: {"n": 3}', 'state after: {"n": 7}']
    assert djactor.actor(COUNTER, 7).state() == {"n": 3} and Sale.objects.count() == 1


def test_what_a_handler_inside_says_is_shown(fresh):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION loud(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE NOTICE 'heard %', message; END $$"
        )
    try:
        with registered_sql("shop.loud", "loud"):
            call_command("migrate", verbosity=0)
            assert call("shop.loud", 1, "[1]")[1] == "NOTICE: heard [1]\n"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION loud")


def test_a_turn_that_fails_leaves_nothing_and_shows_where(fresh):
    lines, err = call(TYPE, 7, '{"op": "fail"}')
    assert lines[-1] == (
        "the turn has failed, and nothing of it remains in the database: ValueError: no more room"
    )
    assert "Traceback" in err and "handle_message" in err
    lines, err = call(COUNTER, 7, '{"fail": true}')
    assert "told to fail, 100 %" in lines[-1] and "PL/pgSQL function counter_handle" in err
    for model in (Sale, Actor, Message, DeadLetter):
        assert not model.objects.exists()


def test_without_a_payload_the_next_message_that_waits_is_run(fresh):
    assert call(TYPE, 7)[0] == ["no mail that is due waits for shop.cart 7: give a payload"]
    first = djactor.actor(TYPE, 7).send({"op": "one"})
    second = djactor.actor(TYPE, 7).send({"op": "two"})
    (words,) = call(TYPE, 7, ADD)[0]
    assert words.startswith(f"message {first} waits for shop.cart 7, and comes first")
    assert call(TYPE, 7)[0][0].startswith(f"message {first}, handled by")
    left = Message.objects.filter(actor_type=TYPE, kind="user")
    assert list(left.values_list("id", flat=True)) == [second]
    assert djactor.actor(TYPE, 7).state()["items"] == ["one"]


def test_mail_of_other_actors_is_left_alone(fresh):
    djactor.actor(TYPE, 1).send({"op": "one"})
    djactor.actor("shop.slow", 7).send({"op": "one"})
    assert call(TYPE, 7, ADD)[0][-1] == "committed"
    wait_idle(60, COUNTER)
    assert Message.objects.filter(kind="user").count() == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("shop.nothing", 7, ADD), "no actor type 'shop.nothing'. There are shop.cart, shop.count"),
        ((TYPE, 7, "{op: add}"), "the payload is not JSON: Expecting property name"),
        ((TYPE, 7, "NaN"), "the payload is not JSON: NaN is no number of JSON"),
        ((TYPE, "", ADD), "key"),
        ((TYPE, "x" * 513, ADD), "key"),
        ((TYPE, 7, ADD, "--database", "lite"), "there is no database 'lite' of PostgreSQL"),
        ((TYPE, 7, ADD, "--database", "nowhere"), "there is no database 'nowhere'"),
        ((TYPE, 7, ADD, "--database", "admin"), "belongs to shop: name an alias"),
    ],
)
def test_what_cannot_be_run_is_said(words, says):
    (line,) = call(*words)[0]
    assert says in line
    assert not Message.objects.exists()


def test_a_paused_type_and_actor_are_said(fresh):
    call(TYPE, 7, ADD)
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.pause(%s, '7')", [TYPE])
        assert call(TYPE, 7, ADD)[0] == [
            "the actor shop.cart 7 is paused. SELECT djactor.resume('shop.cart', '7')"
        ]
        cursor.execute("SELECT djactor.pause(%s)", [TYPE])
        (line,) = call(TYPE, 8, ADD)[0]
        assert line.startswith("the actor type 'shop.cart' is paused (")
        cursor.execute("SELECT djactor.resume(%s)", [TYPE])


def test_an_actor_that_waits_for_a_retry_is_said(fresh):
    djactor.actor(TYPE, 7).send({"op": "fail"})
    from djactor.test import drain

    drain(on_error="retry")
    (line,) = call(TYPE, 7, ADD)[0]
    assert "has failed, is tried again at" in line and "no more room" in line


@pytest.mark.parametrize(("name", "payload"), [(COUNTER, {"add": 1}), (TYPE, {"op": "add"})])
def test_an_actor_that_a_rate_holds_back_is_run(fresh, name, payload):
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.alter_actor_type(%s, rate => '1/h')", [name])
        try:
            for _ in range(2):
                djactor.actor(name, 7).send(payload)
            if name == COUNTER:
                until(lambda: Message.objects.count() == 1)
            assert call(name, 7)[0][-1] == "committed"
            if name == TYPE:
                assert call(name, 7)[0][-1] == "committed"
            assert call(name, 7, json.dumps(payload))[0][-1] == "committed"
        finally:
            cursor.execute("SELECT djactor.alter_actor_type(%s, rate => NULL)", [name])


def test_a_message_that_gets_no_turn_is_passed_over_or_said(counter_waits):
    cart = djactor.actor(TYPE, 7)
    cart.send({"op": "old"}, expires_at=datetime.now(timezone.utc) - timedelta(seconds=1))
    for op in ("one", "two"):
        cart.send({"op": op}, coalesce_key="k")
    lines, _ = call(TYPE, 7)
    assert "gets no turn: it was merged with another one" in lines[-1]
    assert Message.objects.filter(actor_type=TYPE).count() == 3
    Message.objects.filter(actor_type=TYPE, payload__op="one").get().cancel()
    lines, _ = call(TYPE, 7)
    assert json.loads(lines[2].removeprefix("state after: "))["items"] == ["two"]
    assert DeadLetter.objects.get().reason == "expired"


def test_an_actor_that_another_process_runs_is_busy(project):
    import psycopg

    djactor.actor(TYPE, 7).send({"op": "one"})
    with psycopg.connect(host=project.host, dbname="shop", user="shop") as other:
        other.execute("SELECT * FROM djactor.drain_take()")
        (words,) = call(TYPE, 7)[0][2:]
        assert "is being run by another process" in words
        other.rollback()
    assert call(TYPE, 7)[0][-1] == "committed"


def test_a_class_that_runs_inside_is_run_there(project):
    project.sql("CREATE EXTENSION djactor_python CASCADE", "shop")
    try:
        with registered((Basket, "shop.basket", {})):
            call_command("migrate", database="admin", verbosity=0)
            lines, _ = call("shop.basket", 7, '{"a": 1}')
            assert lines[3:] == ['reply: {"items": 1}', "committed"]
            lines, err = call("shop.basket", 7, '{"fail": true}')
            assert "no more room" in lines[-1] and "handle_message" in err
    finally:
        project.sql("DROP EXTENSION djactor_python, plpython3u", "shop")


def test_a_turn_needs_a_transaction_of_its_own():
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        call(TYPE, 7, ADD)
