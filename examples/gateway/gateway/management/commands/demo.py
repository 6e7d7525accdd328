"""``manage.py demo URL``: two upstreams, three clients that send requests, until Ctrl-C.

The clients want more than they may, each in its way, and one of the upstreams fails for a while
now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
from collections import Counter
from typing import Any

import httpx
from django.core.management.base import BaseCommand

from gateway.management.upstreams import upstream
from gateway.models import Client

CLIENTS = {"gold": (20, 40), "silver": (5, 15), "bronze": (1, 5)}  # rate, burst
WANTED = {"gold": 12, "silver": 7, "bronze": 3}  # requests a second


class Command(BaseCommand):
    """Upstreams and traffic."""

    help = "Starts two upstreams and sends requests to the gateway at URL, until Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Where to, and for how long."""
        parser.add_argument("url", help="of the gateway, such as http://127.0.0.1:8000")
        parser.add_argument("--seconds", type=float, default=math.inf, help="default: for ever")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until it is over."""
        with contextlib.suppress(KeyboardInterrupt, TimeoutError, asyncio.TimeoutError):
            asyncio.run(asyncio.wait_for(self.run(options["url"]), min(options["seconds"], 1e9)))
        self.stdout.write("")

    async def run(self, url: str) -> None:
        """Everything at once."""
        for name, (rate, burst) in CLIENTS.items():
            await Client.objects.aupdate_or_create(
                name=name, defaults={"rate": rate, "burst": burst}
            )
        async with upstream("prices"), upstream("weather") as weather, httpx.AsyncClient() as http:
            self.stdout.write(f"Clients send requests; look at {url}/")
            answers: Counter[int] = Counter()
            await asyncio.gather(
                self.report(answers),
                have_trouble(http, weather),
                *(send(http, url, client, answers) for client in CLIENTS),
            )

    async def report(self, answers: Counter[int]) -> None:
        """Say now and then what came back."""
        while True:
            await asyncio.sleep(10)
            counts = ", ".join(f"{count:,} x {status}" for status, count in sorted(answers.items()))
            self.stdout.write(f"answers: {counts}")


async def have_trouble(http: httpx.AsyncClient, address: str) -> None:
    """Fail for eight seconds of each thirty."""
    while True:
        await asyncio.sleep(22)
        await http.post(f"{address}/control", params={"fail": 1})
        await asyncio.sleep(8)
        await http.post(f"{address}/control", params={"fail": 0})


async def send(http: httpx.AsyncClient, url: str, client: str, answers: Counter[int]) -> None:
    """Send requests, several at a time now and then; wait as long as the gateway says."""
    while True:
        count = random.choice([1, 1, 1, 5])
        address = f"{url}/api/{random.choice(['prices', 'weather'])}/today"
        results = await asyncio.gather(
            *(http.get(address, headers={"X-Client": client}) for _ in range(count))
        )
        answers.update(result.status_code for result in results)
        wait = count / WANTED[client]
        if results[-1].status_code == 429:
            wait = max(wait, float(results[-1].headers["Retry-After"]))
        await asyncio.sleep(wait)
