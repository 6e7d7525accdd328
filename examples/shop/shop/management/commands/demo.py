"""``manage.py demo URL``: a bank, a ``djactor_worker`` and some customers, until Ctrl-C.

The bank is slow, fails, and loses answers.  What the worker says of that goes to a file, beside
the bank's books and the mail.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from shop.management.commands.products import PRODUCTS

CUSTOMERS = 4
BANK = ["--delay", "3", "--fail", "0.2", "--lose", "0.2"]


class Command(BaseCommand):
    """Everything that the shop needs, and customers."""

    help = "Starts a bank and a djactor_worker, and buys at URL, until Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Where to, and for how long."""
        parser.add_argument("url", help="of the shop, such as http://127.0.0.1:8000")
        parser.add_argument("--seconds", type=float, default=math.inf, help="default: for ever")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until it is over, then compare the books."""
        call_command("products")
        with TemporaryDirectory(prefix="shop-") as name, bank(Path(name)), worker(Path(name)):
            self.stdout.write(f"Customers buy; look at {options['url']}/")
            self.stdout.write(f"and at {options['url']}/admin/ (admin, admin)")
            self.stdout.write(f"mail, the bank's books, the worker's log: {name}")
            with contextlib.suppress(KeyboardInterrupt, TimeoutError, asyncio.TimeoutError):
                asyncio.run(
                    asyncio.wait_for(self.sell(options["url"]), min(options["seconds"], 1e9))
                )
            self.stdout.write("")
            with contextlib.suppress(CommandError):
                call_command("ledger", stdout=self.stdout)

    async def sell(self, url: str) -> None:
        """Customers, and what has become of their orders now and then."""
        await asyncio.gather(self.report(), *(customer(url, n) for n in range(CUSTOMERS)))

    async def report(self) -> None:
        """Compare the books."""
        while True:
            await asyncio.sleep(10)
            with contextlib.suppress(CommandError, httpx.HTTPError):
                await asyncio.to_thread(call_command, "ledger", stdout=self.stdout)


async def customer(url: str, number: int) -> None:
    """Buy something every few seconds; one card in ten is bad."""
    async with httpx.AsyncClient(base_url=url, timeout=30, follow_redirects=True) as http:
        while True:
            await asyncio.sleep(random.uniform(1, 4))
            await http.get("/")
            token = {"X-CSRFToken": http.cookies["csrftoken"]}
            for slug, _, _ in random.sample(PRODUCTS, random.choice([1, 1, 2])):
                quantity = random.choice([1, 1, 2, 3])
                await http.post(
                    "/cart/", data={"product": slug, "quantity": quantity}, headers=token
                )
            card = "0000" if random.random() < 0.1 else "4111 1111"
            await http.post(
                "/buy/",
                data={"customer": f"customer{number}@example.org", "card": card},
                headers=token,
            )


@contextlib.contextmanager
def bank(folder: Path) -> Iterator[None]:
    """The bank, in a process of its own; settings.SHOP_BANK_URL is where it is."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    settings.SHOP_BANK_URL = f"http://127.0.0.1:{port}"
    server = Path(settings.BASE_DIR) / "bank_server.py"
    books = folder / "bank.jsonl"
    with process([server, "--port", port, "--books", books, *BANK], folder / "bank.log"):
        yield


@contextlib.contextmanager
def worker(folder: Path) -> Iterator[None]:
    """``manage.py djactor_worker``, in a process of its own."""
    environment = {
        "SHOP_BANK_URL": settings.SHOP_BANK_URL,
        "SHOP_MAIL_DIR": str(folder / "mail"),
        "SHOP_DEADLINE": "20",
        "SHOP_HOLD": "40",
    }
    (folder / "mail").mkdir()
    command = ["-m", "django", "djactor_worker", "--processes", "2"]
    with process(command, folder / "worker.log", environment):
        yield


@contextlib.contextmanager
def process(
    command: list[Any], log_file: Path, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """A process of Python that ends with the block."""
    with log_file.open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ | (environment or {}),
            cwd=settings.BASE_DIR,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C at the terminal reaches only us
        )
    try:
        yield
    finally:
        started.terminate()
        started.wait()
