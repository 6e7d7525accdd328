"""Migration operations: forwards, backwards, as SQL, and what they refuse."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, migrations
from django.db.migrations.operations.base import Operation
from django.db.migrations.writer import MigrationWriter
from django.test import override_settings

import djactor
from djactor.fields import Interval
from djactor.models import ActorType, Timer
from djactor.operations import (
    CreateDjactor,
    DefineActorType,
    DefinePythonActorType,
    DropActorType,
    Schedule,
    Unschedule,
    UpdateDjactor,
)
from djactor.test import wait_idle
from elsewhere import elsewhere
from shop.actors import NotificationActor
from waiting import until

TYPE = "shop.counter"


class NotForUs:
    """A router."""

    def allow_migrate(self, db, app_label, **hints):
        return not hints.get("elsewhere")


def function_exists():
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regproc('counter_handle') IS NOT NULL")
        return cursor.fetchone()[0]


def apply(operation, backwards=False):
    with connection.schema_editor() as editor:
        do = operation.database_backwards if backwards else operation.database_forwards
        do("shop", editor, None, None)


def test_models_and_migrations_agree():
    call_command("makemigrations", "djactor", "shop", check_changes=True, dry_run=True, verbosity=0)


def test_a_type_goes_and_comes_back_with_its_migration():
    call_command("migrate", "shop", "zero", verbosity=0)
    assert not ActorType.objects.exists()
    assert not function_exists()
    call_command("migrate", "shop", verbosity=0)
    assert "counter_handle" in ActorType.objects.get().handler
    assert djactor.actor(TYPE, 1).ask({"add": 1}) == {"n": 1}


def test_going_back_is_refused_while_there_are_actors():
    djactor.actor(TYPE, 1).ask({"add": 1})
    with pytest.raises(DatabaseError, match=r"shop\.counter"):
        call_command("migrate", "shop", "zero", verbosity=0)
    call_command("migrate", "shop", verbosity=0)  # the later ones had gone already
    assert function_exists()
    assert djactor.actor(TYPE, 1).ask({"add": 1}) == {"n": 2}


def test_sqlmigrate_shows_the_definition():
    out = io.StringIO()
    call_command("sqlmigrate", "shop", "0001", stdout=out)
    assert "SELECT djactor.define_actor_type('shop.counter', 'counter_handle'" in out.getvalue()
    assert "CREATE OR REPLACE FUNCTION counter_handle" in out.getvalue()
    out = io.StringIO()
    call_command("sqlmigrate", "djactor", "0001", backwards=True, stdout=out)
    assert "DROP EXTENSION IF EXISTS djactor" in out.getvalue()


def test_dropping_the_extension_needs_a_word_while_messages_wait(paused):
    djactor.actor(TYPE, 1).send()
    with pytest.raises(djactor.DjactorError, match="would lose messages that wait"):
        apply(CreateDjactor(), backwards=True)
    assert ActorType.objects.exists()


def test_a_definition_is_changed_and_goes_back_to_the_one_before():
    before = DefineActorType(TYPE, "counter_handle", initial_state={"n": 0}, max_attempts=3)
    after = DefineActorType(TYPE, "counter_handle", initial_state={"n": 5}, previous=before)
    apply(after)
    assert djactor.actor(TYPE, 1).ask({"add": 1}) == {"n": 6}
    apply(after, backwards=True)
    assert djactor.actor(TYPE, 2).ask({"add": 1}) == {"n": 1}


def test_dropping_a_type_says_whether_its_actors_may_go():
    again = DefineActorType(
        TYPE,
        "counter_handle",
        initial_state={"n": 0},
        backoff=timedelta(milliseconds=50),
        max_attempts=3,
    )
    djactor.actor(TYPE, 1).send({"add": 1})
    wait_idle(60)
    with pytest.raises(DatabaseError, match=r"shop\.counter"):
        apply(DropActorType(TYPE))
    drop = DropActorType(TYPE, discard=True, previous=again)
    apply(drop)
    assert not ActorType.objects.exists()
    apply(drop, backwards=True)
    assert ActorType.objects.get().max_attempts == 3


def test_a_schedule_is_set_changed_and_goes_back_to_the_one_before():
    first = Schedule(TYPE, 7, "nightly", cron="0 2 * * *", payload={"add": 1})
    second = Schedule(TYPE, 7, "nightly", every="1 mon", previous=first)
    end = Unschedule(TYPE, 7, "nightly", previous=second)
    apply(first)
    before = Timer.objects.get()
    apply(first)  # said again
    assert Timer.objects.get().message_id == before.message_id
    apply(second)
    assert str(Timer.objects.get().every) == "1 mon" and Timer.objects.get().cron is None
    apply(end)
    apply(end)
    assert not Timer.objects.exists()
    apply(end, backwards=True)
    assert str(Timer.objects.get().every) == "1 mon"
    apply(second, backwards=True)
    assert Timer.objects.get().cron == "0 2 * * *"
    apply(first, backwards=True)
    apply(first, backwards=True)
    assert not Timer.objects.exists()
    assert not Unschedule(TYPE, 7, "nightly").reversible


def test_a_schedule_follows_the_type_that_it_is_of_in_one_migration():
    with connection.schema_editor() as editor:
        DefineActorType("shop.other", "counter_handle", initial_state={"n": 0}).forwards(
            "shop", editor
        )
        Schedule("shop.other", 1, "soon", after=timedelta(0), payload={"add": 3}).forwards(
            "shop", editor
        )
    wait_idle(60, "shop.other")
    until(lambda: djactor.actor("shop.other", 1).state() == {"n": 3})
    apply(DropActorType("shop.other", discard=True))


def test_schedules_are_shown_as_sql():
    with connection.schema_editor(collect_sql=True) as editor:
        schedule = Schedule(
            TYPE, "it's", "fee", every="1 mon", at=datetime(2027, 1, 31, 9, tzinfo=UTC)
        )
        schedule.database_forwards("shop", editor, None, None)
        schedule.database_backwards("shop", editor, None, None)
    said, undone = editor.collected_sql
    with connection.cursor() as cursor:
        cursor.execute(said)
        assert Timer.objects.get().actor_key == "it's"
        cursor.execute(undone)
    assert not Timer.objects.exists()


def test_a_schedule_with_a_bad_rule_is_refused_with_the_servers_words():
    with pytest.raises(DatabaseError, match="cron"):
        apply(Schedule(TYPE, 7, "nightly", cron="0 2 * *"))
    with pytest.raises(TypeError, match="every is a timedelta"):
        Schedule(TYPE, 7, "nightly", every=5)
    with pytest.raises(TypeError, match="key"):
        Schedule(TYPE, None, "nightly", every="1 day")


def test_two_may_create_the_extension_at_once(fresh):
    fresh.createdb("twice", owner="shop")
    try:
        with elsewhere(NAME="twice"), ThreadPoolExecutor() as threads:

            def create():
                try:
                    apply(CreateDjactor())
                finally:
                    connection.close()

            with connection.schema_editor() as editor:
                CreateDjactor().forwards("shop", editor)
                other = threads.submit(create)
                until(lambda: waiting_for_a_lock(editor.connection))
            other.result(60)
    finally:
        fresh.sql("DROP DATABASE twice")


def waiting_for_a_lock(on):
    with on.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0] > 0


def test_routers_decide_by_hints():
    with override_settings(DATABASE_ROUTERS=["test_migrations.NotForUs"]):
        apply(DropActorType(TYPE, discard=True, hints={"elsewhere": True}))
        assert ActorType.objects.exists()


def test_operations_stay_away_from_other_databases():
    with connections["lite"].schema_editor() as editor:
        for operation in (
            CreateDjactor(),
            DefineActorType(TYPE, "f"),
            DropActorType(TYPE),
            Schedule(TYPE, 7, "nightly", cron="@daily"),
        ):
            operation.database_forwards("shop", editor, None, None)
            if operation.reversible:
                operation.database_backwards("shop", editor, None, None)


def test_operations_work_outside_a_transaction(fresh):
    with connection.schema_editor(atomic=False) as editor:
        DefineActorType(
            "shop.other", "counter_handle", sql="counter.sql", initial_state={}
        ).forwards("shop", editor)
        CreateDjactor().forwards("shop", editor)
        DropActorType("shop.other").forwards("shop", editor)
    assert ActorType.objects.count() == 1


@pytest.mark.parametrize(
    "operation",
    [
        CreateDjactor(discard=True, hints={"a": 1}),
        UpdateDjactor("1.1"),
        DefineActorType(
            TYPE,
            "f",
            sql="f.sql",
            backoff=timedelta(seconds=1),
            initial_state={"n": [1]},
            previous=DefineActorType(TYPE, "f", max_attempts=2),
        ),
        DefinePythonActorType("shop.p", NotificationActor, owner="shop"),
        DropActorType(TYPE, previous=DefineActorType(TYPE, "f")),
        Schedule(
            TYPE,
            UUID(int=7),
            "nightly",
            cron="0 2 * * *",
            time_zone=ZoneInfo("Europe/Berlin"),
            payload={"n": [1]},
            catch_up="skip",
            previous=Schedule(TYPE, UUID(int=7), "nightly", every=timedelta(days=1)),
        ),
        Schedule(
            TYPE,
            7,
            "fee",
            every=Interval.of(1, timedelta(days=1)),
            at=datetime(2027, 1, 31, 9, tzinfo=ZoneInfo("Europe/Berlin")),
            hints={"a": 1},
        ),
        Unschedule(TYPE, 7, "fee", previous=Schedule(TYPE, 7, "fee", every="1 mon")),
    ],
)
def test_squashmigrations_can_write_operations(operation):
    class Squashed(migrations.Migration):
        operations = [operation]

    written = MigrationWriter(Squashed("0001_squashed", "shop")).as_string()
    module = {}
    exec(written, module)
    (again,) = module["Migration"].operations
    assert plain(again) == plain(operation)


def plain(operation):
    """What an operation is made of, operations in it included."""
    return {
        name: plain(value) if isinstance(value, Operation) else value
        for name, value in vars(operation).items()
        if name != "_constructor_args"
    }


def test_a_file_that_is_missing_is_named():
    with pytest.raises(FileNotFoundError, match=r"shop/nowhere\.sql"):
        apply(DefineActorType(TYPE, "f", sql="nowhere.sql"))


def test_wrong_options_are_errors_at_once():
    with pytest.raises(TypeError, match="max_attemps"):
        DefineActorType(TYPE, "counter_handle", max_attemps=3)
    with pytest.raises(TypeError, match="backoff is a timedelta, not int"):
        apply(DefineActorType(TYPE, "counter_handle", backoff=5))
    with pytest.raises(DatabaseError, match="max_attempts"):
        apply(DefineActorType(TYPE, "counter_handle", max_attempts=0))
