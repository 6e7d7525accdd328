"""What users write who test hosted actors with Django's runner."""

from datetime import timedelta
from unittest import mock

import time_machine
from django.core import mail
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.utils import timezone
from freezegun import freeze_time

import djactor
from desk import actors
from desk.actors import Answer, Desk, Open, Ticket
from djactor.test import Sent, Turn, capture_sends, drain, inline

TICKET = djactor.actor(Ticket, 7)


class InTestCase(TestCase):
    def test_mail_is_in_the_outbox(self):
        TICKET.send(Open("help"))
        self.assertEqual(drain(), 2)
        self.assertEqual([one.body for one in mail.outbox], ["help"])
        self.assertEqual(djactor.actor(Desk, "all").state(), {"n": 1})

    def test_what_is_patched_is_called(self):
        TICKET.send(Open("help"))
        with mock.patch.object(actors, "send_mail") as send_mail:
            drain()
        send_mail.assert_called_once()
        self.assertEqual(mail.outbox, [])

    def test_time_passes_until(self):
        TICKET.send(Open("help"))
        drain(until=timezone.now() + timedelta(hours=2))
        self.assertEqual(TICKET.state()["lines"], ["help", "reminded"])

    def test_time_stands_still(self):
        for at, frozen in (("2031-02-03", freeze_time), ("2032-03-04", time_machine.travel)):
            with frozen(f"{at} 04:05:06+00:00"):
                TICKET.send(Open("help"))
                drain()
            self.assertEqual(TICKET.state()["opened"], at)

    def test_sends_are_captured(self):
        with capture_sends() as sent, inline():
            TICKET.send(Open("help"), priority=1)
            drain()
        self.assertEqual(
            sent,
            [
                Sent("desk.ticket", "7", {"@type": "Open", "text": "help"}, {"priority": 1}),
                Sent("desk.desk", "all", {"@type": "Open", "text": "help"}),
            ],
        )

    def test_a_message_that_does_not_fit_is_rejected(self):
        djactor.actor("desk.ticket", 7).send({"@type": "Open", "text": None})
        with self.assertRaisesMessage(djactor.Reject, "Open: text: None is not a str"):
            drain()


class Committing(TransactionTestCase):
    def test_drain_commits(self):
        TICKET.send_many([Open("help"), Answer("done")])
        self.assertEqual(drain(), 3)
        self.assertEqual(TICKET.state()["lines"], ["help", "done"])


class WithoutDatabase(SimpleTestCase):
    def test_a_turn(self):
        turn = Turn(Ticket, key=7)
        done = turn.handle(Open("help"))
        self.assertEqual(done.state["lines"], ["help"])
        self.assertEqual(done.sends[0].message, Open("help"))
        self.assertEqual(done.timers["remind"].after, timedelta(hours=1))
        with self.assertRaisesMessage(djactor.Reject, "an empty ticket"):
            turn.handle(Open(""))
        self.assertEqual(len(mail.outbox), 1)
