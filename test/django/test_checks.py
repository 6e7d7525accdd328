"""System checks: each thing that is missing is found, and the hint says what to do."""

from importlib import import_module

import pytest
from django.core.checks import run_checks
from django.db import connection
from django.test import override_settings

import djactor
from djactor import checks
from djactor.models import Timer
from djactor.operations import CreateDjactor, DefineActorType, Schedule, Unschedule
from djactor.test import define_types
from elsewhere import elsewhere
from test_commands import run
from waiting import until

TYPE = "shop.counter"


def found(databases=("default",), **settings):
    """Ids of what the checks find, and all their words."""
    with override_settings(DJACTOR=settings):
        messages = run_checks(databases=list(databases))
    ours = [message for message in messages if message.id.startswith("djactor.")]
    assert all(message.hint for message in ours)
    return [message.id for message in ours], " ".join(f"{m.msg} {m.hint}" for m in ours)


def test_a_good_project_has_nothing_to_complain_about():
    assert run_checks(databases=["default"], include_deployment_checks=False) == []


def test_a_wrong_alias_is_found_without_a_database():
    ids, words = found([], DATABASE="actors")
    assert ids == ["djactor.E001"]
    assert "names the database 'actors'" in words and "Databases are default" in words


def test_a_database_of_another_kind_is_found():
    assert found([], DATABASE="lite")[0] == ["djactor.E002"]


def test_an_entry_that_nobody_knows_is_found():
    ids, words = found([], DATABSE="default")
    assert ids == ["djactor.W004"]
    assert "'DATABSE'" in words and "Known are DATABASE" in words


@pytest.mark.parametrize(
    "wrong", [{"LISTEN": "no"}, {"POLL_INTERVAL": "1"}, {"STREAM_INTERVAL": 0}, {"DATABASE": None}]
)
def test_a_value_of_another_kind_is_found(wrong):
    assert found([], **wrong)[0] == ["djactor.E005"]


@pytest.mark.parametrize("wrong", ["shop.nowhere.summary", "djactor.summaries.LIMIT", "", 7, None])
def test_a_setting_that_is_no_function_is_found(wrong):
    for name in ("STATE_SUMMARY", "MESSAGE_SUMMARY"):
        ids, words = found([], **{name: wrong})
        assert ids == ["djactor.E005"]
        assert f"settings.DJACTOR['{name}'] is no function" in words
    good = {"STATE_SUMMARY": "djactor.summaries.of_state", "MESSAGE_SUMMARY": str.format}
    assert found([], **good)[0] == []


def test_models_that_go_to_another_database_are_found():
    assert found([], DATABASE="admin")[0] == ["djactor.W005"]
    with override_settings(DATABASE_ROUTERS=["djactor.router.DjactorRouter"]):
        assert found([], DATABASE="admin")[0] == []


def test_a_server_that_cannot_be_reached_is_left_to_django():
    with elsewhere(HOST="/nowhere"):
        assert found()[0] == []


def test_a_database_without_the_extension_is_found(fresh):
    fresh.createdb("bare", owner="shop")
    with elsewhere(NAME="bare"):
        ids, words = found()
    fresh.sql("DROP DATABASE bare")
    assert ids == ["djactor.W001"]
    assert "Run migrate" in words


def test_an_extension_of_another_version_is_found(old):
    ids, words = found()
    assert ids == ["djactor.W002"]
    assert f"has version 0.9, this app knows {checks.VERSIONS[0]}" in words
    assert "UpdateDjactor" in words


def test_a_server_that_does_not_load_djactor_is_found(without_preload):
    with elsewhere(HOST=without_preload.host):
        ids, words = found()
    assert ids == ["djactor.E004"]
    assert "shared_preload_libraries" in words


def test_a_role_that_may_not_send_is_found():
    ids, words = found(["guest"], DATABASE="guest")
    assert "djactor.W003" in ids
    assert "GRANT INSERT and SELECT" in words


def test_mail_without_workers_is_found(without_workers, monkeypatch):
    monkeypatch.setattr(checks, "LONG", 0.0)
    with elsewhere(HOST=without_workers.host) as there:
        with there.schema_editor() as editor:
            CreateDjactor().forwards("shop", editor)
            editor.execute("CREATE TABLE shop_sale (product int, amount int)")
            DefineActorType(TYPE, "counter_handle", sql="counter.sql").forwards("shop", editor)
        assert found()[0] == []
        djactor.actor(TYPE, 1).send({"add": 1})
        ids, words = found()
    assert ids == ["djactor.W006"]
    assert "max_worker_processes" in words


