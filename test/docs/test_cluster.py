"""docs/cluster.md: its SQL runs on two servers, in the order of the page, and does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from private_server import PrivateServer

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
PATIENCE = 60.0  # seconds that the slowest machine may take


def blocks(title: str) -> list[str]:
    """The blocks of SQL of a section."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None, title
    return re.findall(r"^```sql\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)


def for_node(sql: str, number: int, other: PrivateServer) -> str:
    """What the page has for node 1, for this node and the other server as it is."""
    for old, new in (
        ("set_up(1", f"set_up({number}"),
        ("node2", f"node{3 - number}"),
        ("add_node(2", f"add_node({3 - number}"),
        ("two.example.com", other.host),
        ("'5432'", f"'{other.port}'"),
        ("password 'secret'", "password_required 'false'"),  # the private servers ask for none
    ):
        sql = sql.replace(old, new)
    return sql


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[PrivateServer, PrivateServer]]:
    """Two servers, set up as the page says."""
    extension, set_up, connect = blocks("Setting up")
    with PrivateServer(fsync=False) as one, PrivateServer(fsync=False) as two:
        for number, here, other in ((1, one, two), (2, two, one)):
            here.sql("CREATE ROLE shop LOGIN")
            here.createdb("shop", owner="shop")
            here.sql("CREATE EXTENSION djactor", "shop")
            here.sql("ALTER SCHEMA public OWNER TO shop", "shop")
            here.sql(extension, "shop")
            here.sql(for_node(set_up, number, other), "shop")
            here.sql(for_node(connect, number, other), "shop")
        yield one, two


def eventually(sql: Callable[[], str], value: str) -> None:
    """Wait until a query returns a value."""
    start = time.monotonic()
    while (got := sql().strip()) != value:
        assert time.monotonic() < start + PATIENCE, got
        time.sleep(0.05)


def has_citus() -> bool:
    """Whether the server under test has Citus."""
    pg_config = Path(os.environ["DJACTOR_PREFIX"]) / "pg_config"
    found = subprocess.run([pg_config, "--pkglibdir"], check=True, capture_output=True, text=True)
    return (Path(found.stdout.strip()) / "citus.so").exists()


def test_the_page_runs(nodes: tuple[PrivateServer, PrivateServer]) -> None:
    one, two = nodes

    def shop(sql: str) -> str:
        return one.sql(sql, "shop", user="shop")

    execute_and_define = "\n".join(blocks("Types on all nodes"))
    shop(execute_and_define)
    for node in nodes:
        node.sql(
            "DO $$ BEGIN ASSERT (SELECT max_attempts FROM djactor.actor_type"
            " WHERE name = 'shop.counter') = 3; END $$",
            "shop",
        )

    send, grant = blocks("Sending")
    shop(send)
    one.sql(grant, "shop")
    # 7 and 8 of the page, and keys enough for both nodes
    shop(
        "INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)"
        " SELECT 'shop.counter', g::text, '{\"add\": 1}' FROM generate_series(9, 40) g"
    )
    seven, by_node = re.findall(r".+?;\n", blocks("Reading")[0])
    eventually(lambda: shop(seven.replace("node, state", "state")), "1")
    eventually(
        lambda: shop(
            "SELECT count(*) FROM djactor_cluster.actor WHERE actor_type = 'shop.counter'"
        ),
        "34",
    )
    assert len(shop(by_node).splitlines()) == 2

    waiting, in_outbox = re.findall(r".+?;\n", blocks("A node that is down")[0])
    two.stop()
    shop(
        "INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)"
        " SELECT 'shop.counter', g::text, '{\"add\": 1}' FROM generate_series(9, 40) g"
    )
    start = time.monotonic()
    while "could not connect to server" not in shop(waiting):
        assert time.monotonic() < start + PATIENCE
        time.sleep(0.05)
    assert int(shop(in_outbox).split("|")[0]) > 5
    two.start()
    shop(re.findall(r"`(SELECT djactor\.resume\(.*?\))`", PAGE)[0])
    eventually(lambda: shop("SELECT count(*) FROM djactor_cluster.message_2"), "0")
    eventually(
        lambda: shop(
            "SELECT sum((state->>'n')::int) FROM djactor_cluster.actor"
            " WHERE actor_type = 'shop.counter'"
        ),
        "66",
    )


def test_a_table_of_ones_own(nodes: tuple[PrivateServer, PrivateServer]) -> None:
    create, spread = blocks("Your own tables")
    for node in nodes:
        node.sql(create, "shop", user="shop")
        node.sql(spread, "shop")
    one, two = nodes
    one.sql(
        "INSERT INTO sale (counter, amount) SELECT g::text, g FROM generate_series(1, 40) g",
        "shop",
        user="shop",
    )
    assert two.sql("SELECT count(*), sum(amount) FROM sale", "shop", user="shop") == "40|820"
    counts = [int(node.sql("SELECT count(*) FROM sale_here", "shop")) for node in nodes]
    assert sum(counts) == 40
    assert min(counts) > 5


