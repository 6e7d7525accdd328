"""The models: sending is a plain insert, states are queried with the ORM."""

import asyncio
import copy
import datetime
import decimal
import pickle
import uuid
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import DatabaseError, NotSupportedError, OperationalError, connection, transaction
from django.db.models import (
    Count,
    DateTimeField,
    Exists,
    F,
    FilteredRelation,
    OuterRef,
    Q,
    Subquery,
    TextField,
)
from django.db.models.functions import Cast
from django.db.models.signals import post_init, post_save, pre_save
from django.test.utils import CaptureQueriesContext

import djactor
from djactor.admin import live
from djactor.admin.display import duration
from djactor.models import (
    Actor,
    ActorType,
    DeadLetter,
    Mailbox,
    Message,
    Reply,
    Stat,
    Timer,
    Worker,
)
from djactor.test import drain, reset, wait_idle
from shop.models import Product, Sale, Ticket
from waiting import until

TYPE = "shop.counter"


def test_create_is_one_insert_of_what_a_sender_may_write(paused):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        message = Message.objects.create(actor_type=TYPE, actor_key=7, payload={"add": 1})
    (query,) = queries.captured_queries
    assert query["sql"].startswith('INSERT INTO "djactor"."message"')
    assert "trace_id" not in query["sql"].partition("RETURNING")[0]
    assert "sender" not in query["sql"]
    assert message.pk > 0
    assert isinstance(message.trace_id, uuid.UUID)
    assert message.sent_at <= datetime.datetime.now(datetime.timezone.utc)
    assert message.kind == "user"


def columns_of(message):
    return {
        field.attname: getattr(message, field.attname) for field in message._meta.concrete_fields
    }


@pytest.fixture
def receiver():
    """A receiver of all of Django's signals of messages that reads all fields."""
    seen = []

    def read(sender, instance, signal, **kwargs):
        seen.append((signal, columns_of(instance)))

    signals = (post_init, pre_save, post_save)
    for signal in signals:
        signal.connect(read, sender=Message)
    yield seen
    for signal in signals:
        signal.disconnect(read, sender=Message)


def test_who_has_sent_knows_all_fields_without_a_query(paused, receiver):
    with CaptureQueriesContext(connection) as queries:
        message = Message.objects.create(actor_type=TYPE, actor_key="7", payload={"add": 1})
        copy = pickle.loads(pickle.dumps(message))
        many = Message.objects.bulk_create(
            [Message(actor_type=TYPE, actor_key=key) for key in "abc"]
        )
        after = [columns_of(each) for each in (message, copy, *many)]
    asked = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert asked == ["SELECT djactor.current_trace(), now()"]  # once for many
    stored = [columns_of(Message.objects.get(pk=each["id"])) for each in after]
    assert after == stored
    assert receiver[2] == (post_save, stored[0])
    message.refresh_from_db()
    assert columns_of(message) == stored[0]


def test_a_message_that_is_gone_is_no_error_for_who_reads_its_fields(receiver):
    messages = []

    def handled_before(sender, instance, signal, **kwargs):
        wait_idle(60)
        messages.append(columns_of(instance))

    post_save.connect(handled_before, sender=Message)
    try:
        djactor.actor(TYPE, 1).send({"add": 1})
    finally:
        post_save.disconnect(handled_before, sender=Message)
    assert not Message.objects.exists()
    assert (messages[0]["kind"], messages[0]["attempts"]) == ("user", 0)


def test_a_message_that_was_sent_is_refreshed_as_any_other():
    with transaction.atomic():
        message = Message.objects.create(actor_type=TYPE, actor_key=1, payload={"add": "no number"})
        drain(on_error="retry")
        assert message.attempts == 0
        message.refresh_from_db()
        assert message.attempts == 1
        assert "invalid input syntax" in message.last_error
        transaction.set_rollback(True)


def test_fields_left_out_of_a_message_that_is_gone_are_none(paused):
    djactor.actor(TYPE, 1).send({"add": 1})
    waiting = Message.objects.defer("sent_at", "attempts").get()
    assert waiting.attempts == 0
    waiting.cancel()
    assert waiting.sent_at is None
    with pytest.raises(Message.DoesNotExist):
        waiting.refresh_from_db()


