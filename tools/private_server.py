"""A PostgreSQL server of one's own, for as long as a ``with`` block lasts.

The demo, the benchmarks and the Python tests each run on a server that nobody
else uses::

    with PrivateServer({"djactor.max_workers": 4}) as server:
        server.createdb("shop")
        connection = psycopg.connect(server.dsn("shop"))

What always holds:

* The server listens on a unix socket only, in a directory that only its own
  user (and root) can enter; so trust authentication is safe.
* It never runs as root.  Started by root it runs as ``postgres``, or
  ``nobody`` where that user does not exist.
* When the block ends, the server has ended and its directory is gone: after an
  exception, a SIGINT, a SIGTERM or a SIGHUP too.  Even if this process is killed
  with SIGKILL the kernel stops the server; only the directory stays behind then.
* No process is ever signalled that this class did not start.
* A server that has found itself broken (a failed assertion, damaged memory, a
  leaked reference) is an error at the end of the block, whatever its clients saw.

Nothing but the standard library is needed, and ``DJACTOR_PREFIX``, the
directory of the server's programs, which ``tools/with-env`` sets.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

__all__ = ["PrivateServer", "ServerError", "end_with"]

Setting = str | int | float | bool
StopMode = Literal["smart", "fast", "immediate"]

_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# What a server logs that has found itself broken; tools/run-tests has the same list.
_BROKEN = re.compile(
    "TRAP: |AddressSanitizer|runtime error: |VALGRIND-BEGIN|problem in alloc set"
    "|(refcount|reference|resource|file) leak|could not find block containing chunk"
)


class ServerError(Exception):
    """The server did not do what it was asked to; the message carries its log's end."""


