"""What migrate makes of registered types: defined if missing, changed if different, not dropped."""

import io
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test import override_settings

import djactor
from djactor import checks, declared, registry
from djactor.models import ActorType
from djactor.operations import DefineActorType
from djactor.test import define_types, reset, wait_idle
from elsewhere import elsewhere
from hosted_classes import Basket, Outer
from registering import drop, registered, registered_sql
from test_commands import run
from till import HANDLER, TILL, handler_file

TYPE = "shop.basket"
PATH = "hosted_classes.Basket"
ROOT = Path(__file__).parents[2]

ALL_OPTIONS = {
    "initial_state": {"colour": "red"},
    "state_version": 2,
    "max_attempts": 7,
    "backoff": timedelta(milliseconds=250),
    "backoff_max": timedelta(minutes=3),
    "retry_order": "skip",
    "on_exhausted": "suspend",
    "handler_timeout": timedelta(seconds=12),
    "concurrency": 4,
    "mailbox_limit": 1000,
    "on_full": "dead_letter",
    "breaker_failures": None,
    "breaker_window": timedelta(minutes=2),
    "journal": timedelta(days=1),
    "settings": {"TimeZone": "Europe/Berlin"},
    "stateless": True,
    "rate": "100/min",
    "rate_by": "header:tenant",
    "fair_by": "header:tenant",
    "wait_target": timedelta(seconds=2),
}


def migrate(database="default", verbosity=1):
    out = io.StringIO()
    call_command("migrate", database=database, verbosity=verbosity, stdout=out)
    return [line for line in out.getvalue().splitlines() if "actor type" in line]


def stored(name=TYPE):
    return ActorType.objects.get(name=name)


def test_a_type_that_is_missing_is_defined_and_then_left_alone():
    with registered((Basket, TYPE, {"hosted": True, "max_attempts": 3})):
        assert migrate() == [f"  Defined the actor type {TYPE}"]
        row = stored()
        assert (row.hosted, row.handler, row.max_attempts, row.owner) == (True, PATH, 3, "shop")
        assert migrate() == []
        assert migrate(verbosity=0) == []


def test_each_option_is_stored_as_it_was_said():
    with registered((Basket, TYPE, {"hosted": True, **ALL_OPTIONS, "owner": "shop"})):
        assert migrate() == [f"  Defined the actor type {TYPE}"]
        row = stored()
        for name, value in ALL_OPTIONS.items():
            if name != "settings":
                assert getattr(row, name) == value, name
        assert row.settings["TimeZone"] == "Europe/Berlin"
        assert migrate() == []


def test_what_the_code_names_is_changed_and_nothing_else():
    with registered((Basket, TYPE, {"hosted": True, "max_attempts": 3})):
        migrate()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT djactor.alter_actor_type(%s, max_attempts => 9, mailbox_limit => 50),"
                " djactor.pause(%s)",
                [TYPE, TYPE],
            )
        assert migrate() == [f"  Changed the actor type {TYPE} (max_attempts)"]
        row = stored()
        assert (row.max_attempts, row.mailbox_limit, row.paused) == (3, 50, True)


@pytest.mark.parametrize(
    "option", [name for name in ALL_OPTIONS if name not in ("settings", "rate_by")]
)
def test_each_option_can_be_changed(option):
    with registered((Basket, TYPE, {"hosted": True})):
        migrate()
        djactor.register(Basket, TYPE, hosted=True, **{option: ALL_OPTIONS[option]})
        assert migrate() == [f"  Changed the actor type {TYPE} ({option})"]
        assert getattr(stored(), option) == ALL_OPTIONS[option]


def test_a_class_that_has_another_name_now_is_followed():
    with registered((Basket, TYPE, {"hosted": True})):
        migrate()
        djactor.registry.unregister(TYPE)
        djactor.register(Outer.Inner, TYPE, hosted=True)
        assert migrate() == [f"  Changed the actor type {TYPE} (handler)"]
        assert stored().handler == "hosted_classes.Outer.Inner"


def test_nothing_is_dropped():
    try:
        with registered((Basket, "shop.other", {"hosted": True})):
            djactor.register(Basket, TYPE, hosted=True)
            migrate()
        djactor.registry.unregister(TYPE)
        assert migrate() == []
        assert stored().handler == PATH
    finally:
        djactor.registry.unregister(TYPE)
        drop(TYPE)