def test_a_sender_needs_few_rights(project, paused):
    project.sql(
        "GRANT INSERT (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at,"
        " trace_id, idempotency_key, wants_reply), SELECT (id, trace_id, sent_at)"
        " ON djactor.message TO guest",
        "shop",
    )
    try:
        message = Message.objects.using("guest").create(actor_type=TYPE, actor_key="1")
        assert columns_of(message) == columns_of(Message.objects.get())
    finally:
        project.sql("REVOKE ALL ON djactor.message FROM guest", "shop")
        project.sql(
            "REVOKE ALL (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at,"
            " trace_id, idempotency_key, wants_reply, id, sent_at) ON djactor.message FROM guest",
            "shop",
        )


def test_workers_handle_what_is_committed():
    Message.objects.create(actor_type=TYPE, actor_key=7, payload={"add": 3})
    wait_idle(60)
    assert Actor.objects.get(actor_type=TYPE, actor_key=7).state == {"n": 3}
    assert Sale.objects.get().amount == 3
    assert not Message.objects.exists()


def test_acreate_sends():
    asyncio.run(Message.objects.acreate(actor_type=TYPE, actor_key="8", payload={"add": 2}))
    wait_idle(60)
    assert djactor.actor(TYPE, 8).state() == {"n": 2}


def test_bulk_create_is_one_statement_for_many():
    mail = [Message(actor_type=TYPE, actor_key=i % 10, payload={"add": 1}) for i in range(1000)]
    with CaptureQueriesContext(connection) as queries:
        Message.objects.bulk_create(mail)
    assert sum(query["sql"].startswith("INSERT") for query in queries.captured_queries) == 1
    assert len({message.pk for message in mail}) == 1000
    wait_idle(60)
    assert [actor.state["n"] for actor in Actor.objects.all()] == [100] * 10
    assert Sale.objects.count() == 1000


def test_what_is_rolled_back_was_never_sent():
    with transaction.atomic():
        djactor.actor(TYPE, 1).send({"add": 1})
        Sale.objects.create(product=1, amount=1)
        transaction.set_rollback(True)
    wait_idle(60)
    assert not Actor.objects.exists()
    assert not Sale.objects.exists()


def test_a_message_is_neither_changed_nor_sent_twice_nor_deleted(paused):
    message = Message.objects.create(actor_type=TYPE, actor_key=1)
    message.payload = {"add": 5}
    with pytest.raises(djactor.MessageSent, match=f"message {message.pk} has been sent"):
        message.save()
    with pytest.raises(djactor.MessageSent, match="cancel"):
        message.delete()
    assert Message.objects.get().payload == {}


def test_cancel_takes_back_what_waits(paused):
    message = Message.objects.create(actor_type=TYPE, actor_key=1)
    assert message.cancel() is True
    assert message.cancel() is False
    assert not Message.objects.exists()


def test_states_are_found_by_json_lookups():
    for key in range(5):
        djactor.actor(TYPE, key).send({"add": key})
    wait_idle(60)
    assert Actor.objects.get(state__n=3).actor_key == "3"
    assert Actor.objects.filter(state__n__gte=2).count() == 3
    assert Actor.objects.filter(state__has_key="n").count() == 5


def test_a_state_may_be_written_and_an_actor_not_be_made_by_hand():
    djactor.actor(TYPE, 1).send({"add": 1})
    wait_idle(60)
    actor = Actor.objects.get()
    actor.state = {"n": 10}
    actor.turns = 99
    actor.save()
    djactor.actor(TYPE, 1).send({"add": 1})
    wait_idle(60)
    actor.refresh_from_db()
    assert (actor.state, actor.turns) == ({"n": 11}, 2)
    with pytest.raises(djactor.DjactorError, match="send a message"):
        Actor(actor_type=TYPE, actor_key="2").save()


