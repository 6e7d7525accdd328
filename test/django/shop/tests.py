"""What users write: run by Django's own runner, with workers running."""

import json
from urllib.request import urlopen

from asgiref.sync import sync_to_async
from django.test import LiveServerTestCase, TestCase, TransactionTestCase

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
    async def test_async(self):
        await COUNTER.asend({"add": 4})
        with self.assertRaises(djactor.AskInTransaction):  # nobody would see the question
            await COUNTER.aask({"add": 1})
        self.assertEqual(await sync_to_async(drain)(), 1)
        self.assertEqual(await COUNTER.astate(), {"n": 4})


class ForAllTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        COUNTER.send({"add": 10})
        drain()
        COUNTER.send({"add": 1})

    def count(self):
        self.assertEqual(COUNTER.state(), {"n": 10})
        self.assertEqual(drain(), 1)
        self.assertEqual(COUNTER.state(), {"n": 11})

    def test_first(self):
        self.count()

    def test_second(self):
        self.count()


class WithWorkers(TransactionTestCase):
    serialized_rollback = True  # in all or none: Django's content types would clash

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
    async def test_async(self):
        self.assertEqual(await COUNTER.aask({"add": 5}, timeout=30), {"n": 5})


class WithBrowser(LiveServerTestCase):
    serialized_rollback = True

    def test_a_page_sends_and_a_worker_handles(self):
        for n in (1, 2):
            with urlopen(f"{self.live_server_url}/count") as page:
                self.assertEqual(json.load(page), {"n": n})