def test_a_type_of_a_migration_becomes_a_registered_one():
    with connection.schema_editor() as editor:
        DefineActorType(TYPE, "counter_handle", initial_state={"n": 0}).forwards("shop", editor)
    with registered((Basket, TYPE, {"hosted": True})):
        assert migrate() == [f"  Changed the actor type {TYPE} (handler)"]
        row = stored()
        assert row.hosted and row.handler == PATH and row.initial_state == {"n": 0}


def test_what_the_server_refuses_names_the_type():
    with registered((Basket, TYPE, {"hosted": True, "max_attempts": 0})):
        with pytest.raises(DatabaseError, match="max_attempts") as caught:
            migrate()
        if sys.version_info >= (3, 11):
            assert TYPE in caught.value.__notes__[0]
    assert not ActorType.objects.filter(name=TYPE).exists()


class NotForShop:
    """A router."""

    def allow_migrate(self, db, app_label, **hints):
        return app_label not in ("shop", "djactor")


def test_routers_decide_by_the_app_of_the_class():
    assert declared.app_of(djactor.registry.HostedType("x", djactor.PythonActor, True, {})) == (
        "djactor"
    )
    with registered((Basket, TYPE, {"hosted": True})):
        with override_settings(DATABASE_ROUTERS=["test_declared.NotForShop"]):
            assert migrate() == []
        assert migrate() == [f"  Defined the actor type {TYPE}"]


def test_databases_of_another_kind_and_without_djactor_are_left_alone(fresh):
    with registered((Basket, TYPE, {"hosted": True})):
        declared.after_migrate(None, using="lite")
        fresh.createdb("bare", owner="shop")
        with elsewhere(NAME="bare"):
            declared.after_migrate(None, using="default")
        fresh.sql("DROP DATABASE bare")


def test_without_migrations_the_extension_is_created_for_what_is_registered(fresh):
    fresh.createdb("unmigrated", owner="shop")
    with elsewhere(NAME="unmigrated") as there:
        with (
            registered((Basket, TYPE, {"hosted": True})),
            override_settings(MIGRATION_MODULES={"djactor": None, "shop": None}),
        ):
            call_command("migrate", run_syncdb=True, verbosity=0)
            assert stored().hosted
            djactor.registry.unregister(TYPE)
        there.close()
    fresh.sql("DROP DATABASE unmigrated")


def test_flush_and_reset_keep_the_types():
    with registered((Basket, TYPE, {"hosted": True, "max_attempts": 3})):
        migrate()
        djactor.actor(TYPE, 1).send({})
        reset()
        assert (stored().hosted, stored().handler, stored().max_attempts) == (True, PATH, 3)
        call_command("flush", interactive=False, verbosity=0)
        assert (stored().hosted, stored().max_attempts) == (True, 3)


def test_define_types_defines_them_too():
    with registered((Basket, TYPE, {"hosted": True}), (Basket, "shop.other", {"hosted": True})):
        assert define_types(only=[TYPE]) == [TYPE]
        assert run("djactor_define") == "shop.other\n1 defined\n"
        assert define_types() == []


# Inside and hosted


@pytest.fixture(scope="module")
def python(project):
    project.sql("CREATE EXTENSION djactor_python CASCADE", "shop")
    yield
    project.sql("DROP EXTENSION djactor_python, plpython3u", "shop")


def test_a_class_that_runs_inside_is_left_to_a_superuser(python):
    with registered((Basket, TYPE, {"max_attempts": 4})):
        (line,) = migrate()
        assert line == f"  Left out the actor type {TYPE}: {declared.ONLY_SUPERUSERS}"
        assert migrate("admin") == [f"  Defined the actor type {TYPE}"]
        row = stored()
        assert (row.hosted, row.owner, row.max_attempts) == (False, "shop", 4)
        assert migrate() == [] and migrate("admin") == []
        assert djactor.actor(TYPE, 7).ask({"a": 1}) == {"items": 1}
        djactor.register(Basket, TYPE, max_attempts=5)
        assert migrate() == [f"  Changed the actor type {TYPE} (max_attempts)"]  # the owner may


