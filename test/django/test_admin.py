"""The admin: everything is seen, little may be done, and that by permission."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

import djactor
from djactor import status
from djactor.admin import diagram, display, live, model_admins
from djactor.models import Actor, ActorType, DeadLetter, Mailbox, Message, Stat, Timer
from djactor.test import wait_idle
from waiting import until

WITHOUT_ADMIN = """
import django
from django.conf import settings
from django.core.management import call_command

database = {"ENGINE": "django.db.backends.postgresql", "USER": "shop", "NAME": "shop"}
templates = {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
settings.configure(
    INSTALLED_APPS=["djactor"], DATABASES={"default": database}, TEMPLATES=[templates]
)
django.setup()

from django.template import engines

call_command("djactor_status")
template = "{% load djactor_display %}{{ 192|duration }}"
print(engines["django"].from_string(template).render())
"""


@pytest.fixture
def browser(fresh):
    return login(User.objects.create_superuser("root"))


def login(user):
    client = Client()
    client.force_login(user)
    return client


def with_permissions(*names):
    user = User.objects.create_user("somebody", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return login(user)


def fail(number=1):
    for key in range(number):
        djactor.actor("shop.counter", key).send({"fail": True})
    wait_idle(60)
    assert DeadLetter.objects.count() == number


def act(client, model, action, *pks, **more):
    return client.post(
        reverse(f"admin:djactor_{model}_changelist"),
        {"action": action, "_selected_action": pks, **more},
        follow=True,
    )


def said(response):
    return re.findall(r'<li class="(?:success|error)">(.*?)</li>', text(response))


def text(response):
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize(
    "model", ["actor", "message", "deadletter", "journal", "reply", "actortype"]
)
def test_each_list_opens_and_is_searched(browser, model):
    url = reverse(f"admin:djactor_{model}_changelist")
    assert reverse("admin:djactor_live") in text(browser.get(url))
    if model not in ("reply", "actortype"):
        text(browser.get(url, {"q": "7", "type": "shop.counter"}))


def test_a_state_is_pretty_printed(browser):
    djactor.actor("shop.counter", 7).ask({"add": 3})
    actor = Actor.objects.get(actor_key=7)
    page = text(browser.get(reverse("admin:djactor_actor_change", args=[actor.pk])))
    assert '<pre class="djactor-json" tabindex="0">{\n  &quot;n&quot;: 3\n}</pre>' in page
    assert 'name="_save"' not in page


def test_a_state_with_a_number_too_large_for_python_opens(browser):
    djactor.actor("shop.counter", 7).ask({"add": 3})
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE djactor.actor SET state = '{"n": %s}'""" % ("9" * 5000))
    url = reverse("admin:djactor_actor_change", args=[Actor.objects.get().pk])
    assert f"&quot;n&quot;: {'9' * 5000}\n" in text(browser.get(url, follow=True))


def test_what_waits_is_shown_and_not_to_be_changed(browser, paused):
    number = djactor.actor("shop.counter", 7).send({"add": "<b>"})
    url = reverse("admin:djactor_message_change", args=[number])
    page = text(browser.get(url))
    assert "&lt;b&gt;" in page and "<b>" not in page.split("djactor-json")[1]
    assert browser.post(url, {"payload": "{}"}).status_code == 403
    assert browser.get(reverse("admin:djactor_actor_add")).status_code == 403


def test_dead_letters_are_redriven(browser):
    fail(2)
    pks = list(DeadLetter.objects.values_list("pk", flat=True))
    assert said(act(browser, "deadletter", "redrive", *pks)) == ["2 dead letters redriven."]
    wait_idle(60)
    assert sorted(DeadLetter.objects.values_list("pk", flat=True)) == sorted(pks)  # failed again


def test_a_dead_letter_opens(browser):
    fail()
    url = reverse("admin:djactor_deadletter_change", args=[DeadLetter.objects.get().pk])
    assert "told to fail" in text(browser.get(url))


def test_discarding_asks_first(browser):
    fail()
    pk = DeadLetter.objects.get().pk
    response = act(browser, "deadletter", "delete_selected", pk)
    assert "Are you sure" in text(response) and DeadLetter.objects.count() == 1
    act(browser, "deadletter", "delete_selected", pk, post="yes")
    assert not DeadLetter.objects.exists()


