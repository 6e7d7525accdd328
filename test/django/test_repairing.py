"""The admin for who repairs things: groups of dead letters, lives of actors, what may be done."""

import asyncio
import re
from datetime import datetime, timedelta
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

import djactor
from djactor import summaries
from djactor.admin import diagram, live, repair
from djactor.models import Actor, DeadLetter, Message, Worker
from djactor.test import wait_idle
from test_admin import act, fail, login, rows_of, said, text, with_permissions
from waiting import until

KEPT = """
CREATE FUNCTION kept_handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one jsonb;
BEGIN
    IF message ? 'lock' THEN
        PERFORM pg_advisory_xact_lock((message->>'lock')::bigint);
    END IF;
    IF message ? 'fail' THEN
        RAISE EXCEPTION 'order % is not paid', message->>'fail' USING ERRCODE = 'JA003';
    END IF;
    IF message ? 'refuse' THEN
        PERFORM djactor.reply_error(message->'refuse');
    END IF;
    FOR one IN SELECT jsonb_array_elements(message->'sends') LOOP
        PERFORM djactor.send(one->>'type', one->>'key', one->'payload',
            wants_reply => coalesce((one->>'ask')::boolean, false));
    END LOOP;
    IF message ? 'timer' THEN
        PERFORM djactor.set_timer(message->>'timer', '1 day');
    END IF;
    RETURN state || jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
END $$;
SELECT djactor.define_actor_type('shop.kept', 'kept_handle', journal => '1 day',
    handler_timeout => '1 h');
SELECT djactor.define_actor_type('shop.silent', 'kept_handle')
"""


@pytest.fixture
def browser(fresh):
    return login(User.objects.create_superuser("root"))


@pytest.fixture
def kept(fresh):
    """The types shop.kept, which keeps a journal, and shop.silent, which does not."""
    with connection.cursor() as cursor:
        cursor.execute(KEPT)
        yield
        for name in ("shop.kept", "shop.silent"):
            cursor.execute("SELECT djactor.drop_actor_type(%s, discard => true)", [name])
        cursor.execute("DROP FUNCTION kept_handle(jsonb, jsonb)")


def letters(number, error="order %s is not paid\nTraceback", ago="0", key="1"):
    """So many dead letters, in the way that a restore writes them: nobody else may."""
    with connections["admin"].cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            """INSERT INTO djactor.dead_letter (id, actor_type, actor_key, payload, priority,
                wants_reply, trace_id, kind, attempts, crashes, redrives, sent_at, reason,
                sqlstate, error, failed_at)
            SELECT (SELECT coalesce(max(id), 1000000) FROM djactor.dead_letter) + i, 'shop.counter',
                %s, '{"add": 1}', 0, false, gen_random_uuid(), 'user', 1, 0, 0, now(), 'failed',
                '38000', replace(%s, '%%s', i::text), now() - %s::interval
            FROM generate_series(1, %s) i""",
            [key, error, ago, number],
        )
        cursor.execute("RESET session_replication_role")


def failures():
    return reverse("admin:djactor_failures")


def group(action, error, **more):
    named = {"actor_type": "shop.counter", "reason": "failed", "error": error}
    return {"action": action, **named, **more}


def permitted(*names):
    User.objects.filter(username="somebody").delete()
    return with_permissions(*names)


# Groups of dead letters


def test_ten_thousand_equal_dead_letters_are_one_row(browser):
    letters(10_000)
    letters(1, "no such card", ago="1 hour")
    with CaptureQueriesContext(connection) as queries:
        page = text(browser.get(failures()))
    first, second = rows_of(page)[1:]
    assert first.startswith("shop.counter failed 38000 order # is not paid 10,000 1 ")
    assert second.startswith("shop.counter failed 38000 no such card 1 1 ")
    assert "Traceback" not in page
    assert sum("dead_letter" in query["sql"] for query in queries) == 1


def test_groups_are_those_of_the_latest_dead_letters_which_an_index_finds(browser, monkeypatch):
    letters(5000, "long ago", ago="1 hour")
    letters(20)
    monkeypatch.setattr(repair, "LETTERS", 10)
    page = text(browser.get(failures()))
    assert "10+ dead letters" in page and "The latest 10 dead letters" in page
    assert [row.split()[8] for row in rows_of(page)[1:]] == ["10"]
    assert repair.in_group("default", repair.Group("shop.counter", "failed", "long ago")) == []
    with connections["admin"].cursor() as cursor:
        cursor.execute("ANALYZE djactor.dead_letter")
        cursor.execute(f"EXPLAIN {repair._GROUPS}", {"sample": 10})
        plan = "\n".join(line for (line,) in cursor)
    assert "using dead_letter_failed_at" in plan and "Seq Scan" not in plan


