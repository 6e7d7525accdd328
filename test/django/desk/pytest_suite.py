"""What users write who test hosted actors with pytest; it needs no migrations."""

from datetime import timedelta

import pytest
from django.utils import timezone
from freezegun import freeze_time

import djactor
from desk.actors import Answer, Open, Ticket
from djactor.test import define_types

TICKET = djactor.actor(Ticket, 7)


@pytest.fixture
def freezer():
    """As pytest-freezer has it."""
    with freeze_time() as frozen:
        yield frozen


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        define_types()


@pytest.mark.parametrize("time", range(2))
def test_mail_is_in_the_outbox(djactor_drain, mailoutbox, time):
    TICKET.send(Open("help"))
    assert djactor_drain() == 2
    assert len(mailoutbox) == 1
    assert djactor_drain(until=timezone.now() + timedelta(hours=2)) == 1
    assert TICKET.state()["lines"] == ["help", "reminded"]


@pytest.mark.parametrize("time", range(2))
def test_inline(djactor_inline, freezer, time):
    freezer.move_to("2033-04-05")
    TICKET.send(Open("help"))
    assert djactor_inline() == 2
    assert TICKET.state()["opened"] == "2033-04-05"


def test_sends_are_captured(djactor_capture_sends, time_machine):
    time_machine.move_to("2033-04-05")
    with djactor_capture_sends() as sent:
        TICKET.send(Answer("done"), delay=timedelta(hours=1))
    assert (sent[0].key, sent[0].message) == ("7", Answer("done"))
    assert str(sent[0].options["deliver_at"].date()) == "2033-04-05"


def test_a_turn(djactor_turn):
    turn = djactor_turn(Ticket, key=7)
    assert turn.handle(Answer("done")).state["lines"] == ["done"]
    with pytest.raises(djactor.Reject):
        turn.handle({})