def test_types_are_paused_and_resumed(browser):
    assert said(act(browser, "actortype", "pause", "shop.counter")) == ["1 actor type paused."]
    assert ActorType.objects.get(name="shop.counter").paused
    assert said(act(browser, "actortype", "resume", "shop.counter")) == ["1 actor type resumed."]
    assert not ActorType.objects.get(name="shop.counter").paused


def test_who_may_only_look_does_nothing(fresh):
    client = with_permissions("view_deadletter", "view_actortype")
    fail()
    page = text(client.get(reverse("admin:djactor_deadletter_changelist")))
    assert "Redrive" not in page and "Discard" not in page
    act(client, "deadletter", "redrive", DeadLetter.objects.get().pk)
    act(client, "deadletter", "delete_selected", DeadLetter.objects.get().pk, post="yes")
    act(client, "actortype", "pause", "shop.counter")
    assert DeadLetter.objects.count() == 1 and not Message.objects.exists()
    assert not ActorType.objects.get(name="shop.counter").paused


def test_pages_want_the_permission_of_what_they_show(fresh):
    client = with_permissions("view_reply")
    for name, *arguments in (
        ("live",), ("live_data",), ("history_data",), ("mailboxes",), ("trace", uuid4())
    ):  # fmt: skip
        url = reverse(f"admin:djactor_{name}", args=arguments)
        assert client.get(url).status_code == 403
        assert Client().get(url).status_code == 302  # to the login


def test_the_live_page_shows_what_waits_and_who_works(browser, paused):
    for key in range(3):
        djactor.actor("shop.counter", key).send({"add": 1})
    page = text(browser.get(reverse("admin:djactor_live")))
    assert re.search(
        r'shop.counter</a></th>\s*<td>.*paused</span>.*</td>\s*<td class="n">3</td>', page
    )
    assert "<script>" not in page.split("<main")[1]  # a content security policy may forbid those
    data = browser.get(reverse("admin:djactor_live_data")).json()
    assert data["waiting"] == 3 and data["more"] is False and data["oldest"] >= 0
    assert data["workers"] and data["workers"][0]["role"] == "shop"


def test_the_charts_begin_with_what_the_server_has_kept(browser, fresh):
    ago = {"2 min": 60, "30 min": 30, "5 h": 600, "3 d": 7200, "40 d": 1}
    for age, handled in ago.items():
        unit, minutes = ("hour", 60) if age.endswith("d") else ("minute", 1)
        fresh.sql(
            f"""INSERT INTO djactor.stat_history SELECT 'past', date_trunc('{unit}', now())
            - interval '{age}', {minutes}, {handled}, 6, 0, 0, 0, 0, 0,
            '{{0,0,0,0,0,0,0,0,0,0,{handled}}}', '{{{handled}}}'""",
            "shop",
        )

    def seen(name):
        url = reverse("admin:djactor_history_data")
        data = browser.get(url, {"range": name}).json()
        assert (data["spans"], data["step"]) == live.RANGES[name]
        total = {span: handled for span, handled, _ in data["all"]}
        for span, handled, failed, wait in data["types"]["past"]:
            assert total[span] >= handled and failed % 6 == 0
            assert 32e-6 <= wait <= 48e-6  # in seconds: the eleventh bucket
        return {span: handled for span, handled, *_ in data["types"]["past"]}

    found = seen("hour")
    assert sorted(found.values()) == [30, 60]
    # The latest minute counts when it has been over for ten seconds.
    assert set(found) in ({58, 30}, {59, 31})
    assert sorted(seen("6 hours").values()) == [30, 60, 600]
    assert sum(seen("day").values()) == 690
    assert max(seen("30 days").values()) == 7200
    assert 7800 <= sum(seen("30 days").values()) <= 7890  # the present hour comes later
    assert browser.get(reverse("admin:djactor_history_data"), {"range": "year"}).status_code == 400
    fresh.sql("DELETE FROM djactor.stat_history WHERE actor_type = 'past'", "shop")
    assert "past" not in browser.get(reverse("admin:djactor_history_data")).json()["types"]


