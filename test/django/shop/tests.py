"""What users write: run by Django's own runner, with workers running."""

from django.test import TestCase, TransactionTestCase

import djactor
from djactor.models import Actor
from djactor.test import drain, wait_idle
from shop.models import Sale

COUNTER = djactor.actor("shop.counter", 1)


class InOneTransaction(TestCase):
    def count(self):
        self.assertIsNone(COUNTER.state())
        COUNTER.send({"add": 1})
        COUNTER.send({"add": 2})
        self.assertEqual(drain(), 2)
        self.assertEqual(COUNTER.state(), {"n": 3})
        self.assertEqual(Sale.objects.count(), 2)

    def test_first(self):
        self.count()

    def test_second(self):
        self.count()


class InOneTransactionToo(InOneTransaction):
    pass


class WithWorkers(TransactionTestCase):
    def count(self):
        self.assertFalse(Actor.objects.exists())
        COUNTER.send({"add": 5})
        wait_idle(30)
        self.assertEqual(COUNTER.state(), {"n": 5})
        self.assertEqual(COUNTER.ask({"add": 1}, timeout=30), {"n": 6})

    def test_first(self):
        self.count()

    def test_second(self):
        self.count()


class WithWorkersToo(WithWorkers):
    pass
