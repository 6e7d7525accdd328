"""examples/chat on two servers, and on three of Citus, unchanged but for its settings."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from django_site import DjangoSite
from private_server import PrivateServer

HERE = Path(__file__).resolve().parent
CHAT = HERE.parents[1] / "examples" / "chat"


class ClusterSite(DjangoSite):
    """The chat with the settings of this directory, on two servers that it makes nodes."""

    others = ("two",)

    def __init__(self, *servers):
        super().__init__(CHAT, "chatsite", "CHAT_DB", servers[0])
        self.servers = servers
        self.environment |= {
            "DJANGO_SETTINGS_MODULE": "chat_cluster_settings",
            "CHAT_DB_HOST_TWO": servers[1].host,
        }

    def _environment(self):
        found = super()._environment()
        return found | {"PYTHONPATH": f"{found['PYTHONPATH']}{os.pathsep}{HERE}"}

    def prepare(self):
        """Make nodes of the databases, as docs/cluster.md says."""
        self.servers[1].createuser("chat")
        self.servers[1].createdb("chat", owner="chat")
        for number, server in enumerate(self.servers, 1):
            there, other = 3 - number, self.servers[2 - number]
            server.sql("CREATE EXTENSION djactor_cluster CASCADE", "chat")
            server.sql(
                f"""
                SELECT djactor_cluster.set_up({number}, '{{1,2}}', 'chat');
                CREATE SERVER node{there} FOREIGN DATA WRAPPER postgres_fdw OPTIONS
                    (host '{other.host}', port '{other.port}', dbname 'chat', connect_timeout '5');
                CREATE USER MAPPING FOR chat SERVER node{there}
                    OPTIONS (user 'chat', password_required 'false');
                SELECT djactor_cluster.add_node({there}, 'node{there}')""",
                "chat",
            )
        self.migrate()

    def migrate(self):
        """Make the tables, and spread that of the posts."""
        for alias in self.others:
            self.manage("migrate", "--database", alias, "--verbosity", "0")
        self.manage("migrate", "--verbosity", "0")
        for server in self.servers:
            server.sql("SELECT djactor_cluster.spread_table('chat_chatmessage', 'room')", "chat")


class CitusSite(ClusterSite):
    """The same on nodes 1 and 2 of Citus; its coordinator is the third server."""

    others = ("coordinator", "two")

    def __init__(self, *servers):
        super().__init__(*servers)
        self.environment["CHAT_DB_HOST_COORDINATOR"] = servers[2].host

    def prepare(self):
        *nodes, coordinator = self.servers
        for server in self.servers:
            if server is not nodes[0]:  # whose database is there
                server.createuser("chat")
                server.createdb("chat", owner="chat")
            server.sql(f"ALTER SYSTEM SET citus.local_hostname = '{server.host}'")
            server.sql("SELECT pg_reload_conf()")
            server.sql("CREATE EXTENSION citus; CREATE EXTENSION djactor", "chat")
        where = f"'{coordinator.host}', {coordinator.port}"
        coordinator.sql(f"SELECT citus_set_coordinator_host({where})", "chat")
        for server in nodes:
            coordinator.sql(f"SELECT citus_add_node('{server.host}', {server.port})", "chat")
        options = '{"password_required": "false"}'
        coordinator.sql("CREATE EXTENSION djactor_cluster CASCADE", "chat")
        coordinator.sql(
            f"CALL djactor_cluster.set_up_citus('chat', user_options => '{options}')", "chat"
        )
        self.migrate()


def has_citus():
    """Whether the server under test has Citus."""
    pg_config = Path(os.environ["DJACTOR_PREFIX"]) / "pg_config"
    found = subprocess.run([pg_config, "--pkglibdir"], check=True, capture_output=True, text=True)
    return (Path(found.stdout.strip()) / "citus.so").exists()


@pytest.fixture(scope="module", params=["outbox", "citus"])
def site(request):
    settings = {"max_worker_processes": 16}
    if request.param == "citus":
        if not has_citus():
            pytest.skip("the server has no Citus")
        settings |= {
            "shared_preload_libraries": "citus, djactor",
            "max_prepared_transactions": 20,
            "citus.recover_2pc_interval": "1s",
        }
        with (
            PrivateServer(settings, fsync=False) as one,
            PrivateServer(settings, fsync=False) as two,
            PrivateServer(settings, fsync=False) as coordinator,
            CitusSite(one, two, coordinator) as site,
        ):
            yield site
        return
    with (
        PrivateServer(settings, fsync=False) as one,
        PrivateServer(settings, fsync=False) as two,
        ClusterSite(one, two) as site,
    ):
        yield site


@pytest.fixture(scope="module")
def rooms(site):
    """A room on each node."""
    found = {}
    for n in range(100):
        node = site.sql(f"SELECT djactor_cluster.node_of_key('room-{n}')")
        found.setdefault(int(node), f"room-{n}")
    return [found[1], found[2]]


@pytest.fixture
def ada(http):
    """A person who has come in."""
    http.get("/")
    token = http.cookies["csrftoken"]
    form = {"name": "Ada", "room": "lobby", "csrfmiddlewaretoken": token}
    assert http.post("/", data=form).status_code == 302
    return http


def say(client, room, text):
    page = client.get(f"/rooms/{room}/").text
    key = re.search(r'name="key" value="([0-9a-f-]+)"', page)
    assert key is not None, page
    form = {"text": text, "key": key[1], "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    assert client.post(f"/rooms/{room}/", data=form).status_code == 302


def said(client, room):
    posts = client.get(f"/rooms/{room}/posts", params={"after": "0"}).json()["posts"]
    assert [post["number"] for post in posts] == list(range(1, len(posts) + 1))
    return [post["text"] for post in posts]


def state(client, room):
    """The first event of a room's stream."""
    with client.stream("GET", f"/rooms/{room}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream has ended")


