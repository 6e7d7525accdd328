"""Private brokers: Redis on a unix socket, RabbitMQ on free ports of the loopback interface.

Both run in the directory of the benchmark, with nothing of the machine's own configuration, and
end with it.  While it is not their turn they are stopped with SIGSTOP, so their housekeeping does
not disturb what others are measured at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common import BenchmarkError


class Broker:
    """A server process (or several) of our own."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> Sequence[int]:
        """Its processes, without their children."""
        return [process.pid for process in self._processes]

    def _spawn(
        self, command: Sequence[str | Path], directory: Path, env: Mapping[str, str] | None = None
    ) -> None:
        with (directory / "broker.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._processes.append(process)

    def _wait(self, ready: Callable[[], bool], timeout: float, log: Path) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            ended = any(process.poll() is not None for process in self._processes)
            if ended or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                self.stop()
                raise BenchmarkError(f"the broker does not start: {tail}")
            time.sleep(0.05)

    def _signal(self, signum: int) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signum)

    def suspend(self) -> None:
        """Use no CPU until it is woken."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, what was started last first."""
        self.wake()
        while self._processes:
            process = self._processes.pop()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _can_connect(family: int, address: str | tuple[str, int]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Redis(Broker):
    """Redis with Debian's defaults (RDB snapshots), or durable: each write is flushed to disk."""

    def __init__(self, directory: Path, durable: bool) -> None:
        super().__init__()
        directory.mkdir()
        self.socket = directory / "redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket)]
        command += ["--dir", str(directory), "--daemonize", "no"]
        if durable:
            command += ["--appendonly", "yes", "--appendfsync", "always"]
        self._spawn(command, directory)
        address = str(self.socket)
        self._wait(lambda: _can_connect(socket.AF_UNIX, address), 20, directory / "broker.log")

    @property
    def url(self) -> str:
        """For Celery."""
        return f"redis+socket://{self.socket}"


class RabbitMQ(Broker):
    """RabbitMQ with its defaults; epmd, which would else stay behind, is a child of ours, too."""

    server = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir()
        self._port, distribution, epmd = _free_ports(3)
        (directory / "enabled_plugins").write_text("[].\n")
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            "log.console = true\nlog.console.level = warning\n"
        )
        env = {
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"djactor{os.getpid()}@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
        }
        self._spawn(["epmd", "-port", str(epmd), "-address", "127.0.0.1"], directory, env)
        self._wait(
            lambda: _can_connect(socket.AF_INET, ("127.0.0.1", epmd)),
            10,
            directory / "broker.log",
        )
        self._spawn([self.server], directory, env)
        self._wait(
            lambda: _can_connect(socket.AF_INET, ("127.0.0.1", self._port)),
            120,
            directory / "broker.log",
        )

    @property
    def url(self) -> str:
        """For Celery."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"
