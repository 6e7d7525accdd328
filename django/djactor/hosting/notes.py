"""Which turn executes a step right now: notes that outlive the process which makes them.

A supervisor makes an unnamed file for each child; both have it mapped.  A note is a store of eight
bytes, so it costs nothing; when the child has died, by whatever cause, the file still says what it
was at.

The file is an array of 64-bit integers: first a few words about the process, then a slot of two
words for each thread that runs turns (slot 0 is the event loop's): the id of the message (0: none),
and until when it may go on, as a time of the monotonic clock in nanoseconds (0: for ever).
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from pathlib import Path

ASYNC_HOST, SYNC_HOST, READY, DRAINING = range(4)
_HEAD = 8
_SLOTS = 256
_WORDS = _HEAD + 2 * _SLOTS


def create() -> int:
    """A new file for the notes of a child.

    Returns:
        Its descriptor, which a child may inherit.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("djactor-notes")
    else:
        fd, path = tempfile.mkstemp()
        Path(path).unlink()
    os.ftruncate(fd, 8 * _WORDS)
    return fd


class Notes:
    """The notes of a process, its own or a child's.

    Attributes:
        words: The array; who runs turns stores into it directly.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._map = mmap.mmap(-1 if fd is None else fd, 8 * _WORDS)
        self.words = memoryview(self._map).cast("q")

    @staticmethod
    def slot(number: int) -> int:
        """The index of a slot's first word.

        Raises:
            ValueError: There are not so many.
        """
        if not 0 <= number < _SLOTS:
            raise ValueError(f"there are {_SLOTS - 1} threads at most")
        return _HEAD + 2 * number

    def executing(self) -> list[int]:
        """The messages whose turns execute a step."""
        return [one for one in self.words[_HEAD::2].tolist() if one]

    def overdue(self) -> list[int]:
        """The messages whose turns should have ended by now, and cannot be ended."""
        now = time.monotonic_ns()
        rest = self.words[_HEAD:].tolist()
        return [
            message
            for message, until in zip(rest[::2], rest[1::2], strict=True)
            if message and until and until < now
        ]
