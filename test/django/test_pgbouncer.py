"""Through pgbouncer in transaction mode: many clients share two sessions of the server.

Each transaction may run in another session than the one before, so what a session would remember
is of no use; ``DJACTOR["LISTEN"]`` is False.  Workers connect to the server themselves, as always.
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

import pytest
from django.db import connection, connections, transaction
from django.test import override_settings

import djactor
from djactor.models import DeadLetter, Message
from djactor.test import wait_idle
from test_runners import run

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
