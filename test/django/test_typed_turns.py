"""Typed messages in turns: in a host, inside PostgreSQL, and in a test's own process."""

import contextlib
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.utils import timezone

import djactor
from djactor.models import Actor, DeadLetter, Message, Reply
from djactor.operations import DefinePythonActorType
from djactor.test import drain, wait_idle
from hosting_worker import Worker, query
from message_classes import AddItem, AsyncWish, Cart, RemoveItem, Wish
from registering import registered
from waiting import until

HOSTED = ["typed.cart", "typed.wish", "typed.awish"]


@pytest.fixture(scope="module", params=["in the test", "in a host", "inside"])
def where(request, project):
    """Runs what waits; the classes are registered."""
    types = [(Cart, "typed.cart", {}), (Wish, "typed.wish", {}), (AsyncWish, "typed.awish", {})]
    with registered(*types), contextlib.ExitStack() as ends:
        if request.param == "inside":
            project.sql("CREATE EXTENSION IF NOT EXISTS djactor_python CASCADE", "shop")
            with connections["admin"].schema_editor() as editor:
                for name, cls in (("typed.cart", "Cart"), ("typed.wish", "Wish")):
                    path = f"message_registered.{cls}"
                    one = DefinePythonActorType(name, path, owner="shop", max_attempts=1)
                    one.database_forwards("shop", editor, None, None)
        else:
            for cls, name, _ in types:
                query(
                    "SELECT djactor.define_actor_type(%s, %s, hosted => true, max_attempts => 1)",
                    name,
                    f"message_registered.{cls.__name__}",
                )
        if request.param == "in a host":
            worker = Worker(project, "--types", *HOSTED, "--threads", 2, "--grace", 5)
            ends.callback(worker.kill)
            worker.wait_ready(2)

        def run():
            if request.param == "in the test":
                drain(on_error="retry")
            else:
                wait_idle(60)

        run.name = request.param
        yield run


def answer(run, cls, key, message):
    sent = djactor.actor(cls, key).send(message, wants_reply=True)
    run()
    reply = Reply.objects.get(message_id=sent)
    return reply.error or reply.payload


def test_each_type_has_its_method(where):
    cart = djactor.actor(Cart, 7)
    cart.send(AddItem("x", 2))
    cart.send_many([AddItem("y"), RemoveItem("x"), {"op": "rename", "name": "mine"}])
    where()
    assert cart.state() == {"number": 7, "items": {"y": 1}, "name": "mine"}


def test_many_are_sent_in_their_order(where):
    wish = djactor.actor(Wish, "a")
    with connections["default"].execute_wrapper(counted := Counted()):
        sent = wish.send_many(AddItem(str(n)) for n in range(3))
    assert sent == sorted(sent) and len(set(sent)) == 3 and counted.n == 1
    assert len(async_to_sync(wish.asend_many)([AddItem("3")], priority=-1)) == 1
    assert wish.send_many([]) == []
    where()
    assert wish.state()["seen"] == [[str(n), 1] for n in range(4)]


class Counted:
    """Counts the inserts."""

    n = 0

    def __call__(self, execute, sql, params, many, context):
        self.n += "INSERT" in sql
        return execute(sql, params, many, context)


def test_sql_and_the_orm_send_the_same(where):
    query(
        "INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('typed.cart', '7',"
        """ '{"@type": "AddItem", "sku": "x", "n": 2}'), ('typed.wish', 'a', '{"sku": "s"}')"""
        " RETURNING id"
    )
    Message.objects.create(actor_type="typed.wish", actor_key="a", payload=AddItem("o", 3))
    Message.objects.bulk_create(
        [Message(actor_type="typed.wish", actor_key="a", payload=AddItem("b", 4))]
    )
    where()
    assert djactor.actor(Cart, 7).state()["items"] == {"x": 2}
    assert djactor.actor(Wish, "a").state()["seen"] == [["s", 1], ["o", 3], ["b", 4]]


def test_a_turn_sends_to_a_class(where):
    djactor.actor(Cart, 7).send(AddItem("passed", 5))
    where()
    assert djactor.actor(Wish, "w").state()["seen"] == [["from a cart", 5]]


def test_a_reply_may_be_an_object(where):
    assert answer(where, Cart, 7, AddItem("x", 2)) == {"n": 2}
    assert answer(where, Cart, 7, RemoveItem("x")) == {"@type": "Line", "sku": "removed", "n": 0}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"@type": "AddItem", "n": "two"}, "AddItem: sku: is missing; n: 'two' is not an int"),
        ({"sku": "x"}, "Cart takes AddItem, RemoveItem, Rename: the message has no @type"),
        ([1], "Cart takes AddItem, RemoveItem, Rename: the message is not an object"),
    ],
)
def test_what_does_not_fit_is_rejected_and_leaves_the_state(where, wrong, words):
    cart = djactor.actor("typed.cart", 7)
    cart.send(wrong)
    where()
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.sqlstate, letter.payload) == ("rejected", "JA003", wrong)
    assert words in letter.error
    assert not Actor.objects.filter(actor_type="typed.cart").exists()
    cart.send(AddItem("x"))
    where()
    error = answer(where, Cart, 7, wrong)
    assert error["reason"] == "rejected"
    assert djactor.AskFailed(1, error).message.removeprefix("rejected: ") == words
    assert cart.state()["items"] == {"x": 1}


def test_an_async_class_takes_types_and_others(where):
    if where.name == "inside":
        pytest.skip("nothing is async there")
    wish = djactor.actor(AsyncWish, "a")
    wish.send(AddItem("x"))
    wish.send({"send": "y"})
    djactor.actor(Cart, 7).send(AddItem("y"))
    where()
    if where.name == "in the test":
        drain(until=timezone.now() + timedelta(seconds=1))
    until(lambda: len(wish.state()["seen"]) == 3)
    assert wish.state()["seen"] == [["x", 1], {"send": "y"}, ["of a timer", 1]]
    assert djactor.actor(Cart, 7).state()["items"] == {}
    assert answer(where, AsyncWish, "a", AddItem("z")) == {"sku": "z"}


def test_a_schedule_has_a_typed_message(where):
    djactor.actor(Wish, "a").schedule("later", payload=AddItem("late"), after="1 hour")
    djactor.actor(Wish, "a").run_now("later")
    where()
    djactor.actor(Wish, "a").unschedule("later")
    assert djactor.actor(Wish, "a").state()["seen"] == [["late", 1]]


def test_an_ask_is_typed(where):
    if where.name == "in the test":
        pytest.skip("nobody answers")
    assert djactor.actor(Cart, 7).ask(AddItem("x", 2), timeout=30) == {"n": 2}
    with pytest.raises(djactor.AskFailed, match="n: 'two' is not an int"):
        djactor.actor(Cart, 7).ask({"@type": "AddItem", "sku": "x", "n": "two"}, timeout=30)
