"""Procrastinate: ``schema`` applies its schema, ``work`` runs one worker process."""

from __future__ import annotations

import asyncio
import json
import sys
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
state: psycopg_pool.AsyncConnectionPool


@app.task(name="noop")
async def noop(key: str, n: int) -> None:
    """Nothing."""
    global handled
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


async def schema() -> None:
    """Its tables."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


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


asyncio.run({"schema": schema, "work": work}[CONFIG["mode"]]())
