"""Calls of the public interface as users write them, for test_typing.py.  Never run.

mypy must find an error in each line that ends in `# wrong`, and in no other.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic

import djactor
from djactor.hosting import current
from djactor.models import Message
from djactor.operations import DefineActorType, Schedule
from djactor.options import AskOptions, Key, ScheduleOptions, SendOptions
from djactor.test import drain
from djactor_python import send as send_from_inside

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
counter.send({"add": 1}, trace_id="0197f0a2-6b5e-7c31-9d3f-3a1b5c7d9e11")
counter.send_many([{"add": 1}], trace_id=UUID(int=7))
counter.send()
counter.send(["any", 1, None], deliver_at=NOW, expires_at=None, idempotency_key="k")
counter.send({}, headers={"tenant": "a"}, wants_reply=True)
counter.send({}, coalesce_key="k", coalesce_mode="keep")
counter.send({}, coalesce_key="k", debounce=timedelta(seconds=3), debounce_limit=None)
counter.send({}, coalesce_key="k", coalesce_mode="last")  # wrong
counter.send({}, coalesce_key="k", debounce=3)  # wrong
counter.send({}, dealy=3)  # wrong
counter.send({}, delay=3)  # wrong
counter.send({}, trace_id=7)  # wrong
counter.send({}, priority="high")  # wrong
counter.send({}, deliver_at="tomorrow")  # wrong
counter.send({}, headers=["a"])  # wrong
counter.send({}, id=7)  # wrong
text: str = counter.send({})  # wrong

# Asking
counter.ask({"add": 1}, timeout=2.5, priority=1, headers={"a": 1}, idempotency_key="k")
counter.ask({}, coalesce_key="k", coalesce_mode="replace")
counter.ask({}, coalesce_key="k", coalesce_mode="debounce")  # wrong
counter.ask({}, 5)  # wrong
counter.ask({}, timeuot=5)  # wrong
counter.ask({}, timeout="5 s")  # wrong
counter.ask({}, delay=timedelta(seconds=3))  # wrong
counter.ask({}, wants_reply=True)  # wrong


answers: dict[int, object] = djactor.wait_replies([sent], timeout=2.5, using="other")
djactor.wait_replies(sent)  # wrong
djactor.wait_replies([sent], 5)  # wrong
djactor.wait_replies(["7"])  # wrong


async def asynchronous() -> None:
    await djactor.await_replies({sent}, timeout=2)
    await djactor.await_replies([sent], timeuot=5)  # wrong
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


# Registering
@djactor.register("shop.order", hosted=True, max_attempts=3, backoff=timedelta(seconds=1))
class Order:
    def __init__(self, number: int) -> None:
        self.number = number

    def handle_message(self, message: dict[str, int]) -> dict[str, int] | None:
        return None


order: int = Order(7).number  # it is the class still
djactor.register(Order, "shop.order", hosted=False, retry_order="skip", journal=None)
djactor.register(Order, "shop.order", hosted="yes")  # wrong
djactor.register(Order, "shop.order", max_atempts=3)  # wrong
djactor.register(Order, "shop.order", backoff=3)  # wrong
djactor.register(Order, "shop.order", on_full="drop")  # wrong
djactor.register(Order)  # wrong
djactor.register(Order(7), "shop.order")  # wrong
DefineActorType("shop.order", Order, hosted=True)
DefineActorType("shop.order", hosted=True, max_attempts=3)
DefineActorType("shop.order", hosted="yes")  # wrong

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


# Typed messages
@dataclass
class AddItem:
    sku: str
    n: int = 1


class RemoveItem(pydantic.BaseModel):
    sku: str


class Rename(TypedDict):
    name: str


@djactor.register("shop.cart", hosted=True)
class Cart(djactor.PythonActor[AddItem | RemoveItem]):
    def __init__(self, number: int) -> None:
        self.items: dict[str, int] = {}

    @djactor.handles(AddItem)
    def add(self, message: AddItem) -> dict[str, int]:
        return {"n": message.n}

    @djactor.handles
    async def remove(self, message: RemoveItem) -> None:
        self.items.pop(message.sku)

    @djactor.handles(AddItem)  # wrong
    def rename(self, message: Rename) -> None: ...


class Wish:
    def handle_message(self, message: AddItem | Rename) -> None: ...


class AsyncWish:
    async def handle_message(self, message: Rename) -> None: ...


class Plain:
    def handle_message(self, message: dict[str, Any]) -> None: ...


cart = djactor.actor(Cart, 7)
cart.send(AddItem("x", 2), priority=1)
cart.send(RemoveItem(sku="x"))
cart.ask(AddItem(sku="x"), timeout=3)
cart.send_many([AddItem("x"), RemoveItem(sku="x")], priority=1)
cart.schedule("later", payload=AddItem("x"), after=timedelta(hours=1))
cart.send(Rename(name="x"))  # wrong
cart.send({"sku": "x"})  # wrong
cart.send("x")  # wrong
cart.send(AddItem("x"), dealy=1)  # wrong
cart.ask(Plain())  # wrong
cart.send_many([AddItem("x"), "y"])  # wrong
cart.schedule("later", payload=Rename(name="x"), after="1 h")  # wrong
djactor.actor(Wish, "a").send({"name": "n"})
djactor.actor(Wish, "a").send(AddItem("x"))
djactor.actor(Wish, "a").send({"nmae": "n"})  # wrong
djactor.actor(Wish, "a").send(RemoveItem(sku="x"))  # wrong
djactor.actor(AsyncWish, "a").send(Rename(name="n"))
djactor.actor(AsyncWish, "a").send(AddItem("x"))  # wrong
djactor.actor(Plain, 1).send({"any": 1})
djactor.actor(Plain, 1).send(AddItem("x"))  # wrong
djactor.actor(Shop, 1).send({"any": 1})
djactor.actor(UUID, 1)  # wrong
ref: djactor.ActorRef = djactor.actor("shop.cart", 7)
ref.send(AddItem("x"))
for_adding: djactor.ActorRef[AddItem] = cart
for_renaming: djactor.ActorRef[Rename] = cart  # wrong


async def typed() -> None:
    await cart.asend(AddItem("x"))
    await cart.aask(RemoveItem(sku="x"))
    await cart.asend(Rename(name="x"))  # wrong
    await cart.aask(Rename(name="x"))  # wrong


class Sender(djactor.PythonActor[Rename]):
    async def handle_message(self, message: Rename) -> None:
        self.send(Cart, 7, AddItem("x"), priority=1)
        self.send("shop.cart", 7, AddItem("x"))
        self.send(Cart, 7, message)  # wrong
        current().send(Cart, 7, RemoveItem(sku="x"))
        current().send(Cart, 7, message)  # wrong
        send_from_inside(Cart, 7, AddItem("x"))
        send_from_inside(Cart, 7, message)  # wrong
        message["nmae"]  # wrong


# Tests
handled: int = drain(on_error="retry", until=NOW)
drain(on_error="ignore")  # wrong