def test_a_type_moves_by_one_word_with_its_state_and_options(python):
    spans = [timedelta(days=2), timedelta(days=30), timedelta(seconds=9)]
    said = dict(zip(("journal", "idle_ttl", "wait_target"), spans, strict=True), max_attempts=4)
    with registered((Basket, TYPE, said)):
        migrate("admin")
        actor = djactor.actor(TYPE, 7)
        actor.ask({"a": 1})
        djactor.register(Basket, TYPE, hosted=True)
        assert migrate() == [f"  Changed the actor type {TYPE} (handler)"]
        row = stored()
        assert (row.hosted, row.handler, row.max_attempts) == (True, PATH, 4)
        assert [row.journal, row.idle_ttl, row.wait_target] == spans
        assert actor.state() == {"number": 7, "items": [{"a": 1}]}
        message = actor.send({"a": 2})

        djactor.register(Basket, TYPE, hosted=False, max_attempts=6)
        (line,) = migrate()
        assert "Left out" in line and stored().hosted
        assert migrate("admin") == [f"  Changed the actor type {TYPE} (handler, max_attempts)"]
        row = stored()
        assert (row.hosted, row.owner, row.max_attempts) == (False, "shop", 6)
        assert [row.journal, row.idle_ttl, row.wait_target] == spans
        wait_idle(60)
        assert message and actor.state()["items"] == [{"a": 1}, {"a": 2}]
        assert migrate() == [] and migrate("admin") == []


def test_without_the_extension_for_python_that_is_the_reason(fresh):
    fresh.createdb("nopython", owner="shop")
    with elsewhere(NAME="nopython", USER="postgres") as there:
        with there.cursor() as cursor:
            cursor.execute("CREATE EXTENSION djactor")
            with registered((Basket, TYPE, {})):
                (change,) = declared.changes(cursor, "default")
        assert change.made and "no extension djactor_python" in change.refused
        there.close()
    fresh.sql("DROP DATABASE nopython")


def test_the_role_of_another_database_owns_nothing_here():
    assert declared._owner("default") is None
    assert declared._owner("admin") == "shop"
    assert declared._owner("lite") is None


# Handlers of the database, by their files


@pytest.fixture
def till(tmp_path):
    """A file with a handler; and the function is gone afterwards."""
    with handler_file(tmp_path) as file:
        yield file


def comment():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT obj_description('till_handle(jsonb,jsonb)'::regprocedure, 'pg_proc')"
        )
        return cursor.fetchone()[0]


def test_a_handler_file_is_run_and_run_again_when_it_has_changed(till):
    with registered_sql(TILL, "till_handle", sql=str(till), max_attempts=4):
        assert migrate() == [f"  Defined the actor type {TILL}"]
        assert (stored(TILL).hosted, stored(TILL).max_attempts) == (False, 4)
        assert migrate() == []
        assert djactor.actor(TILL, 1).ask({"a": 1}) == {"by": "one"}
        till.write_text(HANDLER % "two" + "COMMENT ON FUNCTION till_handle IS 'by me';")
        assert migrate() == [f"  Changed the actor type {TILL} (sql)"]
        assert djactor.actor(TILL, 1).ask({"a": 1}) == {"by": "two"}
        assert comment().startswith(f"by me\ndjactor: {till} ") and migrate() == []
        registry.unregister(TILL)
        djactor.register_sql(TILL, "till_handle", sql=str(till), max_attempts=5)
        assert migrate() == [f"  Changed the actor type {TILL} (max_attempts)"]
        assert comment().count("djactor:") == 1


def test_a_function_that_somebody_has_replaced_is_made_again(till):
    with registered_sql(TILL, "till_handle", sql=str(till)):
        migrate()
        with connection.cursor() as cursor:
            cursor.execute(HANDLER % "hand")
        assert migrate() == [f"  Changed the actor type {TILL} (sql)"]
        assert djactor.actor(TILL, 1).ask({}) == {"by": "one"}


def test_a_superusers_connection_makes_the_function_for_the_project(till):
    with registered_sql(TILL, "till_handle", sql=str(till)):
        assert migrate("admin") == [f"  Defined the actor type {TILL}"]
        assert stored(TILL).owner == "shop"
        till.write_text(HANDLER % "two")
        assert migrate() == [f"  Changed the actor type {TILL} (sql)"]  # so it is the owner's


def test_a_handler_without_a_file_is_somebody_elses():
    with registered_sql(TILL, "counter_handle", initial_state={"n": 4}):
        assert migrate() == [f"  Defined the actor type {TILL}"]
        assert djactor.actor(TILL, 1).ask({"add": 1}) == {"n": 5}
        assert migrate() == []