def test_a_handler_that_is_gone_is_found():
    with connection.cursor() as cursor:
        cursor.execute("ALTER FUNCTION counter_handle(jsonb, jsonb) RENAME TO gone")
        try:
            djactor.actor(TYPE, 1).send({"add": 1})
            until(lambda: found()[0] == ["djactor.W008"])
            ids, words = found()
        finally:
            cursor.execute("ALTER FUNCTION gone(jsonb, jsonb) RENAME TO counter_handle")
    assert ids == ["djactor.W008"]
    assert "counter_handle" in words and "Repair the handler" in words


def test_a_type_whose_turns_see_another_time_zone_is_found():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('TimeZone')")
        ours = cursor.fetchone()[0]
        cursor.execute("SET TimeZone = 'Asia/Tokyo'")
        try:
            ids, words = found()
        finally:
            cursor.execute("SELECT set_config('TimeZone', %s, false)", [ours])
    assert set(ids) == {"djactor.W010"}
    assert "Asia/Tokyo" in words and TYPE in words and f"TimeZone = '{ours}'" in words


@pytest.fixture
def counter():
    """The type of shop's migration, as it says."""
    with connection.cursor() as cursor:
        yield cursor
        cursor.execute("SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type")
        assert define_types() == [TYPE]
    assert found() == ([], "")


def test_a_type_that_a_migration_has_defined_and_nobody_has_is_found(counter):
    counter.execute("SELECT djactor.drop_actor_type(%s, discard => true)", [TYPE])
    ids, words = found()
    assert ids == ["djactor.W009"]
    assert "'shop.counter', which the migration shop 0001_initial defines" in words
    assert "djactor_define --database default" in words
    with pytest.raises(djactor.UnknownActorType, match="djactor_define"):
        djactor.actor(TYPE, 1).send()
    with override_settings(MIGRATION_MODULES={"shop": None}):
        assert found()[0] == ["djactor.W009"]
        assert run("djactor_define") == "shop.counter\n1 defined\n"
        assert run("djactor_define") == "0 defined\n"
    assert djactor.actor(TYPE, 1).ask({"add": 1}) == {"n": 1}


def test_a_type_gets_its_schedules_back(counter, monkeypatch):
    migration = import_module("shop.migrations.0003_ticket").Migration
    nightly = Schedule(TYPE, 7, "nightly", cron="0 2 * * *")
    operations = [
        nightly,
        Schedule(TYPE, 7, "fee", every="1 mon"),
        Schedule(TYPE, 8, "nightly", cron="0 2 * * *"),
        Schedule(TYPE, 7, "nightly", cron="30 3 * * *", previous=nightly),
        Unschedule(TYPE, 7, "fee"),
        Schedule("shop.nothing", 7, "nightly", cron="0 2 * * *"),
    ]
    monkeypatch.setattr(migration, "operations", [*migration.operations, *operations])
    counter.execute("SELECT djactor.drop_actor_type(%s, discard => true)", [TYPE])
    assert define_types() == [TYPE]
    rules = Timer.objects.order_by("actor_key").values_list("actor_key", "name", "cron")
    assert list(rules) == [("7", "nightly", "30 3 * * *"), ("8", "nightly", "0 2 * * *")]
    djactor.actor(TYPE, 7).unschedule("nightly")
    assert define_types() == [] and Timer.objects.count() == 1  # an operator has ended it


def test_a_type_that_differs_from_its_migration_is_said(counter):
    for change in (
        "max_attempts => 3",
        "max_attempts => 4, backoff => '2 s'",
        "handler => 'other'",
    ):
        if "other" in change:
            counter.execute("CREATE FUNCTION other(jsonb, jsonb) RETURNS void LANGUAGE sql AS ''")
        counter.execute(f"SELECT djactor.alter_actor_type(%s, {change})", [TYPE])
        ids, words = found()
        if change == "max_attempts => 3":
            assert ids == []
    counter.execute("SELECT djactor.alter_actor_type(%s, 'counter_handle')", [TYPE])
    counter.execute("DROP FUNCTION other(jsonb, jsonb)")
    assert ids == ["djactor.I001"]
    assert "differs from the migration shop 0001_initial: max_attempts, backoff, handler" in words


def test_what_the_routers_keep_away_is_not_missed(counter):
    counter.execute("SELECT djactor.drop_actor_type(%s, discard => true)", [TYPE])
    with override_settings(DATABASE_ROUTERS=["test_checks.NothingOfShop"]):
        assert found()[0] == []
        assert define_types() == []


class NothingOfShop:
    """A router."""

    def allow_migrate(self, db, app_label, **hints):
        return app_label != "shop"


def test_migrations_that_are_not_applied_define_nothing(fresh):
    fresh.createdb("early", owner="shop")
    with elsewhere(NAME="early") as there:
        with there.schema_editor() as editor:
            CreateDjactor().forwards("djactor", editor)
        assert found()[0] == []
        there.close()
    fresh.sql("DROP DATABASE early")
