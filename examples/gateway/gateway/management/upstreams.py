"""The example's own upstreams, for its commands."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator

from django.conf import settings

from gateway.models import Upstream


@contextlib.asynccontextmanager
async def upstream(name: str) -> AsyncIterator[str]:
    """One of the example's upstreams in a process of its own, known to the gateway."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # uvicorn takes what it inherits for a unix socket and would not set this.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "upstream:application", "--log-level", "warning"),
            *("--fd", str(listening.fileno())),
            cwd=settings.BASE_DIR,
            pass_fds=[listening.fileno()],
        )
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        await Upstream.objects.aupdate_or_create(name=name, defaults={"url": address})
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