def test_the_same_error_is_shown_with_its_numbers_if_they_are_the_same(browser):
    letters(2, "card 4000 of c6c4cd2a-6e9a-4d6f-8f0a-5b0f1f5c2b11 is stolen")
    page = text(browser.get(failures()))
    assert "card 4000 of c6c4cd2a" in rows_of(page)[1]
    assert 'value="card # of # is stolen"' in page


def test_a_group_leads_to_its_dead_letters(browser):
    letters(3)
    letters(2, "no such card")
    page = text(browser.get(failures()))
    link = next(one for one in re.findall(r'<a href="([^"]*)"', page) if "not+paid" in one)
    listed = text(browser.get(link.replace("&amp;", "&")))
    assert listed.count('class="action-select"') == 3 and "no such card" not in listed
    letter = DeadLetter.objects.filter(error__startswith="no such").first()
    page = text(browser.get(reverse("admin:djactor_deadletter_change", args=[letter.pk])))
    link = re.search(r'<a href="([^"]*)">Equal ones', page)[1].replace("&amp;", "&")
    assert text(browser.get(link)).count('class="action-select"') == 2


def test_a_dead_letter_without_an_error_is_in_a_group_too(browser):
    letters(2, None)
    page = text(browser.get(failures()))
    assert "38000 (no error) 2 1" in rows_of(page)[1]
    link = next(one for one in re.findall(r'<a href="([^"]*)"', page) if "error=" in one)
    assert text(browser.get(link.replace("&amp;", "&"))).count('class="action-select"') == 2


def test_one_of_a_group_is_redriven_then_all(browser, paused):
    letters(4)
    letters(1, "no such card")
    oldest = DeadLetter.objects.filter(error__startswith="order").order_by("pk").first().pk
    one = browser.post(failures(), group("redrive_one", "order # is not paid"), follow=True)
    assert said(one) == ["1 dead letter redriven."]
    assert list(Message.objects.values_list("pk", flat=True)) == [oldest]
    rest = browser.post(failures(), group("redrive", "order # is not paid"), follow=True)
    assert said(rest) == ["3 dead letters redriven."]
    assert [letter.error for letter in DeadLetter.objects.all()] == ["no such card"]
    log = LogEntry.objects.order_by("pk").values_list("object_id", "change_message")
    assert list(log) == [
        ("shop.counter", f"{words} redriven: failed, order # is not paid")
        for words in ("1 dead letter", "3 dead letters")
    ]


def test_a_group_is_discarded_after_a_question(browser):
    letters(3)
    letters(1, "no such card")
    asked = text(browser.post(failures(), group("discard", "order # is not paid")))
    assert "3 dead letters will be deleted" in asked and DeadLetter.objects.count() == 4
    answer = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked))
    answer.pop("csrfmiddlewaretoken")
    assert said(browser.post(failures(), answer, follow=True)) == ["3 dead letters discarded."]
    assert DeadLetter.objects.count() == 1


def test_what_a_group_cannot_have_done_is_said(browser):
    letters(1)
    with connections["admin"].cursor() as cursor:  # its type is gone
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE djactor.dead_letter SET actor_type = 'shop.gone'")
        cursor.execute("RESET session_replication_role")
    named = {"actor_type": "shop.gone", "reason": "failed", "error": "order # is not paid"}
    response = browser.post(failures(), {"action": "redrive", **named}, follow=True)
    assert "Nothing was redriven: actor type" in text(response)
    assert "no such action" in text(browser.post(failures(), {"action": "drop"}, follow=True))
    assert not LogEntry.objects.exists() and DeadLetter.objects.count() == 1


def test_who_may_only_look_at_groups_does_nothing(fresh):
    letters(2)
    client = permitted("view_deadletter", "delete_message")
    page = text(client.get(failures()))
    assert "order # is not paid" in page and 'name="action"' not in page
    for action in ("redrive_one", "redrive", "discard"):
        posted = client.post(failures(), group(action, "order # is not paid", post="yes"))
        assert posted.status_code == 403
    assert permitted("view_message", "change_deadletter").get(failures()).status_code == 403
    assert DeadLetter.objects.count() == 2


# A dead letter


def test_a_traceback_is_shown_as_it_is_and_once(browser):
    fail()
    letter = DeadLetter.objects.get()
    assert letter.last_error and letter.last_error in letter.error
    page = text(browser.get(reverse("admin:djactor_deadletter_change", args=[letter.pk])))
    assert page.count("told to fail") == 1
    assert re.search(r'<pre class="djactor-json" tabindex="0">told to fail, 100 %', page)
    assert re.search(r"<pre [^>]*>PL/pgSQL function counter_handle", page)  # the context


