"""Several databases: each has its own actors, and Django's routers decide as ever."""

import asyncio
import io

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connections, transaction
from django.test import override_settings

import djactor
from djactor.models import Actor, ActorType, DeadLetter, Message
from djactor.test import drain, reset, wait_idle

TYPE = "shop.counter"


@pytest.fixture(scope="module")
def other(project):
    """The alias ``other``: another database of the same server, with the same project."""
    project.createdb("other", owner="shop")
    connections.settings["other"] = connections.settings["default"] | {"NAME": "other"}
    connections.databases["other"] = connections.settings["other"]
    call_command("migrate", database="other", verbosity=0)
    yield "other"
    connections["other"].close()
    del connections.settings["other"]
    project.sql("DROP DATABASE other")


@pytest.fixture
def clean(other):
    yield other
    reset(using=other)


def test_each_database_has_its_own_actors(clean):
    assert djactor.actor(TYPE, 1, using="other").ask({"add": 5}) == {"n": 5}
    assert djactor.actor(TYPE, 1).ask({"add": 1}) == {"n": 1}
    assert Actor.objects.using("other").get().state == {"n": 5}
    message = Message.objects.using("other").create(actor_type=TYPE, actor_key=2)
    assert message._state.db == "other"
    wait_idle(60, using="other")
    assert Actor.objects.using("other").count() == 2
    assert Actor.objects.count() == 1


def test_async_answers_come_from_the_database_that_was_asked(clean):
    async def ask():
        answers = await asyncio.gather(
            djactor.actor(TYPE, 1, using="other").aask({"add": 5}, timeout=60),
            djactor.actor(TYPE, 1).aask({"add": 1}, timeout=60),
        )
        await sync_to_async(connections.close_all)()
        return answers

    assert asyncio.run(ask()) == [{"n": 5}, {"n": 1}]


def test_a_transaction_is_one_of_its_own_database(clean):
    with transaction.atomic(using="other"):
        djactor.actor(TYPE, 1, using="other").send({"add": 1})
        assert drain(using="other") == 1
        with pytest.raises(djactor.AskInTransaction):
            djactor.actor(TYPE, 1, using="other").ask()
        assert djactor.actor(TYPE, 1).ask({"add": 2}) == {"n": 2}
        transaction.set_rollback(True, using="other")
    assert djactor.actor(TYPE, 1, using="other").state() is None


def test_what_is_taken_back_is_so_in_its_own_database(clean):
    with connections["other"].cursor() as cursor:
        cursor.execute("SELECT djactor.pause(%s)", [TYPE])
        message = Message.objects.using("other").create(actor_type=TYPE, actor_key=2)
        assert Message.objects.using("other").get(pk=message.pk).cancel() is True
        cursor.execute("SELECT djactor.resume(%s)", [TYPE])


@override_settings(DJACTOR={"DATABASE": "other"}, DATABASE_ROUTERS=["djactor.router.DjactorRouter"])
def test_with_the_router_all_of_it_is_in_the_named_database(clean):
    assert djactor.actor(TYPE, 1).ask({"add": 1}) == {"n": 1}
    Message.objects.create(actor_type=TYPE, actor_key=1, payload={"add": 1})
    wait_idle(60)
    assert Actor.objects.get().state == {"n": 2}
    assert Actor.objects.db == "other"
    assert not Actor.objects.using("default").exists()
    out = io.StringIO()
    call_command("djactor_status", stdout=out)
    assert TYPE in out.getvalue()


@override_settings(DJACTOR={"DATABASE": "other"}, DATABASE_ROUTERS=["djactor.router.DjactorRouter"])
def test_with_the_router_other_databases_are_left_without_the_extension(clean, fresh):
    fresh.createdb("plain", owner="shop")
    connections.settings["plain"] = connections.settings["default"] | {"NAME": "plain"}
    try:
        call_command("migrate", "djactor", database="plain", verbosity=0)
        with pytest.raises(djactor.NotInstalled):
            ActorType.objects.using("plain").count()
    finally:
        connections["plain"].close()
        del connections.settings["plain"]
        fresh.sql("DROP DATABASE plain")


class ReplicaRouter:
    """Reads from a replica, as Django's manual has it."""

    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"

    def allow_relation(self, one, other, **hints):
        return True


@pytest.fixture
def replica():
    with override_settings(DATABASE_ROUTERS=[ReplicaRouter()]):
        yield
    connections["replica"].close()


def test_what_was_read_from_a_replica_is_written_where_routers_say(replica):
    djactor.actor(TYPE, 1).send({"fail": True})
    wait_idle(60)
    letter = DeadLetter.objects.get()
    assert letter._state.db == "replica"
    assert letter.redrive() == letter.pk
    wait_idle(60)
    letter = DeadLetter.objects.get()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT djactor.pause(%s)", [TYPE])
    try:
        assert letter.redrive() == letter.pk
        message = Message.objects.get()
        assert message._state.db == "replica"
        assert message.cancel() is True
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT djactor.resume(%s)", [TYPE])
    djactor.actor(TYPE, 1).send({"add": 1})
    wait_idle(60)
    actor = Actor.objects.get()
    actor.state = {"n": 7}
    actor.save()
    assert djactor.actor(TYPE, 1).state() == {"n": 7}


def test_what_was_read_by_another_alias_is_written_by_it(clean):
    with override_settings(DATABASE_ROUTERS=["djactor.router.DjactorRouter"]):
        djactor.actor(TYPE, 1, using="other").send({"fail": True})
        wait_idle(60, using="other")
        letter = DeadLetter.objects.using("other").get()
        assert letter.redrive() == letter.pk  # and not a letter of DJACTOR["DATABASE"]
        wait_idle(60, using="other")
        call_command("djactor_redrive", "--all", database="other", stdout=io.StringIO())
        wait_idle(60, using="other")
        assert DeadLetter.objects.using("other").count() == 1
