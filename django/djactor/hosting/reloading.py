"""``--autoreload``: whether a file of the code that runs has changed.

In DEBUG files of handlers in the database are looked at, too, and run when they have changed.
"""

from __future__ import annotations

import time
from pathlib import Path

from django.conf import settings
from django.utils import autoreload

from djactor import developing

_LOOK = 1.0  # seconds


def _times() -> dict[Path, float]:
    found = {}
    for file in autoreload.iter_all_python_module_files():
        try:
            found[file] = file.stat().st_mtime
        except OSError:
            continue
    return found


def _handler_times() -> dict[Path, float]:
    return {file: file.stat().st_mtime for file in developing.handler_files() if file.exists()}


def until_changed() -> None:
    """Return when a file of a module that is loaded is newer than it was, or is gone."""
    before = _times()
    handlers = _handler_times() if settings.DEBUG else {}
    if settings.DEBUG:
        developing.replace_workers()
    while True:
        time.sleep(_LOOK)
        if settings.DEBUG:
            handlers_now = _handler_times()
            for file, time_ in handlers_now.items():
                if handlers.get(file) != time_:
                    developing.run_file(file)
            handlers = handlers_now
        now = _times()
        if any(now.get(file) != time_ for file, time_ in before.items()):
            return
        before |= now
