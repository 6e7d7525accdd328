"""Django's tasks: ``schema`` migrates, ``work`` runs one ``db_worker``, ``send`` enqueues.

The environment names the backend and the database, as ``bench_settings`` reads them.  ``send``
enqueues and commits one task after the other, and prints when each was committed; djactor's
backend is used by it, too.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

CONFIG: dict[str, Any] = json.loads(sys.argv[1])
os.environ["DJANGO_SETTINGS_MODULE"] = "bench_settings"

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402


def schema() -> None:
    """Its table."""
    call_command("migrate", verbosity=0)


def work() -> None:
    """Wait for the word, work until the input ends."""
    connection.ensure_connection()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return

    def wait_for_end() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)  # it has nothing to do, or is not waited for

    threading.Thread(target=wait_for_end, daemon=True).start()
    call_command("db_worker", verbosity=0, queue_name="bench", **CONFIG["settings"])


def send() -> None:
    """Enqueue and commit, one after the other."""
    noop = importlib.import_module("load.tasks").noop
    committed = {}
    for i in range(CONFIG["first"], CONFIG["first"] + CONFIG["count"]):
        with transaction.atomic():
            noop.enqueue(i)
        committed[i] = time.time()
        time.sleep(CONFIG["pause"])
    print(json.dumps(committed))


{"schema": schema, "work": work, "send": send}[CONFIG["mode"]]()
