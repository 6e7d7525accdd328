"""A real browser before real sites: the fixtures of the tests beside this file.

``page`` is a page in Chromium, ``new_page()`` opens more of them, in dark colours or as narrow as a
phone.  The sites come from ``example_server(name)``, in the directory above.

What always holds: each page has a browser profile of its own, as another person would; a test
fails if one of its pages logged an error to the console, threw an exception, broke the content
security policy, or asked another host than the site's.  Screenshots are kept where
``DJACTOR_SCREENSHOTS`` says (``make test``: in ``.build/screenshots``), and are for people; no test
compares pixels.

Playwright runs an event loop in the thread of the tests while it is there.  So it is there for one
module at a time, and not for the tests of other directories, which run loops of their own.
"""

import os
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30_000  # milliseconds to wait for what must happen
PHONE = {"width": 360, "height": 740}
expect.set_options(timeout=PATIENCE)
DESKTOP = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--disable-quic", "--disable-sync", "--no-first-run"],
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium):
    """``new_page(color_scheme=..., viewport=...)``: a page of its own person.

    The options are those of Playwright's ``new_context()``.
    """
    contexts, complaints = [], []

    def console(said):
        # A site without an icon is asked for one all the same.
        if said.type == "error" and not said.location["url"].endswith("/favicon.ico"):
            complaints.append(said.text)

    def open_page(**options):
        context = chromium.new_context(**{"viewport": DESKTOP, "locale": "en-GB"} | options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                re.match(r"http://127\.0\.0\.1:|data:|blob:|file:", request.url)
                or complaints.append(f"asks for {request.url}")
            ),
        )
        page.complaints = complaints
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(new_page):
    """A page in Chromium, light and as wide as a desktop."""
    return new_page()


@pytest.fixture(scope="session")
def screenshot():
    """``screenshot(page, name, whole=True)``: keeps a picture of the page, for people."""
    folder = Path(os.environ.get("DJACTOR_SCREENSHOTS", ROOT / ".build" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def take(page, name, whole=True):
        page.screenshot(path=folder / f"{name}.png", full_page=whole)

    return take


@pytest.fixture(scope="session")
def accessible():
    """``accessible(page)``: fails with what axe-core finds: contrast, names, roles, landmarks.

    The rules are those of WCAG 2.2, levels A and AA, and axe's own advice unless ``advice=False``;
    ``within`` is a selector of the part that is checked.
    """
    wcag = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

    def check(page, advice=True, within="html"):
        rules = {
            "runOnly": wcag + ["best-practice"] * advice,
            "resultTypes": ["violations"],
            "preload": False,  # would load style sheets in a way that policies forbid
        }
        found = Axe().run(page, within, rules).response["violations"]
        report = [
            f"{rule['id']}: {rule['help']}\n    {node['html'][:200]}\n    {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]
        assert report == [], "\n".join(report)

    return check


@pytest.fixture(scope="session")
def fits():
    """``fits(page)``: fails if the page is wider than its window."""

    def check(page):
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{wide} pixels too wide"

    return check


@pytest.fixture(scope="session")
def superuser():
    """``superuser(site)``: creates one; the result is its name and password."""

    def create(site, name="operator", password="only for this test"):
        site.manage(
            *("createsuperuser", "--noinput", "--username", name, "--email", "o@example.org"),
            DJANGO_SUPERUSER_PASSWORD=password,
        )
        return name, password

    return create
