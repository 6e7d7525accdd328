"""A Django project on a private server with djactor: the apps djactor and shop, migrated."""

import sys
from pathlib import Path

import django
import pytest
from django.conf import settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT / "django"), str(HERE)]

import project_settings  # noqa: E402
from elsewhere import elsewhere  # noqa: E402

settings.configure(
    **{name: value for name, value in vars(project_settings).items() if name.isupper()}
)
settings.DATABASES["admin"] = settings.DATABASES["default"] | {"USER": "postgres"}
settings.DATABASES["guest"] = settings.DATABASES["default"] | {"USER": "guest"}
settings.DATABASES["replica"] = settings.DATABASES["default"] | {
    "OPTIONS": {"options": "-c default_transaction_read_only=on"}
}
settings.DATABASES["lite"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
django.setup()


@pytest.fixture(scope="session")
def project():
    from django.core.management import call_command
    from django.db import connections

    from private_server import PrivateServer

    with PrivateServer(
        {
            "djactor.max_workers": 4,
            "max_worker_processes": 16,
            "djactor_python.path": f"{HERE}, {ROOT / 'django'}",
        }
    ) as server:
        server.sql("CREATE ROLE shop LOGIN CREATEDB")
        server.createuser("guest")
        server.createdb("shop", owner="shop")
        for alias in ("default", "admin", "guest", "replica"):
            connections[alias].settings_dict.update(HOST=server.host)
            connections.settings[alias].update(HOST=server.host)
        call_command("migrate", verbosity=0)
        yield server
        connections.close_all()


@pytest.fixture(autouse=True)
def fresh(project):
    """After the test nothing is left, as after a TransactionTestCase, but sooner."""
    yield project
    from django.contrib.admin.models import LogEntry
    from django.contrib.auth.models import User
    from django.contrib.sessions.models import Session

    from djactor.test import reset
    from shop.models import Product, Sale, Ticket

    reset()
    for model in (Sale, Product, Ticket, LogEntry, Session, User):
        model.objects.all().delete()


@pytest.fixture
def paused(fresh):
    """Nothing is handled during the test."""
    from django.db import connection

    def say(function):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT djactor.{function}('shop.counter')")

    say("pause")
    yield
    say("resume")


@pytest.fixture
def old(fresh):
    """A database whose extension is older than everything else."""
    fresh.createdb("old", owner="shop")
    fresh.sql("CREATE EXTENSION djactor", "old")
    fresh.sql("UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'djactor'", "old")
    with elsewhere(NAME="old") as connection:
        yield connection
    fresh.sql("DROP DATABASE old")


@pytest.fixture(scope="session")
def without_preload():
    """A server that has djactor, and does not load it."""
    from private_server import PrivateServer

    with PrivateServer({"shared_preload_libraries": ""}) as server:
        server.sql("CREATE ROLE shop LOGIN")
        server.createdb("shop", owner="shop")
        server.sql("SET client_min_messages = error; CREATE EXTENSION djactor", "shop", "shop")
        yield server


@pytest.fixture
def without_workers():
    """A server that has no process to spare for a worker."""
    from private_server import PrivateServer

    with PrivateServer({"max_worker_processes": 1}) as server:
        server.sql("CREATE ROLE shop LOGIN")
        server.createdb("shop", owner="shop")
        yield server
