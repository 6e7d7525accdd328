"""``DJACTOR["CLUSTER"]``: a project on two nodes of djactor_cluster, here two databases."""

import asyncio
import io
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction
from django.test import override_settings
from django.utils import timezone

import djactor
from djactor import cluster, listener, operations
from djactor.actors import cancel
from djactor.definitions import define_types
from djactor.models import Actor, ActorType, DeadLetter, Message
from djactor.sse import state_events, type_events
from djactor.test import wait_idle
from hosting_worker import Worker
from registering import registered_sql
from shop.models import Sale
from test_sse import next_event
from waiting import until

TYPE = "shop.counter"
NODES = {1: "one", 2: "two"}
ROUTERS = ["djactor.router.DjactorRouter"]
PATIENCE = 60
HOUR = timedelta(hours=1)
HERE = Path(__file__).resolve().parent
COUNTER = str(HERE / "shop" / "counter.sql")


@pytest.fixture(scope="module")
def databases(project):
    """The nodes, migrated as docs/django.md says: the others first."""
    for number, name in NODES.items():
        other = NODES[3 - number]
        project.createdb(name, owner="shop")
        project.sql("CREATE EXTENSION djactor_cluster CASCADE", name)
        project.sql(
            f"""
            SELECT djactor_cluster.set_up({number}, '{{1,2}}', 'shop');
            CREATE SERVER {other} FOREIGN DATA WRAPPER postgres_fdw
                OPTIONS (host '{project.host}', port '{project.port}', dbname '{other}');
            CREATE USER MAPPING FOR shop SERVER {other}
                OPTIONS (user 'shop', password_required 'false');
            SELECT djactor_cluster.add_node({3 - number}, '{other}')""",
            name,
        )
        connections.settings[name] = connections.settings["default"] | {"NAME": name}
    with override_settings(DJACTOR=settings()):
        for name in ("two", "one"):
            call_command("migrate", database=name, verbosity=0)
    yield
    for name in NODES.values():
        listener.close(name)
        connections[name].close()
        del connections.settings[name]
        # workers of the other one are connected
        project.sql(f"DROP DATABASE {name} WITH (FORCE)")


def settings(**others):
    return {"DATABASE": "one", "CLUSTER": True, "NODES": NODES} | others


@pytest.fixture(autouse=True)
def clustered(fresh, databases):
    """The project of this test is on node 1."""
    with override_settings(DJACTOR=settings(), DATABASE_ROUTERS=ROUTERS):
        yield
        for name in NODES.values():
            call_command("djactor_define", database=name, verbosity=0, stdout=io.StringIO())


def sql(alias, statement, *params):
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else None


_last = iter(range(1, 10_000))


def key(number):
    """A key of its own, whose actors live on that node."""
    for n in _last:
        found = str(n)
        if sql("one", "SELECT djactor_cluster.node_of_key(%s)", found)[0][0] == number:
            return found
    raise AssertionError


def test_messages_reach_actors_of_all_nodes_with_the_transaction_that_sends_them():
    here, there = key(1), key(2)
    with transaction.atomic(using="one"):
        assert djactor.actor(TYPE, there).send({"add": 5}) >> 42 == 1
        djactor.actor(TYPE, here).send_many([{"add": 1}, {"add": 2}])
        transaction.set_rollback(True, using="one")
    with transaction.atomic(using="one"):
        message = Message.objects.create(actor_type=TYPE, actor_key=there, payload={"add": 1})
        assert message.trace_id is not None
        assert message.sent_at is not None
        sent = Message.objects.bulk_create(
            Message(actor_type=TYPE, actor_key=one, payload={"add": n})
            for n in (1, 2, 3)
            for one in (here, there)
        )
        assert len({one.pk for one in [message, *sent]}) == 7
    until(lambda: djactor.actor(TYPE, there).state() == {"n": 7})
    until(lambda: djactor.actor(TYPE, here).state() == {"n": 6})
    actors = {one.actor_key: one for one in Actor.objects.filter(actor_key__in=[here, there])}
    assert {name: one.pk >> 42 for name, one in actors.items()} == {here: 1, there: 2}
    assert actors[there].turns == 4
    with pytest.raises(djactor.UnknownActorType):
        djactor.actor("shop.nowhere", there).send()


