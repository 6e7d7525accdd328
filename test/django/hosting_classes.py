"""Classes of actors whose turns run in processes of djactor_worker."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
from pathlib import Path

from django.db import ProgrammingError, connection, transaction
from django.db.models import F

import djactor
from djactor.hosting import async_host, current, sync_host
from djactor.hosting.async_host import Claim
from djactor_python import send as send_as_inside
from shop.models import Sale

logger = logging.getLogger("shop")


class Counter:
    """A sync one without effects."""

    def __init__(self, number: int):
        self.number = number
        self.n = 0
        self.seen = []

    def handle_message(self, message: dict):
        time.sleep(message.get("sleep", 0))
        return self.count(message)

    def count(self, message):
        if message.get("fail"):
            raise ValueError("told to fail")
        if message.get("reject"):
            raise djactor.Reject("not today")
        self.seen.append(message.get("i"))
        self.n += message.get("add", 1)
        return {"n": self.n}


class AsyncCounter(Counter):
    """An async one."""

    async def handle_message(self, message: dict):
        await asyncio.sleep(message.get("sleep", 0.001))
        return self.count(message)


def note(message):
    """Write down that its handler runs."""
    with Path(message["file"]).open("a") as file:
        file.write(f"{message['i']}\n")


class Driven:
    """Asks the database who it is, in the way that its message names."""

    def handle_message(self, message: dict):
        note(message)
        self.trap = "100%s 'n' \\"
        self.found = list(getattr(self, message["how"])())

    def plain(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT (djactor.self()).actor_key, '%s'")
            return cursor.fetchone()

    def with_parameters(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT (djactor.self()).actor_key, %s", ["%s"])
            return cursor.fetchone()

    def many(self):
        with connection.cursor() as cursor:
            cursor.executemany("SELECT %s", [["-"], ["%s"]])
            return self.plain()

    def by_the_driver(self):
        return connection.connection.execute("SELECT (djactor.self()).actor_key, '%s'").fetchone()

    def by_copy(self):
        text = "COPY (SELECT (djactor.self()).actor_key, '%s') TO STDOUT"
        with connection.cursor() as cursor, cursor.copy(text) as copy:
            return next(copy.rows())

    def in_a_pipeline(self):
        with connection.connection.pipeline():
            cursor = connection.connection.execute("SELECT (djactor.self()).actor_key, '%s'")
        return cursor.fetchone()

    def by_a_cursor_of_the_server(self):
        with connection.chunked_cursor() as cursor:
            cursor.execute("SELECT (djactor.self()).actor_key, %s", ["%s"])
            return cursor.fetchone()

    def after_an_error(self):
        with connection.cursor() as cursor:
            with contextlib.suppress(ProgrammingError):
                cursor.execute("SELECT %s", [])  # the driver does not send it
            return self.plain()

    def with_the_orm(self):
        with transaction.atomic():
            changed = Sale.objects.filter(amount=-1).update(amount=1)
        return self.plain()[0], "%s" if changed == 0 else "changed"


class Mixed:
    """Has statements for some messages only."""

    def handle_message(self, message: dict):
        note(message)
        if message["write"]:
            Sale.objects.create(product=message["i"], amount=1)
        if message.get("orphan"):
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO mixed_child VALUES (1)")
        if message.get("fail"):
            raise ValueError("told to fail")


class Lasting:
    """Locks one row, and has its host share a transaction for as long as it may."""

    def handle_message(self, message: dict):
        sync_host.LONG = 3600.0
        note(message)
        Sale.objects.filter(product=0).update(amount=F("amount") + 1)
        time.sleep(0.02)


class Sharing:
    """Tells for how long its host would have turns share a transaction now."""

    def handle_message(self, message: dict):
        time.sleep(message["sleep"])
        return {"longest": threading.current_thread().host.longest()}


class Looped:
    """Tells whose event loop it runs in."""

    async def handle_message(self, message: dict):
        return {"loop": type(asyncio.get_running_loop()).__module__.partition(".")[0]}


class Hasty(AsyncCounter):
    """Has its host take ahead as on a fast machine."""

    async def handle_message(self, message: dict):
        async_host.AHEAD = 60.0
        return await super().handle_message(message)


class Seller:
    """Writes with the ORM."""

    sold = 0

    def handle_message(self, message: dict):
        Sale.objects.create(product=message["product"], amount=message.get("amount", 1))
        self.sold += 1
        if message.get("fail"):
            raise ValueError("told to fail")
        if message.get("leave_broken"):
            transaction.set_rollback(True)
        if message.get("send"):
            djactor.actor("shop.counter", message["send"]).send({"add": 5})
        time.sleep(message.get("sleep", 0))
        return {"sold": self.sold}


class AsyncSeller:
    """Writes with the ORM in its final transaction."""

    sold = 0

    def sell(self, message):
        sale = Sale.objects.create(product=message["product"], amount=1)
        current().send("shop.counter", message["product"], {"add": 7})
        return sale.pk

    async def handle_message(self, message: dict):
        await asyncio.sleep(0.001)
        self.last = await current().in_commit(self.sell, message)
        self.sold += 1
        if message.get("fail"):
            raise ValueError("told to fail")
        return {"sold": self.sold}


class Forwarder:
    """An async one that acts, and knows what is said to it."""

    def __init__(self, key: str):
        self.key = key
        self.kinds = []

    async def handle_message(self, message: dict):
        await asyncio.sleep(0.001)
        turn = current()
        self.kinds.append(turn.kind)
        if turn.kind == "timer":
            self.meta = turn.meta["name"]
        elif message.get("to"):
            turn.send("shop.counter", message["to"], {"add": 3}, headers={"tenant": "x"})
            send_as_inside("shop.counter", message["to"], {"add": 4})
        elif message.get("timer"):
            turn.set_timer("later", 0.01)
        elif message.get("nowhere"):
            turn.send("shop.nowhere", 1)
        elif message.get("stop"):
            turn.stop()
        elif message.get("answer"):
            turn.reply({"by": "reply()"})
        if message.get("execute"):
            turn.execute("INSERT INTO shop_sale (product, amount) VALUES (%s, 1)", [77])


class Asker:
    """Tries to wait for another actor."""

    async def handle_message(self, message: dict):
        if message.get("when"):
            self.sent_at = current().sent_at.isoformat()
            return None
        try:
            await djactor.actor("shop.counter", 1).aask({"add": 1})
        except djactor.AskInTransaction as error:
            return {"error": str(error)}


class SyncAsker:
    def handle_message(self, message: dict):
        if message.get("when"):
            self.sent_at = current().sent_at.isoformat()
            return None
        try:
            djactor.actor("shop.counter", 1).ask({"add": 1})
        except djactor.AskInTransaction as error:
            return {"error": str(error)}


class Collected:
    """Counts what is left of claims that have ended, while nobody collects garbage."""

    async def handle_message(self, message: dict):
        gc.disable()
        if message.get("count"):
            gc.enable()
            return {"claims": sum(isinstance(one, Claim) for one in gc.get_objects())}


class Careless:
    """Does what should not be done."""

    async def handle_message(self, message: dict):
        what = message.get("do")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "block":
            time.sleep(1.6)
        elif what == "hang":
            await asyncio.sleep(3600)
        elif what == "swallow":
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
        elif what == "tuple":
            self.pair = (1, 2)
        elif what == "log":
            logger.warning("hello from %s", current().key)
        await asyncio.sleep(message.get("sleep", 0))
        self.did = what


class SlowThread:
    """A sync one that takes its time."""

    def handle_message(self, message: dict):
        time.sleep(message.get("sleep", 0))
        if message.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.thread = threading.current_thread().name


class Beside:
    """A sync one that waits, and knows how many turns have run beside each other."""

    running: set[int] = set()

    def handle_message(self, message: dict):
        self.running.add(threading.get_ident())
        self.most = len(self.running)
        time.sleep(0.012)
        self.running.discard(threading.get_ident())


class Versioned:
    """Has had another state before."""

    def __init__(self, key: str):
        self.words = []

    @staticmethod
    def upgrade_state(state: dict, from_version: int):
        return {"words": [f"v{from_version}", *state["text"].split()]}

    def handle_message(self, message: dict):
        self.words.append(message["word"])


class Halting:
    """Calls the debugger."""

    def handle_message(self, message: dict):
        if message.get("fail"):
            raise ValueError("told to fail")
        seen = []
        breakpoint()
        return {"seen": seen}


class AsyncHalting:
    """An async one that does so."""

    async def handle_message(self, message: dict):
        seen = []
        await asyncio.sleep(0.01)
        breakpoint()
        return {"seen": seen}


class Reporter(djactor.PythonActor):
    """Says how far it is, and waits until it is told to end."""

    def handle_message(self, message: dict):
        self.progress({"done": 1})
        self.progress({"done": message["done"]})
        time.sleep(message["sleep"])


class AsyncReporter(djactor.PythonActor):
    """Likewise."""

    async def handle_message(self, message: dict):
        self.progress({"done": 1})
        self.progress({"done": message["done"]})
        await asyncio.sleep(message["sleep"])
        if message.get("long"):
            self.progress("x" * 2000)
