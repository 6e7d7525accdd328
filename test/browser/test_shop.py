"""The pages of examples/shop in Chromium: a cart is filled and bought, and its order moves on."""

import os
import socket
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from private_server import end_with

PATIENCE = 30_000  # milliseconds to wait for what must happen
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def site(example_server, tmp_path_factory):
    """With three products, a bank that answers, and a process that runs hosted turns."""
    site = example_server("shop", fsync=False)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    folder = tmp_path_factory.mktemp("shop")
    site.environment |= {"SHOP_BANK_URL": f"http://127.0.0.1:{port}", "SHOP_MAIL_DIR": str(folder)}
    site.sql("""
        INSERT INTO shop_product (slug, name, price, delivered, stock) VALUES
            ('tea', 'Tea', 450, 30, 30), ('cake', 'Cake', 1250, 30, 30),
            ('pot', 'Pot', 3900, 3, 3)""")
    bank = subprocess.Popen(
        [sys.executable, site.folder / "bank_server.py", "--port", port, "--books", folder / "b"],
        preexec_fn=end_with(os.getpid()),
    )
    worker = site.start("djactor_worker")
    yield site
    worker.terminate()
    worker.wait()
    bank.kill()
    bank.wait()


def put(page, product, quantity):
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=product))
    card.get_by_label("In the cart").fill(str(quantity))
    card.get_by_role("button", name="Change").click()
    expect(card.get_by_label("In the cart")).to_have_value(str(quantity))


def buy(page, card):
    page.get_by_label("E-mail").fill("ann@example.org")
    page.get_by_label("Card").fill(card)
    page.get_by_role("button", name="Buy").click()


def test_a_cart_is_bought_and_the_order_moves_on_by_itself(
    site, page, screenshot, accessible, fits
):
    page.goto(site.url)
    put(page, "Tea", 2)
    put(page, "Cake", 1)
    expect(page.get_by_text("Together 2150 cents")).to_be_visible()
    accessible(page)
    fits(page)
    screenshot(page, "shop-light")
    buy(page, "4111 1111")
    expect(page.get_by_role("status")).to_have_text("paid, on its way", timeout=PATIENCE)
    accessible(page)
    fits(page)
    screenshot(page, "shop-order")


@pytest.mark.parametrize("look", [{"color_scheme": "dark"}, {"viewport": PHONE}])
def test_it_is_readable_in_the_dark_and_on_a_phone(
    site, new_page, screenshot, accessible, fits, look
):
    page = new_page(**look)
    page.goto(site.url)
    put(page, "Tea", 2)
    put(page, "Cake", 1)
    accessible(page)
    fits(page)
    screenshot(page, f"shop-{look.get('color_scheme', 'phone')}")
    buy(page, "0000")
    expect(page.get_by_role("status")).to_have_text("cancelled", timeout=PATIENCE)
    accessible(page)


def test_the_admin_shows_an_order_and_delivers(site, page, superuser):
    name, password = superuser(site)
    page.goto(f"{site.url}/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{site.url}/admin/shop/order/")
    page.get_by_role("row").filter(has_text="paid").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Reservations")).to_be_visible()
    page.goto(f"{site.url}/admin/shop/product/")
    page.get_by_role("row").filter(has_text="Pot").get_by_role("checkbox").check()
    page.locator("select[name=action]").select_option(label="Ten more have come")
    page.locator("button[name=index]").click()
    expect(page.get_by_text("They are on the shelf.")).to_be_visible()
    assert site.sql("SELECT delivered, stock FROM shop_product WHERE slug = 'pot'") == "13|13"
