"""The rivals' programs as child processes, and the CPU that process trees have used.

A program is told all by one JSON argument.  It connects, prints ``ready``, reads a line
``go`` and begins; when its standard input ends it stops in peace and prints how
often its handler was called.  So no program's start-up time counts, whatever its language.

CPU is read from /proc in ticks of 10 ms, children included, those too that have
ended and been waited for meanwhile: runs take seconds, so a tick is nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import BenchmarkError
from rivals.protocol import Worker

_TICK = os.sysconf("SC_CLK_TCK")


class Program(Worker):
    """A rival's worker process, in a process group of its own."""

    def __init__(
        self,
        command: Sequence[str | Path],
        config: Mapping[str, object],
        directory: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._log = directory / "worker.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,
                env=_environment(env),
                start_new_session=True,
            )

    @property
    def pids(self) -> Sequence[int]:
        """The program; its children are found."""
        return [self._process.pid]

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait for its line ``ready``."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        seen = b""
        while b"ready\n" not in seen:
            readable, _, _ = select.select([self._process.stdout], [], [], 0.1)
            chunk = os.read(self._process.stdout.fileno(), 65536) if readable else None
            if chunk == b"" or time.monotonic() > deadline:
                self._fail("did not get ready")
            seen += chunk or b""

    def go(self) -> float:
        """Say go."""
        assert self._process.stdin is not None
        start = time.time()
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        return start

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            self._fail(f"ended with status {self._process.returncode}")

    def kill(self) -> None:
        """SIGKILL for the program and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def abandon(self) -> None:
        """There is nothing to wait for."""
        self.kill()

    def stop(self) -> None:
        """Close its input and wait; kill what does not end within seconds."""
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
            assert self._process.stdout is not None
            last = self._process.stdout.read().split()[-1:]
            self.handled = int(last[0]) if last and last[0].isdigit() else None
        # Whatever is left of the group, also when its leader has gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _fail(self, what: str) -> None:
        self.stop()
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
        raise BenchmarkError(f"the worker {what}; it said\n{tail}")


class Several(Worker):
    """Programs that are one worker together, where a rival is advised to run several processes."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs

    @property
    def pids(self) -> Sequence[int]:
        """All of theirs."""
        return [pid for program in self._programs for pid in program.pids]

    def go(self) -> float:
        """One after the other, from the first on."""
        return min([program.go() for program in self._programs])

    def check(self) -> None:
        """None has ended."""
        for program in self._programs:
            program.check()

    def kill(self) -> None:
        """SIGKILL for all."""
        for program in self._programs:
            program.kill()

    def abandon(self) -> None:
        """There is nothing to wait for."""
        self.kill()

    def stop(self) -> None:
        """Stop all; together they have handled what each has."""
        for program in self._programs:
            program.stop()
        counts = [program.handled for program in self._programs]
        self.handled = None if None in counts else sum(count or 0 for count in counts)


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """Ours, without what is meant for our Python only."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return ours | dict(more or {})


def run_program(
    command: Sequence[str | Path],
    config: Mapping[str, object],
    directory: Path,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program of a rival to its end; returns what it printed."""
    done = subprocess.run(
        [*command, json.dumps(config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=directory,
        env=_environment(env),
    )
    if done.returncode != 0:
        raise BenchmarkError(f"{command[0]} failed: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout


def cpu_seconds(roots: Sequence[int]) -> float:
    """CPU that the trees below these processes have used so far."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        # utime, stime, and those of the children that were waited for
        ticks[pid] = sum(int(field) for field in fields[11:15])
    total = 0
    for pid in ticks:
        ancestor = pid
        while ancestor not in roots and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in roots:
            total += ticks[pid]
    return total / _TICK