def test_asks_are_answered_by_actors_of_other_nodes():
    there = djactor.actor(TYPE, key(2))
    assert there.ask({"add": 5}, timeout=PATIENCE) == {"n": 5}
    with pytest.raises(djactor.AskFailed):
        there.ask({"fail": True}, timeout=PATIENCE)

    async def ask():
        answer = await there.aask({"add": 1}, timeout=PATIENCE)
        await sync_to_async(connections.close_all)()
        return answer

    assert asyncio.run(ask()) == {"n": 6}
    ids = [there.send({"add": 1}, wants_reply=True) for _ in range(3)]
    answers = djactor.wait_replies(ids, timeout=PATIENCE)
    assert answers == dict(zip(ids, ({"n": 7}, {"n": 8}, {"n": 9}), strict=True))


def test_mail_and_letters_of_other_nodes_are_read_and_what_is_done_about_one_is_done_there():
    there = key(2)
    sql("two", "SELECT djactor.pause(%s)", TYPE)
    try:
        djactor.actor(TYPE, there).send({"fail": True})
        until(lambda: Message.objects.filter(actor_key=there).exists())
        message = Message.objects.get(actor_key=there)
        assert message.pk >> 42 == 2
        assert message.cancel()
        assert cancel(message.pk) == "gone"
        assert not message.cancel(running=True)
        with pytest.raises(DatabaseError, match=r"there is no message \d+ on node 1"):
            cancel(message.pk, using="one")
        djactor.actor(TYPE, there).send({"fail": True})
    finally:
        sql("two", "SELECT djactor.resume(%s)", TYPE)
    until(lambda: DeadLetter.objects.filter(actor_key=there).exists())
    letter = DeadLetter.objects.get(actor_key=there)
    assert letter.redrive() == letter.pk
    assert settled("two", there) == 1
    call_command("djactor_redrive", str(letter.pk), stdout=io.StringIO())
    assert settled("two", there) == 1
    here = key(1)
    djactor.actor(TYPE, here).send({"fail": True})
    until(lambda: DeadLetter.objects.filter(actor_key=here).exists())
    (found,) = [one for one in DeadLetter.objects.all() if one.pk == letter.pk]
    assert found.delete() == (1, {"djactor.DeadLetter": 1})
    assert settled("two", there) == 0
    assert DeadLetter.objects.filter(actor_key=here).delete() == (1, {"djactor.DeadLetter": 1})
    assert settled("one", here) == 0


def test_what_concerns_mail_of_an_actor_that_has_moved_is_done_where_it_is(project):
    moved = key(1)
    slot = sql("one", "SELECT djactor_cluster.slot_of_key(%s)", moved)[0][0]
    for name, other in (("one", "two"), ("two", "one")):
        project.sql(
            f"""CREATE USER MAPPING FOR CURRENT_USER SERVER {other}
                OPTIONS (user '{project.superuser}', password_required 'false')""",
            name,
        )
    Message.objects.create(
        actor_type=TYPE, actor_key=moved, payload={"add": 1}, deliver_at=timezone.now() + HOUR
    )
    djactor.actor(TYPE, moved).send({"fail": True})
    until(lambda: DeadLetter.objects.filter(actor_key=moved).exists())
    project.sql(f"CALL djactor_cluster.move_slots('{{{slot}}}', 2)", "one")
    message = Message.objects.get(actor_key=moved)
    letter = DeadLetter.objects.get(actor_key=moved)
    assert (message.pk >> 42, letter.pk >> 42) == (1, 1)
    assert cancel(message.pk) == "gone"  # from the node that its id names
    assert message.cancel()
    assert not message.cancel()
    assert letter.redrive() == letter.pk
    assert settled("two", moved) == 1
    assert letter.delete() == (1, {"djactor.DeadLetter": 1})
    project.sql(f"CALL djactor_cluster.move_slots('{{{slot}}}', 1)", "two")


def settled(alias, key):
    """How many dead letters a node has of a key, once it has nothing to do."""
    sql(alias, "CALL djactor.wait_idle('60 s', NULL, NULL)")
    return sql(alias, "SELECT count(*) FROM djactor.dead_letter WHERE actor_key = %s", key)[0][0]


