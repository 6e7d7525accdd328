"""Commands: what a developer and an operator see."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError

import djactor
from djactor.models import Actor, ActorType, DeadLetter, Message, Reply
from djactor.test import wait_idle
from shop.models import Sale

TYPE = "shop.counter"


def run(*words, **options):
    out = io.StringIO()
    call_command(*words, stdout=out, **options)
    return out.getvalue()


def test_status_shows_types_and_workers():
    djactor.actor(TYPE, 1).ask({"add": 1})
    out = run("djactor_status")
    assert TYPE in out


def test_redrive_sends_the_chosen_dead_letters_again():
    for key in (1, 2):
        djactor.actor(TYPE, key).send({"fail": True})
    wait_idle()
    assert DeadLetter.objects.count() == 2
    assert "2 found" in run("djactor_redrive", "--all", "--dry-run")
    assert "1 redriven" in run("djactor_redrive", "--key", "1")
    wait_idle()
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
