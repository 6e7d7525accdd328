"""examples/shop: each order is paid once and its goods taken once, or all of it is undone.

Whatever dies meanwhile: hosts, their supervisor, the bank, workers and with them the server.
"""

import concurrent.futures
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from private_server import end_with

PATIENCE = 60  # seconds
CUSTOMERS = 4
PAUSE = 0.5  # seconds between two orders of a customer
DEADLINE, HOLD = 6, 9  # seconds of an order, and of a reservation
UNRELIABLE = ["--delay", "0.4", "--fail", "0.2", "--lose", "0.2"]
RELIABLE = ["--delay", "0"]


class Process:
    """A process that can be killed and started again."""

    def __init__(self, command, folder, environment):
        self.command = command
        self.folder = folder
        self.environment = environment
        self.process = None

    def start(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, *self.command, *arguments],
            cwd=self.folder,
            env=os.environ | self.environment,
            preexec_fn=end_with(os.getpid()),
        )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def children(self):
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def terminate(self):
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def site(example_server):
    # Processes are killed, the machine is not; and what they were executing is not to blame.
    return example_server("shop", fsync=False, **{"djactor.max_crashes": 1000})


@pytest.fixture(scope="module")
def mail(tmp_path_factory):
    """``mail(order)``: the ids of the mails about it."""
    folder = tmp_path_factory.mktemp("mail")

    def ids(order):
        # Two processes may write to one file: Django names it after the second.
        return {
            found
            for one in folder.iterdir()
            for found in re.findall(f"<{order}.*>", one.read_text())
        }

    ids.folder = folder
    return ids


