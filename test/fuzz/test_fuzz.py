"""Hostile arguments for everything that djactor offers in SQL.

Several clients call every function of the schema (and insert, update, delete, and set the
settings) with arguments that were not meant: NULL, extremes, infinity, empty and huge strings, deep
JSON, ids of others, text that looks like code; as the owner of the database, as a role without
rights, and as a superuser; alone, in transactions, in savepoints, prepared, cut off by timeouts;
and inside of turns, which workers and drain() run.  Meanwhile workers and statements are cancelled
and terminated, and handlers renamed.

* The server never crashes, and finds no damage in itself.
* No error is an internal one (class XX), and each has one of the codes in EXPECTED.
* Nothing hangs: what is cut off ends.
* Actors that have nothing to do with all this lose no message, and handle none twice.
* What is dropped in the end leaves nothing behind.

DJACTOR_FUZZ_SECONDS says how long to go on, with other choices each time; without it they are the
same ones. The seed is printed; DJACTOR_SEED repeats the choices of all threads, not their timing.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from typing import Any

import psycopg
import pytest
from psycopg import sql

from private_server import PrivateServer

CLIENTS = 4
SECONDS = float(os.environ.get("DJACTOR_FUZZ_SECONDS", "10"))
PATIENCE = float(os.environ.get("DJACTOR_PATIENCE", "60"))
TIMEOUT = 2.0  # seconds, of a statement

# Errors that may come: those that docs/sql.md lists, and those that PostgreSQL itself raises for
# such arguments, in such transactions and when it is told to stop.
CODES = """
    22003 22004 22023 25006 2BP01 2D000 42501 42602 42704 42883 42P13 53400 54000 55000 55P03
    JA001 JA002 JA003
    0A000 22007 22008 23502 25P01 25P02 39P01 40001 40P01 42710 42804 42601 55P02 57014 57P01