def test_a_state_that_has_changed_since_is_not_overwritten_unless_that_is_meant():
    counter = djactor.actor(TYPE, 1)
    counter.ask({"add": 1}, timeout=60)
    actor = Actor.objects.get()
    again = pickle.loads(pickle.dumps(actor))
    later = Actor.objects.defer("state").get()
    counter.ask({"add": 1}, timeout=60)
    for stale in (actor, again):
        stale.state["n"] += 10
        with pytest.raises(djactor.StateChanged, match="has had turns since"):
            stale.save()
    with pytest.raises(djactor.StateChanged):
        asyncio.run(again.asave())
    assert counter.state() == {"n": 2}
    later.state["n"] += 10  # is read now
    later.save()
    later.state["n"] += 1
    later.save()
    assert counter.state() == {"n": 13}
    actor.save(force=True)
    assert counter.state() == {"n": 11}
    asyncio.run(again.asave(force=True))
    actor.refresh_from_db()
    actor.state = {"n": 20}
    actor.save()
    assert counter.ask({"add": 1}, timeout=60) == {"n": 21}


def test_who_has_not_read_an_actors_turns_cannot_tell_whether_its_state_is_old():
    counter = djactor.actor(TYPE, 1)
    counter.ask({"add": 1}, timeout=60)
    actor = Actor.objects.only("state").get()
    with pytest.raises(djactor.StateChanged, match="without its turns"):
        actor.save()
    actor.state = {"n": 5}
    actor.save(force=True)
    assert counter.state() == {"n": 5}
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.stop_actor(%s, '1')", [TYPE])
    for force in (False, True):
        actor = actor if force else Actor(**{"id": actor.pk})
        actor._state.adding, actor._turns_read = False, 1
        actor.state = {"n": 6}
        with pytest.raises(djactor.StateChanged, match="or has stopped"):
            actor.save(force=force)


def test_mail_and_dead_letters_join_their_actor():
    djactor.actor(TYPE, 1).send({"add": 4})
    wait_idle(60)
    djactor.actor(TYPE, 1).send({"fail": True})
    wait_idle(60)
    letter = DeadLetter.objects.select_related("actor").get(actor__state__n=4)
    assert letter.reason == "rejected"
    assert letter.actor.state == {"n": 4}
    assert Actor.objects.annotate(dead=Count("dead_letters")).get().dead == 1
    assert Actor.objects.filter(dead_letters__reason="rejected").exists()
    assert not Actor.objects.filter(messages__isnull=False).exists()


def test_a_model_of_ones_own_joins_its_actor_both_ways():
    for number in (1, 2, 3):
        Product.objects.create(name=f"product {number}", number=number)
        djactor.actor(TYPE, number).send({"add": 10 * number})
    Product.objects.create(name="never sold", number=4)
    wait_idle(60)
    assert Product.objects.get(counter__state__n__gt=20).name == "product 3"
    assert Product.objects.get(counter__id__isnull=True).counter is None
    with CaptureQueriesContext(connection) as queries:
        products = Product.objects.select_related("counter").order_by("number")
        states = [product.counter and product.counter.state["n"] for product in products]
    assert (states, len(queries)) == ([10, 20, 30, None], 1)
    with CaptureQueriesContext(connection) as queries:
        actors = Actor.objects.prefetch_related("products").order_by("actor_key")
        names = [[product.name for product in actor.products.all()] for actor in actors]
    assert (names, len(queries)) == ([["product 1"], ["product 2"], ["product 3"]], 2)
    assert Product.objects.get(number=2).counter.products.get().number == 2
    assert Actor.objects.get(products__name="product 2").state == {"n": 20}


@pytest.fixture
def related():
    """Counters 1 and 2 with products and tickets of the same numbers; 3 has no actor, 4 no rows."""
    for key in (1, 2, 4):
        djactor.actor(TYPE, key).ask({"add": key})
    for key in (1, 2, 3):
        Product.objects.create(name=f"product {key}", number=key)
        Ticket.objects.create(actor_type=TYPE, actor_key=key, kind=TYPE)


