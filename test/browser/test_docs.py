"""The site of docs/ in Chromium: readable by everybody, on a phone too, and searchable offline.

The fixture ``new_page`` fails a test whose page asks another host for anything.
"""

import functools
import http.server
import threading

import pytest
from playwright.sync_api import expect

PHONE = {"width": 360, "height": 740}
LOOKS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone-light": {"viewport": PHONE},
    "phone-dark": {"viewport": PHONE, "color_scheme": "dark"},
}
# One of each kind: the first, much prose and code, what Sphinx makes of docstrings.
PAGES = ["docs/index", "docs/testing", "docs/python"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(docs_site):
    """The address of the site, served from its directory."""
    handler = functools.partial(Quiet, directory=docs_site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("look", LOOKS)
def test_the_pages_are_for_everybody(site, new_page, accessible, fits, screenshot, look):
    page = new_page(**LOOKS[look])
    for name in ["README", *PAGES * (look in ("light", "phone-dark"))]:
        page.goto(f"{site}/{name}.html")
        screenshot(page, f"docs-{name.split('/')[-1]}-{look}", whole=False)
        fits(page)
        accessible(page, advice=False, within="article")


def test_the_first_address_leads_to_the_pages(site, page):
    page.goto(f"{site}/")
    expect(page).to_have_url(f"{site}/docs/index.html")


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_word_is_found(site, docs_site, page, scheme):
    page.goto(f"{site if scheme == 'http' else docs_site.as_uri()}/docs/index.html")
    page.get_by_placeholder("Search").fill("redrive")
    page.get_by_placeholder("Search").press("Enter")
    expect(page.locator("ul.search li").first).to_be_visible()
    expect(page.locator("ul.search")).to_contain_text("SQL: tables, functions")
    if scheme == "file":  # a browser fetches nothing from a disk: there are no excerpts
        page.close()
        blocked = ("Access to fetch", "Failed to fetch", "Failed to load resource")
        page.complaints[:] = [said for said in page.complaints if not said.startswith(blocked)]