def test_a_state_is_changed_on_the_node_of_its_actor():
    for number in NODES:
        actor = djactor.actor(TYPE, key(number))
        actor.ask({"add": 1}, timeout=PATIENCE)
        row = Actor.objects.get(actor_key=actor.key)
        row.state = {"n": 100}
        row.save()
        assert actor.ask({"add": 1}, timeout=PATIENCE) == {"n": 101}
        with pytest.raises(djactor.StateChanged):
            row.save()
    row.refresh_from_db()
    assert row.state == {"n": 101}
    with (
        override_settings(DJACTOR=settings(NODES={})),
        pytest.raises(ImproperlyConfigured, match="lives on node 2"),
    ):
        row.save()


def test_what_concerns_an_actor_of_another_node_and_is_no_message_says_where_it_lives():
    there = djactor.actor(TYPE, key(2))
    with pytest.raises(DatabaseError, match=f'"{there.key}" live on node 2'):
        there.schedule("tick", after=HOUR)
    with pytest.raises(DatabaseError, match="live on node 2"):
        there.erase()
    djactor.actor(TYPE, there.key, using="two").schedule("tick", after=HOUR)
    assert djactor.actor(TYPE, there.key, using="two").unschedule("tick")


def defined(name):
    return [ActorType.objects.using(alias).filter(name=name).exists() for alias in NODES.values()]


def migrate(operation, alias="one", backwards=False):
    with connections[alias].schema_editor() as editor:
        if backwards:
            operation.database_backwards("shop", editor, None, None)
        else:
            operation.database_forwards("shop", editor, None, None)


def test_types_are_defined_on_all_nodes_or_on_none():
    assert defined(TYPE) == [True, True]
    operation = operations.DefineActorType(
        "shop.everywhere", "counter_handle", sql="counter.sql", initial_state={"n": "50 % 'off'"}
    )
    migrate(operation, "two")
    assert defined("shop.everywhere") == [False, False]  # node 1 does it, for both
    migrate(operation)
    assert defined("shop.everywhere") == [True, True]
    for alias in NODES.values():
        assert ActorType.objects.using(alias).get(name="shop.everywhere").initial_state == {
            "n": "50 % 'off'"
        }
    migrate(operation, backwards=True)
    assert defined("shop.everywhere") == [False, False]

    sql("two", "ALTER FUNCTION counter_handle(jsonb, jsonb) RENAME TO counter_elsewhere")
    try:
        with pytest.raises(DatabaseError, match="counter_handle"):
            migrate(operations.DefineActorType("shop.everywhere", "counter_handle"))
    finally:
        sql("two", "ALTER FUNCTION counter_elsewhere(jsonb, jsonb) RENAME TO counter_handle")
    assert defined("shop.everywhere") == [False, False]


def test_what_is_registered_is_defined_and_changed_on_all_nodes():
    with registered_sql("shop.declared", "counter_handle", sql=COUNTER, max_attempts=7):
        define_types(only=["shop.declared"])
        assert defined("shop.declared") == [True, True]
        with pytest.raises(CommandError, match="defined from 'one', on all nodes"):
            call_command("djactor_sync", database="two")
        call_command("djactor_sync", database="two", check=True, stdout=io.StringIO())
    with registered_sql("shop.declared", "counter_handle", sql=COUNTER, max_attempts=8):
        call_command("djactor_sync", stdout=io.StringIO())
        for alias in NODES.values():
            assert ActorType.objects.using(alias).get(name="shop.declared").max_attempts == 8
            sql(alias, "SELECT djactor.drop_actor_type('shop.declared')")


def test_a_schedule_is_set_on_the_node_of_its_actor():
    for number, alias in NODES.items():
        schedule = operations.Schedule(TYPE, key(number), "tick", every=HOUR)
        migrate(schedule)
        assert sql(alias, "SELECT actor_key FROM djactor.timer") == [(schedule.actor_key,)]
        assert sql(NODES[3 - number], "SELECT actor_key FROM djactor.timer") == []
        migrate(schedule, backwards=True)
        assert sql(alias, "SELECT actor_key FROM djactor.timer") == []


