"""Hosted types and their hosts, as checks, commands and the admin show them."""

import re
from datetime import timedelta

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

import djactor
from djactor import declared, registry, status
from djactor.models import ActorType, Host
from djactor.operations import DefineActorType
from hosted_classes import Basket, Waiting, WithoutKey
from message_classes import AddItem, AsyncWish, Cart
from registering import drop, registered
from test_checks import found as found_by_checks
from test_commands import run
from waiting import until

TYPE = "shop.basket"


@pytest.fixture
def basket(fresh):
    with registered((Basket, TYPE, {"hosted": True})):
        call_command("migrate", verbosity=0)
        yield djactor.actor(TYPE, 7)


@pytest.fixture
def host(project):
    """Opens hosts, as processes do; they end with the test."""
    sessions = []

    def start(name="shop-1", types=(TYPE,), version="2027.1"):
        session = psycopg.connect(project.dsn("shop", "shop"), autocommit=True)
        sessions.append(session)
        session.execute(
            "SELECT djactor.host_open(%s::text[], %s, version => %s)", [list(types), name, version]
        )
        return session

    yield start
    for session in sessions:
        session.close()


@pytest.fixture
def browser(fresh):
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def found(databases=("default",)):
    """What the checks find, but for types of migrations that other tests have changed."""
    ids, words = found_by_checks(databases)
    return [one for one in ids if one != "djactor.I001"], words


def page(client, name, *arguments):
    response = client.get(reverse(f"admin:djactor_{name}", args=arguments))
    assert response.status_code == 200
    return response.content.decode()


# Checks


def test_a_type_that_is_hosted_by_nobody_is_found(basket, host):
    ids, words = found()
    assert ids == ["djactor.W011"]
    assert f"'{TYPE}' of the database 'default' is hosted by nobody" in words
    assert "Start manage.py djactor_worker" in words and "messages wait" not in words
    basket.send({})
    assert "hosted by nobody, and messages wait" in found()[1]
    session = host()
    assert found()[0] == []
    session.close()
    until(lambda: found()[0] == ["djactor.W011"])  # when the server has noticed


def test_in_a_test_run_nobody_hosts_and_that_is_no_news(basket, monkeypatch):
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    assert found()[0] == []
    basket.send({})
    assert found()[0] == ["djactor.W011"]


def test_a_paused_type_needs_no_host(basket):
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.pause(%s)", [TYPE])
    assert found()[0] == []


def test_a_class_that_cannot_be_found_is_told(fresh, host):
    try:
        with connection.schema_editor() as editor:
            DefineActorType(TYPE, "hosted_classes.Nobody", hosted=True).forwards("shop", editor)
        host()
        ids, words = found()
        assert ids == ["djactor.W012"]
        assert "hosted_classes" in words and "has no Nobody" in words
        with connection.schema_editor() as editor:
            DefineActorType(TYPE, hosted=True).forwards("shop", editor)
        assert "the database names no class" in found()[1]
        with connection.schema_editor() as editor:
            DefineActorType(TYPE, WithoutKey, hosted=True).forwards("shop", editor)
        assert "does not take the actor's key" in found()[1]
        with connection.schema_editor() as editor:
            DefineActorType(TYPE, Basket, hosted=True).forwards("shop", editor)
        assert found()[0] == []
    finally:
        drop(TYPE)


def test_a_registered_type_that_is_not_defined_is_found(fresh, host):
    with registered((Basket, TYPE, {"hosted": True, "max_attempts": 3})):
        ids, words = found()
        assert ids == ["djactor.W013"]
        assert "is not defined in the database 'default'" in words and "Run migrate" in words
        call_command("migrate", verbosity=0)
        host()
        assert found()[0] == []
        with connection.cursor() as cursor:
            cursor.execute("SELECT djactor.alter_actor_type(%s, max_attempts => 9)", [TYPE])
        ids, words = found()
        assert ids == ["djactor.I002"] and "differs: max_attempts" in words
        registry.unregister(TYPE)
        registry.register(Waiting, TYPE, hosted=True)
        ids, words = found()
        assert ids == ["djactor.W013"] and "differs: handler" in words


def test_a_class_that_only_a_superuser_may_define_is_told(fresh):
    with registered((Basket, TYPE, {})):
        ids, words = found()
    assert ids == ["djactor.W013"]
    assert declared.ONLY_SUPERUSERS in words and "migrate --database" in words


def test_wrong_classes_are_found_without_a_database(fresh):
    class Local(Basket):
        pass

    with registered(
        (WithoutKey, "shop.a", {"hosted": True}),
        (Waiting, "shop.b", {}),
        (Local, "shop.c", {"hosted": True}),
        (Basket, "shop.d", {"hosted": True, "upgrade_handler": "f"}),
        (Basket, "shop.e", {"hosted": True, "journal": 3}),
        (Basket, "shop.f", {"hosted": True}),
    ):
        ids, words = found([])
    assert ids == ["djactor.E006"] * 3 + ["djactor.E007"] * 2
    assert "inside a function" in words and "upgrade_handler" in words


class Doubtful(Basket):
    def handle_message(self, message: "OnlyForTypeCheckers"): ...  # noqa: F821


class TwoHandlers(Basket):
    @djactor.handles(AddItem)
    def one(self, message): ...

    @djactor.handles(AddItem)
    def two(self, message): ...


class UnknownType(Basket):
    def handle_message(self, message: timedelta): ...