def test_an_error_that_is_very_long_is_cut(browser):
    letters(1, "x" * 150_000)
    letter = DeadLetter.objects.get()
    page = text(browser.get(reverse("admin:djactor_deadletter_change", args=[letter.pk])))
    assert "x\n… 50,000 more characters</pre>" in page


def edit(client, letter, payload):
    url = reverse("admin:djactor_deadletter_redrive", args=[letter])
    return client.post(url, {"payload": payload}, follow=True)


def test_a_dead_letter_is_edited_and_redriven(browser):
    fail()
    letter = DeadLetter.objects.get()
    url = reverse("admin:djactor_deadletter_redrive", args=[letter.pk])
    assert url in text(browser.get(reverse("admin:djactor_deadletter_change", args=[letter.pk])))
    page = text(browser.get(url))
    assert "&quot;fail&quot;: true" in page and "told to fail" in page
    response = edit(browser, letter.pk, '{"add": 5}')
    assert said(response) == [f"Message {letter.pk} was redriven with a payload that was edited."]
    wait_idle(60)
    assert djactor.actor("shop.counter", 0).state() == {"n": 5}
    assert LogEntry.objects.get().object_id == str(letter.pk)
    assert "There is no dead letter" in text(browser.get(url, follow=True))


def test_what_was_typed_is_not_lost(browser):
    fail()
    letter = DeadLetter.objects.get()
    page = text(edit(browser, letter.pk, '{"add": 5'))
    assert "This is not JSON" in page and "{&quot;add&quot;: 5</textarea>" in page
    page = text(edit(browser, letter.pk, '"\\u0000"'))  # which the server refuses
    assert "Nothing was done: " in page and "\\u0000&quot;</textarea>" in page
    assert DeadLetter.objects.count() == 1 and not LogEntry.objects.exists()


def test_numbers_that_are_too_large_for_python_are_kept(browser, paused):
    fail_one = '{"add": 1, "large": %s}' % ("9" * 5000)
    letters(1)
    edit(browser, DeadLetter.objects.get().pk, fail_one)
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload ->> 'large' FROM djactor.message")
        assert cursor.fetchone() == ("9" * 5000,)


def test_redriving_takes_another_payload(fresh):
    fail()
    letter = DeadLetter.objects.get()
    assert letter.redrive(payload={"add": 7}) == letter.pk
    wait_idle(60)
    assert djactor.actor("shop.counter", 0).state() == {"n": 7}
    with pytest.raises(DatabaseError, match="no dead letter"):
        letter.redrive(payload=None)


def test_editing_wants_the_permissions_to_redrive_and_to_send(fresh):
    letters(1)
    letter = DeadLetter.objects.get().pk
    page = reverse("admin:djactor_deadletter_change", args=[letter])
    for names in (("change_deadletter",), ("add_message",)):
        client = permitted("view_deadletter", *names)
        assert "Edit and redrive" not in text(client.get(page))
        assert edit(client, letter, "{}").status_code == 403
    client = permitted("view_deadletter", "view_actor", "change_deadletter", "add_message")
    assert "Edit and redrive" in text(client.get(page))
    assert "was redriven" in text(edit(client, letter, "{}"))


# Actors


def actor_page(client, key="7", actor_type="shop.counter"):
    number = Actor.objects.get(actor_key=key, actor_type=actor_type).pk
    return text(client.get(reverse("admin:djactor_actor_change", args=[number])))


def test_actors_are_paused_and_resumed(browser):
    djactor.actor("shop.counter", 7).ask({"add": 1})
    actor = Actor.objects.get()
    buttons = re.findall(r'name="action" value="(\w+)"', actor_page(browser))
    assert buttons == ["pause", "stop"]
    assert said(act(browser, "actor", "pause", actor.pk)) == ["1 actor paused."]
    actor.refresh_from_db()
    assert actor.paused
    buttons = re.findall(r'name="action" value="(\w+)"', actor_page(browser))
    assert buttons == ["resume", "stop"]
    assert said(act(browser, "actor", "resume", actor.pk)) == ["1 actor resumed."]
    actor.refresh_from_db()
    assert not actor.paused


def test_a_stuck_actor_goes_on_once_it_is_resumed(browser):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE cure (done boolean); CREATE FUNCTION stuck(state jsonb, message jsonb)"
            " RETURNS void LANGUAGE plpgsql AS $$BEGIN IF NOT EXISTS (SELECT FROM cure) THEN"
            " RAISE 'not yet'; END IF; END$$; SELECT djactor.define_actor_type('shop.stuck',"
            " 'stuck', max_attempts => 1, on_exhausted => 'suspend')"
        )
        try:
            number = djactor.actor("shop.stuck", 7).send({})
            until(lambda: Actor.objects.filter(status="suspended").exists())
            page = actor_page(browser, actor_type="shop.stuck")
            assert page.count("not yet") >= 1 and f">{number}</a>" in page
            cursor.execute("INSERT INTO cure VALUES (true)")
            act(browser, "actor", "resume", Actor.objects.get().pk)
            wait_idle(60)
            assert not Message.objects.exists() and Actor.objects.get().status == "active"
        finally:
            cursor.execute("SELECT djactor.drop_actor_type('shop.stuck', discard => true)")
            cursor.execute("DROP FUNCTION stuck(jsonb, jsonb); DROP TABLE cure")


