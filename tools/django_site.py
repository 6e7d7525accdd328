"""A Django project served to browsers, for as long as a ``with`` block lasts.

The demo and the browser tests show a project's pages over HTTP::

    with PrivateServer() as server, DjangoSite(folder, "chatsite", "CHAT_DB", server) as site:
        site.manage("createsuperuser", "--noinput", DJANGO_SUPERUSER_PASSWORD="...")
        open_browser(site.url)

What is expected of a project: its package, here ``chatsite``, has ``settings`` and ``asgi``, and
the settings take the database from the environment, here ``CHAT_DB_HOST``, ``_PORT``, ``_NAME`` and
``_USER``.

What always holds: the pages are served on 127.0.0.1 alone, on a port that was free; the
database and its owner, an ordinary role, bear the name of the prefix (``chat``) and are
migrated before the first page is asked for; and the server process (uvicorn) ends with the
block, or with this process however it ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from private_server import PrivateServer, ServerError, end_with

__all__ = ["DjangoSite"]

_START_TIMEOUT = 60.0  # seconds until the first page must have come
_STOP_TIMEOUT = 10.0  # seconds; open streams are cut after one of them


class DjangoSite:
    """A project's pages, at ``url`` (without a slash at the end).

    folder    where the project's packages lie
    package   the one with ``settings`` and ``asgi``
    prefix    of the environment variables that name the database
    server    where the database is created
    """

    def __init__(self, folder: Path, package: str, prefix: str, server: PrivateServer) -> None:
        self.folder = folder
        self.server = server
        self.database = prefix.removesuffix("_DB").lower()
        self.environment = {
            f"{prefix}_HOST": server.host,
            f"{prefix}_PORT": str(server.port),
            f"{prefix}_NAME": self.database,
            f"{prefix}_USER": self.database,
            "DJANGO_SETTINGS_MODULE": f"{package}.settings",
        }
        self.url = ""
        self._application = f"{package}.asgi:application"
        self._process: subprocess.Popen[bytes] | None = None
        self._listening: socket.socket | None = None

    @property
    def log_file(self) -> Path:
        """What the server process says; it lies beside the database server's log."""
        return self.server.root / f"{self.database}-site.log"

    def __enter__(self) -> DjangoSite:
        self.server.createuser(self.database)
        self.server.createdb(self.database, owner=self.database)
        self.prepare()
        # The listening socket is ours, so the port is lost to no other program, not even while
        # the pages are not served; who asks then waits.
        self._listening = socket.create_server(("127.0.0.1", 0))
        # uvicorn takes what it inherits for a unix socket and would not set this, so that answers
        # would wait 40 ms for an acknowledgement.  Accepted connections have it from here.
        self._listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        try:
            self.serve()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if self._listening is not None:
            self._listening.close()

    def prepare(self) -> None:
        """Make the empty database what the pages need.  Errors: ServerError."""
        self.manage("migrate", "--verbosity", "0")

    def manage(self, *arguments: str, **environment: str) -> str:
        """Run a management command; the result is its output.  Errors: ServerError."""
        result = subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            cwd=self.folder,
            env=self._environment() | environment,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            raise ServerError(f"{' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
        return result.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a management command that speaks here; with this process it ends, too."""
        return subprocess.Popen(
            [sys.executable, "-m", "django", *arguments],
            cwd=self.folder,
            env=self._environment(),
            preexec_fn=end_with(os.getpid()),
        )

    def sql(self, statement: str) -> str:
        """Run SQL in the project's database, as its owner; the result is psql's output."""
        return self.server.sql(statement, self.database, self.database)

    def _environment(self) -> dict[str, str]:
        inherited = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join([str(self.folder), *filter(None, [inherited])])
        return os.environ | self.environment | {"PYTHONPATH": path}

    def serve(self) -> None:
        """Serve the pages (again), at the same address.  Errors: ServerError."""
        assert self._listening is not None
        options = "--log-level warning --lifespan off --timeout-graceful-shutdown 1"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", self._application),
                    *("--fd", str(self._listening.fileno()), *options.split()),
                ],
                cwd=self.folder,
                env=self._environment(),
                pass_fds=[self._listening.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal reaches only us
                preexec_fn=end_with(os.getpid()),
            )
        try:
            with contextlib.suppress(urllib.error.HTTPError):  # 404 is an answer, too
                urllib.request.urlopen(self.url, timeout=_START_TIMEOUT).close()
        except OSError as error:
            tail = self.log_file.read_text(errors="replace")[-4000:]
            raise ServerError(f"{self._application} does not answer: {error}\n{tail}") from error

    def close(self) -> None:
        """Serve no pages for a while; open streams end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
