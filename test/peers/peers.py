"""Peers: the test suites of PostgreSQL and of Django say the same with djactor as without it.

``make test-peers`` runs them three times, each time on a server of their own::

    plain        without djactor
    preloaded    with its library in shared_preload_libraries
    extension    that, and the extension in template0 and template1, so in each database
                 that a suite creates, while in another database workers come and go

* regress, isolation: PostgreSQL's own, from its source (``tools/pg-source``);
* decoding: those of its contrib module test_decoding;
* django: tests of Django that have to do with databases, transactions, migrations and test
  databases, from the source distribution of the version that the virtual environment has.

What must hold: a test that says in a run with djactor what it does not say in the plain run is
listed in ``differences.py``, with those lines and the reason; and what is listed there is seen.
What fails in the plain run, too, in the same words, is no difference.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import django
import psycopg
from differences import DIFFERENCES

from private_server import PrivateServer

HERE = Path(__file__).parent
TOP = HERE.parent.parent
VARIANTS = ("plain", "preloaded", "extension")
DJANGO = (
    "backends",
    "transactions",
    "transaction_hooks",
    "migrations",
    "test_runner",
    "postgres_tests",
)

# What pg_regress sets in a server of its own, and what test_decoding asks for.
SETTINGS: dict[str, str | int | float | bool] = {
    "max_prepared_transactions": 10,
    "max_worker_processes": 16,
    "log_autovacuum_min_duration": 0,
    "log_checkpoints": True,
    "log_lock_waits": True,
    "log_temp_files": "128kB",
}
DECODING = {
    "wal_level": "logical",
    "max_replication_slots": 4,
    "logical_decoding_work_mem": "64kB",
    "autovacuum_naptime": "1d",
}
COMING_AND_GOING = {"djactor.max_workers": 2, "djactor.idle_timeout": "100ms"}

# What the neighbour's workers run.
HANDLER = """
    CREATE FUNCTION count_mail(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
    END $$;
    SELECT djactor.define_actor_type('busy', 'count_mail', initial_state => '{}');
"""

WORKERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'djactor worker'"

# What a suite said: of each test that ran, the lines that it should not have said.
Said = dict[str, list[str]]


@dataclass
class Neighbour:
    """A database whose workers come and go."""

    server: PrivateServer
    pids: set[int] = field(default_factory=set)
    sent: int = 0
    wrong: str = ""

    def __enter__(self) -> Neighbour:
        self.server.createdb("busy")
        self.server.sql(HANDLER, "busy")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        try:
            with psycopg.connect(self.server.dsn("busy"), autocommit=True) as connection:
                while not self._over.wait(0.4):
                    connection.execute(
                        "SELECT djactor.send('busy', (g % 10)::text) FROM generate_series(1, 100) g"
                    )
                    self.sent += 100
                    self.pids |= {pid for (pid,) in connection.execute(WORKERS)}
                    connection.execute("CALL djactor.wait_idle('1 min', 'busy', NULL)")
                    # They end, and others come with the next mail.
                    connection.execute("SELECT djactor.reload()")
                turns = "SELECT coalesce(sum((state->>'n')::int), 0) FROM djactor.actor"
                if (row := connection.execute(turns).fetchone()) != (self.sent,):
                    self.wrong = f"{self.sent} messages were sent, {row} handled"
                elif len(self.pids) < 2:
                    self.wrong = "its workers did not come and go"
        except psycopg.Error as error:
            self.wrong = str(error)


class Peers:
    """The suites, on a directory that the server's user may write."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.source = Path(_output(TOP / "tools/pg-source"))
        self.prefix = Path(os.environ["DJACTOR_PREFIX"])
        self.pgxs = Path(_output(self.prefix / "pg_config", "--pgxs")).parent.parent
        self.pkglib = Path(_output(self.prefix / "pg_config", "--pkglibdir"))
        for part in ("src/test/regress", "src/test/isolation", "contrib/test_decoding"):
            shutil.copytree(self.source / part, self.work / part)
        self._libraries()

    def _libraries(self) -> None:
        """What the regression tests load, in one directory."""
        self.libraries = self.work / "lib"
        self.libraries.mkdir()
        for name in ("autoinc", "refint"):
            (self.libraries / f"{name}.so").symlink_to(
                (self.pkglib / f"{name}.so").resolve(strict=True)
            )
        include = _output(self.prefix / "pg_config", "--includedir-server")
        source = self.work / "src/test/regress/regress.c"
        _output(
            "cc",
            "-O2",
            "-fPIC",
            "-shared",
            "-I",
            include,
            "-o",
            self.libraries / "regress.so",
            source,
        )

    # PostgreSQL's.

    def regress(self, server: PrivateServer, out: Path) -> Said:
        tests = self.work / "src/test/regress"
        return self._pg_regress(
            server,
            out,
            self.pgxs / "test/regress/pg_regress",
            tests,
            f"--dlpath={self.libraries}",
            "--max-concurrent-tests=20",
            f"--schedule={tests}/parallel_schedule",
        )

    def isolation(self, server: PrivateServer, out: Path) -> Said:
        tests = self.work / "src/test/isolation"
        return self._pg_regress(
            server, out, self._isolation, tests, f"--schedule={tests}/isolation_schedule"
        )

    def decoding(self, server: PrivateServer, out: Path) -> Said:
        tests = self.work / "contrib/test_decoding"
        makefile = (tests / "Makefile").read_text().replace("\\\n", " ")
        names = {key: value.split() for key, value in re.findall(r"^(\w+) = (.*)$", makefile, re.M)}
        regress = self.pgxs / "test/regress/pg_regress"
        return self._pg_regress(
            server, out / "sql", regress, tests, *names["REGRESS"]
        ) | self._pg_regress(server, out / "specs", self._isolation, tests, *names["ISOLATION"])

    @property
    def _isolation(self) -> Path:
        return self.pgxs / "test/isolation/pg_isolation_regress"

    def _pg_regress(
        self, server: PrivateServer, out: Path, program: Path, tests: Path, *arguments: str
    ) -> Said:
        result = server.run(
            [
                program,
                f"--bindir={self.prefix}",
                f"--inputdir={tests}",
                f"--outputdir={out}",
                f"--host={server.host}",
                f"--port={server.port}",
                f"--user={server.superuser}",
                # A test of isolation knows the name by heart.
                f"--dbname={'isolation_' if program == self._isolation else ''}regression",
                "--encoding=UTF8",
                "--no-locale",
                *arguments,
            ],
            out,
        )
        said: Said = {}
        # `test name ... ok` up to 15, `ok 1 - name` from 16 on.
        for words in re.findall(
            r"^(?:test |     )(\S+) +\.\.\. (?:ok|FAILED)|^(?:not )?ok \d+ +[-+] (\S+)",
            result,
            re.M,
        ):
            said["".join(words)] = []
        if not said:
            raise SystemExit(f"{program.name} ran no test:\n{result[-2000:]}")
        diffs = out / "regression.diffs"
        test = ""
        for line in diffs.read_text(errors="replace").splitlines() if diffs.exists() else ():
            if line.startswith("diff "):
                test = Path(line.split()[-1]).stem
            elif line[:1] in ("+", "-") and not line.startswith(("+++ ", "--- ")):
                # The ids of what is created are others each time.
                line = re.sub(r"\b(1[6-9]|2\d)\d{3}\b", "(new)", line.rstrip())
                said.setdefault(test, []).append(line)
        for test in re.findall(
            r"^(?:test |     )(\S+) +\.\.\. FAILED|^not ok \d+ +[-+] (\S+)", result, re.M
        ):
            said["".join(test)] = said["".join(test)] or ["failed"]
        return said

    # Django's.

    def django(self, server: PrivateServer, out: Path) -> Said:
        out.mkdir(parents=True)
        tests = self._django_source() / "tests"
        environment = {
            **os.environ,
            "PYTHONPATH": f"{HERE}:{tests.parent}",
            "DJACTOR_PEERS_HOST": server.host,
            "DJACTOR_PEERS_PORT": str(server.port),
            "DJACTOR_PEERS_USER": server.superuser,
            "DJACTOR_PEERS_OUT": str(out / "outcomes.json"),
        }
        command = [
            sys.executable,
            "runtests.py",
            "--settings=django_settings",
            "--parallel=2",
            *DJANGO,
        ]
        with (out / "log").open("w") as log:
            subprocess.run(command, cwd=tests, env=environment, stdout=log, stderr=log, check=False)
        try:
            said: Said = json.loads((out / "outcomes.json").read_text())
        except FileNotFoundError:
            raise SystemExit((out / "log").read_text()[-3000:]) from None
        return said

    def _django_source(self) -> Path:
        """The source distribution of the version that is installed, unpacked in the cache."""
        name = f"django-{django.__version__}"
        cache = TOP / ".build/source/django"
        if not (cache / name).is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
            _output(
                *(*pip, "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", cache),
                f"Django=={django.__version__}",
            )
            (archive,) = (path for path in cache.iterdir() if path.name.lower() == f"{name}.tar.gz")
            (cache / "new").mkdir(exist_ok=True)
            _output("tar", "--no-same-owner", "-C", cache / "new", "-xf", archive)
            (cache / "new" / name).rename(cache / name)
        return cache / name


def run_variant(variant: str, suites: list[str], peers: Peers) -> dict[tuple[str, str], list[str]]:
    """All suites on a server of this kind."""
    settings = dict(SETTINGS)
    if variant == "plain":
        settings["shared_preload_libraries"] = ""
    else:
        settings |= COMING_AND_GOING
    if "decoding" in suites:
        settings |= DECODING
    everything: dict[tuple[str, str], list[str]] = {}
    with PrivateServer(settings, fsync=False) as server, contextlib.ExitStack() as stack:
        neighbour = None
        if variant == "extension":
            server.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
            for database in ("template0", "template1"):
                server.sql("CREATE EXTENSION djactor", database)
            server.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS false")
            neighbour = stack.enter_context(Neighbour(server))
        for suite in suites:
            started = time.monotonic()
            said = getattr(peers, suite)(server, peers.work / variant / suite)
            everything |= {(suite, test): lines for test, lines in said.items()}
            bad = sum(map(_failed, said.values()))
            took = time.monotonic() - started
            print(
                f"== {variant}: {suite}: {len(said)} tests, {bad} failed, {took:.0f} s", flush=True
            )
        stack.close()
        if neighbour is not None:
            print(
                f"== {variant}: the neighbour's {len(neighbour.pids)} workers handled "
                f"{neighbour.sent} messages"
            )
            everything["neighbour", "neighbour"] = [neighbour.wrong] if neighbour.wrong else []
    return everything


def differences(
    plain: dict[tuple[str, str], list[str]], other: dict[tuple[str, str], list[str]]
) -> dict[tuple[str, str], list[str]]:
    """What each test says in the other run only, or that it did not run there."""
    found = {}
    for key in plain.keys() | other.keys():
        if key not in other:
            lines = ["(did not run)"]
        else:
            before = Counter(plain.get(key, []))
            lines = []
            for line in other[key]:
                if before[line]:
                    before[line] -= 1
                else:
                    lines.append(line)
        found[key] = lines
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    suites = ["regress", "isolation", "decoding", "django"]
    parser.add_argument("--suite", action="append", choices=suites, help="only these")
    parser.add_argument("--keep", action="store_true", help="leave what they wrote in .build/peers")
    options = parser.parse_args()
    suites = options.suite or suites

    listed: dict[tuple[str, str, str], list[str]] = {}
    for entry in DIFFERENCES:
        for variant in entry.variants:
            listed[variant, entry.suite, entry.test] = entry.lines.strip("\n").split("\n")

    passed = failed = 0
    with tempfile.TemporaryDirectory(dir=os.environ["DJACTOR_TMPDIR"]) as directory:
        work = Path(directory)
        work.chmod(0o755)
        peers = Peers(work)
        runs = {variant: run_variant(variant, suites, peers) for variant in VARIANTS}
        if options.keep:
            shutil.rmtree(TOP / ".build/peers", ignore_errors=True)
            for variant in VARIANTS:
                shutil.copytree(work / variant, TOP / ".build/peers" / variant, symlinks=True)

    for (suite, test), lines in runs["plain"].items():
        if _failed(lines):
            print(
                f"== plain: {suite}: {test} fails here without djactor, too", *lines[:10], sep="\n"
            )
    for variant in VARIANTS[1:]:
        for (suite, test), lines in sorted(differences(runs["plain"], runs[variant]).items()):
            if lines == listed.get((variant, suite, test), []):
                passed += 1
                continue
            failed += 1
            print(f"== {variant}: {suite}: {test}: other differences than those in differences.py")
            print(*lines, sep="\n")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


def _failed(lines: list[str]) -> bool:
    return any(not line.startswith("skipped: ") for line in lines)


def _output(*command: str | Path) -> str:
    """What a program prints; it must succeed."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