def test_an_actor_is_stopped_after_a_question(browser):
    djactor.actor("shop.counter", 7).ask({"add": 1})
    number = Actor.objects.get().pk
    asked = text(act(browser, "actor", "stop", number))
    assert "Their states and timers are deleted" in asked and "shop.counter 7" in asked
    assert Actor.objects.exists()
    assert said(act(browser, "actor", "stop", number, post="yes")) == ["1 actor stopped."]
    assert not Actor.objects.exists()
    assert LogEntry.objects.get().change_message == "Stopped."


def test_actions_want_their_own_permissions(fresh, paused):
    djactor.actor("shop.counter", 7).send({"add": 1})
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.resume('shop.counter')")
        wait_idle(60)
        cursor.execute("SELECT djactor.pause('shop.counter')")
    waiting = djactor.actor("shop.counter", 7).send({"add": 1})
    number = Actor.objects.get().pk
    actor_actions = {"pause": "change_actor", "resume": "change_actor", "stop": "delete_actor"}
    for name in actor_actions:
        others = {"change_actor", "delete_actor", "delete_message"} - {actor_actions[name]}
        client = permitted("view_actor", *others)
        act(client, "actor", name, number, post="yes")
        assert f'value="{name}"' not in actor_page(client)
    actor = Actor.objects.get()
    assert not actor.paused
    client = permitted("view_message", "change_message", "add_message", "delete_actor")
    page = text(client.get(reverse("admin:djactor_message_change", args=[waiting])))
    assert 'name="action"' not in page
    for name in ("cancel", "break_off"):
        act(client, "message", name, waiting)
    assert Message.objects.count() == 1
    client = permitted("view_message", "delete_message")
    assert said(act(client, "message", "cancel", waiting)) == ["1 message cancelled."]
    assert not Message.objects.exists()


def test_a_running_turn_is_broken_off(browser, kept):
    with connections["admin"].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(77)")
        try:
            number = djactor.actor("shop.kept", 7).send({"lock": 77})
            url = f"{reverse('admin:djactor_life')}?type=shop.kept&key=7"
            until(lambda: "running" in text(browser.get(url)))
            assert said(act(browser, "message", "break_off", number)) == ["1 message cancelled."]
            # The lock is still held, so the turn has not come to its end by itself.
            until(lambda: not Worker.objects.filter(message_id=number).exists())
            assert not Message.objects.exists()
        finally:
            cursor.execute("SELECT pg_advisory_unlock(77)")
    wait_idle(60)
    assert not Actor.objects.exists()


def send(client, **fields):
    return client.post(reverse("admin:djactor_message_add"), fields, follow=True)


def test_a_message_is_sent(browser):
    url = reverse("admin:djactor_message_add")
    page = text(browser.get(url, {"type": "shop.counter", "key": "7"}))
    assert '<option value="shop.counter" selected>' in page and 'value="7"' in page
    response = send(browser, type="shop.counter", key="7", payload='{"add": 3}')
    assert re.fullmatch(r"Message \d+ was sent\.", said(response)[0])
    wait_idle(60)
    assert djactor.actor("shop.counter", 7).state() == {"n": 3}
    assert LogEntry.objects.get().change_message == "Sent."
    assert url in actor_page(browser)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"payload": "{"}, "This is not JSON"),
        ({"key": "x" * 600}, "512 bytes"),
        ({"key": ""}, "This field is required"),
        ({"type": "shop.nothing"}, "Select a valid choice"),
        ({"payload": '"\\u0000"'}, "Nothing was done"),
    ],
)
def test_what_cannot_be_sent_is_said(browser, fields, words):
    response = send(browser, **{"type": "shop.counter", "key": "7", "payload": "{}"} | fields)
    assert words in text(response)
    assert not Message.objects.exists() and not LogEntry.objects.exists()


def test_sending_wants_the_permission_to_add(fresh):
    client = permitted("view_message", "change_message", "view_actor")
    response = send(client, type="shop.counter", key="7", payload="{}")
    assert response.status_code == 403 and not Message.objects.exists()
    assert client.get(reverse("admin:djactor_message_add")).status_code == 403