def test_browsers_see_states_of_other_nodes():
    there = djactor.actor(TYPE, key(2))

    async def watch():
        await there.asend({"add": 1})
        events = aiter(state_events(there))
        seen = [await next_event(events)]
        await there.asend({"add": 2})
        seen.append(await next_event(events))
        await events.aclose()
        events = aiter(type_events(TYPE))
        while True:
            name, data = await next_event(events)
            if data["key"] == there.key:
                break
        await events.aclose()
        await sync_to_async(connections.close_all)()
        return seen, name, data["state"]

    seen, name, state = asyncio.run(watch())
    assert seen == [("state", {"n": 1}), ("state", {"n": 3})]
    assert (name, state) == ("state", {"n": 3})


def sold(alias, product):
    return Sale.objects.using(alias).filter(product=product).count()


def test_each_node_has_its_processes_which_work_in_its_database(project):
    sql(
        "one",
        "SELECT djactor_cluster.execute($$SELECT djactor.define_actor_type('host.seller',"
        " 'hosting_classes.Seller', hosted => true)$$)",
    )
    worker = Worker(project, "--types", "host.seller", "--threads", 2, settings="cluster_settings")

    def hosts(alias):
        assert worker.process.poll() is None, worker.log()
        return sql(alias, "SELECT pid FROM djactor.host")

    try:
        for number, alias in NODES.items():
            until(lambda alias=alias: hosts(alias))
            seller, told = djactor.actor("host.seller", key(number)), key(3 - number)
            product = 1000 + number
            assert seller.ask({"product": product, "send": told}, timeout=PATIENCE) == {"sold": 1}
            # the ORM of the turn is that of the node, and it sends to the other one
            assert [sold(each, product) for each in (alias, NODES[3 - number])] == [1, 0]
            until(lambda told=told: djactor.actor(TYPE, told).state() == {"n": 5})
        assert not {pid for (pid,) in hosts("one")} & {pid for (pid,) in hosts("two")}
        worker.says("on default, two, 1 process for each")
        assert worker.end() == 0, worker.log()
    finally:
        worker.kill()
        for alias in NODES.values():
            sql(alias, "DELETE FROM shop_sale")
            sql(alias, "SELECT djactor.drop_actor_type('host.seller', discard => true)")


def test_a_node_that_is_down_when_workers_start_is_served_later_and_others_at_once(project):
    sql(
        "one",
        "SELECT djactor_cluster.execute($$SELECT djactor.define_actor_type('host.seller',"
        " 'hosting_classes.Seller', hosted => true)$$)",
    )
    project.sql("ALTER DATABASE two ALLOW_CONNECTIONS false")
    worker = Worker(project, "--types", "host.seller", settings="cluster_settings")
    try:
        seller = djactor.actor("host.seller", key(1))
        assert seller.ask({"product": 1004}, timeout=PATIENCE) == {"sold": 1}
        worker.says("not currently accepting connections")
        project.sql("ALTER DATABASE two ALLOW_CONNECTIONS true")
        seller = djactor.actor("host.seller", key(2))
        assert seller.ask({"product": 1004}, timeout=PATIENCE) == {"sold": 1}
        assert [sold(alias, 1004) for alias in ("one", "two")] == [1, 1]
        assert worker.end() == 0, worker.log()
    finally:
        worker.kill()
        project.sql("ALTER DATABASE two ALLOW_CONNECTIONS true")
        for alias in NODES.values():
            sql(alias, "DELETE FROM shop_sale")
            sql(alias, "SELECT djactor.drop_actor_type('host.seller', discard => true)")


def test_a_worker_may_serve_one_node(project):
    sql(
        "one",
        "SELECT djactor_cluster.execute($$SELECT djactor.define_actor_type('host.seller',"
        " 'hosting_classes.Seller', hosted => true)$$)",
    )
    words = ("--types", "host.seller", "--database", "two")
    worker = Worker(project, *words, settings="cluster_settings")
    try:
        seller = djactor.actor("host.seller", key(2))
        assert seller.ask({"product": 1003}, timeout=PATIENCE) == {"sold": 1}
        assert [sold(alias, 1003) for alias in ("one", "two")] == [0, 1]
        assert sql("one", "SELECT pid FROM djactor.host") == []
        assert worker.end() == 0, worker.log()
    finally:
        worker.kill()
        for alias in NODES.values():
            sql(alias, "DELETE FROM shop_sale")
            sql(alias, "SELECT djactor.drop_actor_type('host.seller', discard => true)")