"""
EXPECTED = frozenset(CODES.split())

SCHEMA = """
CREATE FUNCTION fz_exec(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF message ? 'catch' THEN
        BEGIN
            EXECUTE message->>'sql';
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO caught VALUES (sqlstate, sqlerrm, message->>'sql');
        END;
    ELSIF message ? 'sql' THEN
        EXECUTE message->>'sql';
    END IF;
    RETURN coalesce(state, '{}') || '{"run": true}';
END $$;
CREATE FUNCTION fz_void(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF message ? 'sql' THEN
        EXECUTE message->>'sql';
    END IF;
END $$;
CREATE FUNCTION fz_result(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE sql AS
    $$ SELECT NULL::jsonb, message $$;
CREATE FUNCTION fz_upgrade(state jsonb, from_version int) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT state || jsonb_build_object('from', from_version) $$;
CREATE TABLE caught (code text, error text, sql text);
GRANT ALL ON caught TO guest;

CREATE TABLE canary (n int);
CREATE FUNCTION canary(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT jsonb_build_object('n', coalesce((state->>'n')::int, 0) + (message->>'n')::int) $$;
"""

TYPES = ["fz.app", "fz.guest", "fz.super", "fz.void", "fz.result"]
KEYS = ["a", "b", "c"]

TEXTS = [
    *TYPES,
    *TYPES,
    *KEYS,
    *KEYS,
    "hold", "skip", "dead_letter", "suspend", "raise", "retry", "t1", "t2",
    "", " ", "\t\n", "x" * 255, "x" * 256, "x" * 512, "x" * 513, "x" * 70_000, "\u00e4" * 256,
    "\U0001f600", "\u202e\ufffe", "%s%n%1000d", "\\", "'", '"', '""', "';DROP TABLE caught;--",
    "fz_exec", "public.fz_exec", "fz_exec(jsonb,jsonb)", "fz_exec( jsonb , jsonb )", "fz_exec(",
    "fz_exec(jsonb,jsonb);SELECT 1", '"public"."fz_exec"', "fz_void", "fz_result", "fz_upgrade",
    "pg_catalog.jsonb_concat(jsonb,jsonb)", "jsonb_concat", "pg_sleep", "djactor.drain",
    "a.b.c.d.e",
    "djactor.message_sent()", "abs", "fz_exec(jsonb)", "(", ")", "f()()", "-", "0", "2147483648",
    "pg_temp.f", "canary.", ".canary",
]  # fmt: skip
JSONS = [
    "{}", "null", "[]", "0", '""', "true", '{"a": {"b": [1, 2, null]}}',
    "1" + "0" * 2000, "1e-1000",
    '"' + "x" * 100_000 + '"', "[" * 1500 + "]" * 1500, '{"a":' * 1500 + "1" + "}" * 1500,
    "{" + ",".join(f'"k{i}": {i}' for i in range(5000)) + "}", '{"a": 1, "a": 2}', '{"": ""}',
    '{"\\u00e4": "\\ud83d\\ude00"}', '{"sql": "SELECT 1"}', '{"sql": null}', '{"catch": 1}',
]  # fmt: skip
INTS = [0, 0, 1, 1, -1, 2, 3, 100, 1000, 32767, 32768, -32768, -32769, 2**31 - 1, -(2**31)]
BIGINTS = [0, 1, -1, 2, 2**31, 2**63 - 1, -(2**63)]
IDS = [
    f"(SELECT id FROM djactor.{table} WHERE actor_type <> 'canary' LIMIT 1 OFFSET {offset})"
    for table in ("message", "dead_letter")
    for offset in (0, 1, 17)
] + ["(SELECT message_id FROM djactor.reply LIMIT 1)", "(djactor.message()).id"]
INTERVALS = [
    "0", "-1 us", "1 us", "1 ms", "20 ms", "1 s", "-1 s", "1 h", "1 mon", "178000000 years",
    "-178000000 years", "2562047788:00:54.775807", "-2562047788:00:54.775808", "1 mon -30 days",
    "2147483647 mons 2147483647 days", "-2147483648 mons -2147483648 days", "1 mon -700 hours",
]  # fmt: skip
TIMES = [
    "now", "epoch", "infinity", "-infinity", "4714-11-24 00:00 BC", "4713-01-01 BC", "1999-12-31",
    "294276-12-31 23:59:59.999999", "9999-12-31", "tomorrow", "2000-01-01 00:00:00+00",
]  # fmt: skip
UUIDS = [
    "'00000000-0000-0000-0000-000000000000'::uuid",
    "gen_random_uuid()",
    "(SELECT trace_id FROM djactor.message WHERE actor_type <> 'canary' LIMIT 1)",
]
ARRAYS = ["{}", "{1}", "{-1}", "{1,NULL}", "{{1,2},{3,4}}", "[5:6]={1,2}", f"{{{'7,' * 80}7}}"]
FLOATS = ["0.5", "0", "1", "-0.1", "1.1", "NaN", "Infinity", "-Infinity"]
ROLES = ["app", "postgres", "guest", "pg_monitor", "pg_database_owner", "app", "app"]
SETTINGS = {
    "djactor.batch_size": ["1", "0", "-1", "1000", "2147483648", "x"],
    "djactor.batch_time": ["0", "1", "10ms", "-5", "1 year"],
    "djactor.poll_interval": ["0", "1s", "1 year", "-1"],
    "djactor.idle_timeout": ["0", "1s", "-1"],
    "djactor.reply_retention": ["0", "1", "-1"],
    "djactor.max_workers": ["1"],
    "djactor.instance": ["x"],
    "djactor_python.path": ["/nowhere"],
}
MESSAGE_COLUMNS = {
    "actor_type": "text",
    "actor_key": "text",
    "payload": "jsonb",
    "headers": "jsonb",
    "priority": "integer",
    "deliver_at": "timestamp with time zone",
    "expires_at": "timestamp with time zone",
    "idempotency_key": "text",
    "wants_reply": "boolean",
    "in_reply_to": "bigint",
    "trace_id": "uuid",
}
TABLES = [
    "actor_type", "actor", "actor_identity", "message", "dead_letter", "reply", "timer", "watch",
    "idempotency", "journal", "home",
]  # fmt: skip


def literal(value: str, kind: str) -> str:
    """A value as SQL text."""
    return f"{sql.Literal(value).as_string()}::{kind}"


class Fuzz:
    """One run."""

    def __init__(self, server: PrivateServer, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.codes: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.wrong: list[str] = []
        with self.connect("postgres") as connection:
            # [name, pg_proc.prokind, [(argument, type)], how many of them have a default]
            self.functions: list[tuple[str, str, list[tuple[str, str]], int]] = [
                (name, kind, list(zip(names, types, strict=True)), defaults)
                for name, kind, names, types, defaults in connection.execute(
                    "SELECT proname, prokind, CASE prokind WHEN 'a' THEN"
                    " array_fill(''::text, ARRAY[pronargs::int])"
                    " ELSE coalesce((proargnames)[1:pronargs], '{}') END,"
                    " ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) t),"
                    " pronargdefaults"
                    " FROM pg_proc WHERE pronamespace = 'djactor'::regnamespace ORDER BY oid"
                )
            ]

    def connect(self, user: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self.server.dsn("app", user),
            autocommit=True,
            options=f"-c statement_timeout={int(TIMEOUT * 1000)}",
            prepare_threshold=3,
        )

    # What is said.

    def value(self, rng: random.Random, kind: str, sane: float = 0.0) -> str:
        """Some value of a type, as SQL text."""
        if rng.random() < 0.06 * (1 - sane):
            return "NULL"
        match kind:
            case "text":
                return literal(rng.choice(TEXTS), kind)
            case "jsonb":
                if rng.random() < 0.4:
                    payload = {"sql": self.call(rng)}
                    if rng.random() < 0.5:
                        payload["catch"] = "1"
                    pairs = ", ".join(f"'{k}', {literal(v, 'text')}" for k, v in payload.items())
                    return f"jsonb_build_object({pairs})"
                return literal(rng.choice(JSONS), kind)
            case "integer":
                return f"({rng.choice(INTS)})"
            case "bigint":
                return rng.choice(IDS) if rng.random() < 0.6 else f"({rng.choice(BIGINTS)})"
            case "boolean":
                return rng.choice(["true", "false"])
            case "interval":
                return literal(rng.choice(INTERVALS), kind)
            case "timestamp with time zone":
                return literal(rng.choice(TIMES), kind)
            case "uuid":
                return rng.choice(UUIDS)
            case "integer[]":
                return literal(rng.choice(ARRAYS), kind)
            case "double precision":
                return literal(rng.choice(FLOATS), kind)
            case "regrole":
                return literal(rng.choice(ROLES), kind)
        return "NULL"

    def call(self, rng: random.Random) -> str:
        """A call of a function of the schema."""
        name, what, arguments, defaults = rng.choice(self.functions)
        given = []
        for position, (argument, kind) in enumerate(arguments):
            # The first arguments are mostly names of something; hostile all at once reaches little.
            if position >= len(arguments) - defaults and rng.random() < 0.7:
                continue
            if kind == "text" and position < 2 and rng.random() < 0.7:
                value = literal(rng.choice(KEYS if argument == "actor_key" else TYPES), "text")
                if argument == "handler":
                    value = literal(rng.choice(["fz_exec", "fz_void", "fz_result"]), "text")
            else:
                value = self.value(rng, kind)
            given.append(f"{argument} => {value}" if argument else value)
        text = f"djactor.{name}({', '.join(given)})"
        with self.lock:
            self.calls[name] += 1
        if what == "p":
            return f"CALL {text}"
        forms = [f"SELECT {text}", f"SELECT {text} FROM generate_series(1, 3)"]
        if what != "a":
            forms.append(f"SELECT * FROM {text}")
        return rng.choice(forms)

    def insert(self, rng: random.Random) -> str:
        """A message."""
        columns = ["actor_type", "actor_key", "payload"]
        columns += [c for c in list(MESSAGE_COLUMNS)[3:] if rng.random() < 0.15]
        rows = []
        for _ in range(rng.choice([1, 1, 2, 10])):
            row = [self.value(rng, MESSAGE_COLUMNS[c], sane=0.5) for c in columns]
            if rng.random() < 0.9:
                row[:2] = literal(rng.choice(TYPES), "text"), literal(rng.choice(KEYS), "text")
            rows.append(f"({', '.join(row)})")
        return (
            f"INSERT INTO djactor.message ({', '.join(columns)}) VALUES {', '.join(rows)}"
            + rng.choice(["", " RETURNING id", " ON CONFLICT DO NOTHING"])
        )

    def statement(self, rng: random.Random) -> str:
        """Anything."""
        what = rng.random()
        if what < 0.65:
            return self.call(rng)
        if what < 0.88:
            return self.insert(rng)
        if what < 0.92:
            state = self.value(rng, "jsonb")
            return (
                f"UPDATE djactor.actor SET state = {state} WHERE actor_type <> 'canary'"
                f" AND actor_key = {literal(rng.choice(KEYS), 'text')}"
            )
        if what < 0.94:
            table = rng.choice(["dead_letter", "journal"])
            return f"DELETE FROM djactor.{table} WHERE actor_type <> 'canary' AND random() < 0.5"
        if what < 0.96:
            table = rng.choice(TABLES)
            return rng.choice([f"TRUNCATE djactor.{table} CASCADE", f"LOCK djactor.{table}"])
        if what < 0.98:
            name = rng.choice(list(SETTINGS))
            return f"SET {name} = {sql.Literal(rng.choice(SETTINGS[name])).as_string()}"
        view = rng.choice(["mailbox", "worker", "stat"])
        return f"SELECT count(*) FROM djactor.{view}"

    # Who says it.

    def note(self, code: str, error: str, statement: str) -> None:
        with self.lock:
            self.codes[code] += 1
            self.examples.setdefault(code, f"{error.strip()}  <- {statement[:300]}")

    def execute(self, connection: psycopg.Connection[Any], statement: str) -> bool:
        """Run it; false, if it failed.  Errors: OperationalError, when the connection is lost."""
        began = time.monotonic()
        try:
            connection.execute(statement)  # type: ignore[call-overload]
            return True
        except psycopg.Error as error:
            if error.sqlstate is not None:
                self.note(error.sqlstate, str(error), statement)
            if connection.closed:
                raise
            return False
        finally:
            if (took := time.monotonic() - began) > TIMEOUT + PATIENCE:
                self.wrong.append(f"{took:.0f} s for {statement[:300]}")

    def transaction(
        self, connection: psycopg.Connection[Any], rng: random.Random, name: str
    ) -> None:
        """Some statements in a transaction, which ends in any way."""
        mode = rng.choice(["", "", "", " READ ONLY", " ISOLATION LEVEL SERIALIZABLE"])
        self.execute(connection, f"BEGIN{mode}")
        if rng.random() < 0.3:
            self.execute(connection, f"SET LOCAL statement_timeout = {rng.choice([1, 5, 30])}")
        for _ in range(rng.choice([1, 2, 5])):
            guarded = rng.random() < 0.7
            if guarded:
                guarded = self.execute(connection, "SAVEPOINT s")  # it may be cut off
            fine = self.execute(connection, self.statement(rng))
            if guarded:
                undo = not fine or rng.random() < 0.2
                self.execute(connection, "ROLLBACK TO s" if undo else "RELEASE s")
            elif not fine:
                break
        if rng.random() < 0.1:
            self.execute(connection, f"PREPARE TRANSACTION '{name}'")
        else:
            self.execute(connection, rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        while connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self.execute(connection, "ROLLBACK")

    def end_prepared(self, connection: psycopg.Connection[Any], name: str, end: str) -> None:
        """End a prepared transaction, if there is one of that name, whatever gets in the way."""
        there = f"SELECT FROM pg_prepared_xacts WHERE gid = '{name}'"
        with contextlib.suppress(psycopg.errors.QueryCanceled):
            while connection.execute(there).fetchone():  # type: ignore[call-overload]
                self.execute(connection, f"{end} PREPARED '{name}'")

    def client(self, number: int) -> None:
        rng = random.Random(self.seed * 1000 + number)
        user = ["app", "postgres", "guest", "app"][number % 4]
        connection = self.connect(user)
        name = f"client {number}"
        while not self.stop.is_set():
            try:
                if rng.random() < 0.4:
                    self.end_prepared(connection, name, rng.choice(["COMMIT", "ROLLBACK"]))
                    self.transaction(connection, rng, name)
                else:
                    self.execute(connection, self.statement(rng))
                if user == "app":
                    key = rng.choice(KEYS)
                    self.execute(
                        connection,
                        "WITH s AS (INSERT INTO canary VALUES (1) RETURNING n)"
                        " INSERT INTO djactor.message (actor_type, actor_key, payload)"
                        f" SELECT 'canary', '{key}', jsonb_build_object('n', n) FROM s",
                    )
                if rng.random() < 0.02:
                    connection.close()
                    connection = self.connect(user)
            except psycopg.OperationalError:
                # Terminated; had the server crashed, its log would tell.
                connection = self.connect(user)
        connection.close()

    def operator(self) -> None:
        """Cut off what runs."""
        rng = random.Random(self.seed * 1000 + 999)
        connection = self.connect("postgres")
        while not self.stop.wait(rng.random() * 0.2):
            what = rng.random()
            if what < 0.5:
                verb = rng.choice(["cancel", "cancel", "terminate"])
                self.execute(
                    connection,
                    f"SELECT pg_{verb}_backend(pid) FROM pg_stat_activity WHERE datname = 'app'"
                    " AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1",
                )
            elif what < 0.7:
                name = rng.choice(["fz_void", "fz_result"])
                rename = [
                    f"ALTER FUNCTION {name} RENAME TO gone",
                    f"ALTER FUNCTION gone RENAME TO {name}",
                ]
                if self.execute(connection, rename[0]):
                    time.sleep(rng.random() * 0.1)
                    while not self.execute(connection, rename[1]):
                        time.sleep(0.01)
            elif what < 0.8:
                self.execute(connection, "SELECT djactor.resume()")
            else:
                kind = rng.choice(TYPES)
                self.execute(connection, f"SELECT djactor.resume('{kind}')")
        connection.close()

    def guarded(self, target: Any, *args: Any) -> None:
        try:
            target(*args)
        except BaseException as error:
            self.wrong.append(f"{target.__name__}{args}: {error!r}")
            self.stop.set()

    def go(self) -> None:
        threads = [
            threading.Thread(target=self.guarded, args=(self.client, number), daemon=True)
            for number in range(CLIENTS)
        ]
        threads.append(threading.Thread(target=self.guarded, args=(self.operator,), daemon=True))
        for thread in threads:
            thread.start()
        self.stop.wait(SECONDS)
        self.stop.set()
        deadline = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                self.wrong.append("a client hangs")

    # What has become of it.

    def check(self) -> None:
        with self.connect("postgres") as connection:
            connection.execute(f"SET statement_timeout = {int(PATIENCE * 1000)}")
            connection.execute("SELECT djactor.resume()")
            for row in connection.execute("SELECT gid FROM pg_prepared_xacts"):
                connection.execute(f"ROLLBACK PREPARED '{row[0]}'")  # type: ignore[call-overload]
            for kind in [
                row[0] for row in connection.execute("SELECT name FROM djactor.actor_type")
            ]:
                if kind == "canary":
                    continue
                deadline = time.monotonic() + PATIENCE
                while True:
                    try:
                        connection.execute("SELECT djactor.drop_actor_type(%s, true)", [kind])
                        break
                    except psycopg.errors.LockNotAvailable:
                        if time.monotonic() > deadline:
                            raise
            left = {
                table: connection.execute(
                    f"SELECT count(*) FROM djactor.{table} WHERE actor_type <> 'canary'"  # type: ignore[arg-type]
                ).fetchone()
                for table in ("message", "actor", "actor_identity", "timer")
            }
            if any(count != (0,) for count in left.values()):
                self.wrong.append(f"left behind: {left}")
            idle = connection.execute("SELECT djactor.wait_idle(%s)", [f"{PATIENCE} s"]).fetchone()
            if idle != (True,):
                self.wrong.append("the canary does not come to rest")
            sent, handled, turns = connection.execute(
                "SELECT (SELECT count(*) FROM canary),"
                " coalesce(sum((state->>'n')::int), 0), coalesce(sum(turns), 0) FROM djactor.actor"
            ).fetchone() or (0, 0, 0)
            if not sent == handled == turns:
                self.wrong.append(f"canary: {sent} sent, {handled} handled in {turns} turns")
            self.calls["canary"] = sent
            for code, error, statement in connection.execute(
                "SELECT code, error, sql FROM caught UNION ALL"
                " SELECT sqlstate, error, payload->>'sql' FROM djactor.dead_letter"
                " WHERE sqlstate IS NOT NULL"
            ):
                self.note(code, error, statement or "")
        for code in sorted(set(self.codes) - EXPECTED):
            self.wrong.append(f"{code}: {self.examples[code]}")
        # What workers and launcher ran into stands in the log only.
        for line in self.server.log_file.read_text(errors="replace").splitlines():
            if " XX" in line[:80] or "terminated by signal" in line:
                self.wrong.append(f"log: {line[:400]}")


def test_hostile_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(
        os.environ.get("DJACTOR_SEED")
        or (random.randrange(1_000_000) if "DJACTOR_FUZZ_SECONDS" in os.environ else 1)
    )
    with capsys.disabled():
        print(f"\nDJACTOR_SEED={seed}", flush=True)
    settings = {
        "djactor.max_workers": 3,
        "djactor.idle_timeout": "1s",
        "djactor.poll_interval": "1s",
        "max_worker_processes": 16,
        "max_prepared_transactions": 10,
        "log_line_prefix": "%m [%p] %e %b ",
        "log_min_error_statement": "panic",
        "max_wal_size": "512MB",
    }
    with PrivateServer(settings, fsync=False) as server:
        server.sql("CREATE ROLE app LOGIN; CREATE ROLE guest LOGIN")
        server.createdb("app", owner="app")
        server.sql("CREATE EXTENSION djactor; ALTER SCHEMA public OWNER TO app", "app")
        server.sql(SCHEMA, "app", "app")
        server.sql(
            "GRANT ALL ON ALL FUNCTIONS IN SCHEMA djactor TO guest;"
            " GRANT SELECT ON ALL TABLES IN SCHEMA djactor TO guest;"
            " GRANT INSERT (actor_type, actor_key, payload, headers, priority, deliver_at,"
            " expires_at, trace_id, idempotency_key, wants_reply) ON djactor.message TO guest",
            "app",
        )
        options = "max_attempts => 2, backoff => '1 ms', breaker_failures => NULL, journal => '1 h'"
        for name, handler, owner in [
            ("fz.app", "fz_exec", "app"),
            ("fz.guest", "fz_exec", "guest"),
            ("fz.super", "fz_exec", "postgres"),
            ("fz.void", "fz_void", "app"),
            ("fz.result", "fz_result", "app"),
            ("canary", "canary", "app"),
        ]:
            server.sql(
                f"SELECT djactor.define_actor_type('{name}', 'public.{handler}', {options},"
                f" owner => '{owner}')",
                "app",
            )
        fuzz = Fuzz(server, seed)
        fuzz.go()
        try:
            with contextlib.suppress(psycopg.Error) if fuzz.wrong else contextlib.nullcontext():
                fuzz.check()
        finally:
            with capsys.disabled():
                print(f"calls: {sum(fuzz.calls.values())}", dict(fuzz.codes.most_common()))
        assert fuzz.wrong == [], "\n".join(fuzz.wrong[:40]) + server.log_tail()
        assert len(fuzz.calls) > len({f[0] for f in fuzz.functions})