def test_a_timer_is_run_from_the_list(browser):
    counter = djactor.actor("shop.counter", 7)
    counter.schedule("nightly", cron="0 2 * * *", payload={"add": 1})
    page = text(browser.get(reverse("admin:djactor_timers")))
    action = re.search(r'action="([^"]*)"><input[^>]*><button[^>]*value="run_now"', page)[1]
    response = browser.post(action.replace("&amp;", "&"), {"action": "run_now"}, follow=True)
    assert said(response) == ["The timer nightly was run."]
    wait_idle(60)
    assert counter.state() == {"n": 1}
    client = permitted("view_timer")
    assert "run_now" not in text(client.get(reverse("admin:djactor_timers")))


# The life of an actor


def life(page):
    table = page.split('class="djactor-life"')[1].split("</table>")[0]
    return rows_of(re.sub("<tr [^>]*>", "<tr>", table))[1:]


def test_an_actors_page_has_its_state_first_and_then_its_life(browser, kept):
    actor = djactor.actor("shop.kept", 7)
    actor.send({"op": "open", "timer": "reminder"})
    actor.send({"op": "pay", "fail": 12})
    wait_idle(60)
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.pause('shop.kept', '7')")
    actor.send({"op": "close"})
    actor.send({"op": "remind"}, delay=timedelta(hours=2))
    page = actor_page(browser, actor_type="shop.kept")
    assert page.index("&quot;n&quot;: 1") < page.index(">Life</h2>") < page.index("order 12 is")
    timer, scheduled, waiting, dead, handled = life(page)
    assert " timer reminder " in timer and "in 2" in timer
    assert re.search(r" remind scheduled in 1 h 5\d min", scheduled)
    assert re.search(r" mail \d+ close waiting", waiting)
    assert re.search(r" dead letter \d+ pay rejected order 12 is not paid", dead)
    assert re.search(r" handled \d+ open handled ran ", handled)


def test_a_life_shows_what_the_user_may_see(fresh, kept):
    actor = djactor.actor("shop.kept", 7)
    actor.send({"op": "open", "timer": "reminder"})
    actor.send({"op": "pay", "fail": 12})
    wait_idle(60)
    client = permitted("view_actor", "view_deadletter")
    assert [row.split()[2] for row in life(actor_page(client, actor_type="shop.kept"))] == ["dead"]
    client = permitted("view_actor")
    assert "Nothing is known" in actor_page(client, actor_type="shop.kept")
    assert permitted("view_message").get(reverse("admin:djactor_life")).status_code == 403


def test_an_actor_without_a_state_has_a_life_too(browser):
    fail()
    letter = DeadLetter.objects.get()
    page = text(browser.get(reverse("admin:djactor_deadletter_change", args=[letter.pk])))
    link = re.search(r'<a href="([^"]*)">Actor<', page)[1].replace("&amp;", "&")
    page = text(browser.get(link))
    assert "It has no state" in page and "told to fail" in life(page)[0]
    assert "The type keeps no journal" in page
    djactor.actor("shop.counter", 0).ask({"add": 1})
    response = browser.get(link)
    assert response.url == reverse("admin:djactor_actor_change", args=[Actor.objects.get().pk])


def test_a_life_is_bounded(browser, kept):
    djactor.actor("shop.kept", 7).send_many([{"n": n} for n in range(60)])
    djactor.actor("shop.kept", 8).send_many([{"n": n} for n in range(60)])
    wait_idle(60)
    assert len(life(actor_page(browser, actor_type="shop.kept"))) == 50
    assert "At most 50 of each kind" in actor_page(browser, actor_type="shop.kept")
    with connection.cursor() as cursor:
        cursor.execute("SELECT djactor.pause('shop.kept')")
    djactor.actor("shop.kept", 9).send_many([{"n": n} for n in range(5000)])
    djactor.actor("shop.kept", 9).send({}, delay=timedelta(days=1))
    page = text(browser.get(reverse("admin:djactor_life"), {"type": "shop.kept", "key": "9"}))
    assert len(life(page)) == 50
    with connections["admin"].cursor() as cursor:
        cursor.execute("ANALYZE djactor.message")
        named = {"actor_type": "shop.kept", "key": "9"}
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {repair._EVENTS['message']}", named)
        ((plan, *_),) = cursor.fetchone()
    scans = [one for one in nodes(plan["Plan"]) if "Scan" in one["Node Type"]]
    by_index = {one.get("Index Name") for one in scans}
    assert {"message_mailbox", "message_aside"} <= by_index
    assert all(one["Actual Rows"] <= 50 for one in scans), plan


def nodes(plan):
    """A node of a plan, and all below it."""
    return [plan, *(one for part in plan.get("Plans", []) for one in nodes(part))]