def test_status_and_top_show_all_nodes_or_one(project):
    def run(command, **options):
        out = io.StringIO()
        call_command(command, stdout=out, **options)
        return out.getvalue().splitlines()

    lines = run("djactor_status")
    assert lines[0] == "node 1, one"
    assert "node 2, two" in lines
    assert sum(line.startswith(TYPE) for line in lines) == 2
    assert "node 2, two" in run("djactor_top", count=1)
    assert sum(line.startswith(TYPE) for line in run("djactor_status", database="two")) == 1
    host = connections["two"].settings_dict["HOST"]
    connections["two"].close()
    connections["two"].settings_dict["HOST"] = "/nowhere"
    try:
        lines = run("djactor_status")
    finally:
        connections["two"].settings_dict["HOST"] = host
    assert any(line.startswith("no connection: ") for line in lines)
    assert sum(line.startswith(TYPE) for line in lines) == 1


def test_the_live_page_shows_one_node_and_leads_to_the_others(admin_client):
    page = admin_client.get("/admin/djactor/actortype/live/").content.decode()
    assert '<strong aria-current="page">Node 1, one</strong>' in page
    assert '<a href="?node=two">Node 2, two</a>' in page
    page = admin_client.get("/admin/djactor/actortype/live/?node=two").content.decode()
    assert '<strong aria-current="page">Node 2, two</strong>' in page
    assert "live.json?node=two" in page
    with connections["two"].cursor() as cursor:
        cursor.execute("SELECT djactor.pause(%s)", [TYPE])
    try:
        data = [
            admin_client.get(f"/admin/djactor/actortype/live.json{query}").json()
            for query in ("", "?node=two", "?node=admin")
        ]
    finally:
        sql("two", "SELECT djactor.resume(%s)", TYPE)
    states = [{one["name"]: one["state"] for one in each["types"]}[TYPE] for each in data]
    assert states == ["running", "paused", "running"]


@pytest.fixture
def admin_client(clustered):
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def test_no_migration_is_wanted(project):
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "cluster_settings",
        "SHOP_HOST": project.host,
        "PYTHONPATH": f"{HERE.parents[1] / 'django'}:{HERE}",
    }
    words = [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "No changes detected\n"), done.stderr


def test_without_the_setting_models_are_as_ever():
    assert Actor._meta.db_table == '"djactor_cluster"."actor"'
    assert cluster.on()
    with override_settings(DJACTOR={}):
        assert [one._meta.db_table for one in (Actor, Message, DeadLetter)] == [
            '"djactor"."actor"',
            '"djactor"."message"',
            '"djactor"."dead_letter"',
        ]
        assert djactor.actor(TYPE, 1).ask({"add": 1}, timeout=PATIENCE) == {"n": 1}
        wait_idle(PATIENCE)


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ({}, None),
        ({"NODES": {}}, None),
        ({"NODES": {1: "one", 2: "nowhere"}}, "djactor.E011"),
        ({"NODES": {1: "one", 64: "two"}}, "djactor.E011"),
        ({"NODES": {"1": "one"}}, "djactor.E011"),
        ({"NODES": ["one"]}, "djactor.E005"),
        ({"CLUSTER": 1}, "djactor.E005"),
        ({"CLUSTER": False}, "djactor.W020 djactor.W021"),
        ({"CLUSTER": False, "NODES": {}}, "djactor.W021"),
        ({"DATABASE": "default", "NODES": {}}, "djactor.E012"),
        ({"NODES": {2: "one", 1: "two"}}, "djactor.E013"),
        ({"NODES": {1: "one"}}, "djactor.E013"),
    ],
)
def test_checks_compare_settings_and_databases(others, found):
    with override_settings(DJACTOR=settings(**others)):
        ids = {one.id for one in run_checks(databases=["one", "default"])}
    known = {f"djactor.{name}" for name in ("E005", "E011", "E012", "E013", "W020", "W021")}
    assert ids & known == set((found or "").split())


def test_checks_say_nothing_of_the_types_of_the_cluster_itself():
    found = sql("one", "SELECT count(*) FROM djactor.actor_type WHERE settings ? 'search_path'")
    assert found[0][0] >= 2
    messages = [one.msg for one in run_checks(databases=["one"])]
    assert not [one for one in messages if "djactor_cluster." in one]