def test_a_file_that_does_not_do_leaves_everything_as_it_was(till):
    with registered_sql(TILL, "till_handle", sql=str(till)):
        migrate()
        till.write_text("CREATE OR REPLACE FUNCTION till_handle(")
        with pytest.raises(DatabaseError):
            migrate()
        till.write_text(HANDLER % "one")
        assert migrate() == []


def test_a_type_moves_from_a_class_to_a_function_and_back(till):
    with registered_sql(TILL, "till_handle", sql=str(till)):
        registry.unregister(TILL)
        djactor.register(Basket, TILL, hosted=True, max_attempts=3)
        migrate()
        registry.unregister(TILL)
        djactor.register_sql(TILL, "till_handle", sql=str(till))
        assert migrate() == [f"  Changed the actor type {TILL} (handler)"]
        assert (stored(TILL).hosted, stored(TILL).max_attempts) == (False, 3)
        assert djactor.actor(TILL, 1).ask({}) == {"by": "one"} and migrate() == []
        registry.unregister(TILL)
        djactor.register(Basket, TILL, hosted=True)
        assert migrate() == [f"  Changed the actor type {TILL} (handler)"]
        assert stored(TILL).hosted and migrate() == []


# djactor_sync


def sync(*words):
    out = io.StringIO()
    try:
        call_command("djactor_sync", *words, stdout=out)
    except CommandError as error:
        return [*out.getvalue().splitlines(), str(error)]
    return out.getvalue().splitlines()


def test_sync_writes_what_differs_and_check_lists_it(till):
    assert sync("--check") == ["No changes"]
    with (
        registered((Basket, TYPE, {"hosted": True})),
        registered_sql(TILL, "till_handle", sql=str(till)),
    ):
        differs = "the database 'default' differs: run djactor_sync"
        assert sync("--check") == [
            f"Would define the actor type {TYPE}",
            f"Would define the actor type {TILL}",
            differs,
        ]
        assert not ActorType.objects.filter(name=TYPE).exists()
        assert sync() == [f"Defined the actor type {TYPE}", f"Defined the actor type {TILL}"]
        assert sync("--check", "--database", "admin") == ["No changes"] == sync()
        till.write_text(HANDLER % "two")
        assert sync("--check") == [f"Would change the actor type {TILL} (sql)", differs]
        assert sync() == [f"Changed the actor type {TILL} (sql)"]


def test_sync_says_what_it_may_not_do(python):
    with registered((Basket, TYPE, {})):
        assert sync() == [
            f"Left out the actor type {TYPE}: {declared.ONLY_SUPERUSERS}",
            "1 left out",
        ]
        assert declared.ONLY_SUPERUSERS in sync("--check")[0]


def test_sync_needs_a_database_with_djactor(fresh):
    assert sync("--database", "lite")[0].startswith("the database 'lite' has no djactor")
    assert sync("--database", "nowhere") == ["there is no database 'nowhere' in settings.DATABASES"]
    fresh.createdb("bare", owner="shop")
    with elsewhere(NAME="bare"):
        assert "run migrate" in sync("--check")[0]
    fresh.sql("DROP DATABASE bare")


# Checks


def found():
    return [
        (message.id, str(message.msg))
        for message in [
            *checks.check_registered(),
            *checks.check_database(databases=["default"]),
        ]
        if message.id not in ("djactor.I001", "djactor.W011")
    ]


def test_a_changed_file_and_a_missing_one_are_found(till):
    with registered_sql(TILL, "till_handle", sql=str(till)):
        assert [one for one, _ in found()] == ["djactor.W013"]
        migrate()
        assert found() == []
        till.write_text(HANDLER % "two")
        ((one, words),) = found()
        assert one == "djactor.W015" and f"is not what {till} makes" in words
        till.unlink()
        ((one, words),) = found()
        assert one == "djactor.E009" and "cannot be read" in words


def test_a_type_that_nothing_declares_any_more_is_found(till, project):
    with registered_sql(TILL, "till_handle", sql=str(till)):
        migrate()
        registry.unregister(TILL)
        ((one, words),) = found()
        assert one == "djactor.W014"
        assert f"was made by {till}, and nothing declares it" in words
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT djactor.define_actor_type(%s, 'shop.models.Sale', hosted => true)", [TYPE]
        )
    try:
        assert ("djactor.W014" in dict(found())) is True
    finally:
        drop(TYPE)
    with connection.cursor() as cursor:  # what plain SQL has defined is nobody's business
        cursor.execute("SELECT djactor.define_actor_type(%s, 'counter_handle')", [TYPE])
    try:
        assert found() == []
    finally:
        drop(TYPE)


