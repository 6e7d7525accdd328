"""README.md: short, its Django project works as it stands, its commands and containers exist."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text()
Blocks = Callable[[str, str], list[str]]

MODELS = """
from django.db import models


class Order(models.Model):
    product_id = models.IntegerField()
"""

IMPORTS = """
import djactor
from django.db import transaction
from django.test import TestCase
from djactor.test import drain

from shop import bank
from shop.models import Order

"""

PAYING = """

class Paying(TestCase):
    def test_the_bank_is_asked(self):
        djactor.actor("shop.payment", 3).send({"amount": 10})
        drain()
        self.assertEqual(bank.charged, [(10, "payment-3")])
        self.assertTrue(djactor.actor("shop.payment", 3).state()["paid"])
"""

BANK = """
charged = []


async def charge(amount, key):
    charged.append((amount, key))
    return "receipt"
"""


def test_it_is_short() -> None:
    lines = PAGE.splitlines()
    assert len(lines) < 150
    code = False
    for this, following in itertools.pairwise(lines):
        code ^= this.startswith("```")
        prose = re.match(r"[\w`*\[(]", this) and re.match(r"[\w`*\[(]", following)
        assert code or not prose or following.startswith("```"), f"two lines: {following}"


def test_the_project_works(run_tests: Callable[..., str], blocks: Blocks) -> None:
    (handler,) = blocks(PAGE, "sql")
    declared, used, payment = blocks(PAGE, "python")
    assert len(declared.splitlines()) + len(used.splitlines()) <= 20
    said = run_tests(
        {"counter.sql": handler},
        models=MODELS,
        bank=BANK,
        actors=f"{declared}\n\nfrom shop import bank\n\n\n{payment}",
        tests=IMPORTS + used + PAYING,
    )
    assert "Ran 2 tests" in said


def test_the_commands_exist(blocks: Blocks) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z][\w-]*)", PAGE):
        assert re.search(rf"^({target}|.* {target})(:| .*:)", makefile, re.MULTILINE), target
    for name in re.findall(r"\bmanage\.py (djactor_\w+)", PAGE):
        assert (ROOT / f"django/djactor/management/commands/{name}.py").exists(), name
    (compose,) = blocks(PAGE, "yaml")
    assert re.findall(r"^  (\w+):", compose, re.MULTILINE) == ["db", "web", "worker"]
    assert (ROOT / "Dockerfile").exists()


def test_each_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#([\w-]+))?\)", PAGE)
    assert len(links) > 15
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        if anchor:
            heads = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE)
            assert anchor in {head.lower().replace(" ", "-") for head in heads}, anchor


def test_the_picture_is_small() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 150_000