def test_the_past_may_be_out_of_reach(browser, project):
    project.sql("REVOKE SELECT ON djactor.stat_history FROM pg_database_owner", "shop")
    try:
        answer = browser.get(reverse("admin:djactor_history_data"))
        assert answer.status_code == 503 and "stat_history" in answer.json()["error"]
        assert browser.get(reverse("admin:djactor_live_data")).status_code == 200
    finally:
        project.sql(
            "GRANT SELECT ON djactor.stat_history TO pg_database_owner WITH GRANT OPTION", "shop"
        )


def test_a_wait_beyond_the_target_is_said(browser):
    with connection.cursor() as cursor:

        def aim(target):
            cursor.execute(
                "SELECT djactor.alter_actor_type('shop.counter', wait_target => %s)", [target]
            )

        try:
            aim(timedelta(microseconds=1))
            djactor.actor("shop.counter", 1).send({"add": 1})
            until(lambda: Stat.objects.get(actor_type="shop.counter").wait_p95 is not None)
            (row,) = (one for one in live.snapshot("default")["types"] if one["late"])
            assert row["name"] == "shop.counter" and row["target"] == 1e-6 < row["wait"]
            page = text(browser.get(reverse("admin:djactor_live")))
            assert re.search(r'<td class="n late">[\d.]+ .?s &gt; 1 µs</td>', page)
            assert re.search(r"waits [\d.]+ .?s, target 1 µs", "\n".join(status.lines("default")))
            aim(timedelta(days=1))
            assert not any(one["late"] for one in live.snapshot("default")["types"])
            assert "n late" not in text(browser.get(reverse("admin:djactor_live")))
        finally:
            aim(None)


def test_the_live_page_counts_no_further_than_its_sample(browser, paused, monkeypatch):
    monkeypatch.setattr(live, "SAMPLE", 2)
    for key in range(3):
        djactor.actor("shop.counter", key).send({"add": 1})
    data = browser.get(reverse("admin:djactor_live_data")).json()
    assert data["waiting"] == 2 and data["more"] is True


def test_lists_count_no_further_than_their_limit(browser, paused, monkeypatch):
    monkeypatch.setattr(model_admins.BoundedPaginator, "LIMIT", 2)
    for key in range(3):
        djactor.actor("shop.counter", key).send({"add": 1})
    assert "2 messages" in text(browser.get(reverse("admin:djactor_message_changelist")))


def test_mailboxes_are_shown_longest_first(browser, paused):
    for key in (1, 2, 2):
        djactor.actor("shop.counter", key).send({"add": 1})
    page = text(browser.get(reverse("admin:djactor_mailboxes")))
    assert page.index("q=2") < page.index("q=1")


def test_mail_that_waits_for_somebodys_lock_is_shown(browser, paused):
    number = djactor.actor("shop.counter", 7).send({"add": 1})
    assert "Put off" not in text(browser.get(reverse("admin:djactor_mailboxes")))
    with transaction.atomic(using="admin"):  # it stays open
        with connections["admin"].cursor() as cursor:
            cursor.execute("SELECT djactor.cancel(%s)", [number])
        with connection.cursor() as cursor:
            cursor.execute("SELECT djactor.resume('shop.counter')")
        until(lambda: live.put_off("default"))
        page = text(browser.get(reverse("admin:djactor_mailboxes")))
        assert ">Put off</h2>" in page and "another transaction has locked the actor" in page
        (line,) = [line for line in status.lines("default") if "another transaction" in line]
        assert line.split()[:2] == ["shop.counter", "7"]
        transaction.set_rollback(True, using="admin")
    wait_idle(60)
    assert not live.put_off("default") and djactor.actor("shop.counter", 7).state() == {"n": 1}


def test_mail_that_the_server_cannot_handle_is_shown(browser):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION no_file(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS"
            " $$BEGIN RAISE 'no such file' USING ERRCODE = '58P01'; END$$;"
            "SELECT djactor.define_actor_type('shop.put_off', 'no_file', backoff => '1 h')"
        )
        number = djactor.actor("shop.put_off", 7).send({})
        try:
            until(lambda: live.put_off("default"))
            (box,) = Mailbox.objects.all()
            assert box.put_offs == 3 and box.last_error == "no such file"
            page = text(browser.get(reverse("admin:djactor_mailboxes")))
            assert "no such file" in page and reverse("admin:djactor_message_changelist") in page
            assert any("no such file" in line for line in status.lines("default"))
            url = reverse("admin:djactor_message_change", args=[number])
            assert "Put offs:" in text(browser.get(url))
        finally:
            cursor.execute("SELECT djactor.drop_actor_type('shop.put_off', discard => true)")
            cursor.execute("DROP FUNCTION no_file(jsonb, jsonb)")