ALL = ["1", "2", "4"]
# by the way back from Actor; "x" is the way
EXCLUDED = [
    (lambda x: Q((f"{x}__actor_key", "2")), ["1", "4"]),
    (lambda x: Q((f"{x}__id__gt", 0)), ["4"]),
    (lambda x: Q((f"{x}__id", -1)), ALL),
    (lambda x: Q((x, None)), ["1", "2"]),
    (lambda x: Q((f"{x}__isnull", True)), ["1", "2"]),
    (lambda x: Q((f"{x}__isnull", False)), ["4"]),
    (lambda x: Q((f"{x}__id__gt", F("turns") - 1)), ["4"]),
    (lambda x: Q((f"{x}__actor_type", TYPE)), ["4"]),
    (lambda x: Q((f"{x}__actor_type", F("actor_type"))), ["4"]),
    (lambda x: Q((f"{x}__actor_type", "other")), ALL),
    (lambda x: Q((f"{x}__actor_key", "2"), state__n=2), ["1", "4"]),
    (lambda x: Q((f"{x}__actor_key", "2"), state__n=1), ALL),
    (lambda x: Q((f"{x}__actor_key", "2")) | Q(state__n=4), ["1"]),
    (lambda x: Q((f"{x}__counter__state__n", 2)), ["1", "4"]),
    (lambda x: Q((f"{x}__counter__products__name", "product 2")), ["1", "4"]),
]


@pytest.mark.parametrize("number", range(len(EXCLUDED)))
@pytest.mark.parametrize("way", ["products", "tickets"])
def test_actors_are_excluded_by_what_names_them(related, way, number):
    q, left = EXCLUDED[number]
    actors = Actor.objects.filter(actor_type=TYPE).order_by("actor_key")
    assert [actor.actor_key for actor in actors.exclude(q(way))] == left
    assert [actor.actor_key for actor in actors.filter(~q(way))] == left
    assert actors.exclude(q(way)).count() == len(left)
    inside = Actor.objects.filter(pk__in=actors.exclude(q(way)))
    assert sorted(actor.actor_key for actor in inside) == left
    assert Actor.objects.filter(
        Exists(actors.exclude(q(way)).filter(pk=OuterRef("pk")))
    ).count() == len(left)


def test_exclude_and_filter_speak_of_the_same_row(related):
    Ticket.objects.create(actor_type=TYPE, actor_key=1, kind="other")
    actors = Actor.objects.order_by("actor_key")
    other = actors.filter(Q(tickets__actor_type=TYPE) & ~Q(tickets__kind=TYPE))
    assert [actor.actor_key for actor in other] == ["1"]
    none = actors.filter(tickets__actor_type=TYPE).exclude(tickets__kind=TYPE)
    assert not none.exists()