@pytest.fixture(scope="module")
def bank(site, tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    books = tmp_path_factory.mktemp("bank") / "books"
    site.environment["SHOP_BANK_URL"] = f"http://127.0.0.1:{port}"
    process = Process(
        ["bank_server.py", "--port", str(port), "--books", str(books)], site.folder, {}
    )
    process.start(*RELIABLE)
    yield process
    process.kill()


@pytest.fixture(scope="module")
def worker(site, bank, mail):
    site.environment |= {
        "SHOP_MAIL_DIR": str(mail.folder),
        "SHOP_DEADLINE": str(DEADLINE),
        "SHOP_HOLD": str(HOLD),
    }
    process = Process(
        ["-m", "django", "djactor_worker", "--processes", "2"], site.folder, site._environment()
    )
    process.start()
    yield process
    process.terminate()


@pytest.fixture(scope="module", autouse=True)
def products(site, worker):
    site.sql(
        "INSERT INTO shop_product (slug, name, price, delivered, stock) VALUES"
        " ('tea', 'Tea', 450, 100000, 100000), ('cake', 'Cake', 1250, 100000, 100000),"
        " ('rare', 'Rare', 9900, 5, 5)"
    )


@pytest.fixture(scope="module")
def settled(site, until):
    """Returns when all orders have ended, and nothing waits."""

    def wait():
        try:
            until(lambda: site.sql("SELECT djactor.wait_idle('10 s')") == "t")
        except AssertionError:
            waits = site.sql("""
                SELECT now(), id, actor_type, actor_key, kind, attempts, put_offs, retry_at,
                    last_error
                FROM djactor.message WHERE deliver_at IS NULL OR deliver_at <= now() ORDER BY id""")
            hosts = site.sql("SELECT * FROM djactor.host")
            raise AssertionError(f"these wait:\n{waits}\n\nhosts:\n{hosts}") from None
        open_orders = "SELECT count(*) FROM shop_order WHERE status NOT IN ('paid', 'cancelled')"
        until(lambda: site.sql(open_orders) == "0")
        assert site.sql("SELECT actor_type, reason, error FROM djactor.dead_letter") == ""

    return wait


def customer(site):
    limits = httpx.Limits(keepalive_expiry=1)
    return httpx.Client(base_url=site.url, timeout=PATIENCE, limits=limits)


def post(http, path, **data):
    """Until it is taken, as the pages tell customers to."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if "csrftoken" not in http.cookies:
                http.get("/")
            else:
                token = {"X-CSRFToken": http.cookies["csrftoken"]}
                answer = http.post(path, data=data, headers=token)
                if answer.status_code != 503:
                    assert answer.status_code == 302, answer.text
                    return answer.headers["Location"]
        time.sleep(0.1)
    raise AssertionError("was never accepted")


def buy(http, card="4111", **quantities):
    """The number of the order."""
    for product, quantity in quantities.items():
        post(http, "/cart/", product=product, quantity=quantity)
    return post(http, "/buy/", customer="ann@example.org", card=card).split("/")[2]


def status(site, order):
    return site.sql(f"SELECT status, reason FROM shop_order WHERE id = '{order}'")


def test_an_order_is_paid_and_its_page_shows_how(site, settled, mail):
    with customer(site) as http:
        order = buy(http, tea=2, cake=1)
        seen = []
        with http.stream("GET", f"/orders/{order}/stream/") as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line.removeprefix("data: ")))
                if seen[-1:] == ["paid, on its way"]:
                    break
        assert "Together 2150 cents" in http.get(f"/orders/{order}/").text
    settled()
    assert status(site, order) == "paid|"
    assert len(mail(order)) == 1
    assert "1 paid" in site.manage("ledger")


def test_what_cannot_be_paid_or_is_not_there_is_cancelled(site, settled, mail):
    with customer(site) as http:
        declined = buy(http, card="0000", tea=1)
        sold_out = buy(http, tea=1, rare=6)
    settled()
    assert status(site, declined) == "cancelled|the card is declined"
    assert status(site, sold_out) == "cancelled|rare is sold out"
    assert len(mail(declined)) == len(mail(sold_out)) == 1
    site.manage("ledger")


def test_a_charge_that_is_booked_after_the_order_was_given_up_is_refunded(
    site, bank, settled, until
):
    bank.kill()
    bank.start("--delay", "0", "--lose", "1")  # it books, and nobody hears of it
    with customer(site) as http:
        order = buy(http, tea=1)
    until(lambda: status(site, order).startswith("cancelling|it took too long"))
    bank.kill()
    bank.start(*RELIABLE)
    settled()
    booked = httpx.get(f"{site.environment['SHOP_BANK_URL']}/bookings").json()
    assert [one["kind"] for one in booked if one["key"] == order] == ["charge", "refund"]
    site.manage("ledger")


def test_the_books_agree_though_everything_is_killed(
    site, bank, worker, settled, mail, kill_worker, until
):
    bank.kill()
    bank.start(*UNRELIABLE)
    closed = threading.Event()

    def shop(number):
        choice = random.Random(number)
        orders = []
        while not closed.wait(PAUSE):
            with customer(site) as http:
                goods = choice.sample(["tea", "cake", "tea", "cake", "rare"], choice.choice([1, 2]))
                card = "0000" if choice.random() < 0.1 else "4111"
                orders.append(buy(http, card, **{one: choice.randint(1, 3) for one in goods}))
        return orders

    def kill_bank():
        bank.kill()
        time.sleep(0.5)
        bank.start(*UNRELIABLE)

    def kill_host():
        for pid in worker.children()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_workers():
        kill_worker(site)

    def kill_supervisor():
        worker.kill()
        worker.start()

    def paid():
        return int(site.sql("SELECT count(*) FROM shop_order WHERE status = 'paid'"))

    with concurrent.futures.ThreadPoolExecutor(CUSTOMERS) as pool:
        selling = [pool.submit(shop, number) for number in range(CUSTOMERS)]
        try:
            for kill in (
                *(kill_host, kill_bank, kill_host, kill_workers, kill_host),
                *(kill_supervisor, kill_bank, kill_workers, kill_host, kill_host),
            ):
                before = until(lambda: paid() + 1)
                until(lambda before=before: paid() >= before + 2)  # something is under way
                kill()
        finally:
            closed.set()
        orders = [order for one in selling for order in one.result()]
    bank.kill()
    bank.start(*RELIABLE)
    settled()

    said = site.manage("ledger")  # raises if the books do not agree
    assert "paid" in said
    assert "cancelled" in said
    known = site.sql("SELECT id FROM shop_order").split()
    assert set(orders) <= set(known)  # each that a customer has heard of is there
    assert len(orders) == len(set(orders)) > CUSTOMERS
    for order in orders:
        assert len(mail(order)) == 1  # perhaps more than once, as the same mail


def test_the_tests_of_the_example_pass(site):
    site.server.sql("ALTER ROLE shop CREATEDB")
    site.manage("test")


def test_models_and_migrations_agree(site):
    site.manage("makemigrations", "--check", "--dry-run")
