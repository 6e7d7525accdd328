"""Commands: what a developer and an operator see."""

import io
import json
import os
import re
import shutil

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError

import djactor
from djactor.models import Actor, ActorType, DeadLetter, Message, Reply
from djactor.test import wait_idle
from elsewhere import elsewhere
from shop.models import Sale

TYPE = "shop.counter"


def run(*words, **options):
    out = io.StringIO()
    call_command(*words, stdout=out, **options)
    return out.getvalue()


def test_status_shows_types_and_workers():
    djactor.actor(TYPE, 1).ask({"add": 1})
    djactor.actor(TYPE, 1).send({"fail": True})
    wait_idle(60)
    lines = run("djactor_status").splitlines()
    assert lines[0].split()[:5] == ["type", "waiting", "oldest", "retrying", "dead"]
    assert re.match(r"shop\.counter +0 +0 +1 +[0-9,]+", lines[1])
    assert "0 wait, 0 are to be retried, 0 are scheduled; 1 dead letters" in lines[3]
    assert re.match(r" *[0-9]+  shop  (idle|busy)", lines[6])


def test_status_says_what_stands_still(paused):
    djactor.actor(TYPE, 1).send({"add": 1})
    (line,) = [line for line in run("djactor_status").splitlines() if line.startswith(TYPE)]
    assert line.split()[1] == "1" and line.endswith("  paused by shop")


def test_top_shows_it_again_and_again_whatever_becomes_of_the_server():
    assert run("djactor_top", count=2, interval=0.01).count("turns/s  run p95") == 2
    with elsewhere(HOST="/nowhere"):
        assert "no connection: " in run("djactor_top", count=1)
    with pytest.raises(CommandError, match="greater than 0"):
        run("djactor_top", interval=0.0)


def test_top_fits_into_the_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((30, 5)))
    call_command("djactor_top", count=1, stdout=(out := Terminal()))
    screen = re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", out.getvalue())
    assert len(screen.split("\n")) == 5
    assert all(len(line) <= 30 for line in screen.split("\n"))
    assert out.getvalue().endswith("\x1b[?1049l")  # the shell's screen is back


def test_redrive_sends_the_chosen_dead_letters_again():
    for key in (1, 2):
        djactor.actor(TYPE, key).send({"fail": True})
    wait_idle(60)
    assert DeadLetter.objects.count() == 2
    assert "2 found" in run("djactor_redrive", "--all", "--dry-run")
    assert "1 redriven" in run("djactor_redrive", "--key", "1")
    wait_idle(60)
    assert DeadLetter.objects.count() == 2  # it failed again
    with pytest.raises(CommandError, match="say which"):
        run("djactor_redrive")
    with pytest.raises(CommandError, match="no such dead letter: 999999999"):
        run("djactor_redrive", "999999999")


def test_flush_leaves_types_and_nothing_else(paused):
    djactor.actor(TYPE, 1).send({"add": 1}, idempotency_key="once")
    call_command("flush", interactive=False, verbosity=0)
    for model in (Message, Actor, DeadLetter, Reply):
        assert not model.objects.exists()
    assert ActorType.objects.get().paused
    djactor.actor(TYPE, 1).send({"add": 1}, idempotency_key="once")
    assert Message.objects.count() == 1


def test_a_fixture_of_everything_can_be_loaded_again(paused, tmp_path):
    djactor.actor(TYPE, 1).send({"add": 1})
    Sale.objects.create(product=1, amount=5)
    fixture = tmp_path / "all.json"
    call_command("dumpdata", output=str(fixture))
    models = {row["model"] for row in json.loads(fixture.read_text())}
    assert "shop.sale" in models and not [name for name in models if name.startswith("djactor")]
    Sale.objects.all().delete()
    call_command("loaddata", str(fixture), verbosity=0)
    assert Sale.objects.get().amount == 5
    assert Message.objects.count() == 1


def test_what_waits_can_be_dumped_to_look_at_it_and_not_be_loaded(paused, tmp_path):
    djactor.actor(TYPE, 1).send({"add": 1})
    fixture = tmp_path / "mail.json"
    call_command("dumpdata", "djactor", output=str(fixture))
    rows = json.loads(fixture.read_text())
    assert {"djactor.message", "djactor.actortype", "djactor.mailbox"} <= {
        row["model"] for row in rows
    }
    call_command("dumpdata", "djactor.message", output=str(fixture))
    with pytest.raises(DatabaseError, match=r"Could not load djactor\.Message"):
        call_command("loaddata", str(fixture), verbosity=0)
    assert Message.objects.count() == 1


def test_inspectdb_reads_the_project_and_not_djactor(fresh):
    out = run("inspectdb")
    assert "class ShopSale(models.Model)" in out
    assert "djactor" not in out
