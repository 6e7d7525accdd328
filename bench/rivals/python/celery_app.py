"""Celery: ``preload`` and ``send`` publish, ``work`` runs one worker, ``left`` asks the broker.

``schema`` makes the table of results, where they are kept.

The tasks count themselves, since a broker does not tell when the last message was acknowledged:
each process of the worker has a file with the number of tasks that it has finished, and when it
started the first and finished the last one.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import struct
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
from celery import Celery, signals

CONFIG: dict[str, Any] = json.loads(sys.argv[1])
QUEUE = CONFIG["queue"]

app = Celery("bench", broker=CONFIG["broker"])
app.conf.task_default_queue = QUEUE
app.conf.update(CONFIG.get("conf", {}))


class Tally:
    """The counts of this process, in a file that others read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._count = 0
        self._first = 0.0

    def done(self, began: float) -> None:
        """One task more."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._count, self._first = os.getpid(), 0, began
                path = Path(CONFIG["directory"]) / f"{self._pid}.new"
                path.write_bytes(bytes(24))
                with path.open("r+b") as file:
                    self._map = mmap.mmap(file.fileno(), 24)
                path.rename(path.with_suffix(".tally"))
            self._count += 1
            self._map[:] = struct.pack("qdd", self._count, self._first, time.time())


tally = Tally()
local = threading.local()


def connection() -> psycopg.Connection:
    """A durable connection of this process and thread."""
    if getattr(local, "pid", 0) != os.getpid():
        local.pid = os.getpid()
        local.connection = psycopg.connect(CONFIG["url"], autocommit=True)
    mine: psycopg.Connection = local.connection
    return mine


@app.task(name="noop")
def noop(key: str, n: int) -> None:
    """Nothing."""
    began = time.time()
    if CONFIG["starts"]:
        with Path(f"{CONFIG['starts']}/{os.getpid()}.starts").open("a") as file:
            file.write(f"{n} {began}\n")
    tally.done(began)


@app.task(name="update")
def update(key: str, n: int) -> None:
    """One row."""
    began = time.time()
    connection().execute("UPDATE state SET total = total + %s WHERE key = %s", (n, key))
    tally.done(began)


@app.task(name="sleep")
def sleep(key: str, n: int) -> None:
    """10 ms."""
    began = time.time()
    time.sleep(0.01)
    tally.done(began)


if CONFIG["handler"] == "orm" or CONFIG["results"]:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "bench_settings",
        "BENCH_HOST": CONFIG["host"],
        "BENCH_DATABASE": CONFIG["database"],
    }
    if CONFIG["results"]:
        os.environ["BENCH_CELERY_RESULTS"] = "1"
    import django

    django.setup()

if CONFIG["handler"] == "orm":
    from django.db.models import F

    State = importlib.import_module("load.models").State

    @app.task(name="orm")
    def orm(key: str, n: int) -> None:
        """One row, with the ORM."""
        began = time.time()
        State.objects.filter(key=key).update(total=F("total") + n)
        tally.done(began)


def preload() -> None:
    """Publish over one connection what ``apply_async`` would publish, with less ado."""
    with app.producer_pool.acquire(block=True) as producer:
        producer.maybe_declare(app.amqp.queues[QUEUE])
        for i in range(1, CONFIG["messages"] + 1):
            arguments = (str(i % CONFIG["keys"]), i % 7 + 1)
            message = app.amqp.as_task_v2(str(uuid.uuid4()), CONFIG["handler"], arguments)
            producer.publish(
                message.body,
                exchange="",
                routing_key=QUEUE,
                serializer="json",
                headers=message.headers,
                delivery_mode=2,
                **message.properties,
            )


def send() -> None:
    """Publish one after the other, and tell when each was sent."""
    sent = {}
    for i in range(CONFIG["first"], CONFIG["first"] + CONFIG["count"]):
        noop.apply_async(("0", i))
        sent[i] = time.time()
        time.sleep(CONFIG["pause"])
    print(json.dumps(sent))


def schema() -> None:
    """Make the table of results."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def work() -> None:
    """Run the worker; it ends with our input."""

    def wait_for_end() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), 15)

    @signals.worker_ready.connect(weak=False)
    def started(**_: object) -> None:
        threading.Thread(target=wait_for_end, daemon=True).start()

    app.worker_main(["worker", "-Q", QUEUE, *CONFIG["options"]])


def left() -> None:
    """What the broker still has, unacknowledged messages included."""
    with app.connection_for_read() as link:
        channel = link.default_channel
        client = getattr(channel, "client", None)
        if client is not None:  # Redis
            print(client.llen(QUEUE) + client.hlen("unacked"))
        else:
            print(channel.queue_declare(queue=QUEUE, passive=True).message_count)
            channel.queue_delete(queue=QUEUE)


MODES = {"schema": schema, "preload": preload, "work": work, "send": send, "left": left}
MODES[CONFIG["mode"]]()
