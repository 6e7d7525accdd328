"""docs/operations.md: each block of SQL and of settings works, each alarm goes off.

A monitoring query returns nothing on a healthy server, and a row on one with the fault that it is
for; both run as the role that the page makes for it, with the page's GRANTs.  Thresholds are made
small for that.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from private_server import PrivateServer, ServerError

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "operations.md").read_text()
BLOCKS = [
    (title, language, text)
    for title, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
]
MONITOR = "djactor_monitor"
LOCKED = 'mail of actor t "k" waits: another transaction has locked'
PATIENCE = 60.0  # seconds that the slowest machine may take


def blocks(title: str, language: str = "sql") -> list[str]:
    """The blocks of a section, in their order."""
    return [text for where, kind, text in BLOCKS if (where, kind) == (title, language)]


GRANTS, *QUERIES = blocks("Monitoring")
ALARMS = {re.split(r"[:.]", query)[0].removeprefix("-- "): query for query in QUERIES}


def settings() -> dict[str, str]:
    """What the page has for postgresql.conf."""
    lines = "".join(text for _, language, text in BLOCKS if language == "conf").splitlines()
    return {name: value.strip("'") for name, value in (line.split(" = ") for line in lines)}


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    more = {"max_prepared_transactions": 2, "autovacuum": "off", "djactor.idle_timeout": "1 s"}
    with PrivateServer({**settings(), **more}, fsync=False) as server:
        server.sql("CREATE ROLE app LOGIN CREATEDB")
        server.createdb("app", owner="app")
        (extension,) = blocks("Installing")
        app(server, extension)
        server.sql(GRANTS, "app")
        server.sql("ALTER SCHEMA public OWNER TO app", "app")
        app(
            server,
            """
            CREATE FUNCTION work(state jsonb, message jsonb) RETURNS djactor.result
            LANGUAGE plpgsql AS $$
            BEGIN
                IF message ? 'fail' THEN
                    RAISE EXCEPTION 'told to fail';
                ELSIF message ? 'no file' THEN
                    RAISE EXCEPTION 'no such file' USING ERRCODE = '58P01';
                END IF;
                PERFORM pg_sleep(COALESCE((message->>'sleep')::float8, 0));
                RETURN (state, '"done"'::jsonb);
            END $$;
            CREATE FUNCTION void(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
            SELECT djactor.define_actor_type('t', 'work', max_attempts => 1);
            """,
        )
        yield server


@pytest.fixture
def healthy(server: PrivateServer) -> Iterator[PrivateServer]:
    """A server that has handled mail, and does so again after the test."""
    app(server, "CALL djactor.ask('t', 'k', '{}', '1 min')")
    yield server
    app(server, "SELECT djactor.drop_actor_type('t', true); DELETE FROM djactor.dead_letter")
    app(server, "SELECT djactor.define_actor_type('t', 'work', max_attempts => 1)")


def app(server: PrivateServer, sql: str, database: str = "app") -> str:
    """Run SQL as the database's owner."""
    return server.sql(sql, database, "app")


def alarm(server: PrivateServer, name: str, threshold: str = "", short: str = "") -> str:
    """What a query of the page returns to the monitoring role, with a shorter threshold."""
    query = ALARMS[name]
    assert threshold in query
    return server.sql(query.replace(threshold, short) if threshold else query, "app", MONITOR)


def goes_off(server: PrivateServer, name: str, threshold: str = "", short: str = "") -> str:
    """Wait for the alarm; the result is what it says."""
    end = time.monotonic() + PATIENCE
    while not (said := alarm(server, name, threshold, short)):
        assert time.monotonic() < end, f"no alarm: {name}"
        time.sleep(0.02)
    return said


def open_session(server: PrivateServer, sql: str) -> subprocess.Popen[str]:
    """A psql that has run this and stays, until its input is closed."""
    command = [server.bindir / "psql", "-XAtq", "-d", server.dsn("app")]
    session = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert session.stdin and session.stdout
    session.stdin.write(f"{sql};\n\\echo there\n")
    session.stdin.flush()
    while session.stdout.readline() != "there\n":
        assert session.poll() is None
    return session


def no_launcher(server: PrivateServer) -> None:
    end = time.monotonic() + PATIENCE
    while (said := alarm(server, "No launcher")) == "":  # another is there a second later
        assert time.monotonic() < end, "no alarm: No launcher"
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'djactor launcher'"
        )
    assert said == "no launcher"
    while alarm(server, "No launcher"):
        assert time.monotonic() < end, "it does not come back by itself"
        time.sleep(0.1)


