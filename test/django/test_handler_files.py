"""Files with handlers: an old migration does what it did, whatever the file says today."""

import importlib
import sys

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test import modify_settings

import djactor
from djactor.checks import check_database
from djactor.models import ActorType
from djactor.test import reset
from test_commands import run

TYPE = "depot.item"
TAKE = """
CREATE OR REPLACE FUNCTION depot_take(state jsonb, message jsonb) RETURNS djactor.result
LANGUAGE sql AS $$
	INSERT INTO depot_item ({columns}) VALUES ({values}) RETURNING NULL::jsonb, to_jsonb(depot_item)
$$;
"""
FIRST = """
from django.db import migrations
from djactor.operations import DefineActorType

class Migration(migrations.Migration):
    dependencies = [("djactor", "0001_initial")]
    operations = [
        migrations.RunSQL("CREATE TABLE depot_item (n int)", "DROP TABLE depot_item"),
        DefineActorType("depot.item", "depot_take", sql="take.sql", max_attempts=2,
            reverse_sql="DROP FUNCTION depot_take(jsonb, jsonb)"),
    ]
"""
SECOND = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("depot", "0001_initial")]
    operations = [
        migrations.RunSQL("ALTER TABLE depot_item ADD COLUMN place text",
            "ALTER TABLE depot_item DROP COLUMN place"),
    ]
"""


class Depot:
    """An app that a test writes."""

    def __init__(self, path):
        self.path = path

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        for module in [name for name in sys.modules if name.startswith("depot.migrations.")]:
            del sys.modules[module]

    def migrate(self, *to):
        self.write("__init__.py", "")
        call_command("migrate", "depot", *to, verbosity=0)


@pytest.fixture
def depot(fresh, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    app = Depot(tmp_path / "depot")
    app.write("__init__.py", "")
    app.write("migrations/__init__.py", "")
    app.write("migrations/0001_initial.py", FIRST)
    app.write("take.sql", TAKE.format(columns="n", values="1"))
    with modify_settings(INSTALLED_APPS={"append": "depot"}):
        yield app
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type"
                " WHERE name = %s",
                [TYPE],
            )
            cursor.execute("DROP TABLE IF EXISTS depot_item")
            cursor.execute("DROP FUNCTION IF EXISTS depot_take")
            cursor.execute("DELETE FROM django_migrations WHERE app = 'depot'")
    for module in [name for name in sys.modules if name.split(".")[0] == "depot"]:
        del sys.modules[module]


def check():
    with pytest.raises(CommandError, match="run djactor_sql"):
        run("djactor_sql", "depot", "--check")
    return run("djactor_sql", "depot")


def checked():
    return [message.id for message in check_database(databases=["default"])]


def test_a_file_that_has_changed_becomes_a_migration_and_the_old_one_stays(depot):
    said = check()
    assert "0001_initial: depot.item is made from take.sql as it is today" in said
    assert "sql_version=1 in 0001_initial" in said
    kept = FIRST.replace('"take.sql"', '"take.sql", sql_version=1')
    depot.write("migrations/0001_initial.py", kept)
    assert run("djactor_sql", "--check", "depot") == "No changes\n"
    depot.migrate()
    assert djactor.actor(TYPE, 1).ask() == {"n": 1}

    depot.write("migrations/0002_place.py", SECOND)
    depot.write("take.sql", TAKE.format(columns="n, place", values="2, 'left'"))
    assert "djactor.W015" in checked()
    assert "take.sql has changed since version 1" in check()
    assert "djactor.W015" not in checked()  # a migration does it, which is not applied yet
    assert run("djactor_sql", "--check", "depot") == "No changes\n"
    depot.migrate()
    assert djactor.actor(TYPE, 1).ask() == {"n": 2, "place": "left"}
    assert ActorType.objects.get(name=TYPE).max_attempts == 2

    depot.migrate("0002")  # back to the text before
    assert djactor.actor(TYPE, 1).ask() == {"n": 1, "place": None}
    depot.migrate("0001")
    reset()
    depot.migrate("zero")
    depot.write("migrations/0001_initial.py", FIRST)
    with pytest.raises(DatabaseError, match="place"):
        depot.migrate("0001")
    depot.write("migrations/0001_initial.py", kept)
    depot.migrate()  # as on a fresh database
    assert djactor.actor(TYPE, 1).ask() == {"n": 2, "place": "left"}
