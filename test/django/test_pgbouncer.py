"""Through pgbouncer in transaction mode: many clients share two sessions of the server.

Each transaction may run in another session than the one before, so what a session would remember
is of no use; ``DJACTOR["LISTEN"]`` is False.  Workers connect to the server themselves, as always.
A host needs a session of its own, but any session may end its turns.
"""

import asyncio
import os
import pwd
import re
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.test import override_settings

import djactor
from djactor.models import DeadLetter, Message
from djactor.test import wait_idle
from hosting_worker import Worker, define, drop
from test_runners import run
from waiting import until

TYPE = "shop.counter"
SESSIONS = 2


class Pooler:
    """A running pgbouncer, where a host is wanted."""

    def __init__(self, host):
        self.host = host


def listens(path):
    """The socket's file is there a moment before anybody may connect."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture(scope="module")
def pgbouncer(project):
    """One of our own in front of the server, on a unix socket of the server's port number."""
    home = project.root / "pgbouncer"
    home.mkdir()
    account = pwd.getpwuid(project.root.stat().st_uid)
    os.chown(home, account.pw_uid, account.pw_gid)
    (home / "users").write_text('"shop" ""\n"postgres" ""\n')
    (home / "pgbouncer.ini").write_text(
        f"""
        [databases]
        * = host={project.host} port={project.port}

        [pgbouncer]
        pool_mode = transaction
        default_pool_size = {SESSIONS}
        auth_type = trust
        auth_file = {home}/users
        listen_addr =
        listen_port = {project.port}
        unix_socket_dir = {home}
        logfile = {home}/log
        """
    )
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "pgbouncer is missing: run tools/setup"
    user = ["-u", account.pw_name] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, "-q", *user, home / "pgbouncer.ini"], cwd=home)
    try:
        end = time.monotonic() + 30
        while not listens(home / f".s.PGSQL.{project.port}"):
            assert process.poll() is None and time.monotonic() < end, (home / "log").read_text()
            time.sleep(0.02)
        yield Pooler(str(home))
    finally:
        process.kill()  # it has nothing to save; at SIGTERM, newer ones wait for their clients
        process.wait(30)


@pytest.fixture(autouse=True)
def through_the_pooler(pgbouncer, fresh):
    """Django's default alias leads to pgbouncer for the length of a test."""
    alias = connection.settings_dict
    before = dict(alias)
    connection.close()
    alias.update(HOST=pgbouncer.host, DISABLE_SERVER_SIDE_CURSORS=True)
    with override_settings(DJACTOR={"LISTEN": False}):
        yield
    connection.close()
    alias.update(before)


def in_threads(work, count):
    """What ``work(0)``, ``work(1)``, ... return, each from a thread with its own connection."""

    def with_connection(number):
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(with_connection, range(count)))


def test_many_clients_share_the_sessions():
    both_are_in_use = threading.Barrier(SESSIONS, timeout=60)

    def pid(_):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            both_are_in_use.wait()
            return cursor.fetchone()[0]

    assert len(set(in_threads(pid, 10))) == SESSIONS


def test_what_a_transaction_sends_leaves_with_its_commit():
    for key, fails in (1, False), (2, True), (3, False):
        try:
            with transaction.atomic():
                djactor.actor(TYPE, key).send({"add": 1})
                Message.objects.bulk_create(
                    Message(actor_type=TYPE, actor_key=str(key), payload={"add": add})
                    for add in range(10)
                )
                if fails:
                    raise RuntimeError
        except RuntimeError:
            pass
    wait_idle(30)
    assert [djactor.actor(TYPE, key).state() for key in (1, 2, 3)] == [{"n": 46}, None, {"n": 46}]


def test_many_send_at_once():
    def send(number):
        for _ in range(25):
            djactor.actor(TYPE, number % 3).send({"add": 1})

    in_threads(send, 6)
    wait_idle(30)
    assert [djactor.actor(TYPE, key).state() for key in range(3)] == [{"n": 50}] * 3


def test_more_ask_than_there_are_sessions():
    """Who waits occupies a session; it is the worker's commit that it waits for, nobody else's."""

    def ask(number):
        return djactor.actor(TYPE, number).ask({"add": number}, timeout=30)

    assert in_threads(ask, 3 * SESSIONS) == [{"n": number} for number in range(3 * SESSIONS)]


def test_ask_in_sql():
    with connection.cursor() as cursor:
        cursor.execute(f"CALL djactor.ask('{TYPE}', '7', '{{\"add\": 5}}', '30 s')")
        assert '"n": 5' in str(cursor.fetchone()[0])


def test_aask_looks_for_the_answers():
    async def many():
        return await asyncio.gather(
            *(djactor.actor(TYPE, key).aask({"add": key}, timeout=30) for key in range(20))
        )

    assert asyncio.run(many()) == [{"n": key} for key in range(20)]


