"""``manage.py demo URL``: a dozen devices that send events, until Ctrl-C.

They behave as devices do: some of their events come late, some twice, ovens run hot now and
then, and one device falls silent for a while.  What the site cannot take now is sent again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from datetime import datetime, timezone
from typing import Any

from django.core.management.base import BaseCommand

PERIOD = 0.5  # seconds between two events of a device
DEVICES = [f"{kind}-{number}" for kind in ("boiler", "oven", "pump") for number in range(1, 5)]


class Command(BaseCommand):
    """Sends events."""

    help = "Sends events of a dozen devices to the site at URL, until Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Where to, and for how long."""
        parser.add_argument("url", help="of the site, such as http://127.0.0.1:8000")
        parser.add_argument("--seconds", type=float, default=math.inf, help="default: for ever")

    def handle(self, *args: Any, **options: Any) -> None:
        """Send until it is over."""
        self.stdout.write(f"{len(DEVICES)} devices send events; look at {options['url']}/")
        outbox: deque[list[dict[str, Any]]] = deque()
        held_back: list[dict[str, Any]] = []
        start, ticks, sent = time.monotonic(), 0, 0
        try:
            while (elapsed := time.monotonic() - start) < options["seconds"]:
                batch = [event(device, elapsed) for device in DEVICES if speaks(device, elapsed)]
                batch += held_back  # they come late now
                held_back = [batch.pop(0)] if random.random() < 0.1 else []
                batch += random.choices(batch, k=1)  # comes twice
                outbox.append(batch)
                while outbox and post(options["url"], outbox[0]):
                    sent += len(outbox.popleft())
                if ticks % 20 == 0:
                    self.stdout.write(f"{elapsed:6.0f} s  {sent:>7,} events sent")
                ticks += 1
                time.sleep(max(0.0, start + ticks * PERIOD - time.monotonic()))
        except KeyboardInterrupt:
            self.stdout.write("")


def speaks(device: str, elapsed: float) -> bool:
    """Whether the device sends: one of the pumps pauses for 12 seconds of each 30."""
    return device != "pump-3" or elapsed % 30 < 18


def event(device: str, elapsed: float) -> dict[str, Any]:
    """What a device measures now."""
    kind, number = device.split("-")
    level, swing = {"boiler": (62, 6), "oven": (72, 9), "pump": (38, 4)}[kind]
    wave = math.sin(elapsed / (3 + 2 * int(number)) + 2 * int(number) + level)
    return {
        "id": str(uuid.uuid4()),
        "device": device,
        "at": datetime.now(timezone.utc).isoformat(),
        "value": round(level + swing * wave + random.gauss(0, 0.6), 1),
    }


def post(url: str, batch: list[dict[str, Any]]) -> bool:
    """Hand a batch in; False if the site wants it later.

    An event keeps its id when it is sent again, so it counts once even if only the answer
    was lost.  Errors: HTTPError for what will never be taken.
    """
    request = urllib.request.Request(
        f"{url}/events/",
        json.dumps(batch).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        if error.code not in (429, 503):
            raise
        return False
    except OSError:
        return False
    return True