def test_a_trace_is_a_sequence_diagram(browser):
    fail()
    letter = DeadLetter.objects.get()
    page = text(browser.get(reverse("admin:djactor_trace", args=[letter.trace_id])))
    assert (
        "<svg" in page
        and f"&#10005; {letter.pk} fail=true</text>" in page
        and "told to fail" in page
    )
    assert 'class="arrow bad"' in page
    assert reverse("admin:djactor_deadletter_change", args=[letter.pk]) in page
    listed = text(browser.get(reverse("admin:djactor_deadletter_changelist")))
    assert reverse("admin:djactor_trace", args=[letter.trace_id]) in listed


def test_a_trace_that_nobody_knows_says_so(browser):
    page = text(browser.get(reverse("admin:djactor_trace", args=[uuid4()])))
    assert "Nothing is known of the trace" in page


def test_a_diagram_has_a_lifeline_for_each_actor_and_the_outside():
    def row(number, cause, key, status="handled"):
        return {
            "id": number, "cause_id": cause, "actor_type": "t", "actor_key": key, "kind": "user",
            "status": status, "sent_at": datetime(2026, 1, 2, microsecond=1500 * number),
            "wait": timedelta(milliseconds=5), "run": None if status == "dead" else timedelta(0),
        }  # fmt: skip

    drawn = diagram.draw([row(1, None, "a"), row(2, 1, "b"), row(3, 2, "b", "dead")])
    assert [line.name for line in drawn.lifelines] == ["outside", "t a", "t b"]
    xs = [line.x for line in drawn.lifelines]
    ends = [(arrow.x1, arrow.x2, arrow.to_self, arrow.look) for arrow in drawn.arrows]
    assert ends == [
        (xs[0], xs[1], False, ""),
        (xs[1], xs[2], False, ""),
        (xs[2], xs[2], True, "bad"),
    ]
    assert [arrow.y for arrow in drawn.arrows] == sorted(arrow.y for arrow in drawn.arrows)
    assert [arrow.sent for arrow in drawn.arrows] == ["+0 s", "+1.5 ms", "+3 ms"]
    assert [arrow.detail for arrow in drawn.arrows] == ["waited 5 ms, ran 0 s"] * 2 + ["dead"]


def test_mail_waits_is_to_be_retried_or_scheduled(fresh):
    djactor.actor("shop.counter", 1).send({"add": 1}, delay=timedelta(hours=1))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT djactor.define_actor_type('shop.failing', 'counter_handle', backoff => '1 h',"
            ' initial_state => \'{"n": "none"}\')'
        )
        djactor.actor("shop.failing", 1).send({"add": 1})
        failed = Stat.objects.filter(actor_type="shop.failing", failed=1)  # after the commit
        until(lambda: Message.objects.filter(attempts=1).exists() and failed.exists())
        cursor.execute("SELECT djactor.pause('shop.failing')")
        djactor.actor("shop.failing", 2).send({"add": 1})
        now = live.snapshot("default")
        cursor.execute("SELECT djactor.drop_actor_type('shop.failing', discard => true)")
    assert (now["waiting"], now["retrying"], now["scheduled"]) == (1, 1, 1)
    of = {one["name"]: one for one in now["types"]}
    assert of["shop.counter"]["oldest"] is None and of["shop.counter"]["scheduled"] == 1
    assert of["shop.failing"]["oldest"] >= 0 and of["shop.failing"]["failed"] == 1
    assert (of["shop.failing"]["state"], of["shop.counter"]["state"]) == ("paused", "running")


def test_the_live_page_shows_no_more_types_than_its_limit(browser, monkeypatch):
    monkeypatch.setattr(live, "TYPES", 0)
    data = browser.get(reverse("admin:djactor_live_data")).json()
    assert data["types"] == [] and data["more_types"] == ActorType.objects.count()


