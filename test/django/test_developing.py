"""The loop while developing: breakpoints, and files that change."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

import djactor
from djactor import developing
from djactor.hosting import reloading
from djactor.models import DeadLetter, Message
from elsewhere import elsewhere
from hosted_classes import Basket
from hosting_worker import Worker, define, drop, query
from registering import registered, registered_sql
from till import HANDLER, TILL, handler_file
from waiting import until

# djactor_worker --debug


@pytest.fixture
def debugged(project):
    """Starts djactor_worker --debug for a class, with a standard input."""
    started = []

    def start(cls, **options):
        define("host.halting", cls, **options)
        worker = Worker(project, "--types", "host.halting", "--debug", stdin=subprocess.PIPE)
        started.append(worker)
        worker.says("one turn at a time, without time limits")
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.process.stdin.close()
    drop("host.halting")


def type_in(worker, words, after=0.0):
    """As somebody who sits at the terminal does, once the debugger asks."""

    def type_():
        worker.says("(Pdb)")
        time.sleep(after)
        worker.process.stdin.write(words)
        worker.process.stdin.flush()

    thread = threading.Thread(target=type_)
    thread.start()
    return thread


@pytest.mark.parametrize("cls", ["Halting", "AsyncHalting"])
def test_breakpoints_work_in_a_worker_that_debugs(debugged, cls):
    worker = debugged(cls, handler_timeout="100 ms")
    # Longer than the server would let a host have.
    thread = type_in(worker, b"seen.append(5)\nc\n", 6.0 if cls == "Halting" else 0.0)
    assert djactor.actor("host.halting", 1).ask({}, timeout=60) == {"seen": [5]}
    thread.join()
    assert worker.hosts() == [] and worker.children() == []
    assert worker.end() == 0, worker.log()


def test_who_leaves_the_debugger_ends_the_worker_and_charges_nobody(debugged):
    worker = debugged("Halting", max_attempts=1)
    message = djactor.actor("host.halting", 1).send({})
    type_in(worker, b"q\n").join()
    assert worker.process.wait(60) == 0, worker.log()
    assert Message.objects.get(id=message).attempts == 0


def test_a_turn_that_fails_is_charged_there_too(debugged):
    worker = debugged("Halting", max_attempts=1)
    djactor.actor("host.halting", 1).send({"fail": True})
    until(lambda: DeadLetter.objects.exists())
    worker.says("ValueError: told to fail")
    assert worker.process.poll() is None


def test_what_makes_no_sense_with_debug_is_refused(project):
    for words in ["--processes", "2"], ["--autoreload"], ["--health", "8001"]:
        with pytest.raises(CommandError, match="--debug goes without"):
            call_command("djactor_worker", "--debug", *words)


# Files that change


@pytest.fixture
def till(tmp_path):
    """A handler file that is registered and defined."""
    with (
        handler_file(tmp_path) as file,
        registered_sql(TILL, "till_handle", sql=str(file)),
        override_settings(DEBUG=True),
    ):
        call_command("migrate", verbosity=0)
        yield file


def by():
    return djactor.actor(TILL, 1).ask({}, timeout=60)["by"]


def test_a_handler_file_that_changes_is_run(till, capsys):
    till.write_text(HANDLER % "two")
    assert developing.changed(None, file_path=till) is True
    assert f"djactor: {till} has changed: shop.till is defined anew\n" in capsys.readouterr().err
    assert by() == "two"
    till.write_text("CREATE OR REPLACE FUNCTION till_handle(")
    assert developing.changed(None, file_path=till) is True
    assert f"{till} has changed, and cannot be run: syntax error" in capsys.readouterr().err
    assert by() == "two"


def test_the_handler_file_of_a_migration_is_run_as_well(capsys):
    path = Path(__file__).parent / "shop" / "counter.sql"
    with override_settings(DEBUG=True):
        assert developing.changed(None, file_path=path) is True
    assert "shop.counter is defined anew" in capsys.readouterr().err


def test_other_files_and_production_are_left_alone(till, tmp_path):
    till.write_text(HANDLER % "two")
    other = tmp_path / "other.sql"
    other.write_text("SELECT 1")
    assert developing.changed(None, file_path=other) is None
    assert developing.changed(None, file_path=Path(__file__)) is None
    sender = mock.Mock()
    with override_settings(DEBUG=False):
        assert developing.changed(None, file_path=till) is None
        developing.watch(sender)
    assert not sender.mock_calls and by() == "one"
    developing.watch(sender)
    watched = {call.args for call in sender.watch_dir.mock_calls}
    shop = Path(__file__).resolve().parent / "shop"
    assert watched == {(tmp_path.resolve(), "till.sql"), (shop, "counter.sql")}


def test_a_type_that_is_not_defined_yet_is_left_to_migrate(tmp_path, capsys):
    file = tmp_path / "late.sql"
    file.write_text(HANDLER % "one")
    with registered_sql("shop.late", "till_handle", sql=str(file)), override_settings(DEBUG=True):
        assert developing.changed(None, file_path=file) is True
    assert capsys.readouterr().err == ""


def test_a_worker_that_starts_anew_runs_changed_files(till, monkeypatch):
    looks = iter([{Path("x"): 1.0}] * 4 + [{Path("x"): 2.0}])
    monkeypatch.setattr(reloading, "_LOOK", 0.01)
    monkeypatch.setattr(reloading, "_times", lambda: next(looks))
    seen = reloading._handler_times

    def look():
        found = seen()
        if till.read_text() == HANDLER % "one":  # once it has been seen
            till.write_text(HANDLER % "two")
            os.utime(till, (1, 1))
        return found

    monkeypatch.setattr(reloading, "_handler_times", look)
    reloading.until_changed()
    assert by() == "two"


def test_classes_inside_are_loaded_afresh(project):
    project.sql("CREATE EXTENSION djactor_python CASCADE", "shop")
    try:
        with registered((Basket, "shop.basket", {})), override_settings(DEBUG=True):
            call_command("migrate", database="admin", verbosity=0)
            djactor.actor("shop.basket", 7).ask({}, timeout=60)
            before = set(query("SELECT pid FROM djactor.worker"))
            developing.watch(mock.Mock())
            until(lambda: not before & set(query("SELECT pid FROM djactor.worker")))
    finally:
        project.sql("DROP EXTENSION djactor_python, plpython3u", "shop")


def test_a_database_that_is_not_there_is_said_and_no_more(till, capsys):
    with elsewhere(HOST="/nowhere"):
        assert developing.changed(None, file_path=till) is True
        developing.replace_workers()
    words = capsys.readouterr().err
    assert "cannot be run" in words and "keep the code that they have" in words


def test_runserver_runs_a_handler_file_that_changes(project, till, tmp_path):
    app = tmp_path / "market"
    app.mkdir()
    (app / "__init__.py").write_text("")
    (app / "actors.py").write_text(
        f"import djactor\ndjactor.register_sql({TILL!r}, 'till_handle', sql={str(till)!r})\n"
    )
    (tmp_path / "market_settings.py").write_text(
        "from project_settings import *\nINSTALLED_APPS += ['market']\nDEBUG = True\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    here = Path(__file__).resolve().parent
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "django", "runserver", str(port), "--skip-checks"],
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": "market_settings",
                "SHOP_HOST": project.host,
                "PYTHONPATH": f"{here.parents[1] / 'django'}:{here}:{tmp_path}",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: "Quit the server" in log.read_text())
        time.sleep(2.5)  # until the reloader has seen the files
        till.write_text(HANDLER % "two")
        until(lambda: "shop.till is defined anew" in log.read_text())
        assert by() == "two"
        assert log.read_text().count("Quit the server") == 1
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