def test_how_it_grows(nodes: tuple[PrivateServer, PrivateServer]) -> None:
    mapping, move, out_of_service, address, set_up, connect = blocks("Growing")
    one, two = nodes
    mapping = mapping.replace("FOR postgres", f"FOR {one.superuser}")
    one.sql(for_node(mapping.replace("'postgres'", f"'{two.superuser}'"), 1, two), "shop")
    one.sql(move, "shop")
    for node in nodes:
        slots = "SELECT cardinality(djactor_cluster.slots(n)) FROM (VALUES (1), (2)) v (n)"
        assert node.sql(slots, "shop") == "118\n138"
        assert node.sql("SELECT count(*), sum(amount) FROM sale", "shop", user="shop") == "40|820"
    two.sql("CREATE DATABASE spare OWNER shop")
    spare = out_of_service.replace("DATABASE shop", "DATABASE spare").replace("'shop'", "'spare'")
    two.sql(spare)
    two.sql("ALTER ROLE shop LOGIN")
    one.sql("BEGIN; " + address + "; ROLLBACK", "shop")
    with PrivateServer(fsync=False) as three:
        three.sql("CREATE ROLE shop LOGIN")
        three.createdb("shop", owner="shop")
        three.sql("CREATE EXTENSION djactor_cluster CASCADE", "shop")
        three.sql(set_up, "shop")
        slots = one.sql("SELECT slots FROM djactor_cluster.here", "shop")
        three.sql(f"UPDATE djactor_cluster.here SET slots = '{slots}'", "shop")
        for number, node in ((1, one), (2, two)):
            back = connect.replace("node3", f"node{number}")
            back = back.replace("add_node(3", f"add_node({number}")
            three.sql(elsewhere(back, node), "shop")
            node.sql(elsewhere(connect, three), "shop")
        three.sql(
            "CREATE FUNCTION counter_handle(state jsonb, message jsonb) RETURNS jsonb"
            " LANGUAGE sql AS 'SELECT message';"
            "SELECT djactor.define_actor_type('shop.counter', 'counter_handle')",
            "shop",
            user="shop",
        )
        one.sql("SELECT djactor.send('shop.counter', '@3/x', '{\"n\": 1}')", "shop", user="shop")
        read = "SELECT node FROM djactor_cluster.actor WHERE actor_key = '@3/x'"
        eventually(lambda: two.sql(read, "shop", user="shop"), "3")


def elsewhere(sql: str, other: PrivateServer) -> str:
    """A block that connects a node to another one, to that server as it is."""
    for old, new in (
        ("three.example.com", other.host),
        ("'5432'", f"'{other.port}'"),
        ("password 'secret'", "password_required 'false'"),
    ):
        sql = sql.replace(old, new)
    return sql


def test_what_is_done_after_a_failover(nodes: tuple[PrivateServer, PrivateServer]) -> None:
    one, _two = nodes
    alter, accept = blocks("Backups and failover")
    one.sql("BEGIN; " + alter + "; ROLLBACK", "shop")
    one.sql(accept, "shop")


def test_what_senders_get_is_enough(nodes: tuple[PrivateServer, PrivateServer]) -> None:
    one, _two = nodes
    for key in range(20, 24):
        sent = one.sql(
            "INSERT INTO djactor_cluster.message (actor_type, actor_key, payload, priority)"
            f" VALUES ('shop.counter', '{key}', '{{\"add\": 0}}', 1) RETURNING id > 0",
            "shop",
            user="shop_web",
        )
        assert sent.startswith("t")


def test_the_nodes_of_citus() -> None:
    """Two nodes, set up as the page says; skipped where the server has no Citus."""
    create, set_up = blocks("Citus")
    settings = {"shared_preload_libraries": "citus, djactor", "max_prepared_transactions": 20}
    if not has_citus():
        pytest.skip("the server has no Citus")
    with PrivateServer(settings, fsync=False) as one, PrivateServer(settings, fsync=False) as two:
        for node in (one, two):
            node.sql(f"ALTER SYSTEM SET citus.local_hostname = '{node.host}'")
            node.sql("SELECT pg_reload_conf()")
            node.sql("CREATE ROLE shop LOGIN")
            node.createdb("shop", owner="shop")
            node.sql("CREATE EXTENSION citus; CREATE EXTENSION djactor", "shop")
        one.sql(f"SELECT citus_set_coordinator_host('{one.host}', {one.port})", "shop")
        one.sql(f"SELECT citus_add_node('{two.host}', {two.port})", "shop")
        one.sql(create, "shop")
        one.sql(set_up.replace('"password": "secret"', '"password_required": "false"'), "shop")
        for node, number in ((one, "0"), (two, "1")):
            assert node.sql("SELECT djactor_cluster.this_node()", "shop") == number
            assert node.sql("SELECT djactor_cluster.node_of_key('k')", "shop") == "1"