def test_lists_read_little_json_and_count_nothing_for_their_filters(browser, paused):
    djactor.actor("shop.counter", 1).send({"add": 1})
    for model in ("actor", "message", "deadletter", "journal"):
        with CaptureQueriesContext(connection) as queries:
            text(browser.get(reverse(f"admin:djactor_{model}_changelist")))
        asked = "\n".join(query["sql"] for query in queries)
        assert f'FROM "djactor"."{model.replace("dl", "d_l")}"' in asked
        assert '"payload"' not in asked and '"state"' not in asked and "DISTINCT" not in asked


def test_what_was_done_and_by_whom_is_logged(browser):
    act(browser, "actortype", "pause", "shop.counter")
    act(browser, "actortype", "resume", "shop.counter")
    log = LogEntry.objects.order_by("pk").values_list(
        "user__username", "object_id", "change_message"
    )
    assert list(log) == [("root", "shop.counter", "Paused."), ("root", "shop.counter", "Resumed.")]


def test_a_rows_page_has_what_may_be_done_with_it(browser):
    fail()
    letter = DeadLetter.objects.get()
    page = text(browser.get(reverse("admin:djactor_deadletter_change", args=[letter.pk])))
    assert re.findall(r'name="action" value="(\w+)"', page) == ["redrive", "delete_selected"]
    assert reverse("admin:djactor_trace", args=[letter.trace_id]) in page
    for action in ("pause", "resume"):
        page = text(browser.get(reverse("admin:djactor_actortype_change", args=["shop.counter"])))
        assert re.findall(r'name="action" value="(\w+)"', page) == [action]
        act(browser, "actortype", action, "shop.counter")


def test_a_large_state_is_cut(browser, monkeypatch):
    monkeypatch.setattr(display, "JSON_LIMIT", 20)
    djactor.actor("shop.counter", 7).ask({"add": 3})
    actor = Actor.objects.get(actor_key=7)
    actor.state = {"text": "x" * 1000}
    actor.save()
    page = text(browser.get(reverse("admin:djactor_actor_change", args=[actor.pk])))
    assert "xxx\n… 996 more characters</pre>" in page and "x" * 30 not in page


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""), (-1, "0 s"), (0, "0 s"), (7e-6, "7 µs"), (0.0052, "5.2 ms"), (0.12, "120 ms"),
        (1, "1 s"), (12.34, "12.3 s"), (59.96, "60 s"), (252, "4 min 12 s"), (120, "2 min"),
        (3600 * 3 + 299, "3 h 4 min"), (86400 * 1234, "1,234 d"), (86400 * 2 + 3 * 3600, "2 d 3 h"),
    ],
)  # fmt: skip
def test_spans_of_time_have_units(seconds, words):
    assert display.duration(seconds) == words
    if seconds is not None:
        assert display.duration(timedelta(seconds=seconds)) == words


def test_long_names_are_cut_to_one_line():
    assert display.shortened("two\nlines") == "two lines"
    assert display.shortened("k" * 512) == "k" * 59 + "…"


# Timers


def timer_page(name="nightly", key="7", actor_type="shop.counter"):
    query = urlencode({"type": actor_type, "key": key, "name": name})
    return f"{reverse('admin:djactor_timer')}?{query}"


def act_on_timer(client, action, **named):
    return client.post(timer_page(**named), {"action": action}, follow=True)


