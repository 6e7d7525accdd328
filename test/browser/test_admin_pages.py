"""The admin's pages in Chromium."""

import pytest


@pytest.fixture(scope="module")
def site(example_server):
    return example_server("chat")


def test_login(site, page, accessible, screenshot):
    page.goto(f"{site.url}/admin/")
    screenshot(page, "admin-login")
    accessible(page, advice=False)  # the page is Django's own