class PrivateServer:
    """A private PostgreSQL server.

    ``settings`` go into postgresql.conf.  ``fsync`` stays on unless switched
    off, since a benchmark without it means little.  ``directory`` says below
    which directory everything is put (default: ``DJACTOR_TMPDIR``, else /tmp;
    the path must be short, since a socket's is limited to 107 bytes).

    The server lives no longer than the thread that started it.
    """

    port = 5432  # only part of the socket's file name
    superuser = "postgres"

    def __init__(
        self,
        settings: Mapping[str, Setting] | None = None,
        *,
        fsync: bool = True,
        bindir: str | Path | None = None,
        directory: str | Path | None = None,
    ) -> None:
        bindir = bindir or os.environ.get("DJACTOR_PREFIX")
        if not bindir:
            raise ServerError("DJACTOR_PREFIX is not set: run this through tools/with-env")
        self.bindir = Path(bindir)
        self.settings: dict[str, Setting] = {
            "shared_preload_libraries": "djactor",
            "fsync": fsync,
            **(settings or {}),
            "listen_addresses": "",
        }
        self._parent = Path(directory or os.environ.get("DJACTOR_TMPDIR") or "/tmp")
        self._root: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_by = 0
        self._account = _server_account()

    # Where it is.

    @property
    def root(self) -> Path:
        """The directory that holds everything of this server."""
        if self._root is None:
            raise ServerError("the server does not exist outside its with block")
        return self._root

    @property
    def host(self) -> str:
        """What clients name as host: the directory of the socket."""
        return str(self.root)

    @property
    def data_directory(self) -> Path:
        """PGDATA."""
        return self.root / "data"

    @property
    def log_file(self) -> Path:
        """Where the server logs to."""
        return self.root / "server.log"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def dsn(self, dbname: str = "postgres", user: str | None = None) -> str:
        """A connection string for libpq and psycopg."""
        return f"host={self.host} port={self.port} dbname={dbname} user={user or self.superuser}"

    # Its life.

    def __enter__(self) -> PrivateServer:
        self._started_by = os.getpid()
        self._handlers = _signals_raise()
        try:
            self._root = Path(tempfile.mkdtemp(prefix="djactor-", dir=self._parent))
            if self._account is not None:
                os.chown(self._root, self._account.pw_uid, self._account.pw_gid)
            self._initdb()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
            if kind is None and (broken := self.broken()):
                raise ServerError("the server is broken; from its log\n" + "\n".join(broken))
        finally:
            self._remove()

    def start(self, timeout: float = 60) -> None:
        """Start the server (again) and wait until it accepts connections."""
        if self.pid is not None:
            raise ServerError("the server runs already")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [self.bindir / "postgres", "-D", self.data_directory],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with(os.getpid(), signal.SIGQUIT),
                **self._as_server_user(),
            )
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if self.pid is None:
                raise ServerError(f"the server did not start; its log ends with\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"no start within {timeout} s; the log ends\n{self.log_tail()}")
            time.sleep(0.01)

    def stop(self, mode: StopMode = "fast", timeout: float = 30) -> None:
        """Stop the server; harder, if it does not stop within the timeout."""
        process = self._process
        if process is None or os.getpid() != self._started_by:
            return
        for signum in (_STOP_SIGNALS[mode], signal.SIGQUIT, signal.SIGKILL):
            if process.poll() is not None:
                break
            process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        self._process = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    # What callers do with it.

    def sql(self, statement: str, dbname: str = "postgres", user: str | None = None) -> str:
        """Run SQL through psql; the result is its output, columns separated by ``|``."""
        return self._run(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(dbname, user)], statement
        ).rstrip("\n")

    def createdb(self, name: str, owner: str | None = None) -> None:
        """Create a database."""
        command = ["createdb", "-h", self.host, "-p", str(self.port), "-U", self.superuser]
        if owner is not None:
            command += ["-O", owner]
        self._run([*command, name])

    def createuser(self, name: str) -> None:
        """Create a role that may log in and nothing more."""
        client = ["createuser", "-h", self.host, "-p", str(self.port), "-U", self.superuser]
        self._run([*client, name])

    def run(self, command: Sequence[str | Path], directory: Path) -> str:
        """Run a program as the server's user, in a new directory that it may write.

        The result is what it prints, whatever its status.
        """
        directory.mkdir(parents=True)
        if self._account is not None:
            os.chown(directory, self._account.pw_uid, self._account.pw_gid)
        result: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=end_with(os.getpid()),
            **self._as_server_user() | {"cwd": directory},
        )
        return result.stdout

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the server's log."""
        try:
            text = self.log_file.read_text(errors="replace")
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(text.splitlines()[-lines:])

    def broken(self, after: int = 60) -> list[str]:
        """What the server logged about being broken, with so many lines after it."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines):
            if _BROKEN.search(line):
                return lines[number : number + after + 1]
        return []

    # Inside.

    def _initdb(self) -> None:
        # What initdb writes need not survive a power failure, so it does not sync.
        options = "--auth=trust --encoding=UTF8 --no-locale --no-sync --no-instructions"
        result = subprocess.run(
            [
                *(self.bindir / "initdb", "-D", self.data_directory, "-U", self.superuser),
                *options.split(),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **self._as_server_user(),
        )
        if result.returncode != 0:
            raise ServerError(f"initdb failed:\n{result.stdout}{result.stderr}")
        with (self.data_directory / "postgresql.conf").open("a") as conf:
            for name, value in {**self.settings, "unix_socket_directories": self.host}.items():
                conf.write(f"{name} = {_quoted(value)}\n")

    def _is_ready(self) -> bool:
        # The eighth line of postmaster.pid is what pg_ctl -w looks at.
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _as_server_user(self) -> dict[str, Any]:
        # A session of its own, so that a Ctrl-C at the terminal reaches only us:
        # we stop the server when its clients are done.
        options: dict[str, Any] = {
            "cwd": self.root,
            "env": _clean_environment() | {"HOME": str(self.root)},
            "start_new_session": True,
        }
        if self._account is not None:
            options |= {
                "user": self._account.pw_uid,
                "group": self._account.pw_gid,
                "extra_groups": os.getgrouplist(self._account.pw_name, self._account.pw_gid),
            }
        return options

    def _run(self, command: list[str], stdin: str = "") -> str:
        result = subprocess.run(
            [self.bindir / command[0], *command[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            env=_clean_environment(),
        )
        if result.returncode != 0:
            raise ServerError(f"{command[0]} failed: {result.stderr.strip()}")
        return result.stdout

    def _remove(self) -> None:
        if os.getpid() != self._started_by:
            return  # a fork of ours left the block
        with _uninterrupted():
            self.stop()
            if self._root is not None:
                shutil.rmtree(self._root, ignore_errors=True)
                self._root = None
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)


def _server_account() -> pwd.struct_passwd | None:
    """The account that the server runs as; None: our own."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _clean_environment() -> dict[str, str]:
    """The environment without libpq's variables, which would lead elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _quoted(value: Setting) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def end_with(parent: int, signum: int = signal.SIGTERM) -> Callable[[], None]:
    """What a new process does first (``preexec_fn``): ask the kernel to end it with us."""
    prctl = ctypes.CDLL(None).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _signals_raise() -> dict[int, Any]:
    """Make the signals that would end us at once unwind the stack instead.

    Only where nobody else has asked for them.  Returns the handlers to restore.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    changed: dict[int, Any] = {}
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:
            changed[signum] = signal.signal(signum, leave)
    return changed


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Cleaning up is not cut short by an impatient second Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