def test_wrong_handlers_of_typed_messages_are_found(fresh):
    with registered(
        (TwoHandlers, "shop.a", {"hosted": True}),
        (UnknownType, "shop.b", {"hosted": True}),
        (AsyncWish, "shop.c", {}),
        (Doubtful, "shop.d", {"hosted": True}),
        (Cart, "shop.e", {}),
        (AsyncWish, "shop.f", {"hosted": True}),
    ):
        ids, words = found([])
    assert ids == ["djactor.E006"] * 3 + ["djactor.W016"]
    for said in (
        "TwoHandlers has two handlers of AddItem: one() and two()",
        "UnknownType.handle_message() takes timedelta, which is no dataclass",
        "the handlers of message_classes.AsyncWish are async",
        "Doubtful.handle_message() means nothing where the class is",
    ):
        assert said in words


@pytest.mark.parametrize("rate", ["0/min", "fast", "100", "1000001/s", "1/32 day", "1/0 s", 100])
def test_rates_that_cannot_be_are_found_without_a_database(fresh, rate):
    with registered(
        (Basket, "shop.a", {"hosted": True, "rate": rate}),
        (Basket, "shop.b", {"hosted": True, "rate": " 10 / 30 s"}),
    ):
        ids, words = found([])
    assert ids == ["djactor.E007"] and "rate" in words and "'shop.a'" in words


@pytest.mark.parametrize("option", ["rate_by", "fair_by"])
@pytest.mark.parametrize("value", ["tenant", "header:", "key:", "", 7])
def test_what_neither_rates_nor_turns_go_by_is_found(fresh, option, value):
    with registered((Basket, "shop.a", {"hosted": True, "rate": "1/s", option: value})):
        ids, words = found([])
    assert ids == ["djactor.E007"] and option in words


# Models, commands and pages


def test_a_host_is_a_row(basket, host):
    host("shop-1")
    row = Host.objects.get()
    assert (row.name, row.version, row.types, row.claims) == ("shop-1", "2027.1", [TYPE], 0)
    assert (row.role, row.state) == ("shop", "idle") and row.pid > 0
    assert row.lease_until > row.since
    assert str(row) == f"shop-1 {row.pid}"


def test_status_shows_hosts_and_who_has_none(basket, host):
    def line():
        (found,) = [one for one in run("djactor_status").splitlines() if one.startswith(TYPE)]
        return found

    assert line().endswith("  hosted by nobody")
    session = host("shop-1")
    assert line().endswith("  hosted")
    host("shop-2")
    assert line().endswith("  hosted by 2")
    lines = run("djactor_status").splitlines()
    at = next(number for number, one in enumerate(lines) if one.split()[:1] == ["host"])
    assert lines[at].split() == list(status._HOSTS)
    assert re.fullmatch(
        r" *\d+  shop-1 +2027\.1 +shop +idle .* 0 .* s +shop\.basket", lines[at + 1]
    )
    assert len(lines) == at + 3
    session.execute(
        "SELECT djactor.host_drain((SELECT id FROM djactor.host WHERE name = 'shop-1'))"
    )
    assert "draining" in run("djactor_top", count=1) and line().endswith("  hosted")


def test_the_live_page_shows_hosts_and_who_has_none(basket, host, browser):
    assert "hosted by nobody" in page(browser, "live")
    assert "data-hosting hidden" in page(browser, "live")
    basket.send({})
    (row,) = [
        row
        for row in browser.get(reverse("admin:djactor_live_data")).json()["types"]
        if row["name"] == TYPE
    ]
    assert (row["state"], row["note"], row["hosted"], row["hosts"]) == (
        "problem", "hosted by nobody", True, 0
    )  # fmt: skip
    host("shop-1")
    data = browser.get(reverse("admin:djactor_live_data")).json()
    (row,) = [row for row in data["types"] if row["name"] == TYPE]
    assert (row["state"], row["note"]) == ("running", "hosted")
    (row,) = data["hosts"]
    assert (row["name"], row["types"], row["state"], row["claims"]) == ("shop-1", [TYPE], "idle", 0)
    html = page(browser, "live")
    assert "<td>shop-1</td><td>2027.1</td>" in html and "data-hosting hidden" not in html


def test_the_pages_of_types_say_where_turns_run(basket, host, browser):
    html = page(browser, "actortype_changelist")
    assert "processes of Django" in html and "hosted by nobody" in html
    basket.send({})
    html = page(browser, "actortype_change", TYPE)
    assert "hosted by nobody, and messages wait" in html and "hosted_classes.Basket" in html
    host()
    assert "hosted by 1" in page(browser, "actortype_change", TYPE)
    assert "hosted" not in re.sub(
        r"Hosted", "", page(browser, "actortype_change", "shop.counter").split("State")[1][:200]
    )


def test_a_hosted_type_without_a_class_opens(fresh, browser):
    try:
        with connection.schema_editor() as editor:
            DefineActorType(TYPE, hosted=True).forwards("shop", editor)
        assert ActorType.objects.get(name=TYPE).handler is None
        assert TYPE in page(browser, "actortype_change", TYPE)
    finally:
        drop(TYPE)


def test_operations_define_hosted_types_and_go_back(fresh):
    inside = DefineActorType(TYPE, "counter_handle", initial_state={"n": 0})
    hosted = DefineActorType(TYPE, Basket, hosted=True, max_attempts=3, previous=inside)
    try:
        with connection.schema_editor() as editor:
            inside.forwards("shop", editor)
            hosted.forwards("shop", editor)
            row = ActorType.objects.get(name=TYPE)
            assert (row.hosted, row.handler, row.max_attempts) == (
                True, "hosted_classes.Basket", 3
            )  # fmt: skip
            hosted.backwards("shop", editor)
            row = ActorType.objects.get(name=TYPE)
            assert not row.hosted and "counter_handle" in row.handler
            inside.backwards("shop", editor)
        assert not ActorType.objects.filter(name=TYPE).exists()
    finally:
        drop(TYPE)