REFUSED = [
    lambda: Actor.objects.exclude(stubs__actor_key="2"),  # types of two collations
    lambda: Product.objects.exclude(counter__products__name="product 2"),
    lambda: Product.objects.exclude(counter__products=None),
    lambda: Ticket.objects.exclude(counter__products__name="product 2"),
    lambda: Message.objects.exclude(actor__messages__priority=1),
    lambda: Message.objects.exclude(actor__products=None),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_django_would_exclude_by_the_type_alone_is_refused(related, number):
    with pytest.raises(NotSupportedError, match=r"Exists\(.*OuterRef\(.pk.\)"):
        REFUSED[number]().count()


@pytest.mark.parametrize(("way", "back"), [("counter", "tickets"), ("also", "stubs")])
def test_a_model_joins_its_actor_whatever_its_collation(related, way, back):
    def q(rest, value):
        return Q((f"{way}__{rest}", value))

    second = Ticket.objects.get(q("state__n", 2))
    assert second.actor_key == "2"
    actor = getattr(second, way)
    assert actor.state == {"n": 2}
    assert getattr(actor, back).get() == second
    assert getattr(Ticket.objects.get(q("id__isnull", True)), way) is None
    assert Ticket.objects.exclude(q("id__isnull", True)).count() == 2
    assert Ticket.objects.exclude(q("state__n", 2)).filter(q("id__isnull", False)).count() == 1
    for tickets in (Ticket.objects.select_related(way), Ticket.objects.prefetch_related(way)):
        states = [getattr(ticket, way) for ticket in tickets.order_by("actor_key")]
        assert [state and state.state["n"] for state in states] == [1, 2, None]
    assert Actor.objects.get(Q((back, second))).actor_key == "2"
    assert Actor.objects.get(Q((f"{back}__id", second.pk))).actor_key == "2"
    actors = Actor.objects.filter(state__n=2)
    for those in (actors, list(actors)):
        assert Ticket.objects.get(Q((f"{way}__in", those))) == second
    assert Ticket.objects.get(Q((way, actor))) == second
    assert Ticket.objects.exclude(Q((f"{way}__in", actors))).count() == 2
    counted = Actor.objects.annotate(n=Count(back)).order_by("actor_key")
    assert [actor.n for actor in counted] == [1, 1, 0]
    with_back = Actor.objects.prefetch_related(back).order_by("actor_key")
    assert [len(getattr(actor, back).all()) for actor in with_back] == [1, 1, 0]
    second_of_all = FilteredRelation(back, condition=Q((f"{back}__actor_key", "2")))
    assert Actor.objects.annotate(theirs=second_of_all).filter(theirs__isnull=False).count() == 1
    assert Ticket.objects.filter(q("state__n", 2)).update(kind="other") == 1
    assert Ticket.objects.filter(q("state__n", 1)).delete()[0] == 1


def test_only_other_collations_are_named_in_a_join():
    assert "COLLATE" not in str(Product.objects.filter(counter__turns=1).query)
    assert str(Ticket.objects.filter(counter__turns=1).query).count("COLLATE") == 1
    assert str(Ticket.objects.filter(also__turns=1).query).count("COLLATE") == 2


def test_a_state_is_had_without_a_relation_too():
    Sale.objects.create(product=7, amount=0)
    djactor.actor(TYPE, 7).ask({"add": 5})
    state = Actor.objects.filter(
        actor_type=TYPE, actor_key=Cast(OuterRef("product"), TextField())
    ).values("state__n")
    assert Sale.objects.annotate(n=Subquery(state)).filter(amount=5).get().n == 5


def test_async_methods_do_the_same():
    async def use():
        sent = await Message.objects.abulk_create(
            [Message(actor_type=TYPE, actor_key=5, payload={"add": 1}) for _ in range(3)]
        )
        assert all(message.pk for message in sent)
        assert await djactor.actor(TYPE, 5).asend({"add": 1}) > sent[-1].pk
        await sync_to_async(wait_idle)(60)
        actor = await Actor.objects.aget(actor_type=TYPE, actor_key=5)
        assert actor.state == {"n": 4}
        assert await djactor.actor(TYPE, 5).astate() == {"n": 4}
        actor.state = {"n": 7}
        await actor.asave()
        assert [each.state async for each in Actor.objects.filter(state__n=7)] == [{"n": 7}]
        with pytest.raises(djactor.MessageSent):
            await sent[0].asave()
        with pytest.raises(djactor.MessageSent):
            await sent[0].adelete()

    asyncio.run(use())


@pytest.mark.parametrize("key", ["plain", 42, uuid.UUID(int=5)])
def test_keys_are_text_and_ints_and_uuids_become_it(paused, key):
    djactor.actor(TYPE, key).send()
    Message.objects.create(actor_type=TYPE, actor_key=key)
    assert Message.objects.filter(actor_key=key).count() == 2
    assert {message.actor_key for message in Message.objects.all()} == {str(key)}


@pytest.mark.parametrize(
    ("key", "error"), [(1.5, TypeError), (True, TypeError), (None, TypeError), ("", ValueError)]
)
def test_other_keys_are_refused(key, error):
    with pytest.raises(error, match="an actor's key"):
        djactor.actor(TYPE, key)


def test_dates_decimals_and_uuids_become_strings(paused):
    djactor.actor(TYPE, 1).send(
        {
            "price": decimal.Decimal("9.990"),
            "at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
            "id": uuid.UUID(int=1),
        }
    )
    assert Message.objects.get().payload == {
        "price": "9.990",
        "at": "2026-01-02T03:04:05Z",
        "id": str(uuid.UUID(int=1)),
    }


def test_decimals_and_dates_come_back_through_the_fields_that_they_came_from(paused):
    price, at = decimal.Decimal("9.990"), datetime.datetime.now(datetime.timezone.utc)
    djactor.actor(TYPE, 1).send({"price": price, "at": at})
    payload = Message.objects.get().payload
    assert decimal.Decimal(payload["price"]) == price
    assert DateTimeField().to_python(payload["at"]) == at.replace(
        microsecond=at.microsecond // 1000 * 1000  # Django's JSON has milliseconds
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT (payload->>'price')::numeric FROM djactor.message")
        assert cursor.fetchone()[0] == price


@pytest.mark.parametrize(
    ("payload", "error", "words"),
    [
        ({"a": {1, 2}}, TypeError, "a payload cannot hold set"),
        ({"a": float("nan")}, ValueError, "not JSON compliant"),
        ({"a": object()}, TypeError, "a payload cannot hold object"),
    ],
)
def test_what_json_cannot_hold_is_refused(payload, error, words):
    with pytest.raises(error, match=words):
        djactor.actor(TYPE, 1).send(payload)
    assert not Message.objects.exists()


def test_an_unknown_type_is_the_servers_to_refuse():
    with pytest.raises(DatabaseError, match=r"shop\.nothing") as raised:
        djactor.actor("shop.nothing", 1).send()
    assert raised.value.__cause__.sqlstate == "42704"


def test_an_actor_is_erased_with_the_transaction(paused):
    actor = djactor.actor(TYPE, 1)
    actor.send({"add": 1})
    djactor.actor(TYPE, 2).send({"add": 1})
    with transaction.atomic():
        assert actor.erase()["message"] == 1
        assert Message.objects.get().actor_key == "2"
        transaction.set_rollback(True)
    assert asyncio.run(actor.aerase()) == {
        "actor": 0,
        "actor_identity": 0,
        "message": 1,
        "timer": 0,
        "watch": 0,
        "dead_letter": 0,
        "reply": 0,
        "idempotency": 0,
        "journal": 0,
    }
    assert Message.objects.get().actor_key == "2"
    with pytest.raises(djactor.UnknownActorType):
        djactor.actor("shop.nothing", 1).erase()


def test_options_of_send_are_columns(paused):
    actor = djactor.actor(TYPE, 1)
    actor.send({"add": 1}, delay=datetime.timedelta(hours=1), priority=3, idempotency_key="once")
    message = Message.objects.get()
    later = message.deliver_at - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(minutes=59) < later < datetime.timedelta(minutes=61)
    assert (message.priority, message.idempotency_key) == (3, "once")
    with pytest.raises(ValueError, match="not negative"):
        actor.send(delay=datetime.timedelta(seconds=-1))
    with pytest.raises(TypeError):
        actor.send(no_such_option=1)


def test_messages_with_a_coalesce_key_are_merged():
    actor = djactor.actor(TYPE, 1)
    with transaction.atomic():
        for n in (1, 2, 3):
            actor.send({"add": n}, coalesce_key="k")
            actor.send({"add": 10 * n}, coalesce_key="l", coalesce_mode="keep", wants_reply=n == 2)
        Message.objects.bulk_create(
            [
                Message(actor_type=TYPE, actor_key="2", payload={"add": n}, coalesce_key=key)
                for n, key in enumerate(["k", None, "k"])
            ]
        )
        assert Message.objects.filter(coalesce_key="k", coalesce_mode=None).count() == 5
    wait_idle(60)
    assert actor.state() == {"n": 13}
    assert djactor.actor(TYPE, 2).state() == {"n": 3}
    assert Stat.objects.get(actor_type=TYPE).coalesced >= 5
    assert Reply.objects.count() == 1
    assert actor.ask({"add": 1}, coalesce_key="k") == {"n": 14}
    assert asyncio.run(actor.aask({"add": 1}, coalesce_key="k", coalesce_mode="keep")) == {"n": 15}


def test_debounce_puts_a_message_off(paused):
    actor = djactor.actor(TYPE, 1)
    minute = datetime.timedelta(minutes=1)
    actor.send({"add": 1}, coalesce_key="k", debounce=minute, debounce_limit=5 * minute)
    message = Message.objects.get()
    now = datetime.datetime.now(datetime.timezone.utc)
    assert (message.coalesce_key, message.coalesce_mode) == ("k", "debounce")
    assert 0 <= (message.deliver_at - now).total_seconds() <= 60
    assert message.coalesce_until - message.deliver_at == 4 * minute
    for wrong in (
        {"debounce": minute},
        {"debounce": -minute},
        {"debounce": 60},
        {"debounce_limit": minute},
        {"debounce": minute, "debounce_limit": minute / 2},
        {"debounce": minute, "delay": minute},
        {"debounce": minute, "coalesce_mode": "keep"},
    ):
        with pytest.raises(ValueError, match="debounce"):
            actor.send(**({"coalesce_key": "k"} if len(wrong) > 1 else {}), **wrong)
    with pytest.raises(DatabaseError, match="coalesce_mode") as raised:
        actor.send(coalesce_key="k", coalesce_mode="last")
    assert raised.value.__cause__.sqlstate == "22023"


def test_every_table_and_view_has_a_model():
    djactor.actor(TYPE, 1).send({"add": 1})
    wait_idle(60)
    for model in (ActorType, DeadLetter, Mailbox, Message, Reply, Stat, Timer, Worker):
        list(model.objects.all())  # all columns exist
    assert ActorType.objects.get().backoff == datetime.timedelta(milliseconds=50)
    until(Stat.objects.filter(actor_type=TYPE, handled__gt=0).exists)  # counted after the commit
    assert Worker.objects.exists()


def test_views_have_no_column_that_their_model_does_not_know():
    for model in (Mailbox, Stat, Worker):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {model._meta.db_table} LIMIT 0")
            columns = {column.name for column in cursor.description}
        assert columns == {field.column for field in model._meta.concrete_fields}


def test_drain_is_part_of_the_transaction():
    with transaction.atomic():
        djactor.actor(TYPE, 1).send({"add": 1})
        djactor.actor(TYPE, 1).send({"add": 2})
        assert drain() == 2
        assert djactor.actor(TYPE, 1).state() == {"n": 3}
        transaction.set_rollback(True)
    assert djactor.actor(TYPE, 1).state() is None
    assert not Sale.objects.exists()


@pytest.fixture
def small_mailbox(paused):
    def limit(to):
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT djactor.define_actor_type(%s, 'counter_handle', initial_state => '{"n": 0}',
                    backoff => '50 ms', max_attempts => 3, mailbox_limit => %s)""",
                [TYPE, to],
            )

    limit(3)
    yield
    limit(None)


def test_a_full_mailbox_says_so_whichever_way_is_sent(small_mailbox):
    mail = [Message(actor_type=TYPE, actor_key=1, payload={"add": 1}) for _ in range(4)]
    with pytest.raises(djactor.MailboxFull, match="is full") as raised:
        Message.objects.bulk_create(mail)
    assert isinstance(raised.value, DatabaseError)
    assert not Message.objects.exists()  # all or none

    for _ in range(3):
        djactor.actor(TYPE, 1).send({"add": 1})
    with pytest.raises(djactor.MailboxFull):
        djactor.actor(TYPE, 1).send({"add": 1})
    with pytest.raises(djactor.MailboxFull):
        djactor.actor(TYPE, 1).ask({"add": 1})
    with pytest.raises(djactor.MailboxFull):
        asyncio.run(Message.objects.abulk_create([Message(actor_type=TYPE, actor_key=1)]))
    djactor.actor(TYPE, 2).send({"add": 1})  # each has a mailbox of its own


def test_another_error_of_that_class_is_not_taken_for_a_full_mailbox():
    raise_it = "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53400'; END $$"
    with pytest.raises(OperationalError) as raised:
        connection.cursor().execute(raise_it)
    assert not isinstance(raised.value, djactor.MailboxFull)


def test_numbers_that_are_too_large_for_python_come_back_as_they_were(paused):
    whole, real = "-" + "7" * 5000, "8" * 400 + ".25"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT djactor.send(%s, '1', %s::jsonb, headers => %s::jsonb)",
            [TYPE, f'{{"n": [{whole}, {real}, 1, 1.5]}}', f'{{"n": {whole}}}'],
        )
    message = Message.objects.get()
    assert message.payload == {"n": [Decimal(whole), Decimal(real), 1, 1.5]}
    names = ["JSONNumber", "JSONNumber", "int", "float"]
    assert [type(n).__name__ for n in message.payload["n"]] == names
    assert message.headers == {"n": Decimal(whole)}
    assert Message.objects.values_list("payload__n__0", flat=True).get() == Decimal(whole)
    djactor.actor(TYPE, 2).send(message.payload)  # as numbers again, unlike other Decimals
    djactor.actor(TYPE, 3).send({"n": Decimal(whole)})
    sent = Message.objects.filter(actor_key__gt="1").order_by("id")
    assert [row.payload for row in sent] == [message.payload, {"n": whole}]
    assert copy.deepcopy(message.payload) == pickle.loads(pickle.dumps(message.payload))


def test_a_state_with_a_large_number_is_read_and_written():
    djactor.actor(TYPE, 1).ask({"add": 1})
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE djactor.actor SET state = '{"n": 1, "big": %s}'""" % ("9" * 131_000)
        )
    actor = Actor.objects.get()
    actor.state["n"] = 2
    actor.save()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT jsonb_typeof(state->'big'), length(state->>'big') FROM djactor.actor"
        )
        assert cursor.fetchone() == ("number", 131_000)
    assert djactor.actor(TYPE, 1).state()["n"] == 2