def mail_is_late(server: PrivateServer) -> None:
    server.sql("ALTER ROLE app NOLOGIN")
    try:
        server.sql("SELECT djactor.send('t', 'k'), pg_sleep(0.2)", "app")
        assert goes_off(server, "Mail is late", "1 minute", "0.1 s").startswith("t|1|00:0")
        assert alarm(server, "Mail is late") == ""
    finally:
        server.sql("ALTER ROLE app LOGIN")


def mail_is_put_off(server: PrivateServer) -> None:
    name, threshold, short = "Mail is put off", "1 minute", "0.1 s"
    app(server, "SELECT djactor.pause('t')")
    message = app(server, "SELECT djactor.send('t', 'k')")
    session = open_session(server, f"BEGIN; SELECT djactor.cancel({message})")
    try:
        app(server, "SELECT djactor.resume('t')")
        said = goes_off(server, name, threshold, short)
        assert re.fullmatch(r"t\|k\|\d+\|00:0\S+\|another transaction has locked .*", said)
        assert app(server, "CALL djactor.ask('t', 'other', '{}', '1 min')") == '"done"'
        while LOCKED not in server.log_file.read_text():
            goes_off(server, name, threshold, short)
    finally:
        session.communicate("")  # which rolls back
    app(server, "CALL djactor.wait_idle('1 min', 't', NULL)")
    assert alarm(server, name, threshold, short) == ""

    app(server, "SELECT djactor.define_actor_type('t', 'work', backoff => '1 h')")
    app(server, "SELECT djactor.send('t', 'k', '{\"no file\": true}')")
    said = goes_off(server, name, threshold, short)
    assert re.fullmatch(r"t\|k\|3\|00:0\S+\|no such file", said)
    assert alarm(server, name) == ""


def a_type_stands_still(server: PrivateServer) -> None:
    app(server, "SELECT djactor.pause('t')")
    assert goes_off(server, "A type stands still").startswith("t|")
    app(server, "SELECT djactor.resume('t')")
    assert alarm(server, "A type stands still") == ""
    app(server, "ALTER FUNCTION work RENAME TO elsewhere; SELECT djactor.send('t', 'k')")
    try:
        assert "work" in goes_off(server, "A type stands still")
    finally:
        app(server, "ALTER FUNCTION elsewhere RENAME TO work")


def a_type_is_hosted_by_nobody(server: PrivateServer) -> None:
    name = "A type is hosted by nobody, and has mail"
    app(server, "SELECT djactor.define_actor_type('t.hosted', NULL, hosted => true)")
    try:
        assert alarm(server, name) == ""
        app(server, "SELECT djactor.send('t.hosted', 'k')")
        assert goes_off(server, name) == "t.hosted"
        session = psycopg.connect(server.dsn("app", "app"), autocommit=True)
        with session:
            session.execute("SELECT djactor.host_open('{t.hosted}')")
            assert alarm(server, name) == ""
    finally:
        app(server, "SELECT djactor.drop_actor_type('t.hosted', true)")
    assert alarm(server, name) == ""


def an_actor_stands_still(server: PrivateServer) -> None:
    options = "max_attempts => 1, on_exhausted => 'suspend'"
    app(server, f"SELECT djactor.define_actor_type('t', 'work', {options})")
    app(server, "SELECT djactor.send('t', 'k', '{\"fail\": true}')")
    assert goes_off(server, "An actor stands still") == "t|k|told to fail"


def messages_were_given_up(server: PrivateServer) -> None:
    app(server, "SELECT djactor.send('t', 'k', '{\"fail\": true}')")
    said = goes_off(server, "Messages were given up within the hour")
    assert said == "t|failed|1|told to fail"


def the_clock_was_ahead(server: PrivateServer) -> None:
    # test/t/100_schedule.pl has it with a clock that was
    app(server, "SELECT djactor.schedule('t', 'k', 'daily', every => '1 day')")
    said = goes_off(server, "The clock was ahead", "1 minute", "-1 minute")
    assert said.startswith("clock|t|k|daily|")
    assert alarm(server, "The clock was ahead") == ""