def test_rooms_of_both_nodes_take_posts_and_show_them(site, rooms, ada, until):
    for n in range(3):
        for room in rooms:
            say(ada, room, f"{n} in {room}")
    for node, room in enumerate(rooms):
        expected = [f"{n} in {room}" for n in range(3)]
        until(lambda room=room, expected=expected: said(ada, room) == expected)
        assert state(ada, room) == {"posts": 3, "people": 1}
        # the room's actor and its posts are on its node, and nowhere else
        for number, server in enumerate(site.servers[:2]):
            here = "1|3" if number == node else "0|0"
            assert here == server.sql(
                f"SELECT count(*), (SELECT count(*) FROM chat_chatmessage_here"
                f" WHERE room = '{room}') FROM djactor.actor WHERE actor_key = '{room}'",
                "chat",
            )
    page = ada.get("/").text
    assert all(room in page for room in rooms)
    # the author's actor has heard of posts in rooms of both nodes
    posts = "SELECT state->'posts' FROM djactor_cluster.actor WHERE actor_type = 'chat.user'"
    until(lambda: site.sql(posts) == "6")


BULK = """
from django.db import transaction
from djactor.models import Message

def posts(text):
    return [
        Message(actor_type="chat.room", actor_key=room, payload={{"author": "bulk", "text": text}})
        for _ in range(200)
        for room in {rooms}
    ]

for n in range(5):
    with transaction.atomic():
        Message.objects.bulk_create(posts("said"))
    with transaction.atomic():
        Message.objects.bulk_create(posts("never said"))
        transaction.set_rollback(True)
"""


def test_what_is_committed_is_said_once_and_nothing_else(site, rooms, until):
    bulk = [f"{room}-bulk" for room in rooms]
    bulk += [f"@1/{bulk[0]}", f"@2/{bulk[1]}"]
    site.manage("shell", "--verbosity", "0", "-c", BULK.format(rooms=bulk))
    counted = (
        "SELECT room, count(*), max(number), count(DISTINCT message_id), min(text), max(text)"
        " FROM chat_chatmessage WHERE author = 'bulk' GROUP BY room ORDER BY room COLLATE \"C\""
    )
    expected = "\n".join(f"{room}|1000|1000|1000|said|said" for room in sorted(bulk))
    until(lambda: site.sql(counted) == expected)
    posts = "SELECT state->'posts' FROM djactor_cluster.actor WHERE actor_key = 'bulk'"
    until(lambda: site.sql(posts) == "4000")


def test_posts_to_a_node_that_is_down_come_later_and_others_go_on(site, rooms, ada, until):
    if isinstance(site, CitusSite):
        pytest.skip("transport citus refuses them")
    here, there = rooms
    before = {room: len(said(ada, room)) for room in rooms}
    site.servers[1].stop("immediate")
    try:
        for n in range(3):
            site.manage("shell", "--verbosity", "0", "-c", SAY.format(room=there, text=f"late {n}"))
        site.manage("shell", "--verbosity", "0", "-c", SAY.format(room=here, text="at once"))
        mine = f"SELECT count(*) FROM chat_chatmessage_here WHERE room = '{here}'"
        until(lambda: site.sql(mine) == str(before[here] + 1))
    finally:
        site.servers[1].start()
    until(lambda: len(said(ada, there)) == before[there] + 3)
    assert said(ada, there)[-3:] == ["late 0", "late 1", "late 2"]


SAY = """
import djactor
djactor.actor("chat.room", "{room}").send({{"author": "Ada", "text": "{text}"}})
"""
