"""A running djactor_worker, for tests."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from django.db import connection

from waiting import until

HERE = Path(__file__).resolve().parent
DJANGO = HERE.parents[1] / "django"
LOOPS = {"asyncio": ["--no-uvloop"], "uvloop": []}  # the options that choose a loop for async turns


def define(name, cls, **options):
    """Define a hosted type whose class is in hosting_classes."""
    words = "".join(f", {option} => %s" for option in options)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT djactor.define_actor_type(%s, %s, hosted => true{words})",
            [name, f"hosting_classes.{cls}", *options.values()],
        )


def drop(name):
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.drop_actor_type(%s, discard => true)", [name])


def query(sql, *params):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


@contextlib.contextmanager
def serving(project, types, loop="asyncio"):
    """A worker with two hosts for types that are defined meanwhile.

    Args:
        project: The server.
        types: By name their classes in hosting_classes, and their options.
        loop: The loop of async turns, of LOOPS.
    """
    for name, (cls, options) in types.items():
        define(name, cls, **options)
    worker = Worker(project, "--types", *types, "--threads", 2, "--grace", 5, loop=loop)
    try:
        worker.wait_ready(2)
        yield worker
        assert worker.end() == 0, worker.log()
    finally:
        worker.kill()
        for name in types:
            drop(name)


class Worker:
    """The command, in a process of its own; what it logs is in ``log()``."""

    def __init__(self, project, *words, settings="project_settings", stdin=None, loop="asyncio"):
        self._file = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", "djactor_worker", *map(str, words), *LOOPS[loop]],
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": settings,
                "SHOP_HOST": project.host,
                "PYTHONPATH": f"{DJANGO}:{HERE}:{os.environ.get('SHOP_EXTRA_PATH', '')}",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=stdin,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def log(self):
        self._file.flush()
        self._file.seek(0)
        return self._file.read().decode()

    def hosts(self):
        return query("SELECT id, pid, name, state FROM djactor.host")

    def wait_ready(self, hosts=1):
        def ready():
            assert self.process.poll() is None, self.log()
            return len(self.hosts()) >= hosts

        until(ready)

    def says(self, words):
        until(lambda: words in self.log() or self.process.poll() is not None)
        assert words in self.log(), self.log()

    def children(self):
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    found.append(int(stat.parent.name))
        return found

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)

    def kill(self):
        if self.process.poll() is None:
            children = self.children()
            self.process.kill()
            self.process.wait()
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
