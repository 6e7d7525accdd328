"""The page of examples/events in Chromium: what devices say shows without a reload."""

import datetime
import itertools
import re

import httpx
import pytest
from playwright.sync_api import expect

PATIENCE = 30_000  # milliseconds to wait for what must happen
PHONE = {"width": 360, "height": 740}
IDS = itertools.count()


@pytest.fixture(scope="module")
def site(example_server):
    site = example_server("events", fsync=False)
    ovens = [f"oven-{number}" for number in range(1, 9)]
    send(site, *[(oven, 60 + value * int(oven[-1]) % 20) for oven in ovens for value in range(40)])
    return site


def send(site, *readings):
    at = datetime.datetime.now(datetime.timezone.utc).isoformat()
    events = [
        {"id": f"e{next(IDS)}", "device": device, "at": at, "value": value}
        for device, value in readings
    ]
    httpx.post(f"{site.url}/events/", json=events, timeout=PATIENCE / 1000).raise_for_status()


def show(site, page):
    page.goto(site.url)
    page.set_default_timeout(PATIENCE)
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="oven-2"))


def test_values_and_alerts_come_by_themselves(site, page, screenshot, accessible, fits):
    oven = show(site, page)
    expect(page.locator("#devices > li")).to_have_count(8, timeout=PATIENCE)
    for value, shown in ((81.5, "81.5"), (77, "77.0"), (60, "60.0")):
        send(site, ("oven-2", value))
        expect(oven).to_contain_text(shown, timeout=PATIENCE)
    alert = page.locator("#alerts > li").filter(has_text="oven-2 is hot: 81.5")
    expect(alert).to_have_class("over", timeout=PATIENCE)
    send(site, ("oven-2", 99))
    expect(oven).to_have_class(re.compile("hot"), timeout=PATIENCE)
    expect(page.locator("#alerts > li.hot")).to_contain_text("oven-2 is hot: 99.0")
    accessible(page)
    fits(page)
    screenshot(page, "events-light")


def test_a_silent_device_and_a_new_one_show(site, page):
    show(site, page)
    site.sql("INSERT INTO events_device (name, silent_after) VALUES ('aaa', '0.2 s')")
    send(site, ("aaa", 1))
    first = page.locator("#devices > li").first
    expect(first).to_contain_text("aaa", timeout=PATIENCE)
    expect(first).to_contain_text("silent", timeout=PATIENCE)
    expect(page.get_by_role("status")).to_contain_text("9 devices")


@pytest.mark.parametrize("look", [{"color_scheme": "dark"}, {"viewport": PHONE}])
def test_it_is_readable_in_the_dark_and_on_a_phone(
    site, new_page, screenshot, accessible, fits, look
):
    page = new_page(**look)
    oven = show(site, page)
    expect(oven).to_be_visible()
    expect(page.locator("#alerts > li").first).to_be_visible()
    accessible(page)
    fits(page)
    screenshot(page, f"events-{look.get('color_scheme', 'phone')}")


def test_the_page_finds_its_server_again(site, page):
    oven = show(site, page)
    expect(oven).to_be_visible()
    site.server.restart("immediate")
    for _ in range(PATIENCE // 100):
        try:
            send(site, ("oven-2", 61.5))
            break
        except httpx.HTTPStatusError:  # 503, while the site's pool connects again
            page.wait_for_timeout(100)
    expect(oven).to_contain_text("61.5", timeout=PATIENCE)
