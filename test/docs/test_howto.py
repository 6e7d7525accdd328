"""The how-to guides of docs/: each is a small project, whose tests pass.

A block of code after a line that ends with a file's name in ``shop/`` goes to the end of that file.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from django.core.management import load_command_class

from private_server import PrivateServer

DOCS = Path(__file__).parents[2] / "docs"
DEPLOY = DOCS.parent / "deploy"
STEP = re.compile(
    r"`shop/(?P<file>[\w/]+\.\w+)`[^`\n]*:\n\n```\w+\n(?P<content>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
SETTINGS = """
SECRET_KEY = "tests keep no secrets"
INSTALLED_APPS = ["djactor", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "mysite"}}
USE_TZ = True
"""
SLOW = """
import asyncio

import djactor
from djactor.hosting import current


@djactor.register("shop.slow", hosted=True)
class Slow:
    def __init__(self, key):
        self.done = 0

    async def handle_message(self, message):
        current().progress("begun")
        await asyncio.sleep(3)
        self.done += 1
"""
ONE_TEST = """
from django.test import SimpleTestCase


class One(SimpleTestCase):
    def test_nothing(self): ...
"""
# What a page that leads away from another system says of it has to work there, too.
BEFORE = {
    "from-celery": """
from celery import Celery
from django.core import mail
from django.test import TransactionTestCase

from shop.models import Order, Product
from shop.tasks import beat_schedule, place, report

app = Celery("shop", set_as_current=True)
app.conf.update(task_always_eager=True, task_eager_propagates=True, beat_schedule=beat_schedule)


class Ordering(TransactionTestCase):
    def test_an_order(self):
        product = Product.objects.create()
        place(Order(email="ann@example.org", product=product.pk))
        product.refresh_from_db()
        self.assertEqual(product.left, 9)
        (nightly,) = app.conf.beat_schedule.values()
        app.tasks[nightly["task"]].delay()
        self.assertEqual([each.subject for each in mail.outbox], ["Thank you!", "Stock"])
        self.assertEqual(report.name, nightly["task"])
""",
    "from-procrastinate": """
from django.test import TransactionTestCase
from procrastinate.contrib.django.procrastinate_app import current_app
from procrastinate.testing import InMemoryConnector

from shop.models import Account
from shop.tasks import interest, pay


class Paying(TransactionTestCase):
    def test_bookings_and_interest(self):
        account = Account.objects.create()
        with current_app.replace_connector(InMemoryConnector()) as app:
            for _ in range(3):
                pay(account, 100)
            app.run_worker(wait=False, install_signal_handlers=False, listen_notify=False)
            account.refresh_from_db()
            self.assertEqual(account.balance, 300)
            interest.defer(timestamp=0)
            app.run_worker(wait=False, install_signal_handlers=False, listen_notify=False)
        account.refresh_from_db()
        self.assertEqual(account.balance, 303)
