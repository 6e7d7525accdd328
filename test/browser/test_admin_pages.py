"""The admin's pages in Chromium: alive, reachable with the keyboard, readable by everybody.

One site for all, with the actors of shop.sql; what a test changes it changes back, or none minds.
"""

import json
import re
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import expect

SHOP = (Path(__file__).parent / "shop.sql").read_text()
ADMIN = "/admin/djactor"
LIVE = f"{ADMIN}/actortype/live/"
LONG_KEY = "k" * 508 + "/end"
LOOKS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}


@pytest.fixture(scope="module")
def empty(example_server):
    """The site before anything has happened."""
    return example_server("chat", **{"djactor.max_workers": 2, "fsync": False})


@pytest.fixture(scope="module")
def visitor(empty, chromium, superuser):
    """The cookies of somebody who has logged in, with the keyboard alone."""
    name, password = superuser(empty)
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{empty.url}/admin/")
    expect(page.get_by_label("Username")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.locator("#user-tools").wait_for()
    yield context.storage_state()
    context.close()


@pytest.fixture
def visit(empty, visitor, new_page):
    """``visit(path, **options)``: that page, as an operator."""

    def visit(path, **options):
        page = new_page(storage_state=visitor, **options)
        response = page.goto(empty.url + path)
        assert "default-src 'self'" in response.headers["content-security-policy"]
        return page

    return visit


@pytest.fixture(scope="module")
def site(empty):
    """The site with a shop: some orders, of which two cannot be paid; reports that are paused."""
    empty.sql(SHOP)
    empty.sql(
        f"""
        SELECT djactor.pause('shop.report');
        SELECT djactor.send('shop.report', 'month-' || i % 9, '{{}}') FROM generate_series(1, 60) i;
        SELECT djactor.schedule('shop.report', 'all', 'monthly', every => '1 mon',
            at => '2100-01-31 09:00+01', time_zone => 'Europe/Berlin', payload => '{{"n": 1}}');
        SELECT djactor.send('shop.stock', '{LONG_KEY}', '{{}}');
        SELECT djactor.send('shop.stock', 'later', '{{}}', deliver_at => now() + '1 day');
        SELECT djactor.send('shop.order', 'A-1', jsonb_build_object('article', '4711',
            'customer', 'ada', 'card', 'visa', 'lines', repeat('long ', 50),
            'one_word', repeat('x', 300), 'address',
            '{{"city": "Zürich", "floors": [1, 2]}}'::jsonb));
        SELECT djactor.send('shop.order', 'A-2',
            '{{"article": "4711", "customer": "bob", "card": "stolen", "number": "4000 0000"}}');
        SELECT djactor.send('shop.order', 'A-3',
            '{{"article": "0815", "customer": "eve", "card": "expired"}}')"""
    )
    until(empty, "SELECT count(*) = 2 FROM djactor.dead_letter")
    until(empty, "SELECT count(*) = 1 FROM djactor.actor WHERE actor_type = 'shop.mail'")
    return empty


def until(site, condition):
    for _ in range(600):
        if site.sql(f"{condition}; SELECT pg_sleep(0.05)").startswith("t"):
            return
    raise AssertionError(f"never: {condition}")


# Whether the focus can be seen, of the element that has it.
SEEN = """element => {
    const style = getComputedStyle(element);
    return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0
        || style.boxShadow !== 'none';
}"""


# Keeps what an element shows, in data-texts: a figure stands there until the next refresh only.
KEEP_TEXTS = """element => {
    element.dataset.texts = "";
    const keep = () => element.dataset.texts += ` ${element.textContent}`;
    new MutationObserver(keep).observe(element, {childList: true});  // say() sets textContent
}"""


def tab_to(page, target, limit=120):
    """Press Tab until the element has the focus, which must be seen."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            assert target.evaluate(SEEN), "the focus cannot be seen"
            return
    raise AssertionError("Tab does not lead there")


# Before the shop is there


def test_an_empty_site_says_so(empty, visit, screenshot):
    page = visit(LIVE)
    expect(page.get_by_role("row", name="chat.room running")).to_be_visible()
    expect(page.locator('[data-tile="waiting"] .figure')).to_have_text("0")
    expect(page.locator(".errornote:visible")).to_have_count(0)
    page.goto(f"{empty.url}{ADMIN}/actortype/mailboxes/")
    expect(page.get_by_text("Nothing waits.")).to_be_visible()
    expect(page.get_by_text("No timer is set.")).to_be_visible()
    screenshot(page, "admin-mailboxes-empty")
    page.goto(f"{empty.url}{ADMIN}/actortype/trace/{'0' * 8}-0000-0000-0000-{'0' * 12}/")
    expect(page.get_by_text("Nothing is known of the trace")).to_be_visible()


# The live page


def test_the_live_page_shows_what_happens_while_it_happens(site, visit):
    page = visit(LIVE)
    mail = page.get_by_role("row", name="shop.mail")
    expect(mail).to_be_visible()
    with psycopg.connect(site.server.dsn(site.database, site.database)) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7)")
        site.sql(
            """SELECT djactor.send('shop.mail', 'slow', '{"lock": 7}');
            SELECT djactor.send('shop.mail', 'slow', '{}') FROM generate_series(1, 7)"""
        )
        expect(mail.locator("td").nth(1)).to_have_text("8")  # with the one that runs
        expect(page.locator('[data-tile="waiting"] .figure')).to_have_text("68")
        expect(page.locator("[data-tile='waiting'] .small")).to_contain_text("scheduled")
        worker = page.locator("[data-workers] tr", has_text="shop.mail")
        expect(worker).to_contain_text("busy")
        expect(page.locator('[data-tile="busy"] .figure')).to_have_text("1")
        message = worker.get_by_role("link").inner_text()
        assert message == site.sql("SELECT min(id) FROM djactor.message WHERE actor_key = 'slow'")
    expect(mail.locator("td").nth(1)).to_have_text("0")
    expect(page.locator('[data-tile="busy"] .figure')).to_have_text("0")
    points = re.compile("L.*L.*L")
    expect(page.locator('[data-tile="rate"] path.line')).to_have_attribute("d", points)


def test_failures_show_in_the_row_of_their_type(site, visit):
    page = visit(LIVE)
    payment = page.get_by_role("row", name="shop.payment")
    # With a point in the chart there is something to compare with.
    expect(page.locator("[data-tile='rate'] path.line")).to_have_attribute("d", re.compile("^M"))
    expect(payment.locator("svg").first).to_be_attached()  # the row that the server made is gone
    failures = payment.locator("td").nth(8)
    failures.evaluate(KEEP_TEXTS)
    site.sql(
        """SELECT djactor.send('shop.payment', 'fay-' || i, '{"card": "expired"}')
        FROM generate_series(1, 20) i"""
    )
    expect(failures).to_have_attribute("data-texts", re.compile("[1-9]"))
    expect(page.locator('[data-tile="failures"] .peak')).not_to_have_text("peak 0")
    letters = payment.get_by_role("link", name="22")
    letters.click()
    expect(page.locator("#result_list tbody tr")).to_have_count(22)
    site.sql("DELETE FROM djactor.dead_letter WHERE actor_key LIKE 'fay-%'")


def test_charts_begin_with_the_past_and_go_back_further(site, visit):
    site.server.sql(
        """INSERT INTO djactor.stat_history
        SELECT 'shop.mail', date_trunc('minute', now()) - make_interval(mins => 30 * n - 5), 1,
            60 * n, 0, 0, 0, 0, 0, 0, '{0,0,0,9}', '{9}' FROM generate_series(1, 20) n
        ON CONFLICT DO NOTHING""",
        site.database,
    )
    page = visit(LIVE)
    tile = page.locator("[data-tile='rate']")
    expect(tile.locator(".axis")).to_contain_text("1 h ago")
    expect(tile.locator("path.line")).to_have_attribute("d", re.compile("M([^L]*L){59}"))
    expect(tile.locator(".peak")).to_have_text("peak 2")
    wait = page.get_by_role("row", name="shop.mail").locator("td.spark").nth(2)
    expect(wait.locator("path.line")).to_have_attribute("d", re.compile("^M.*h.5"))  # with gaps
    tab_to(page, page.get_by_label("Charts show the last"))
    for reach, points, peak in (("6 hours", 71, "peak 2.4"), ("day", 95, "peak 1.3")):
        page.keyboard.press("ArrowDown")
        expect(page.get_by_label("Charts show the last")).to_have_value(reach)
        line = re.compile(f"M([^L]*L){{{points}}}")
        expect(tile.locator("path.line")).to_have_attribute("d", line)
        expect(tile.locator(".peak")).to_have_text(peak)
    expect(tile.locator(".axis")).to_contain_text("1 d ago")
    expect(tile.locator("svg")).to_have_attribute("aria-label", re.compile("the last 1 d: at most"))
    expect(page.locator("[data-tile='waiting'] .axis")).to_contain_text("2 min ago")
    page.keyboard.press("End")
    expect(tile.locator(".axis")).to_contain_text("2 min ago")
    site.sql("DELETE FROM djactor.stat_history WHERE actor_type = 'shop.mail'")


def test_only_a_wait_beyond_its_target_is_red(site, visit, accessible, screenshot):
    site.sql("SELECT djactor.alter_actor_type('shop.stock', wait_target => '1 us')")
    site.sql("SELECT djactor.send('shop.stock', '4711', '{}')")
    for look in ("light", "dark"):
        page = visit(LIVE, **LOOKS[look])
        late = page.locator(".late")
        expect(late).to_contain_text("> 1 µs")
        expect(page.locator("[data-tile='failures'] path.line")).to_have_attribute(
            "d", re.compile("^M")
        )
        accessible(page, advice=False, within="main")
        screenshot(page, f"admin-live-late-{look}", whole=False)
        red = page.evaluate(
            """() => {
                const probe = document.body.appendChild(document.createElement("i"));
                probe.style.color = "var(--error-fg)";
                const red = getComputedStyle(probe).color;
                return [...document.querySelectorAll("#djactor-live *")].filter(each => {
                    const style = getComputedStyle(each);
                    return each.checkVisibility()
                        && [style.color, style.stroke, style.fill].includes(red);
                }).map(each => each.className);
            }"""
        )
        assert red == ["n late"]
    site.sql("SELECT djactor.alter_actor_type('shop.stock', wait_target => NULL)")
    expect(page.locator(".late")).to_have_count(0)


def test_a_refresh_moves_neither_rows_nor_focus(site, visit):
    page = visit(LIVE)
    expect(page.locator("[data-status]")).to_contain_text("every 2 s")
    target = page.get_by_role("link", name="shop.order")
    tab_to(page, target)
    before = page.locator("[data-status]").inner_text()
    for _ in range(2):
        expect(page.locator("[data-status]")).not_to_have_text(before)
        before = page.locator("[data-status]").inner_text()
    assert target.evaluate("element => element === document.activeElement")


def test_refreshing_is_stopped_and_begun_again_with_the_keyboard(site, visit):
    page = visit(LIVE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.locator("[data-status]")).to_contain_text("every 2 s")
    tab_to(page, page.get_by_role("button", name="Stop refreshing"))
    page.keyboard.press("Space")
    expect(page.locator("[data-status]")).to_contain_text("Stopped at")
    asked.clear()
    page.wait_for_timeout(3000)
    assert asked == []
    with page.expect_request("**/live.json"):
        page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop refreshing")).to_be_focused()
    expect(page.locator("[data-status]")).to_contain_text("every 2 s")


def test_idle_types_are_hidden_on_request(site, visit):
    page = visit(LIVE)
    idle = page.get_by_role("row", name="chat.user")
    expect(idle).to_be_visible()
    tab_to(page, page.get_by_label("Hide idle types"))
    page.keyboard.press("Space")
    expect(idle).to_be_hidden()
    expect(page.get_by_role("row", name="shop.report")).to_be_visible()


def test_a_server_that_is_away_is_said_and_so_is_its_return(site, visit):
    page = visit(LIVE)
    expect(page.locator("[data-status]")).to_contain_text("every 2 s")
    page.route("**/live.json", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute("**/live.json")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.complaints.clear()  # of the server


def test_what_comes_after_stop_is_not_shown(site, visit):
    page = visit(LIVE)
    expect(page.locator("[data-status]")).to_contain_text("every 2 s")
    asked = []
    page.route("**/live.json", lambda route: asked.append(route))
    with page.expect_request("**/live.json"):
        pass
    page.get_by_role("button", name="Stop refreshing").click()
    expect(page.locator("[data-status]")).to_contain_text("Stopped at")
    route = asked[0]
    answer = route.fetch()
    with page.expect_response("**/live.json") as answered:
        route.fulfill(response=answer, body=json.dumps(answer.json() | {"held": True}))
    answered.value.finished()
    page.wait_for_timeout(200)
    expect(page.get_by_text("This database is a copy")).to_be_hidden()


def test_a_held_copy_is_said(site, visit):
    page = visit(LIVE)
    note = page.get_by_text("This database is a copy")
    expect(note).to_be_hidden()

    def hold(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps(answer.json() | {"held": True}))

    page.route("**/live.json", hold)
    expect(note).to_be_visible()
    page.unroute_all(behavior="wait")


def test_a_type_that_nobody_hosts_is_plain_to_see_and_so_is_a_host(
    site, visit, screenshot, accessible
):
    page = visit(LIVE)
    hosts = page.locator("[data-hosts] tr")
    expect(page.locator("[data-hosting]")).to_be_hidden()
    site.sql("SELECT djactor.define_actor_type('shop.web', NULL, hosted => true)")
    row = page.locator("[data-types] tr", has_text="shop.web")
    expect(row).to_contain_text("running hosted by nobody")
    site.sql("SELECT djactor.send('shop.web', 'k', '{}')")
    expect(row).to_contain_text("problem hosted by nobody")
    screenshot(page, "admin-live-hosted-by-nobody")
    with psycopg.connect(site.server.dsn(site.database, site.database), autocommit=True) as host:
        host.execute("SELECT djactor.host_open('{shop.web}', '<b>web</b>', version => '7')")
        expect(row).to_contain_text("running hosted")
        expect(hosts).to_have_count(1)
        for words in ("<b>web</b>", "7", "idle", "shop.web"):
            expect(hosts).to_contain_text(words)
        (token, *_) = host.execute("SELECT token FROM djactor.take(1)").fetchone()
        expect(hosts).to_contain_text("busy")
        host.execute("SELECT djactor.release(%s::bigint[])", [[token]])
        accessible(page)
        screenshot(page, "admin-live-hosts")
    expect(page.locator("[data-hosting]")).to_be_hidden()
    expect(row).to_contain_text("problem hosted by nobody")
    site.sql("SELECT djactor.drop_actor_type('shop.web', discard => true)")


# What is done, with the keyboard alone


def test_a_dead_letter_is_redriven_with_the_keyboard(site, visit):
    page = visit(f"{ADMIN}/deadletter/?type=shop.payment&q=bob")
    site.sql("SELECT djactor.pause('shop.payment')")  # so that it stays there
    tab_to(page, page.get_by_label("Action:"))
    page.keyboard.press("r")  # as in "Redrive selected dead letters"
    tab_to(page, page.get_by_role("row", name="bob").get_by_role("checkbox"))
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_have_text("1 dead letter redriven.")
    assert site.sql("SELECT actor_key FROM djactor.message WHERE actor_type = 'shop.payment'") == (
        "bob"
    )
    site.sql("SELECT djactor.resume('shop.payment')")
    until(site, "SELECT count(*) = 1 FROM djactor.dead_letter WHERE actor_key = 'bob'")


def test_a_dead_letter_is_discarded_with_the_keyboard_after_a_question(site, visit):
    site.sql("""SELECT djactor.send('shop.payment', 'zoe', '{"card": "stolen"}')""")
    until(site, "SELECT count(*) = 1 FROM djactor.dead_letter WHERE actor_key = 'zoe'")
    page = visit(f"{ADMIN}/deadletter/?q=zoe")
    tab_to(page, page.locator("#result_list tbody th a"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Discard"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("Are you sure you want to delete the selected")).to_be_visible()
    tab_to(page, page.get_by_role("button", name="Yes"))
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("Successfully deleted 1 dead letter")
    assert site.sql("SELECT count(*) FROM djactor.dead_letter WHERE actor_key = 'zoe'") == "0"


def test_a_type_is_paused_and_resumed_with_the_keyboard(site, visit):
    page = visit(f"{ADMIN}/actortype/shop.stock/change/")
    for word, paused in (("Pause", "t"), ("Resume", "f")):
        tab_to(page, page.get_by_role("button", name=word))
        page.keyboard.press("Enter")
        expect(page.locator(".messagelist")).to_contain_text(f"1 actor type {word.lower()}d.")
        stock = "SELECT paused FROM djactor.actor_type WHERE name = 'shop.stock'"
        assert site.sql(stock) == paused
        page.goto(f"{site.url}{ADMIN}/actortype/shop.stock/change/")


def test_a_timer_is_paused_and_resumed_with_the_keyboard(site, visit):
    page = visit(f"{ADMIN}/actortype/timers/")
    tab_to(page, page.get_by_role("link", name="monthly"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name="Europe/Berlin")).to_have_count(3)  # zone, rule, times
    expect(page.get_by_text("2100-02-28 09:00:00 +01:00")).to_be_visible()
    for word, paused in (("Pause", "t"), ("Resume", "f")):
        tab_to(page, page.get_by_role("button", name=word))
        page.keyboard.press("Enter")
        expect(page.locator(".messagelist")).to_contain_text(f"monthly was {word.lower()}d.")
        monthly = "SELECT paused_at IS NOT NULL FROM djactor.timer WHERE name = 'monthly'"
        assert site.sql(monthly) == paused


def test_a_dead_letter_is_edited_and_redriven_with_the_keyboard(site, visit, accessible):
    site.sql("""SELECT djactor.send('shop.payment', 'ivy', '{"card": "stolen"}')""")
    until(site, "SELECT count(*) = 1 FROM djactor.dead_letter WHERE actor_key = 'ivy'")
    page = visit(f"{ADMIN}/deadletter/?q=ivy")
    tab_to(page, page.locator("#result_list tbody th a"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("link", name="Edit and redrive"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_label("Payload"))
    page.keyboard.press("Control+A")
    page.keyboard.type('{"card": visa}')
    tab_to(page, page.get_by_role("button", name="Redrive"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")
    expect(page.get_by_label("Payload")).to_have_value('{"card": visa}')
    accessible(page, advice=False, within="main")
    tab_to(page, page.get_by_label("Payload"))
    page.keyboard.press("Control+A")
    page.keyboard.type('{"card": "visa", "customer": "ivy"}')
    tab_to(page, page.get_by_role("button", name="Redrive"))
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("was redriven with a payload")
    until(site, "SELECT count(*) = 1 FROM djactor.journal WHERE actor_type = 'shop.payment'"
        " AND actor_key = 'ivy'")  # fmt: skip


def test_a_group_is_redriven_and_discarded_with_the_keyboard(
    site, visit, accessible, fits, screenshot
):
    site.sql(
        """SELECT djactor.send('shop.payment', 'kim-' || i, jsonb_build_object('card', 'stolen',
            'number', 'of Kim ' || i)) FROM generate_series(1, 30) i"""
    )
    kims = "SELECT count(*) = {} FROM djactor.dead_letter WHERE actor_key LIKE 'kim-%'"
    until(site, kims.format(30))
    site.sql("SELECT djactor.pause('shop.payment')")
    page = visit(f"{ADMIN}/actortype/failures/")
    kim = page.get_by_role("row", name="card of Kim # is reported stolen")
    expect(kim).to_contain_text("30")
    accessible(page, advice=False, within="main")
    fits(page)
    tab_to(page, kim.get_by_role("button", name="Redrive one"))
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_have_text("1 dead letter redriven.")
    assert site.sql(kims.format(29)) == "t"
    tab_to(page, kim.get_by_role("button", name="Discard"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("29 dead letters will be deleted")).to_be_visible()
    accessible(page, advice=False, within="main")
    screenshot(page, "admin-discard-a-group")
    tab_to(page, page.get_by_role("button", name="Discard dead letters"))
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_have_text("29 dead letters discarded.")
    site.sql("SELECT djactor.cancel(id) FROM djactor.message WHERE actor_key LIKE 'kim-%'")
    site.sql("SELECT djactor.resume('shop.payment')")


def test_an_actor_is_stopped_with_the_keyboard_after_a_question(site, visit):
    site.sql("SELECT djactor.send('shop.mail', 'tom')")
    until(site, "SELECT count(*) = 1 FROM djactor.actor WHERE actor_key = 'tom'")
    page = visit(f"{ADMIN}/actor/?q=tom")
    tab_to(page, page.locator("#result_list tbody th a"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Stop"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("Their states and timers are deleted")).to_be_visible()
    tab_to(page, page.get_by_role("button", name="Stop an actor"))
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_have_text("1 actor stopped.")
    assert site.sql("SELECT count(*) FROM djactor.actor WHERE actor_key = 'tom'") == "0"


@pytest.mark.parametrize("path", [LIVE, f"{ADMIN}/actortype/mailboxes/"])
def test_tab_reaches_all_there_is_and_leaves_again(site, visit, path):
    page = visit(path)
    if path == LIVE:
        expect(page.locator("[data-status]")).to_contain_text("every 2 s")
        tab_to(page, page.get_by_role("button", name="Stop refreshing"))
        page.keyboard.press("Enter")
        page.evaluate("document.activeElement.blur()")
    there = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, select, [tabindex=\"0\"]')].filter("
        "element => element.checkVisibility() && element.type !== 'hidden').length"
    )
    page.evaluate("window.visited = new Set()")
    unseen = []
    for _ in range(there + 5):
        page.keyboard.press("Tab")
        focused = page.evaluate_handle(
            "visited.add(document.activeElement), document.activeElement"
        )
        if focused.evaluate("element => element !== document.body") and not focused.evaluate(SEEN):
            unseen.append(focused.evaluate("element => element.outerHTML"))
    assert page.evaluate("visited.delete(document.body), visited.size") == there
    assert unseen == []


# How it looks


def pages(site):
    found = site.sql(
        """SELECT (SELECT id FROM djactor.actor WHERE actor_key = 'A-1'), id, trace_id,
            (SELECT id FROM djactor.journal WHERE actor_key = 'A-1'),
            (SELECT min(id) FROM djactor.message WHERE actor_type = 'shop.report')
        FROM djactor.dead_letter WHERE actor_key = 'bob'"""
    )
    actor, letter, trace, entry, message = found.split("|")
    return {
        "app": f"{ADMIN}/",
        "live": LIVE,
        "failures": f"{ADMIN}/actortype/failures/",
        "mailboxes": f"{ADMIN}/actortype/mailboxes/",
        "life": f"{ADMIN}/actortype/life/?type=shop.payment&key=bob",
        "send": f"{ADMIN}/message/add/?type=shop.order&key=A-1",
        "edit-and-redrive": f"{ADMIN}/deadletter/{letter}/redrive/",
        "timers": f"{ADMIN}/actortype/timers/",
        "timer": f"{ADMIN}/actortype/timer/?type=shop.report&key=all&name=monthly",
        "trace": f"{ADMIN}/actortype/trace/{trace}/",
        "types": f"{ADMIN}/actortype/",
        "type": f"{ADMIN}/actortype/shop.report/change/",
        "actors": f"{ADMIN}/actor/",
        "actor": f"{ADMIN}/actor/{actor}/change/",
        "messages": f"{ADMIN}/message/",
        "message": f"{ADMIN}/message/{message}/change/",
        "dead-letters": f"{ADMIN}/deadletter/",
        "dead-letter": f"{ADMIN}/deadletter/{letter}/change/",
        "journal": f"{ADMIN}/journal/",
        "entry": f"{ADMIN}/journal/{entry}/change/",
    }


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_for_everybody(site, visit, accessible, fits, screenshot, look):
    wanted = pages(site)
    if look == "dark":  # the others have no colours of djactor's that "phone" would not show
        dark = ("live", "failures", "mailboxes", "timer", "trace", "actor", "send")
        wanted = {name: wanted[name] for name in dark}
    page = visit(LIVE, **LOOKS[look])
    for name, path in wanted.items():
        page.goto(site.url + path)
        if name == "live":
            expect(page.locator('[data-tile="failures"] path.line')).to_have_attribute(
                "d", re.compile("^M")
            )
        screenshot(page, f"admin-{name}-{look}")
        accessible(page, advice=False, within="main")  # the frame is Django's own
        fits(page)


def test_what_was_put_off_is_for_everybody_too(site, visit, accessible, fits, screenshot):
    site.sql(
        f"""CREATE FUNCTION shop_invoice_handle(state jsonb, message jsonb) RETURNS void
        LANGUAGE plpgsql AS $$BEGIN
            RAISE 'could not open file "/srv/invoices/template-of-the-year.html": no such file'
                USING ERRCODE = '58P01';
        END$$;
        SELECT djactor.define_actor_type('shop.invoice', 'shop_invoice_handle', backoff => '1 h');
        SELECT djactor.send('shop.invoice', '{LONG_KEY}', '{{}}')"""
    )
    until(site, "SELECT max(put_offs) = 3 FROM djactor.mailbox")
    page = visit(f"{ADMIN}/actortype/mailboxes/", **LOOKS["phone"])
    expect(page.get_by_role("region", name="Put off")).to_contain_text("could not open file")
    screenshot(page, "admin-mailboxes-put-off")
    accessible(page, advice=False, within="main")
    fits(page)
    site.sql(
        "SELECT djactor.drop_actor_type('shop.invoice', true);"
        " DROP FUNCTION shop_invoice_handle(jsonb, jsonb)"
    )


@pytest.mark.parametrize("model", ["message", "deadletter", "journal", "actor", "actortype"])
def test_lists_and_their_filters_fit_into_1280_pixels(site, visit, fits, model):
    page = visit(f"{ADMIN}/{model}/")
    table = page.locator("#result_list")
    assert table.evaluate("e => e.scrollWidth <= e.closest('.results').clientWidth")
    fits(page)


def test_a_list_is_filtered_with_the_keyboard(site, visit):
    page = visit(f"{ADMIN}/deadletter/")
    tab_to(page, page.get_by_label("Reason"))
    page.keyboard.type("rejected")
    tab_to(page, page.get_by_label("Key"))
    page.keyboard.type("bob")
    page.keyboard.press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.get_by_label("Reason")).to_have_value("rejected")
    expect(page.get_by_label("Key")).to_have_value("bob")
    page.get_by_role("link", name="Show all").click()
    expect(page.get_by_label("Reason")).to_have_value("")


def test_the_admins_own_switch_of_light_and_dark_counts(site, visit, accessible):
    page = visit(LIVE)
    tile = page.locator("[data-tile='rate']")
    colours = []
    switch = page.locator("#header .theme-toggle")
    for theme in ("auto", "dark", "light"):  # for whom light is the system's
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        colours.append(tile.evaluate("element => getComputedStyle(element).backgroundColor"))
        accessible(page, advice=False, within="main")
        switch.click()
        # The links change their colour gently.
        page.evaluate("Promise.allSettled(document.getAnimations().map(each => each.finished))")
    assert colours[0] == colours[2] != colours[1]


def test_much_of_everything_is_shown_in_part_and_said(site, visit, fits, screenshot):
    site.sql(
        """
        SELECT djactor.define_actor_type(format('tenant.%s.nightly_import_of_catalogue', i),
            'shop_count_handle') FROM generate_series(1, 220) i;
        SELECT djactor.send('shop.report', 'year-' || i, '{}') FROM generate_series(1, 12000) i"""
    )
    page = visit(LIVE)
    expect(page.get_by_text("more, less busy")).to_contain_text("And 27 more")
    expect(page.locator("[data-types] tr")).to_have_count(200)
    expect(page.get_by_role("row", name="shop.report")).to_contain_text("12,060")
    fits(page)
    screenshot(page, "admin-live-much", whole=False)
    page.goto(f"{site.url}{ADMIN}/message/")
    expect(page.get_by_text("There may be more: 10,000 are counted")).to_be_visible()
    fits(page)
    screenshot(page, "admin-messages-much", whole=False)
    page.goto(f"{site.url}{ADMIN}/actortype/mailboxes/")
    expect(page.get_by_text("The 100 longest are shown.")).to_be_visible()
