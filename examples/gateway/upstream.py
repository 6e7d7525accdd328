"""A small service for the gateway to stand before: ``uvicorn upstream:application``.

It answers everything with JSON.  ``POST /control?fail=1&delay=0.1`` makes it fail (500) and
slow (seconds), ``?fail=0&delay=0`` makes it well again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

state = {"fail": 0.0, "delay": 0.0, "served": 0.0}


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """One request."""
    query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
    if scope["path"] == "/control":
        state.update({name: float(value) for name, value in query.items() if name in state})
        status = 200
    else:
        state["served"] += 1
        await asyncio.sleep(state["delay"])
        status = 500 if state["fail"] else 200
    said = {"method": scope["method"], "path": scope["path"], "query": query} | state
    body = json.dumps(said).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