@pytest.fixture
def monthly(fresh):
    """A type whose intervals have months, and whose actors have a monthly timer."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE FUNCTION monthly(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS
                $$ SELECT djactor.set_timer('fee', every => '1 mon 1 day 02:00') $$;
            SELECT djactor.define_actor_type('shop.monthly', 'monthly', journal => '1 mon 2 days',
                backoff_max => '1 year 3 mons 25:00:00.5', initial_state => '{"n": [%s, 1.50]}')"""
            % ("9" * 5000)
        )
        yield cursor
        cursor.execute("SELECT djactor.drop_actor_type('shop.monthly', discard => true)")
        cursor.execute("DROP FUNCTION monthly(jsonb, jsonb)")


def test_reset_keeps_definitions_to_the_letter(monthly):
    def definition():
        monthly.execute("SELECT t::text FROM djactor.actor_type t WHERE name = 'shop.monthly'")
        return monthly.fetchone()

    monthly.execute("SELECT djactor.pause('shop.monthly')")
    before = definition()
    reset()
    assert definition() == before


def test_months_are_no_days(monthly):
    djactor.actor("shop.monthly", 1).send()
    wait_idle(60, "shop.monthly")
    every = Timer.objects.get().every
    assert (str(every), every.months) == ("1 mon 1 day, 2:00:00", 1)
    assert every.rest == datetime.timedelta(days=1, hours=2)
    assert every == datetime.timedelta(days=31, hours=2)
    again = pickle.loads(pickle.dumps(every))
    assert (str(again), again) == (str(every), every)
    assert [str(value) for value in Timer.objects.values_list("every", flat=True)] == [str(every)]
    assert Timer.objects.filter(every=datetime.timedelta(days=31, hours=2)).count() == 1
    kind = ActorType.objects.get(name="shop.monthly")
    assert str(kind.backoff_max) == "1 year 3 mons 1 day, 1:00:00.500000"
    assert type(kind.backoff) is datetime.timedelta
    assert [str(row["every"]) for row in live.timers("default")] == [str(every)]
    assert duration(every) == str(every)


def test_what_can_be_saved_is_clean(paused):
    Message(actor_type=TYPE, actor_key=1).full_clean()
    Product(name="product", number=1).full_clean()
    for key in ("", "k" * 513):
        with pytest.raises(ValidationError) as raised:
            Message(actor_type=TYPE, actor_key=key).full_clean()
        assert list(raised.value.message_dict) == ["actor_key"]