def a_batch_is_open(server: PrivateServer) -> None:
    message = app(server, "SELECT djactor.send('t', 'k', '{\"sleep\": 60}')")
    said = goes_off(server, "A batch is open for more than a minute", "1 minute", "0.2 s")
    assert re.fullmatch(rf"\d+\|app\|t\|{message}\|00:0\S+\|PgSleep", said)
    server.sql(f"SELECT pg_cancel_backend({said.split('|')[0]})")


def turns_are_slow(server: PrivateServer) -> None:
    app(server, "CALL djactor.ask('t', 'k', '{\"sleep\": 0.3}', '1 min')")
    assert goes_off(server, "Turns are slow", "10 seconds", "0.2 s").startswith("t|")


def a_type_misses_its_target(server: PrivateServer) -> None:
    name = "A type has missed its wait_target for most of the last ten minutes"
    app(server, "SELECT djactor.define_actor_type('late', 'work', wait_target => '1 s')")
    for n in range(2, 8):
        server.sql(
            "INSERT INTO djactor.stat_history"
            f" SELECT 'late', date_trunc('minute', now()) - interval '{n} min', 1, 9, 0, 0, 0, 0,"
            " 0, 0, array_fill(0, ARRAY[60]) || 9, '{9}'",
            "app",
        )
        assert (alarm(server, name) != "") == (n == 7)
    assert alarm(server, name) == "late|6|00:00:01"
    app(server, "SELECT djactor.alter_actor_type('late', wait_target => '1 h')")
    assert alarm(server, name) == ""
    app(server, "SELECT djactor.drop_actor_type('late')")


def the_database_is_a_copy(server: PrivateServer) -> None:
    name = "The database is a copy, and its mail is held"
    app(server, "SELECT djactor.pause('t'); SELECT djactor.send('t', 'k')")
    server.sql("CREATE DATABASE copy TEMPLATE app OWNER app")
    try:
        assert server.sql(ALARMS[name], "copy", MONITOR) == "copy"
        app(server, "SELECT djactor.send('t', 'k')", "copy")  # it accepts mail
        (held,) = blocks("Backup, restore, copies")
        assert app(server, held, "copy").split() == ["t"]
        assert server.sql(ALARMS[name], "copy", MONITOR) == ""
    finally:
        server.sql("DROP DATABASE copy")


def a_prepared_transaction_is_forgotten(server: PrivateServer) -> None:
    name = "A prepared transaction is forgotten"
    app(server, "BEGIN; SELECT djactor.send('t', 'k'); PREPARE TRANSACTION 'forgotten'")
    try:
        assert goes_off(server, name, "10 minutes", "0 s").startswith("forgotten|app|")
        assert alarm(server, name) == ""
    finally:
        app(server, "ROLLBACK PREPARED 'forgotten'")


def dead_rows_pile_up(server: PrivateServer) -> None:
    app(
        server,
        "INSERT INTO djactor.message (actor_type, actor_key)"
        " SELECT 't', (i % 10)::text FROM generate_series(1, 2000) i;"
        " SELECT djactor.wait_idle('1 min')",
    )
    assert "message|" in goes_off(server, "Dead rows pile up", "1000000", "1000")


