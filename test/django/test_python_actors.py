"""Python classes as actors, registered by a migration operation, run inside PostgreSQL."""

import pytest
from django.db import DatabaseError, connections

import djactor
from djactor.models import Actor, DeadLetter
from djactor.operations import DefinePythonActorType, DropActorType
from djactor.test import reset, wait_idle


def apply(*operations, alias="admin"):
    with connections[alias].schema_editor() as editor:
        for operation in operations:
            operation.database_forwards("shop", editor, None, None)


@pytest.fixture(scope="module")
def python(project):
    project.sql("CREATE EXTENSION IF NOT EXISTS djactor_python CASCADE", "shop")
    apply(
        DefinePythonActorType("shop.notification", "shop.actors.NotificationActor", owner="shop"),
        DefinePythonActorType("shop.closing", "shop.actors.Closing", owner="shop"),
    )
    yield
    apply(DropActorType("shop.notification", True), DropActorType("shop.closing", True))


def test_a_plain_class_runs_and_its_attributes_are_the_state(python):
    actor = djactor.actor("shop.notification", 7)
    assert actor.ask({"text": "a"}) == {"status": "ok", "count": 1}
    assert actor.ask({"text": "b"}) == {"status": "ok", "count": 2}
    assert actor.state() == {"user_id": 7, "messages": [{"text": "a"}, {"text": "b"}]}


def test_the_base_class_has_what_acts_on_the_turn(python):
    assert djactor.actor("shop.closing", "k").ask({}) == {"bye": True}
    wait_idle(60)
    assert not Actor.objects.filter(actor_type="shop.closing").exists()
    assert djactor.actor("shop.notification", 7).state()["messages"] == [{"from": "k"}]


def test_reset_keeps_the_class(python):
    djactor.actor("shop.notification", 7).ask({})
    reset()
    assert djactor.actor("shop.notification", 7).ask({}) == {"status": "ok", "count": 1}


def test_an_error_keeps_its_traceback(python):
    apply(
        DefinePythonActorType(
            "shop.closing", "djactor.python.PythonActor", max_attempts=1, owner="shop"
        )
    )
    djactor.actor("shop.closing", "k").send()
    wait_idle(60)
    letter = DeadLetter.objects.get()
    assert letter.error.startswith("NotImplementedError: PythonActor has no handle_message()")
    assert "Traceback" in letter.error


def test_a_class_that_is_not_there_is_refused(python):
    with pytest.raises(DatabaseError, match=r"shop\.actors\.Nobody cannot be used"):
        apply(DefinePythonActorType("shop.closing", "shop.actors.Nobody"))


def test_only_a_superuser_says_which_class(python):
    with pytest.raises(DatabaseError, match="permission denied"):
        apply(DefinePythonActorType("shop.mine", "shop.actors.Closing"), alias="default")


def test_the_class_itself_may_be_named():
    from shop.actors import NotificationActor

    assert DefinePythonActorType("t", NotificationActor).handler == "shop.actors.NotificationActor"


def test_outside_a_turn_the_methods_say_where_they_work():
    with pytest.raises(RuntimeError, match="inside a turn, in PostgreSQL"):
        djactor.PythonActor.send("shop.notification", 1)
