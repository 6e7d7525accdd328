"""System checks: each thing that is missing is found, and the hint says what to do."""

import pytest
from django.core.checks import run_checks
from django.db import connection
from django.test import override_settings

import djactor
from djactor import checks
from djactor.operations import CreateDjactor, DefineActorType
from elsewhere import elsewhere
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
    assert "has version 0.9, this app knows 1.0" in words and "UpdateDjactor" in words


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
    assert set(ids) == {"djactor.W009"}
    assert "Asia/Tokyo" in words and TYPE in words and f"TimeZone = '{ours}'" in words