def test_a_life_looks_at_the_latest_entries_of_the_journal(browser, kept, monkeypatch):
    djactor.actor("shop.kept", 7).ask({"op": "early"}, timeout=60)
    for key in (8, 7):
        djactor.actor("shop.kept", key).ask({"op": "late"}, timeout=60)
    assert len(life(actor_page(browser, actor_type="shop.kept"))) == 2
    monkeypatch.setattr(repair, "ENTRIES", 2)
    (entry,) = life(actor_page(browser, actor_type="shop.kept"))
    assert " late " in entry


def test_a_delivery_at_the_end_of_time_opens(browser):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT djactor.send('shop.counter', '7', '{}', deliver_at => 'infinity');"
            "SELECT djactor.schedule('shop.counter', '7', 'far', at => '20000-01-01')::text"
        )
    page = text(browser.get(reverse("admin:djactor_life"), {"type": "shop.counter", "key": "7"}))
    assert len(life(page)) == 2


# Summaries


def by_name(actor_type, value):
    return f"{actor_type}:\n{value['n']} of it"


def failing(actor_type, value):
    raise LookupError("no <b> summary")


def test_lists_show_a_summary_of_the_state(browser):
    djactor.actor("shop.counter", 7).ask({"add": 3})
    url = reverse("admin:djactor_actor_changelist")
    assert '<td class="field-_brief">n=3</td>' in text(browser.get(url))
    for setting in (by_name, "test_repairing.by_name"):
        with override_settings(DJACTOR={"STATE_SUMMARY": setting}):
            assert '<td class="field-_brief">shop.counter: 3 of it</td>' in text(browser.get(url))


def test_a_summary_that_fails_fails_no_page(browser, caplog):
    djactor.actor("shop.counter", 7).ask({"add": 3})
    with override_settings(DJACTOR={"STATE_SUMMARY": failing}):
        page = text(browser.get(reverse("admin:djactor_actor_changelist")))
    assert "STATE_SUMMARY failed: LookupError: no &lt;b&gt; summary" in page
    assert "settings.DJACTOR['STATE_SUMMARY'] failed" in caplog.text


def test_a_large_state_is_not_read_for_its_summary(browser, monkeypatch):
    djactor.actor("shop.counter", 7).ask({"add": 3})
    with connections["admin"].cursor() as cursor:
        cursor.execute(
            "UPDATE djactor.actor SET state = jsonb_build_object('n', (SELECT"
            " string_agg(md5(i::text), '') FROM generate_series(1, 1000) i))"
        )
    page = text(browser.get(reverse("admin:djactor_actor_changelist")))
    assert '<td class="field-_brief">(large)</td>' in page


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"n": 3, "name": "Ada", "on": True, "no": None}, "n=3, name=Ada, on=true, no=null"),
        ({"lines": [1, 2], "of": {"a": 1}, "none": {}}, "lines=[2], of={…}, none={}"),
        ({str(n): n for n in range(9)}, "0=0, 1=1, 2=2, 3=3, 4=4, 5=5, 6=6, 7=7, …"),
        ({"text": "x" * 30}, "text=" + "x" * 19 + "…"),
        ("x" * 100, "x" * 59 + "…"),
        ("two\nlines", "two lines"),
        ({}, ""),
        (None, "null"),
    ],
)
def test_a_summary_is_a_short_line(value, words):
    assert summaries.summary("STATE_SUMMARY", "shop.counter", value) == words


def test_a_message_is_summed_up_by_its_type_or_its_op():
    def said(value):
        return summaries.summary("MESSAGE_SUMMARY", "shop.counter", value)

    assert said({"@type": "AddItem", "op": "add"}) == "AddItem"
    assert said({"op": "add", "n": 1}) == "add"
    assert said({"op": 3}) == "op=3"


# Python types


@pytest.fixture
def python_actors(project):
    """The database with djactor_python, for the length of a test."""
    there = project.sql(
        "SELECT count(*) FROM pg_extension WHERE extname = 'djactor_python'", "shop"
    )
    if there == "0":
        project.sql("CREATE EXTENSION djactor_python CASCADE", "shop")
    yield
    if there == "0":
        project.sql("DROP EXTENSION djactor_python, plpython3u", "shop")


def test_python_types_show_their_class(browser, python_actors):
    with connections["admin"].cursor() as cursor:
        cursor.execute(
            "SELECT djactor.define_python_actor('shop.notes', 'shop.actors.NotificationActor',"
            " owner => 'shop')"
        )
        try:
            page = text(browser.get(reverse("admin:djactor_actortype_changelist")))
            handlers = re.findall(r'class="field-_handler">([^<]*)<', page)
            assert "shop.actors.NotificationActor" in handlers
            assert any(one.startswith("public.counter_handle(") for one in handlers)
            url = reverse("admin:djactor_actortype_change", args=["shop.notes"])
            assert "shop.actors.NotificationActor" in text(browser.get(url))
        finally:
            cursor.execute("SELECT djactor.drop_actor_type('shop.notes', discard => true)")