def rows_of(page):
    """What each row of a page's tables says, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in rows]


def test_timers_are_listed_with_their_rules(browser):
    djactor.actor("shop.counter", 7).schedule("nightly", cron="0 2 * * *")
    djactor.actor("shop.counter", 7).schedule("fee", every="1 mon")
    djactor.actor("shop.counter", 8).schedule("often", every="24 hours")
    djactor.actor("shop.counter", 8).pause_timer("often")
    page = text(browser.get(reverse("admin:djactor_timers")))
    rows = rows_of(page)[1:]
    assert [row.split()[1:3] for row in rows] == [["7", "nightly"], ["7", "fee"], ["8", "often"]]
    assert "cron 0 2 * * *" in rows[0] and "every 1 mon" in rows[1]
    assert "every 24:00:00 paused" in rows[2]
    assert timer_page("fee").replace("&", "&amp;") in page
    for query, names in (
        ({"q": "8"}, ["often"]),
        ({"type": "shop.counter", "q": "7"}, ["nightly", "fee"]),
        ({"type": "shop.nothing"}, []),
        ({"type": "shop.counter"}, ["nightly", "fee", "often"]),
    ):
        page = text(browser.get(reverse("admin:djactor_timers"), query))
        assert [row.split()[2] for row in rows_of(page)[1:]] == names
    mailboxes = text(browser.get(reverse("admin:djactor_mailboxes")))
    assert "every 24:00:00" in mailboxes and timer_page("fee").replace("&", "&amp;") in mailboxes


def test_a_timer_shows_its_next_times_in_both_zones(browser):
    djactor.actor("shop.counter", 7).schedule(
        "fee",
        every="1 mon",
        at=datetime(2027, 1, 31, 9, tzinfo=ZoneInfo("Europe/Berlin")),
        time_zone="Europe/Berlin",
        payload={"text": "<b>"},
    )
    with timezone.override("America/New_York"):
        page = text(browser.get(timer_page("fee")))
    rows = rows_of(page)
    assert "Rule every 1 mon, counted from 2027-01-31 09:00:00 Europe/Berlin" in rows
    assert "Time zone Europe/Berlin" in rows and "Last firing none yet" in rows
    times = rows[rows.index("America/New_York Europe/Berlin") + 1 :]
    assert len(times) == 10 and times[:4] == [
        "2027-01-31 03:00:00 2027-01-31 09:00:00 +01:00",
        "2027-02-28 03:00:00 2027-02-28 09:00:00 +01:00",
        "2027-03-31 03:00:00 2027-03-31 09:00:00 +02:00",
        "2027-04-30 03:00:00 2027-04-30 09:00:00 +02:00",
    ]
    assert "&lt;b&gt;" in page and "<b>" not in page.split("djactor-json")[1]


def test_a_timer_of_far_away_opens(browser):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT djactor.schedule('shop.counter', '7', 'far', every => '1000 years',"
            " at => '20000-01-01')"
        )
    assert " 9999-12-" in rows_of(text(browser.get(reverse("admin:djactor_timers"))))[1]
    assert "every 1000 years" in text(browser.get(timer_page("far")))


def test_a_timer_of_long_ago_hides_no_others(browser):
    djactor.actor("shop.counter", 7).schedule("nightly", cron="0 2 * * *")
    with transaction.atomic(), connection.cursor() as cursor:  # it is paused before it fires
        cursor.execute(
            "SELECT djactor.schedule('shop.counter', '7', 'old', at => '0044-03-15 BC')::text"
        )
        cursor.execute("SELECT djactor.pause('shop.counter', '7', 'old')")
    for page in ("timers", "mailboxes"):
        assert "nightly" in text(browser.get(reverse(f"admin:djactor_{page}")))
    assert "since" in text(browser.get(timer_page("old")))


def test_a_timer_whose_zone_is_gone_opens(browser):
    at = datetime(2027, 1, 1, tzinfo=UTC)
    djactor.actor("shop.counter", 7).schedule("fee", every="1 mon", at=at, time_zone="Asia/Tokyo")
    with connections["admin"].cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE djactor.timer SET time_zone = 'Mars/Base'")
        cursor.execute("RESET session_replication_role")
    page = text(browser.get(timer_page("fee")))
    assert "counted from 2027-01-01 00:00:00 UTC" in page
    assert "Mars/Base, which the server does not know" in page
    assert said(act_on_timer(browser, "pause", name="fee"))


def test_a_timer_is_paused_resumed_and_run(browser):
    counter = djactor.actor("shop.counter", 7)
    counter.schedule("nightly", cron="0 2 * * *", payload={"add": 1})
    page = text(browser.get(timer_page()))
    assert re.findall(r'name="action" value="(\w+)"', page) == ["run_now", "pause"]
    response = act_on_timer(browser, "pause")
    assert said(response) == ["The timer nightly was paused."]
    assert re.findall(r'name="action" value="(\w+)"', text(response)) == ["run_now", "resume"]
    assert "None while it is paused." in text(response)
    assert Timer.objects.get().paused_at
    assert said(act_on_timer(browser, "resume")) == ["The timer nightly was resumed."]
    assert Timer.objects.get().paused_at is None
    assert said(act_on_timer(browser, "run_now")) == ["The timer nightly was run."]
    wait_idle(60)
    assert counter.state() == {"n": 1}
    last = next(r for r in rows_of(text(browser.get(timer_page()))) if r.startswith("Last firing"))
    assert last.endswith("handled")
    log = LogEntry.objects.order_by("pk").values_list("object_repr", "change_message")
    assert list(log) == [
        ("nightly of shop.counter 7", words) for words in ("Paused.", "Resumed.", "Run.")
    ]


def test_a_firing_that_was_given_up_leads_to_the_dead_letters(browser):
    djactor.actor("shop.counter", 7).schedule("nightly", cron="@daily", payload={"fail": True})
    act_on_timer(browser, "run_now")
    wait_idle(60)
    page = text(browser.get(timer_page()))
    assert 'class="djactor-badge bad">dead</span>' in page
    assert f"{reverse('admin:djactor_deadletter_changelist')}?type=shop.counter&amp;q=7" in page


def test_who_may_only_look_at_timers_does_nothing(fresh):
    djactor.actor("shop.counter", 7).schedule("nightly", cron="0 2 * * *")
    client = with_permissions("view_timer")
    page = text(client.get(timer_page()))
    assert "cron 0 2 * * *" in page and 'name="action"' not in page
    assert act_on_timer(client, "pause").status_code == 403
    assert Timer.objects.get().paused_at is None and not LogEntry.objects.exists()


def test_timers_want_the_permission_to_view_them(fresh):
    djactor.actor("shop.counter", 7).schedule("nightly", cron="0 2 * * *")
    client = with_permissions("view_mailbox", "change_timer")
    for url in (reverse("admin:djactor_timers"), timer_page()):
        assert client.get(url).status_code == 403
        assert Client().get(url).status_code == 302  # to the login
    assert act_on_timer(client, "pause").status_code == 403
    page = text(client.get(reverse("admin:djactor_mailboxes")))
    assert "nightly" in page and reverse("admin:djactor_timer") not in page


@pytest.mark.parametrize(
    ("action", "named", "words"),
    [
        ("pause", {"name": "gone"}, "Nothing was paused: .* has no timer &quot;gone&quot;"),
        ("run_now", {"actor_type": "shop.none"}, "Nothing was run: .*shop.none"),
        ("resume", {"key": "x" * 600}, "Nothing was resumed: "),
        ("pause", {"name": "\0"}, "Nothing was paused: .*NUL"),
        ("drop", {}, "Nothing was done: no such action"),
        ("", {}, "Nothing was done: no such action"),
    ],
)
def test_what_cannot_be_done_with_a_timer_is_said(browser, action, named, words):
    djactor.actor("shop.counter", 7).schedule("nightly", cron="0 2 * * *")
    (note,) = re.findall(
        r'<li class="error">(.*?)</li>', text(act_on_timer(browser, action, **named)), re.DOTALL
    )
    assert re.match(words, note)
    assert Timer.objects.get().paused_at is None and not LogEntry.objects.exists()


def test_what_the_server_refuses_breaks_no_transaction_around_a_page(browser):
    with transaction.atomic():  # as ATOMIC_REQUESTS has it
        assert "has no timer" in said(act_on_timer(browser, "pause", name="gone"))[0]
        assert "NUL" in text(browser.get(timer_page("\0")))
        assert "NUL" in text(browser.get(reverse("admin:djactor_timers"), {"q": "\0"}))


def test_a_timer_that_is_gone_leads_to_the_list(browser):
    djactor.actor("shop.counter", 7).schedule("other", cron="@daily")
    response = browser.get(timer_page("gone"), follow=True)
    assert response.redirect_chain == [
        (f"{reverse('admin:djactor_timers')}?type=shop.counter&q=7", 302)
    ]
    assert "has no timer &quot;gone&quot;" in text(response) and "other" in text(response)


def test_without_djangos_admin_commands_and_filters_work(project):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ADMIN],
        env=os.environ
        | {"PGHOST": project.host, "PYTHONPATH": str(Path(djactor.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    assert "shop.counter" in done.stdout
    assert done.stdout.splitlines()[-1] == "3 min 12 s"
