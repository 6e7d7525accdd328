"""drain() with hosted types: in the test's own process and transaction."""

import contextlib
import functools
from datetime import timedelta
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.core.mail import send_mail
from django.core.management import call_command
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import timezone

import djactor
from djactor.hosting import current
from djactor.models import Actor, DeadLetter, Message
from djactor.test import drain, wait_idle
from registering import registered
from shop.models import Sale

CALLED = mock.Mock()


class Welcome:
    """A sync one, that writes with the ORM and sends mail."""

    def __init__(self, customer: int):
        self.customer = customer
        self.sent = 0

    def handle_message(self, message: dict):
        CALLED(self.customer, message)
        if message.get("fail"):
            Sale.objects.create(product=self.customer, amount=999)
            raise ValueError("cannot be welcomed")
        if message.get("reject"):
            raise djactor.Reject("go away")
        Sale.objects.create(product=self.customer, amount=self.sent)
        send_mail("Welcome!", "hello", None, ["ann@example.org"])
        self.sent += 1
        if message.get("count"):
            current().send("shop.counter", self.customer, {"add": message["count"]})
        return {"sent": self.sent}


class Slow:
    """An async one."""

    def __init__(self, key: str):
        self.key = key
        self.answers = []

    async def handle_message(self, message: dict):
        turn = current()
        if turn.kind == "reply":
            self.answers.append(message)
            return
        turn.send("shop.counter", 5, {"add": 2}, wants_reply=True)
        turn.set_timer("later", timedelta(hours=1))
        await turn.in_commit(functools.partial(Sale.objects.create, product=1, amount=7))
        await turn.in_commit(CALLED, turn.kind)


WELCOME, SLOW = "shop.welcome", "shop.slow"


@pytest.fixture(autouse=True)
def types(fresh):
    CALLED.reset_mock()
    with (
        registered(
            (Welcome, WELCOME, {"hosted": True, "max_attempts": 3}), (Slow, SLOW, {"hosted": True})
        ),
        override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"),
    ):
        from django.core import mail

        mail.outbox = []
        call_command("migrate", verbosity=0)
        yield
        del mail.outbox


