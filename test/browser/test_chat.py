"""The chat example: two people in two browsers see each other's posts, in order."""

import pytest
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def site(example_server):
    return example_server("chat")


@pytest.fixture
def enter(site, new_page):
    """``enter(name, room)``: a page of that person in that room, live."""

    def enter(name, room="lobby", **options):
        page = new_page(**options)
        page.goto(site.url)
        page.get_by_label("Your name").fill(name)
        page.get_by_label("Room").fill(room)
        page.keyboard.press("Enter")
        page.locator("#link.live").wait_for()
        return page

    return enter


def say(page, *texts):
    for text in texts:
        page.get_by_label("Say as").fill(text)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Say as")).to_have_value("")


def heard(page, number):
    """The first so many posts that the page shows, as soon as they are there."""
    page.locator("#log li").nth(number - 1).wait_for()
    return [
        (post.locator("b").inner_text(), post.locator("p").inner_text())
        for post in page.locator("#log li").all()
    ]


def test_two_browsers_see_each_others_posts_in_order(enter, screenshot):
    ada, bob = enter("Ada"), enter("Bob")
    said = []
    for text in ("Hello, anybody here?", "This room is an actor.", "One turn at a time."):
        for name, page in (("Ada", ada), ("Bob", bob)):
            say(page, f"{text} ({name})")
            said.append((name, f"{text} ({name})"))
    assert heard(ada, 6) == heard(bob, 6) == said
    # the figures come with an event of their own
    expect(ada.locator("#posts")).to_have_text("6")
    expect(ada.locator("#people")).to_have_text("2")
    assert "Ada" in ada.locator("#log li.own").first.inner_text()
    screenshot(ada, "chat", whole=False)


def test_both_write_at_the_same_time_and_see_the_same(enter):
    ada, bob = enter("Ada", "busy"), enter("Bob", "busy")
    for number in range(10):  # neither waits for the other
        for page in (ada, bob):
            page.get_by_label("Say as").fill(str(number))
            page.keyboard.press("Enter")
        for page in (ada, bob):
            expect(page.get_by_label("Say as")).to_have_value("")
    seen = heard(ada, 20)
    assert heard(bob, 20) == seen
    for name in ("Ada", "Bob"):
        assert [text for who, text in seen if who == name] == [str(n) for n in range(10)]


def test_what_is_posted_is_text(enter):
    page = enter("<i>Eve</i>", "text")
    say(page, "<b>bold</b> & <script>alert(1)</script>")
    assert heard(page, 1) == [("<i>Eve</i>", "<b>bold</b> & <script>alert(1)</script>")]
    page.reload()
    assert heard(page, 1) == [("<i>Eve</i>", "<b>bold</b> & <script>alert(1)</script>")]


def test_a_post_whose_answer_is_lost_is_sent_again_and_said_once(site, enter):
    page = enter("Ada", "lossy")
    lose = "**/rooms/lossy/"

    def handle(route):
        route.fetch(max_redirects=0)  # it arrives
        route.abort()  # but who sent it does not hear of it

    page.route(lose, handle)
    page.get_by_label("Say as").fill("once")
    page.keyboard.press("Enter")
    page.locator("#trouble", has_text="Not sent").wait_for()
    page.unroute(lose)
    say(page, "once")
    say(page, "twice")
    assert heard(page, 2) == [("Ada", "once"), ("Ada", "twice")]
    assert site.sql("SELECT count(*) FROM chat_chatmessage WHERE room = 'lossy'") == "2"
    page.complaints.clear()  # of the lost answer


def test_what_was_said_while_the_site_was_away_comes_when_it_is_back(site, enter):
    page = enter("Ada", "away")
    say(page, "a")
    site.close()
    page.locator("#link:not(.live)").wait_for()
    site.sql(
        "SELECT djactor.send('chat.room', 'away', jsonb_build_object('author', 'Bob', 'text', t))"
        " FROM unnest('{b,c,d}'::text[]) t; SELECT djactor.wait_idle('30 s')"
    )
    site.serve()
    assert heard(page, 4) == [("Ada", "a"), ("Bob", "b"), ("Bob", "c"), ("Bob", "d")]
    page.locator("#link.live").wait_for()
    page.complaints.clear()  # of the line


def test_without_scripts_the_page_posts_and_shows(site, new_page):
    page = new_page(java_script_enabled=False)
    page.goto(site.url)
    page.get_by_label("Your name").fill("Lynx")
    page.get_by_label("Room").fill("plain")
    page.get_by_role("button", name="Enter").click()
    for text in ("first", "second"):
        page.get_by_label("Say as").fill(text)
        with page.expect_navigation():
            page.get_by_role("button", name="Send").click()
    site.sql("SELECT djactor.wait_idle('30 s')")
    page.reload()
    assert heard(page, 2) == [("Lynx", "first"), ("Lynx", "second")]


@pytest.mark.parametrize("look", ["light", "dark"])
def test_everybody_can_read_and_reach_it(site, enter, accessible, fits, screenshot, look):
    options = {"color_scheme": look, "viewport": {"width": 360, "height": 740}}
    page = enter("Ada-with-a-name-of-forty-characters-----", f"long-{look}", **options)
    say(page, "word " * 99, "w" * 500)
    heard(page, 2)
    accessible(page)
    fits(page)
    screenshot(page, f"chat-phone-{look}", whole=False)
    page.goto(site.url)
    accessible(page)
    fits(page)
    screenshot(page, f"chat-rooms-{look}")