# Traces


def trace_page(client, trace_id):
    return text(client.get(reverse("admin:djactor_trace", args=[trace_id])))


def test_a_trace_says_what_messages_say_and_which_answers_are_errors(browser, kept):
    trace_id = uuid4()
    pay = {"op": "pay", "refuse": {"why": "stolen"}}
    sends = [{"type": "shop.kept", "key": "8", "ask": True, "payload": pay}]
    djactor.actor("shop.kept", 7).send({"op": "order", "sends": sends}, trace_id=trace_id)
    wait_idle(60)
    page = trace_page(browser, trace_id)
    assert re.search(r">\d+ order</text>", page) and re.search(r">\d+ pay</text>", page)
    (bad,) = re.findall(r'<g class="arrow bad.*?</g>', page, re.DOTALL)
    assert re.search(r"&#10005; \d+ error", bad)
    with override_settings(DJACTOR={"MESSAGE_SUMMARY": "test_repairing.of_payload"}):
        assert re.search(r">\d+ said order</text>", trace_page(browser, trace_id))


def of_payload(actor_type, payload):
    return f"said {payload.get('op', 'nothing')}"


def test_an_answer_to_the_outside_is_an_arrow(browser, kept):
    with pytest.raises(djactor.AskFailed):
        djactor.actor("shop.kept", 7).ask({"op": "pay", "refuse": {"reason": "stolen"}}, timeout=60)
    trace_id = live._rows("default", "SELECT trace_id FROM djactor.journal", [])[0]["trace_id"]
    page = trace_page(browser, trace_id)
    (bad,) = re.findall(r'<g class="arrow bad answer".*?</g>', page, re.DOTALL)
    assert "&#10005;" in bad and "stolen" in bad and "answered by an error" in bad


def test_a_trace_says_which_types_keep_no_journal_and_keeps_their_lanes(browser, kept):
    trace_id = uuid4()
    end = [{"type": "shop.kept", "key": "9", "payload": {"op": "end"}}]
    sends = [{"type": "shop.silent", "key": "8", "payload": {"op": "pass", "sends": end}}]
    djactor.actor("shop.kept", 7).send({"op": "begin", "sends": sends}, trace_id=trace_id)
    wait_idle(60)
    page = trace_page(browser, trace_id)
    assert "keep no journal: <code>shop.silent</code>" in page
    assert "<title>shop.silent 8: its turns are not in the trace</title>" in page
    assert "<title>shop.kept 9</title>" in page


def row(number, cause, actor, **more):
    return {
        "id": number, "cause_id": cause, "actor_type": actor[0], "actor_key": actor[1],
        "kind": "user", "status": "handled", "sent_at": datetime(2026, 1, 2, microsecond=number),
        "wait": timedelta(0), "run": timedelta(0), "summary": "go", **more,
    }  # fmt: skip