def a_transaction_is_old(server: PrivateServer) -> None:
    session = open_session(server, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    try:
        assert "client backend" in goes_off(server, "A transaction is old", "1 hour", "0.1 s")
        assert alarm(server, "A transaction is old") == ""
    finally:
        session.communicate("")


def notifications_pile_up(server: PrivateServer) -> None:
    session = open_session(server, "LISTEN x; BEGIN; SELECT 1")
    try:
        server.sql(
            "SELECT pg_notify('x', i || repeat('x', 4000)) FROM generate_series(1, 500) i", "app"
        )
        assert float(goes_off(server, "Notifications pile up", "0.1", "1e-6")) > 0
    finally:
        session.communicate("")


FAULTS: dict[str, Callable[[PrivateServer], None]] = {
    "No launcher": no_launcher,
    "Mail is late": mail_is_late,
    "Mail is put off": mail_is_put_off,
    "A type stands still": a_type_stands_still,
    "A type is hosted by nobody, and has mail": a_type_is_hosted_by_nobody,
    "An actor stands still": an_actor_stands_still,
    "Messages were given up within the hour": messages_were_given_up,
    "The clock was ahead": the_clock_was_ahead,
    "A batch is open for more than a minute": a_batch_is_open,
    "Turns are slow": turns_are_slow,
    "A type has missed its wait_target for most of the last ten minutes": a_type_misses_its_target,
    "The database is a copy, and its mail is held": the_database_is_a_copy,
    "A prepared transaction is forgotten": a_prepared_transaction_is_forgotten,
    "Dead rows pile up": dead_rows_pile_up,
    "A transaction is old": a_transaction_is_old,
    "Notifications pile up": notifications_pile_up,
}


def test_each_block_is_run() -> None:
    places = [(title, language) for title, language, _ in BLOCKS]
    once = ["Installing", "Backup, restore, copies", "Upgrading", "Erasing", "Removing it"]
    assert [
        title for title, language in places if language == "sql" and title != "Monitoring"
    ] == once
    assert {language for _, language in places} == {"sql", "conf"}
    assert list(ALARMS) == list(FAULTS)


@pytest.mark.parametrize("name", ALARMS)
def test_alarm(healthy: PrivateServer, name: str) -> None:
    assert alarm(healthy, name) == ""
    FAULTS[name](healthy)


def test_the_monitoring_role_only_looks(server: PrivateServer) -> None:
    for refused in (
        "SELECT djactor.send('t', 'k')",
        "SELECT djactor.pause('t')",
        "DELETE FROM djactor.dead_letter",
        "SELECT djactor.resume()",
    ):
        with pytest.raises(ServerError, match=r"permission denied|must be"):
            server.sql(refused, "app", MONITOR)


def test_erasing(healthy: PrivateServer) -> None:
    (erase,) = blocks("Erasing")
    app(healthy, "SELECT djactor.send('t', 'k', wants_reply => true)")
    assert app(healthy, "SELECT djactor.wait_idle('1 min')") == "t"
    lines = app(healthy, erase.replace("'shop.cart', '7'", "'t', 'k'")).splitlines()
    assert "actor|1" in lines
    assert any(line.startswith("reply|") and line != "reply|0" for line in lines)
    assert app(healthy, "SELECT count(*) FROM djactor.actor WHERE actor_key = 'k'") == "0"


def test_versions(server: PrivateServer) -> None:
    (versions,) = blocks("Upgrading")
    available, installed = app(server, versions).split("|")
    assert available == installed


def test_only_a_superuser_restores(server: PrivateServer) -> None:
    for table in ("message", "actor_type", "home"):
        with pytest.raises(ServerError, match="permission denied"):
            app(server, f"COPY djactor.{table} FROM stdin;\n\\.\n")


def test_removing(server: PrivateServer) -> None:
    app(server, "CREATE VIEW waiting AS SELECT * FROM djactor.message")
    server.sql("CREATE DATABASE removed TEMPLATE app OWNER app")
    (drop,) = blocks("Removing it")
    app(server, drop, "removed")
    left = "SELECT count(*) FROM {} WHERE {}name IN ('work', 'void', 'waiting', 'djactor')"
    assert server.sql(left.format("pg_proc", "pro"), "removed") == "1"  # void
    assert server.sql(left.format("pg_class", "rel"), "removed") == "0"
    assert server.sql(left.format("pg_namespace", "nsp"), "removed") == "0"


def test_the_log_lines_exist() -> None:
    table = PAGE.split("| line | what to do |")[1].split("\n## ")[0]
    lines = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    assert lines and len(lines) == len(re.findall(r"^\| [^-]", table, re.MULTILINE))
    source = "".join(path.read_text() for path in TOP.glob("src/**/*.c"))
    source = re.sub(r'"\s*(?:INT64_FORMAT)?\s*"', "", source).replace('\\"', '"')
    for line in lines:
        assert line in source


def test_the_figures_of_the_settings_are_those_of_the_source() -> None:
    source = (TOP / "src/base/guc.c").read_text()
    assert "84 bytes" in PAGE and "84 bytes each" in source
    assert "4,096 types or 512 pairs" in PAGE
    constants = "".join(
        (TOP / "src/shmem" / name).read_text() for name in ("run_queue.h", "slots.h")
    )
    assert re.search(r"define DJA_MAX_TYPE_QUEUES 4096\b", constants)
    assert re.search(r"define DJA_MAX_POOLS 512\b", constants)