""",
}
TESTS = {
    "calling-an-api": 3,
    "sending-mail": 3,
    "changing-a-handler": 3,
    "debugging": 3,
    "from-celery": 2,
    "from-procrastinate": 1,
    "mocks": 7,
    "repairing": 4,
    "time-zones": 3,
}


def files(page: str) -> dict[str, str]:
    """The files of the app that a page describes."""
    found: dict[str, str] = {}
    for step in STEP.finditer(page):
        found[step["file"]] = "\n\n".join(filter(None, [found.get(step["file"]), step["content"]]))
    return found


@pytest.mark.parametrize("name", TESTS)
def test_the_guide_works(run_tests: Callable[..., str], name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    if name in BEFORE:
        page = page.partition("\n## After\n")[2]
    found = files(page)
    assert sum(len(text.splitlines()) for text in found.values()) > 10
    blocks = re.findall(r"^```(?:python|sql)$", page, flags=re.MULTILINE)
    assert len(blocks) == len(STEP.findall(page)), "each block belongs to a file"
    assert f"Ran {TESTS[name]} test" in run_tests(found)


@pytest.mark.parametrize("name", BEFORE)
def test_what_a_guide_leads_away_from_works(run_tests: Callable[..., str], name: str) -> None:
    before, _, after = (DOCS / f"{name}.md").read_text().partition("\n## After\n")
    found = files(before) | {"models.py": files(after)["models.py"], "tests.py": BEFORE[name]}
    assert "tasks.py" in found
    settings = 'INSTALLED_APPS.append("procrastinate.contrib.django")\n'
    said = run_tests(found, settings if name == "from-procrastinate" else "")
    assert "Ran 1 test" in said


def commands(page: str) -> list[str]:
    """The indented lines of a page that call manage.py."""
    return re.findall(r"^    python manage\.py (.*)$", page, flags=re.MULTILINE)


@pytest.fixture
def project(mysite: PrivateServer, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """``project("migrate")``: starts a command of a project with one slow hosted actor."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("")
    (tmp_path / "shop/actors.py").write_text(SLOW)
    (tmp_path / "shop/tests.py").write_text(ONE_TEST)
    (tmp_path / "site_settings.py").write_text(SETTINGS)

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "django", *words],
            cwd=tmp_path,
            env=os.environ
            | {
                "PGHOST": mysite.host,
                "PGUSER": "me",
                "DJANGO_SETTINGS_MODULE": "site_settings",
                "PYTHONPATH": f"{DOCS.parent / 'django'}{os.pathsep}{tmp_path}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_the_commands_of_a_pipeline(project: Callable[..., subprocess.Popen[str]]) -> None:
    page = (DOCS / "continuous-integration.md").read_text()
    assert len(commands(page)) == 6
    in_pipeline = commands(page)[:3]
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    for block, file in zip(blocks, ("github.yml", "gitlab-ci.yml"), strict=True):
        assert yaml.safe_load(block) == yaml.safe_load((DEPLOY / file).read_text())
        assert all(command in str(yaml.safe_load(block)) for command in in_pipeline)
    for command in commands(page):
        process = project(*command.split())
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, (command, said)


def test_sigterm_lets_a_turn_end(
    project: Callable[..., subprocess.Popen[str]], mysite: PrivateServer
) -> None:
    said, _ = (migrate := project("migrate")).communicate(timeout=120)
    assert migrate.returncode == 0, said
    worker = project("djactor_worker", "--grace", "30")
    try:
        sent = "SELECT djactor.send('shop.slow', 'k', '{}')"
        mysite.sql(sent, "mysite", "me")
        wait_until(mysite, "SELECT EXISTS (SELECT FROM djactor.progress)")
        mysite.sql(sent, "mysite", "me")  # which does not begin any more
        worker.terminate()
        said, _ = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert worker.returncode == 0, said
    state = "SELECT state FROM djactor.actor WHERE actor_type = 'shop.slow'"
    assert mysite.sql(state, "mysite") == '{"done": 1}'
    assert mysite.sql("SELECT count(*) FROM djactor.message", "mysite") == "1"


def wait_until(server: PrivateServer, query: str) -> None:
    end = time.monotonic() + 60
    while server.sql(query, "mysite") != "t":
        assert time.monotonic() < end, query
        time.sleep(0.05)


def test_the_files_of_a_deployment(tmp_path: Path) -> None:
    page = (DOCS / "deploying.md").read_text()
    (unit,) = re.findall(r"^```ini\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    (deployment,) = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    (dockerfile,) = re.findall(r"^```dockerfile\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)

    manifests = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    assert yaml.safe_load(deployment) in manifests
    service = configparser.ConfigParser()
    service.optionxform = str  # type: ignore[method-assign, assignment]
    service.read_string(unit)
    spec = yaml.safe_load(deployment)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    command = json.loads(re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)[0])

    lines = [service["Service"]["ExecStart"].split(), container["command"], command]
    parser = load_command_class("djactor", "djactor_worker").create_parser("manage.py", "worker")
    for words in lines:
        options = parser.parse_args(words[words.index("djactor_worker") + 1 :])
        assert options.grace < int(service["Service"]["TimeoutStopSec"])
        assert options.grace < spec["terminationGracePeriodSeconds"]
        assert options.health == container["ports"][0]["containerPort"]
    if verify := shutil.which("systemd-analyze"):
        here = unit.replace("/srv/shop/.venv/bin/python", sys.executable)
        (tmp_path / "shop-worker.service").write_text(here.replace("User=shop", "User=root"))
        done = subprocess.run(
            [verify, "verify", "--man=no", tmp_path / "shop-worker.service"],
            capture_output=True,
            text=True,
        )
        assert "shop-worker" not in done.stderr, done.stderr