@pytest.mark.parametrize("number", [3, 8, 11, 12, 40, 150])
def test_no_lane_is_lost_in_a_window_of_1280_pixels(number):
    actors = [(f"shop.{'abc'[i % 3]}", str(i)) for i in range(number)]
    drawn = diagram.draw([row(i, i - 1 if i else None, one) for i, one in enumerate(actors)])
    assert drawn.width <= diagram.FIT
    assert all(line.x + drawn.box // 2 <= drawn.width for line in drawn.lifelines)
    gaps = {b.x - a.x for a, b in zip(drawn.lifelines, drawn.lifelines[1:], strict=False)}
    assert all(gap > drawn.box for gap in gaps)
    assert len(drawn.arrows) == number
    if number <= 10:
        assert len(drawn.lifelines) == number + 1
    if number == 150:
        assert [line.key for line in drawn.lifelines] == ["outside", *["50 actors"] * 3]
        assert drawn.arrows[0].detail == "0: waited 0 s, ran 0 s"
    if number == 11:  # close together
        assert drawn.arrows[0].detail == "0"  # the key, of a lifeline that others share
        assert drawn.arrows[1].detail == "ran 0 s"


def test_more_types_than_fit_make_the_diagram_wider_and_the_page_says_so(browser, monkeypatch):
    drawn = diagram.draw([row(i, None, (f"t{i}", "k")) for i in range(20)])
    assert len(drawn.lifelines) == 21 and drawn.width > diagram.FIT
    fail()
    trace_id = DeadLetter.objects.get().trace_id
    assert "to see them all" not in trace_page(browser, trace_id)
    monkeypatch.setattr(diagram, "FIT", 100)
    assert "There are 2 lifelines: scroll to see them all." in trace_page(browser, trace_id)


# One clock


def test_all_times_of_a_page_are_of_one_zone_and_one_format(browser, kept):
    actor = djactor.actor("shop.kept", 7)
    actor.schedule("nightly", cron="0 2 * * *", time_zone="Europe/Berlin")
    actor.send({"op": "open", "timer": "reminder"})
    actor.send({"op": "pay", "fail": 1})
    wait_idle(60)
    letter = DeadLetter.objects.get()
    urls = [
        reverse("admin:djactor_actor_change", args=[Actor.objects.get().pk]),
        reverse("admin:djactor_deadletter_changelist"),
        reverse("admin:djactor_deadletter_change", args=[letter.pk]),
        reverse("admin:djactor_journal_changelist"),
        reverse("admin:djactor_trace", args=[letter.trace_id]),
        *(reverse(f"admin:djactor_{name}") for name in ("failures", "mailboxes", "timers")),
    ]
    for url in urls:
        with timezone.override("Asia/Tokyo"):
            page = text(browser.get(url))
        assert "Times are those of Asia/Tokyo." in page
        shown = re.findall(r"<time [^>]*>([^<]*)</time>", page)
        others = re.sub(r"<time .*?</time>", "", page.split("<main")[1])
        assert shown and all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", t) for t in shown)
        assert not re.search(r"\d\d:\d\d:\d\d|[ap]\.m\.", others), others
        assert all("JST" in title for title in re.findall(r'<time [^>]*title="([^"]*)"', page))


def test_how_long_mail_waits_is_told_by_the_servers_clock(browser, paused):
    djactor.actor("shop.counter", 7).send({"add": 1}, delay=timedelta(hours=3))
    with CaptureQueriesContext(connection) as queries:
        page = text(browser.get(reverse("admin:djactor_message_changelist")))
    assert re.search(r"due in 2 h 5\d min", page)
    assert any("STATEMENT_TIMESTAMP()" in query["sql"] for query in queries)


# The trace that a sender names


def traces():
    return list(Message.objects.order_by("pk").values_list("trace_id", flat=True))


def test_a_sender_names_the_trace(paused):
    one, two, three = uuid4(), uuid4(), uuid4()
    actor = djactor.actor("shop.counter", 7)
    actor.send({"add": 1}, trace_id=one)
    actor.send({"add": 1}, trace_id=str(two))
    actor.send_many([{"add": 1}, {"add": 2}], trace_id=three)
    asyncio.run(actor.asend({"add": 1}, trace_id=one))
    asyncio.run(actor.asend_many([{"add": 1}], trace_id=str(two).upper()))
    assert traces() == [one, two, three, three, one, two]
    actor.send({"add": 1}, trace_id=None)
    assert traces()[-1] not in (one, two, three)


def test_messages_of_one_statement_may_have_traces_or_none(paused):
    one, named = uuid4(), {"actor_type": "shop.counter", "actor_key": "7"}
    sent = Message.objects.bulk_create(
        [Message(**named), Message(**named, trace_id=one), Message(**named, trace_id=str(one))]
    )
    assert traces()[1:] == [one, one] and traces()[0] not in (None, one)
    assert [message.trace_id for message in sent] == traces()
    message = Message.objects.create(**named, trace_id=str(one))
    assert message.trace_id == one and message.sent_at is not None


@pytest.mark.parametrize(
    ("given", "error"), [("no uuid", ValueError), (7, TypeError), (b"x", TypeError)]
)
def test_a_trace_is_a_uuid(paused, given, error):
    with pytest.raises(error, match="trace_id is"):
        djactor.actor("shop.counter", 7).send({"add": 1}, trace_id=given)
    assert not Message.objects.exists()


def test_what_a_message_causes_is_in_its_trace_and_below_it(kept, project):
    trace_id = uuid4()
    sends = [{"type": "shop.kept", "key": "8", "payload": {}}]
    djactor.actor("shop.kept", 7).send({"sends": sends}, trace_id=trace_id)
    wait_idle(60)
    # as if the batch that sends it had begun before its own message was sent
    project.sql(
        "SET session_replication_role = replica;"  # without the trigger that refuses it
        " UPDATE djactor.journal SET sent_at = sent_at - interval '1 s' WHERE actor_key = '8'",
        connection.settings_dict["NAME"],
    )
    found = live.trace("default", trace_id, 10)
    assert [one["actor_key"] for one in found] == ["7", "8"]


def test_the_query_of_a_life_is_quoted(browser):
    key = "a&b=c d"
    djactor.actor("shop.counter", key)
    url = f"{reverse('admin:djactor_life')}?{urlencode({'type': 'shop.counter', 'key': key})}"
    page = text(browser.get(url))
    assert "a&amp;b=c d" in page and "key=a%26b%3Dc+d" in page
