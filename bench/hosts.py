"""Hosts: ``manage.py djactor_worker`` of the benchmarks' project, on a private server.

The project is ``project/``.  A hosted type is defined by SQL, so that each run can begin with a new
database within milliseconds, and is paused until the hosts are connected and wait for mail.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import BenchmarkError, Connection, number
from private_server import PrivateServer, end_with

TOP = Path(__file__).resolve().parent.parent
PROJECT = TOP / "bench" / "project"


def define(owner: Connection, name: str, cls: str, *, alone: bool = False) -> None:
    """Define a hosted type whose class is in ``load.actors``, which is not batched if ``alone``."""
    owner.execute(
        "SELECT djactor.define_actor_type(%s, %s, hosted => true, batch_size => %s)",
        [name, f"load.actors.{cls}", 1 if alone else None],
    )


class Hosts:
    """A running ``djactor_worker``, in a process group of its own.

    Attributes:
        process: Its supervisor.
    """

    def __init__(
        self,
        private: PrivateServer,
        dbname: str,
        types: Sequence[str],
        log: Path,
        *,
        python: str | Path = sys.executable,
        processes: int = 1,
        options: Sequence[str] = (),
        commit_each: int = 0,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.processes = processes
        self._log = log
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        } | {
            "DJANGO_SETTINGS_MODULE": "bench_settings",
            "BENCH_DJACTOR": "1",
            "BENCH_HOST": private.host,
            "BENCH_DATABASE": dbname,
            "BENCH_COMMIT_EACH": str(commit_each),
            "PYTHONPATH": f"{TOP / 'django'}:{PROJECT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(extra or {}),
        }
        command = [python, "-m", "django", "djactor_worker", "--types", *types]
        command += ["--processes", str(processes), *options]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=end_with(os.getpid()),
            )

    def said(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def wait_ready(self, owner: Connection, hosts: int | None = None, timeout: float = 60) -> None:
        """Wait until all have taken what there is, and wait for more."""
        deadline = time.monotonic() + timeout
        query = "SELECT count(*) FROM djactor.host WHERE state = 'waiting'"
        while number(owner, query) < (hosts or self.processes):
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the hosts do not get ready; they said\n{self.said()}")
            time.sleep(0.02)
        time.sleep(0.2)

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            raise BenchmarkError(f"djactor_worker has ended; it said\n{self.said()}")

    def children(self) -> list[int]:
        """The processes that run turns."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    found.append(int(stat.parent.name))
        return found

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whatever is left of the group after a while."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for all."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