@contextlib.contextmanager
def in_a_test_case():
    """As TestCase runs a test: in a transaction that is rolled back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    assert not Message.objects.exists() and not Actor.objects.exists()


def test_a_turn_runs_here_and_is_rolled_back_with_the_test():
    from django.core import mail

    with in_a_test_case():
        actor = djactor.actor(WELCOME, 7)
        first, second = actor.send({}), actor.send({"a": 1})
        assert drain() == 2
        assert [call.args for call in CALLED.mock_calls] == [(7, {}), (7, {"a": 1})]
        assert actor.state() == {"customer": 7, "sent": 2}
        assert list(Sale.objects.values_list("amount", flat=True)) == [0, 1]
        assert len(mail.outbox) == 2
        assert drain() == 0 and first < second
    assert not Sale.objects.exists()


def test_hosted_and_inside_turns_alternate():
    with in_a_test_case():
        djactor.actor(WELCOME, 7).send({"count": 3})
        djactor.actor(SLOW, "a").send({})
        # two hosted, counter twice, and the reply to the slow one
        assert drain() == 5
        assert djactor.actor("shop.counter", 7).state() == {"n": 3}
        assert djactor.actor(SLOW, "a").state()["answers"] == [{"n": 2}]


class Deadline:
    """Asks one that runs inside, and gives up after a minute, or looks again."""

    def __init__(self, key: str):
        self.key = key
        self.heard = []

    def handle_message(self, message: dict):
        turn = current()
        self.heard.append(turn.kind)
        if turn.kind == "user":
            turn.send(
                "shop.counter",
                self.key,
                {"add": 1},
                wants_reply=True,
                deliver_at=timezone.now() + timedelta(seconds=message["answer_after"]),
            )
            turn.set_timer("deadline", timedelta(minutes=1))


@pytest.mark.parametrize(
    ("after", "heard"),
    [(0, ["reply", "timer"]), (30, ["reply", "timer"]), (90, ["timer", "reply"])],
)
def test_time_passes_for_hosted_and_inside_turns_alike(after, heard):
    with registered((Deadline, "shop.deadline", {"hosted": True})):
        call_command("migrate", verbosity=0)
        with in_a_test_case():
            actor = djactor.actor("shop.deadline", 9)
            actor.send({"answer_after": after})
            assert drain(until=timezone.now() + timedelta(minutes=5)) == 4
            assert actor.state()["heard"] == ["user", *heard]


def test_no_more_turns_than_asked_for():
    with in_a_test_case():
        for _ in range(4):
            djactor.actor(WELCOME, 7).send({"count": 1})
        assert drain(max=0) == 0
        assert drain(max=3) == 3
        assert drain() == 5


def test_async_handlers_run_to_their_end():
    with in_a_test_case():
        djactor.actor(SLOW, "a").send({})
        drain()
        assert Sale.objects.filter(amount=7).count() == 1
        CALLED.assert_called_once_with("user")
        drain(until=timezone.now() + timedelta(minutes=90))
        assert [call.args for call in CALLED.mock_calls] == [("user",), ("timer",)]


def test_what_a_handler_raises_is_raised_and_leaves_nothing():
    with in_a_test_case():
        actor = djactor.actor(WELCOME, 7)
        actor.send({"fail": True})
        with pytest.raises(ValueError, match="cannot be welcomed"):
            drain()
        assert not Sale.objects.exists() and actor.state() is None  # the transaction is usable
        assert Message.objects.get().attempts == 0
        with (
            mock.patch.object(Welcome, "handle_message", lambda self, message: {"ok": True}),
        ):
            assert drain() == 1
        assert not Message.objects.exists()


def test_retry_follows_the_policy_of_the_type():
    with in_a_test_case():
        djactor.actor(WELCOME, 7).send({"fail": True})
        assert drain(on_error="retry") == 0
        waiting = Message.objects.get()
        assert waiting.attempts == 1 and "cannot be welcomed" in waiting.last_error
        drain(on_error="retry", until=timezone.now() + timedelta(minutes=1))
        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.attempts) == ("failed", 3)
        assert letter.error == "ValueError: cannot be welcomed"
        assert "test_hosted_drain.py" in letter.context
        assert CALLED.call_count == 3 and not Sale.objects.exists()


def test_a_rejected_message_is_a_dead_letter_at_once():
    with in_a_test_case():
        djactor.actor(WELCOME, 7).send({"reject": True})
        with pytest.raises(djactor.Reject, match="go away"):
            drain()
        drain(on_error="retry")
        assert DeadLetter.objects.get().reason == "rejected"


def test_an_ask_is_answered():
    with in_a_test_case(), connection.cursor() as cursor:
        cursor.execute("SELECT djactor.send(%s, '7', wants_reply => true)", [WELCOME])
        (number,) = cursor.fetchone()
        drain()
        cursor.execute("SELECT djactor.wait_reply(%s)", [number])
        assert '"sent": 1' in str(cursor.fetchone()[0]).replace("'", '"')


def test_a_state_of_an_older_version_is_upgraded_by_the_class():
    class Upgraded(Welcome):
        @staticmethod
        def upgrade_state(state, from_version):
            return state | {"sent": state["sent"] + 10 * from_version}

    Upgraded.__qualname__ = "Welcome"
    actor = djactor.actor(WELCOME, 7)
    actor.send({})
    drain()
    djactor.register(Upgraded, WELCOME, hosted=True, state_version=2)
    call_command("migrate", verbosity=0)
    for _ in range(2):
        actor.send({})
    assert drain() == 2
    row = Actor.objects.get(actor_type=WELCOME)
    assert (row.state["sent"], row.state_version) == (13, 2)


def test_outside_of_a_transaction_each_turn_commits():
    djactor.actor(WELCOME, 7).send({"count": 1})
    djactor.actor(WELCOME, 8).send({"fail": True})
    with pytest.raises(ValueError, match="cannot be welcomed"):
        drain()
    assert Message.objects.get(actor_type=WELCOME).attempts == 0
    with mock.patch.object(Welcome, "handle_message", return_value=None):
        drain()
    wait_idle(60)
    assert djactor.actor("shop.counter", 7).state() == {"n": 1}


def test_waiting_for_what_nobody_hosts_says_so():
    djactor.actor(WELCOME, 7).send({})
    with pytest.raises(AssertionError, match=r"No process hosts shop\.welcome: drain\(\)"):
        wait_idle(0.2)


class Cases(TestCase):
    """Run by the tests below."""

    __test__ = False  # by pytest alone

    def runTest(self):
        djactor.actor(WELCOME, 7).send({})
        self.assertEqual(drain(), 1)
        self.assertEqual(djactor.actor(WELCOME, 7).state()["sent"], 1)


class AsyncCases(TestCase):
    __test__ = False  # by pytest alone

    async def test_it(self):
        await djactor.actor(SLOW, "a").asend({})
        self.assertEqual(await sync_to_async(drain)(), 3)
        self.assertEqual((await djactor.actor(SLOW, "a").astate())["answers"], [{"n": 2}])


class Committing(TransactionTestCase):
    __test__ = False  # by pytest alone

    def runTest(self):
        djactor.actor(WELCOME, 7).send({})
        self.assertEqual(drain(), 1)


@pytest.mark.parametrize("case", [Cases(), AsyncCases("test_it"), Committing()])
def test_cases_of_django(case):
    result = case.defaultTestResult()
    case(result)
    assert not result.errors and not result.failures, result
    assert result.testsRun == 1
