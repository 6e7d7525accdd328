"""One process of ``djactor_worker``: hosts of async and of sync types, until it is told to end.

A supervisor starts it (``supervisor.py``), with what it needs in the environment.  It ends in good
order at SIGTERM, and when its supervisor is gone; a second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import threading
import time
from typing import Any

_ENVIRONMENT = "DJACTOR_WORKER"
_PATIENCE = 5.0  # seconds that what is left to be done at the exit may take

CLEAN, WRONG, FAILED, RELOAD, STUCK = range(5)
"""Statuses at the end of the process: as it should be, cannot serve, a bug, code has changed, a
turn that cannot be ended."""


def environment(configuration: dict[str, Any]) -> dict[str, str]:
    """The environment of a child: that of this process, and what the child needs."""
    return os.environ | {
        _ENVIRONMENT: json.dumps(configuration | {"path": sys.path}),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def main() -> int:
    """What the process does.

    Returns:
        Its status.
    """
    configuration = json.loads(os.environ.pop(_ENVIRONMENT))
    if configuration["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = configuration["pythonpath"]
    sys.path[:] = configuration["path"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor tells
    os.environ["DJANGO_SETTINGS_MODULE"] = configuration["settings"]

    import django

    django.setup()
    if configuration["node"] is not None:
        from djactor import cluster

        cluster.move_to(configuration["node"])

    from djactor.hosting import logs, served
    from djactor.hosting.notes import Notes

    logs.install()
    logs.to_stderr(configuration["verbosity"])
    try:
        types = served.served(configuration["alias"], configuration["types"])
    except served.CannotServe as error:
        sys.stderr.write(f"djactor_worker: {error}\n")
        return WRONG
    # What is there now stays; what comes and goes with each turn is freed without the collector.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    notes = Notes(configuration["notes"])
    return _run(_Child(configuration, types, notes), configuration["uvloop"])


def _run(child: Any, use_uvloop: bool) -> int:
    run: Any = asyncio.run
    if use_uvloop:
        with contextlib.suppress(ImportError):
            from uvloop import run
    status: int = run(child.run())
    # Threads whose turns do not end are no reason to stay for long.
    threading.Thread(target=_leave, args=(status,), daemon=True).start()
    return status


def _leave(status: int) -> None:
    time.sleep(_PATIENCE if status in (CLEAN, RELOAD) else 0.0)
    os._exit(status)


class _Child:
    def __init__(self, configuration: dict[str, Any], types: Any, notes: Any) -> None:
        from djactor.hosting.session import Options
        from djactor.hosting.watchdog import Watchdog

        self._options = Options(**configuration["options"])
        self._parent = configuration["lifeline"]
        self._autoreload = configuration["autoreload"]
        self._types = types
        self._notes = notes
        self._watchdog = Watchdog(notes)
        self._end = asyncio.Event()
        self._status = CLEAN
        self._signals = 0

    async def run(self) -> int:
        """Serve until told to end.

        Returns:
            The status of the process.
        """
        import psycopg

        from djactor.hosting.async_host import AsyncHost
        from djactor.hosting.notes import DRAINING, READY
        from djactor.hosting.session import Outdated
        from djactor.hosting.sync_host import SyncHost

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told)
        loop.add_reader(self._parent, self._orphaned)
        asynchronous = {name: one for name, one in self._types.items() if one.is_async}
        synchronous = {name: one for name, one in self._types.items() if not one.is_async}
        async_host = sync_host = None
        options, notes, watchdog = self._options, self._notes, self._watchdog
        watchdog.start(loop)
        serving: asyncio.Task[None] | None = None
        try:
            if asynchronous:
                async_host = AsyncHost(options, asynchronous, notes, watchdog)
                async_host.outdated = self._outdated
                watchdog.async_host = async_host
                await async_host.open()
            if synchronous:
                sync_host = SyncHost(options, synchronous, notes, watchdog)
                sync_host.outdated = lambda: self._outdated_in_thread(loop)
                sync_host.open()
        except Outdated:
            return RELOAD
        except psycopg.Error as error:
            sys.stderr.write(f"djactor_worker: {str(error).strip()}\n")
            passes = error.sqlstate is None or error.sqlstate[:2] in ("08", "53", "57")
            return FAILED if passes else WRONG
        if async_host is not None:
            serving = asyncio.create_task(async_host.serve())
        if sync_host is not None:
            sync_host.start()
        if self._autoreload:
            threading.Thread(target=self._watch_code, args=(loop,), daemon=True).start()
        notes.words[READY] = 1
        ending = asyncio.create_task(self._end.wait())
        await asyncio.wait(
            [ending] if serving is None else [ending, serving],
            return_when=asyncio.FIRST_COMPLETED,
        )
        notes.words[DRAINING] = 1
        notes.words[READY] = 0
        if serving is not None and serving.done() and serving.exception() is not None:
            from djactor.hosting import logs

            logs.logger.error("the host has failed", exc_info=serving.exception())
            self._status = FAILED
        ends = []
        if async_host is not None:
            ends.append(async_host.drain(options.grace))
        if sync_host is not None:
            ends.append(asyncio.to_thread(sync_host.drain, options.grace))
        await asyncio.gather(*ends)
        return STUCK if notes.overdue() else self._status

    def _told(self) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(CLEAN)
        self._end.set()

    def _outdated(self) -> None:
        self._status = RELOAD
        self._end.set()

    def _outdated_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self._outdated)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent)
        self._end.set()

    def _watch_code(self, loop: asyncio.AbstractEventLoop) -> None:
        """End this process when one of its files has changed (in a thread)."""
        from djactor.hosting import reloading

        reloading.until_changed()
        self._status = RELOAD
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._end.set)


if __name__ == "__main__":
    sys.exit(main())
