"""The classes of the benchmarks' hosted types; each notes whether its messages came in order."""

import asyncio
import os
import time
from pathlib import Path

from django.db.models import F

from djactor.hosting import current

from .models import State


class _Ordered:
    def __init__(self, key: str) -> None:
        self.total = 0
        self.last = 0
        self.disorder = 0

    def add(self, message: dict) -> None:
        """Do the work."""
        if message["i"] <= self.last:
            self.disorder += 1
        self.last = message["i"]
        self.total += message["n"]


class Adder(_Ordered):
    """Waits for nothing."""

    async def handle_message(self, message: dict) -> None:
        """Handle one message."""
        self.add(message)


class Sleeper(_Ordered):
    """Waits 10 ms, as for a service."""

    async def handle_message(self, message: dict) -> None:
        """Handle one message."""
        await asyncio.sleep(0.01)
        self.add(message)


class Writer(_Ordered):
    """The same, and updates a row in the transaction that ends the turn."""

    async def handle_message(self, message: dict) -> None:
        """Handle one message."""
        await asyncio.sleep(0.01)
        turn = current()
        turn.execute("UPDATE state SET total = total + %s WHERE key = %s", (message["n"], turn.key))
        self.add(message)


class AsyncOrm(_Ordered):
    """The same with the ORM."""

    async def handle_message(self, message: dict) -> None:
        """Handle one message."""
        await asyncio.sleep(0.01)
        turn = current()
        row = State.objects.filter(key=turn.key)
        await turn.in_commit(row.update, total=F("total") + message["n"])
        self.add(message)


class Orm(_Ordered):
    """A sync one: one UPDATE."""

    def handle_message(self, message: dict) -> None:
        """Handle one message."""
        State.objects.filter(key=current().key).update(total=F("total") + message["n"])
        self.add(message)


class Holder:
    """Says when it begins, and does not end in the process that the message names."""

    async def handle_message(self, message: dict) -> None:
        """Handle one message."""
        with Path(message["file"]).open("a") as file:
            file.write(f"{os.getpid()} {current().key} {time.time()}\n")
        while os.getpid() == message["hold"]:
            await asyncio.sleep(60)
