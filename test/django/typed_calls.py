"""Calls of the public interface as users write them, for test_typing.py.  Never run.

mypy must find an error in each line that ends in `# wrong`, and in no other.
"""

from datetime import datetime, timedelta, timezone
from uuid import UUID
from zoneinfo import ZoneInfo

import djactor
from djactor.models import Message
from djactor.operations import DefineActorType, Schedule
from djactor.options import AskOptions, Key, ScheduleOptions, SendOptions
from djactor.test import drain

NOW = datetime.now(timezone.utc)
UUID_KEY = UUID(int=7)

# Keys
counter = djactor.actor("shop.counter", 7)
djactor.actor("shop.counter", "seven")
djactor.actor("shop.counter", UUID_KEY, using="other")
djactor.actor("shop.counter", 7.0)  # wrong
djactor.actor("shop.counter", None)  # wrong
djactor.actor("shop.counter", b"7")  # wrong
djactor.actor("shop.counter", 7, database="other")  # wrong
djactor.actro("shop.counter", 7)  # wrong

# Sending
sent: int = counter.send({"add": 1}, delay=timedelta(seconds=3), priority=2)
counter.send()
counter.send(["any", 1, None], deliver_at=NOW, expires_at=None, idempotency_key="k")
counter.send({}, headers={"tenant": "a"}, wants_reply=True)
counter.send({}, dealy=3)  # wrong
counter.send({}, delay=3)  # wrong
counter.send({}, priority="high")  # wrong
counter.send({}, deliver_at="tomorrow")  # wrong
counter.send({}, headers=["a"])  # wrong
counter.send({}, id=7)  # wrong
text: str = counter.send({})  # wrong

# Asking
counter.ask({"add": 1}, timeout=2.5, priority=1, headers={"a": 1}, idempotency_key="k")
counter.ask({}, 5)  # wrong
counter.ask({}, timeuot=5)  # wrong
counter.ask({}, timeout="5 s")  # wrong
counter.ask({}, delay=timedelta(seconds=3))  # wrong
counter.ask({}, wants_reply=True)  # wrong


async def asynchronous() -> None:
    number: int = await counter.asend({"add": number_of(3)}, delay=timedelta(seconds=3))
    await counter.asend({}, dealy=number)  # wrong
    await counter.aask({"add": 1}, timeout=2, priority=1)
    await counter.aask({}, timeuot=5)  # wrong
    await counter.aask({}, expires_at=NOW)  # wrong
    at: datetime = await counter.aschedule("nightly", cron="0 2 * * *", time_zone="UTC")
    await counter.aschedule("nightly", corn="0 2 * * *")  # wrong
    await counter.aschedule("nightly", at=at, catch_up="never")  # wrong


def number_of(key: Key) -> int:
    return int(str(key))


# Wrappers
def send_later(key: Key, options: SendOptions, asked: AskOptions, rule: ScheduleOptions) -> None:
    djactor.actor("shop.counter", key).send({}, **options)
    djactor.actor("shop.counter", key).ask({}, **asked)
    djactor.actor("shop.counter", key).schedule("nightly", **rule)
    djactor.actor("shop.counter", key).ask({}, **options)  # wrong


# Schedules
due: datetime = counter.schedule("a", every=timedelta(days=1), time_zone=ZoneInfo("Europe/Berlin"))
counter.schedule("a", after="1 mon", payload=[1], at=NOW, catch_up="skip")
counter.schedule("a", every=3)  # wrong
counter.schedule("a", catch_up="never")  # wrong
counter.schedule("a", timezone="UTC")  # wrong
counter.run_now(7)  # wrong
Schedule("shop.counter", 7, "nightly", cron="@daily", hints={"a": 1})
Schedule("shop.counter", UUID_KEY, "nightly", cron="@daily", catch_up="once")
Schedule("shop.counter", 7.5, "nightly", cron="@daily")  # wrong
Schedule("shop.counter", 7, "nightly", corn="@daily")  # wrong
DefineActorType("shop.counter", "f", retry_order="skip", backoff=timedelta(seconds=1))
DefineActorType("shop.counter", "f", retry_order="never")  # wrong
DefineActorType("shop.counter", "f", max_atempts=3)  # wrong

# Models
one = Message(actor_type="shop.counter", actor_key=7, payload={"add": 1}, priority=2)
two = Message(actor_type="shop.counter", actor_key=UUID_KEY)
Message(actor_type="shop.counter", actor_key=7.5)  # wrong
Message(actor_type="shop.counter", actor_key=7, dealy=3)  # wrong
Message.objects.create(actor_type="shop.counter", actor_key=7)
Message.objects.create(actor_type="shop.counter", actor_key=7, dealy=3)  # wrong
all_sent: list[Message] = Message.objects.bulk_create([one, two], batch_size=100)
Message.objects.bulk_create([one, two], bach_size=100)  # wrong
Message.objects.bulk_create([{"actor_key": 7}])  # wrong
Message.objects.filter(actor_key=7).exists()
key: str = one.actor_key


# Actors in Python
class Shop(djactor.PythonActor):
    def handle_message(self, message: dict[str, object]) -> None:
        self.send("shop.counter", 7, {"add": 1}, priority=2, headers={"tenant": "a"})
        self.send("shop.counter", 7, {}, dealy=3)  # wrong
        self.send("shop.counter", 7, {}, delay=timedelta(seconds=3))  # wrong
        self.send("shop.counter", 7.5, {})  # wrong
        self.set_timer("nightly", cron="@daily", catch_up="skip")
        self.set_timer("nightly", corn="@daily")  # wrong
        self.stop(discrad=True)  # wrong


# Tests
handled: int = drain(on_error="retry", until=NOW)
drain(on_error="ignore")  # wrong
