"""``manage.py measure URL``: what the two asks add to a request, in milliseconds."""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from statistics import quantiles
from typing import Any

import httpx
from django.core.management.base import BaseCommand

from gateway.management.upstreams import upstream
from gateway.models import Client

STEP = re.compile(r"(\w+);dur=([0-9.]+)")


class Command(BaseCommand):
    """Measures."""

    help = "Sends requests straight to an upstream and through the gateway at URL."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Where to, and how many."""
        parser.add_argument("url", help="of the gateway, such as http://127.0.0.1:8000")
        parser.add_argument("--requests", type=int, default=1000)
        parser.add_argument("--at-once", type=int, default=1)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print a table."""
        asyncio.run(self.measure(options["url"], options["requests"], options["at_once"]))

    async def measure(self, gateway: str, requests: int, at_once: int) -> None:
        """Straight and through in turn, so that both meet the same machine."""
        await Client.objects.aupdate_or_create(
            name="measure", defaults={"rate": 1e6, "burst": 1_000_000}
        )
        took: dict[str, list[float]] = {"straight": [], "through": []}

        async def one(url: str) -> tuple[float, httpx.Response]:
            start = time.perf_counter()
            response = await http.get(url, headers={"X-Client": "measure"})
            response.raise_for_status()
            return (time.perf_counter() - start) * 1000, response

        async with upstream("measure") as address, httpx.AsyncClient(timeout=30) as http:
            urls = {"straight": f"{address}/x", "through": f"{gateway}/api/measure/x"}
            await asyncio.gather(*(one(url) for url in urls.values() for _ in range(20)))  # warm up
            for _ in range(requests // at_once):
                for way, url in urls.items():
                    for milliseconds, answer in await asyncio.gather(
                        *(one(url) for _ in range(at_once))
                    ):
                        took[way].append(milliseconds)
                        for step, text in STEP.findall(answer.headers.get("Server-Timing", "")):
                            took.setdefault(step, []).append(float(text))
        took["both asks"] = [a + b for a, b in zip(took["bucket"], took["breaker"], strict=True)]

        self.stdout.write(f"{requests} requests, {at_once} at once; ms      p50     p95     p99")
        for name, values in took.items():
            cuts = quantiles(values, n=100)
            numbers = "".join(f"{cuts[at]:8.2f}" for at in (49, 94, 98))
            self.stdout.write(f"{name:<31}{numbers}")
