"""Commands: what a developer and an operator see."""

import io

import pytest
from django.core.management import CommandError, call_command

import djactor
from djactor.models import Actor, ActorType, DeadLetter, Message, Reply
from djactor.test import wait_idle

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