def test_an_error_of_one_client_is_not_the_next_ones():
    with pytest.raises(djactor.AskFailed, match="told to fail"):
        djactor.actor(TYPE, 1).ask({"fail": True}, timeout=30)
    assert djactor.actor(TYPE, 1).ask({"add": 1}, timeout=30) == {"n": 1}
    letter = DeadLetter.objects.get()
    assert letter.reason == "rejected"


def test_drain_in_a_test_case(project, pgbouncer):
    """Django's runner, through the pooler; the database is made and removed behind its back."""
    project.createdb("test_shop", owner="shop")
    try:
        words = ("django", "test", "shop", "--settings", "project_settings", "--keepdb")
        assert re.search(r"^Ran [1-9]\d* tests", run(pgbouncer, *words), flags=re.MULTILINE)
    finally:
        project.sql("DROP DATABASE test_shop WITH (FORCE)")


def client(host, **options):
    return psycopg.connect(
        host=host, dbname="shop", user="shop", autocommit=True, prepare_threshold=None, **options
    )


@pytest.fixture
def hosted(fresh):
    """A hosted type, and three messages of one of its actors."""
    define("host.counter", "Counter")
    for number in range(3):
        djactor.actor("host.counter", 1).send({"i": number})
    yield fresh
    drop("host.counter")


def handled():
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(turns) FROM djactor.actor WHERE actor_type = 'host.counter'")
        return cursor.fetchone()[0]


def test_a_host_that_has_lost_its_session_is_told_and_loses_nothing(hosted, pgbouncer):
    with client(pgbouncer.host) as host, client(pgbouncer.host) as other:
        host.execute("SELECT djactor.host_open('{host.counter}', lease => '1 s')")
        with other.transaction():
            found = other.execute("SELECT pid = pg_backend_pid() FROM djactor.host").fetchone()
            assert found == (True,)  # who comes next gets the host's session
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
                host.execute("SELECT djactor.take(1)")
    assert refused.value.diag.message_primary == "this session is not a host"
    assert "by a pooler in session mode" in refused.value.diag.message_hint
    # The session stays, and with it the host, but not for longer than its lease.
    with client(hosted.host) as direct:
        until(lambda: direct.execute("SELECT count(*) FROM djactor.host").fetchone() == (0,))
        direct.execute("SELECT djactor.host_open('{host.counter}')")
        assert direct.execute("SELECT count(*) FROM djactor.take(10, 10)").fetchone() == (3,)


def test_turns_that_a_direct_session_has_taken_are_ended_through_the_pooler(hosted, pgbouncer):
    with client(hosted.host) as host, client(pgbouncer.host) as pooled:
        found = host.execute("SELECT djactor.host_open('{host.counter}')").fetchone()[0]
        assert pooled.execute("SELECT djactor.heartbeat(%s)", (found,)).fetchone() == (True,)
        taken = host.execute("SELECT token, id FROM djactor.take(10, 10)").fetchall()
        assert len(taken) == 3
        with client(pgbouncer.host) as other, other.transaction():
            other.execute("SELECT 1")  # and occupies one of the two sessions
            with pooled.transaction():
                pooled.execute("SELECT djactor.begin_turn(%s, %s)", taken[0])
                pooled.execute("SELECT djactor.send('host.counter', '2', '{\"i\": 9}')")
                pooled.execute("CALL djactor.end_turn('{}')")
        (token, number) = taken[1]
        done = pooled.execute("SELECT djactor.complete(%s, %s, '{1}')", ([token], [number]))
        assert done.fetchone() == (["done"],)
        failed = pooled.execute("SELECT djactor.fail(%s, %s, 'JA003', 'no')", taken[2])
        assert failed.fetchone() == ("dead_letter",)
        ((token, _),) = host.execute("SELECT token, id FROM djactor.take(1)").fetchall()
        assert pooled.execute("SELECT djactor.release(%s)", ([token],)).fetchone() == (1,)
        assert handled() == 2
        assert host.execute("SELECT claims FROM djactor.host").fetchone() == (0,)


@pytest.mark.parametrize("cls", ["Counter", "AsyncCounter"])
def test_a_worker_needs_a_direct_connection_and_says_so(fresh, pgbouncer, monkeypatch, cls):
    monkeypatch.setenv("SHOP_DIRECT", fresh.host)
    define("host.counter", cls)
    try:
        djactor.actor("host.counter", 1).send({"i": 1})
        refused = Worker(pgbouncer, "--types", "host.counter")
        assert refused.process.wait(60) == 1, refused.log()
        assert "pgbouncer in transaction mode" in refused.log()
        assert "--direct-database" in refused.log()
        assert handled() is None
        worker = Worker(pgbouncer, "--types", "host.counter", "--direct-database", "direct")
        try:
            until(lambda: handled() == 1)
        finally:
            worker.kill()
    finally:
        drop("host.counter")