def test_one_type_in_two_apps_is_an_error_of_check(monkeypatch, till):
    monkeypatch.setattr(registry, "_conflicts", [])
    with registered((Basket, TYPE, {"hosted": True})):
        with registry.collecting_conflicts():
            djactor.register_sql(TYPE, "till_handle")
            djactor.register(Outer.Inner, TYPE)
        words = [words for one, words in found() if one == "djactor.E010"]
        assert len(words) == 2 and f"till_handle of {__name__}" in words[0]
        assert f"registered for {PATH} already, and again for" in words[1]
        with pytest.raises(ImproperlyConfigured, match="till_handle"):
            declared.after_migrate(None, using="default")
    assert not ActorType.objects.filter(name=TYPE).exists()


# Discovery


def project_with(tmp_path, actors):
    app = tmp_path / "market"
    app.mkdir()
    (app / "__init__.py").write_text("")
    (app / "actors.py").write_text(actors)
    (tmp_path / "market_settings.py").write_text(
        "from project_settings import *\nINSTALLED_APPS += ['market']\n"
    )

    def django(*words):
        return subprocess.run(
            [sys.executable, "-m", "django", *words],
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": "market_settings",
                # Since Django 6.1, `check` connects to each database.
                "SHOP_HOST": settings.DATABASES["default"]["HOST"],
                "PYTHONPATH": os.pathsep.join(
                    map(str, (ROOT / "django", Path(__file__).parent, tmp_path))
                ),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )

    return django


def test_actors_of_installed_apps_are_imported_at_the_start(tmp_path):
    django = project_with(
        tmp_path,
        "import djactor\n\n@djactor.register('market.stall', hosted=True)\n"
        "class Stall:\n    def handle_message(self, message):\n        pass\n",
    )
    done = django("shell", "-c", "from djactor.registry import registered; print(*registered())")
    assert "market.stall" in done.stdout
    assert "no issues" in django("check").stdout


def test_an_error_in_actors_surfaces_with_check(tmp_path):
    done = project_with(tmp_path, "def broken(:\n")("check")
    assert done.returncode != 0
    assert "SyntaxError" in done.stdout and "market/actors.py" in done.stdout


def test_actors_that_need_the_server_are_left_to_it(tmp_path):
    done = project_with(tmp_path, "import plpy\n")("check")
    assert done.returncode == 0
    assert "djactor.I003" in done.stdout and "market.actors imports plpy" in done.stdout


def test_actors_that_miss_another_module_are_an_error(tmp_path):
    done = project_with(tmp_path, "import nowhere_at_all\n")("check")
    assert done.returncode != 0 and "nowhere_at_all" in done.stdout


def test_two_apps_with_one_type_are_told_by_check(tmp_path):
    django = project_with(tmp_path, "import djactor\ndjactor.register_sql('market.x', 'one')\n")
    other = tmp_path / "fair"
    other.mkdir()
    (other / "__init__.py").write_text("")
    (other / "actors.py").write_text("import djactor\ndjactor.register_sql('market.x', 'two')\n")
    with (tmp_path / "market_settings.py").open("a") as file:
        file.write("INSTALLED_APPS += ['fair']\n")
    done = django("check")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "djactor.E010" in done.stdout and "two of fair.actors" in done.stdout


def test_a_wrong_class_is_found_by_check(tmp_path):
    done = project_with(
        tmp_path,
        "import djactor\nfrom hosted_classes import Waiting, WithoutKey\n"
        "djactor.register(WithoutKey, 'market.stall', hosted=True)\n"
        "djactor.register(Waiting, 'market.waiting')\n"
        "djactor.register(Waiting, 'market.backoff', hosted=True, backoff=5)\n",
    )("check")
    assert done.returncode != 0
    assert done.stdout.count("djactor.E006") == 2 and done.stdout.count("djactor.E007") == 1
    assert "WithoutKey.__init__() does not take the actor's key" in done.stdout
    assert "is async" in done.stdout and "backoff is a timedelta, not int" in done.stdout
