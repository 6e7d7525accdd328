"""docs/live.png, the picture of the live page: ``make screenshot`` takes it anew.

A shop on a private server is kept busy while the page gathers its charts; some cards have expired,
so that there are failures to show.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from django_site import DjangoSite
from private_server import PrivateServer, ServerError

TOP = Path(__file__).resolve().parents[1]
LARGEST = 150_000  # bytes
LOAD = """
    SELECT djactor.send('shop.order', 'A-' || i, jsonb_build_object('article', '4711',
        'customer', 'ada', 'card', CASE WHEN random() < 0.1 THEN 'expired' ELSE 'visa' END))
    FROM generate_series(1, 1 + (random() * 12)::int) i
"""
MORE = """
    SELECT djactor.pause('shop.report');
    SELECT djactor.send('shop.report', 'month-' || i % 9) FROM generate_series(1, 60) i;
    SELECT djactor.send('shop.stock', 'later', deliver_at => now() + '1 day')
"""


def main() -> int:
    """Take the picture.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=TOP / "docs" / "live.png")
    parser.add_argument("--seconds", type=float, default=125, help="that the charts show")
    options = parser.parse_args()
    with (
        PrivateServer({"djactor.max_workers": 2, "fsync": False}) as server,
        DjangoSite(TOP / "examples" / "chat", "chatsite", "CHAT_DB", server) as site,
        sync_playwright() as playwright,
    ):
        site.sql((TOP / "test" / "browser" / "shop.sql").read_text())
        site.sql(MORE)
        site.manage(
            *("createsuperuser", "--noinput", "--username", "operator", "--email", "o@example.org"),
            DJANGO_SUPERUSER_PASSWORD="of this picture",
        )
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium")
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-GB")
        page.set_default_timeout(120_000)
        page.goto(f"{site.url}/admin/djactor/actortype/live/")
        page.get_by_label("Username").fill("operator")
        page.get_by_label("Password").fill("of this picture")
        page.get_by_role("button").last.click()
        page.wait_for_selector("[data-tile='rate']")
        page.get_by_label("Hide idle types").check()
        # A site that is as young as this one has no hour to show.
        page.get_by_label("Charts show the last").select_option("2 minutes")
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            site.sql(LOAD)
            page.wait_for_timeout(300)
        page.screenshot(path=options.into)
        browser.close()
    size = options.into.stat().st_size
    if size > LARGEST:
        print(f"screenshot: {options.into} has {size} bytes, more than {LARGEST}", file=sys.stderr)
    return int(size > LARGEST)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        sys.exit(f"screenshot: {error}")
