"""Procrastinate: ``schema`` applies its schema, ``work`` runs a worker process, ``send`` defers."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import procrastinate
import psycopg_pool

CONFIG: dict[str, Any] = json.loads(sys.argv[1])
SETTINGS: dict[str, Any] = dict(CONFIG.get("settings", {}))
POOL = SETTINGS.pop("pool", 4)

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=CONFIG["url"], max_size=POOL)
)
handled = 0
lock = threading.Lock()
state: psycopg_pool.AsyncConnectionPool


@app.task(name="noop")
async def noop(key: str, n: int) -> None:
    """Nothing."""
    global handled
    if CONFIG.get("starts"):
        now = time.time()
        with Path(f"{CONFIG['starts']}/{os.getpid()}.starts").open("a") as file:
            file.write(f"{n} {now}\n")
    handled += 1


@app.task(name="update")
async def update(key: str, n: int) -> None:
    """One row."""
    global handled
    handled += 1
    async with state.connection() as connection:
        await connection.execute("UPDATE state SET total = total + %s WHERE key = %s", (n, key))


@app.task(name="sleep")
async def sleep(key: str, n: int) -> None:
    """10 ms."""
    global handled
    handled += 1
    await asyncio.sleep(0.01)


if CONFIG.get("handler") == "orm":
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "bench_settings",
        "BENCH_HOST": CONFIG["host"],
        "BENCH_DATABASE": CONFIG["database"],
    }
    import django

    django.setup()

    from django.db.models import F

    State = importlib.import_module("load.models").State

    @app.task(name="orm")
    def orm(key: str, n: int) -> None:
        """One row, with the ORM."""
        global handled
        with lock:
            handled += 1
        State.objects.filter(key=key).update(total=F("total") + n)


async def schema() -> None:
    """Its tables."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def send() -> None:
    """Defer one after the other, and tell when each was committed."""
    sent = {}
    async with app.open_async():
        for i in range(CONFIG["first"], CONFIG["first"] + CONFIG["count"]):
            await noop.defer_async(key="0", n=i)
            sent[i] = time.time()
            await asyncio.sleep(CONFIG["pause"])
    print(json.dumps(sent))


async def work() -> None:
    """Wait for the word, work until the input ends."""
    global state
    loop = asyncio.get_running_loop()
    state = psycopg_pool.AsyncConnectionPool(
        CONFIG["url"], min_size=1, max_size=POOL, open=False, kwargs={"autocommit": True}
    )
    async with app.open_async(), state:
        print("ready", flush=True)
        if await loop.run_in_executor(None, sys.stdin.readline):
            worker = asyncio.create_task(
                app.run_worker_async(install_signal_handlers=False, **SETTINGS)
            )
            await loop.run_in_executor(None, sys.stdin.read)
            worker.cancel()
            await asyncio.wait([worker], timeout=3)
    print(handled, flush=True)


asyncio.run({"schema": schema, "work": work, "send": send}[CONFIG["mode"]]())
