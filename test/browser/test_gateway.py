"""The page of examples/gateway in Chromium: buckets empty and breakers open before one's eyes."""

import contextlib
import re
import socket

import httpx
import pytest
from playwright.sync_api import expect

PATIENCE = 30_000  # milliseconds to wait for what must happen
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def site(example_server):
    """With two clients, and an upstream that nobody serves."""
    site = example_server("gateway", fsync=False)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    site.sql(f"""
        INSERT INTO gateway_client VALUES ('gold', 20, 40), ('bronze', 0.01, 5);
        INSERT INTO gateway_upstream (name, url, failures, cool_down)
            VALUES ('prices', 'http://127.0.0.1:{port}', 3, '1 h')""")
    return site


def card(page, name):
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))


@pytest.fixture
def quiet_page(page):
    """A page whose console may tell of the gateway's answers, which are errors here."""
    yield page
    page.complaints[:] = [text for text in page.complaints if "Failed to load" not in text]


def test_buckets_empty_and_breakers_open(site, quiet_page, screenshot, accessible, fits):
    page = quiet_page
    page.goto(site.url)
    expect(card(page, "prices")).to_contain_text("closed")
    card(page, "bronze").get_by_role("button", name="Send 30").click()
    expect(page.get_by_role("status")).to_contain_text("25 with 429", timeout=PATIENCE)
    expect(card(page, "bronze")).to_contain_text("5 passed, 25 refused", timeout=PATIENCE)
    expect(card(page, "bronze")).to_contain_text("0 tokens")
    expect(card(page, "prices")).to_have_class(re.compile("open"), timeout=PATIENCE)
    expect(page.get_by_role("row").filter(has_text="ask the bucket")).to_be_visible(
        timeout=PATIENCE
    )
    card(page, "gold").get_by_role("button", name="Send 1").click()
    expect(page.get_by_role("status")).to_have_text("gold: 1 with 503", timeout=PATIENCE)
    accessible(page)
    fits(page)
    screenshot(page, "gateway-light")


def test_what_others_send_shows_too_and_tokens_come_back(site, page):
    page.goto(site.url)
    for _ in range(40):
        httpx.get(f"{site.url}/api/prices/x", headers={"X-Client": "gold"}, timeout=PATIENCE / 1000)
    expect(card(page, "gold")).to_contain_text(re.compile(r"4\d passed"), timeout=PATIENCE)
    expect(card(page, "gold")).to_contain_text("40 tokens", timeout=PATIENCE)  # without a request


@pytest.mark.parametrize("look", [{"color_scheme": "dark"}, {"viewport": PHONE}])
def test_it_is_readable_in_the_dark_and_on_a_phone(
    site, new_page, screenshot, accessible, fits, look
):
    page = new_page(**look)
    page.goto(site.url)
    expect(card(page, "prices")).to_contain_text("open", timeout=PATIENCE)
    accessible(page)
    fits(page)
    screenshot(page, f"gateway-{look.get('color_scheme', 'phone')}")
