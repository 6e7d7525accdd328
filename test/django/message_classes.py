"""Classes that take typed messages; without Django, so the server can run them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, TypedDict
from uuid import UUID

import djactor


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Line:
    sku: str
    n: int = 1


@dataclass
class AddItem:
    sku: str
    n: int = 1


@dataclass
class RemoveItem:
    sku: str


@dataclass
class Everything:
    text: str
    number: int
    price: Decimal
    at: datetime
    day: date
    id: UUID
    color: Color
    lines: list[Line]
    by_name: dict[str, float]
    pair: tuple[int, str]
    maybe: int | None = None
    either: Line | str | None = None
    parent: Everything | None = None
    size: Literal["s", "m"] = "s"
    anything: Any = None
    many: tuple[int, ...] = field(default=())
    yes: bool = False


class Rename(TypedDict):
    op: Literal["rename"]
    name: str


class Cart(djactor.PythonActor[AddItem | RemoveItem | Rename]):
    """Takes three types, and passes one on."""

    def __init__(self, number: int):
        self.number = number
        self.items: dict[str, int] = {}
        self.name = ""

    @djactor.handles(AddItem)
    def add(self, message: AddItem):
        self.items[message.sku] = self.items.get(message.sku, 0) + message.n
        if message.sku == "passed":
            self.send(Wish, "w", AddItem("from a cart", message.n))
        return {"n": self.items[message.sku]}

    @djactor.handles
    def remove(self, message: RemoveItem):
        del self.items[message.sku]
        return Line("removed", 0)

    @djactor.handles
    def rename(self, message: Rename):
        self.name = message["name"]


class Wish:
    """Takes one type, and needs no base."""

    def __init__(self, key: str):
        self.seen: list[list[Any]] = []

    def handle_message(self, message: AddItem):
        assert type(message) is AddItem
        self.seen.append([message.sku, message.n])


class AsyncWish:
    """An async one, that also takes what has no type."""

    def __init__(self, key: str):
        self.seen: list[Any] = []

    @djactor.handles(AddItem)
    async def add(self, message: AddItem):
        self.seen.append([message.sku, message.n])
        return {"sku": message.sku}

    async def handle_message(self, message: dict):
        self.seen.append(message)
        if message.get("send"):
            djactor.PythonActor.send(Cart, 7, RemoveItem(message["send"]))
            djactor.PythonActor.set_timer("later", 0, AddItem("of a timer"))
