"""docs/monitoring.md: its project works, its commands are understood, its queries name metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import promql_parser
import yaml
from django.core.management import load_command_class

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "monitoring.md").read_text()
STEP = re.compile(
    r"`shop/(?P<name>\w+)\.py`:\n\n```python\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
METRIC = re.compile(r"\bdjactor_\w+")
SCRAPE = """

class Scrape(TestCase):
    @override_settings(ROOT_URLCONF="shop.urls", DJACTOR={"METRICS_TOKEN": "s3cret"})
    def test_all(self):
        token = {"authorization": "Bearer s3cret"}
        with open("scrape", "w") as file:
            file.write(self.client.get("/metrics/djactor", headers=token).content.decode())
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_project_works_and_has_the_metrics(
    run_tests: Callable[..., str], tmp_path: Path
) -> None:
    files = {step["name"]: step["text"] for step in STEP.finditer(PAGE)}
    assert len(files) == len(blocks("python")) == 4
    files["tests"] += SCRAPE.replace('"scrape"', repr(str(tmp_path / "scrape")))
    assert "Ran 3 tests" in run_tests(**files)

    scraped = (tmp_path / "scrape").read_text()
    known = set(METRIC.findall(scraped))
    types = set(re.findall(r"^# TYPE (djactor_\w+)", scraped, re.MULTILINE))
    listed = set(METRIC.findall(PAGE.split("\n## Prometheus\n")[1].split("\n## ")[0]))
    commands = {"djactor_worker", "djactor_spans", "djactor_letters"}
    assert listed - commands <= known | types
    assert {name for name in types if not name.endswith("_created")} <= listed
    for language in ("promql", "yaml"):
        assert blocks(language)
    for query in queries():
        promql_parser.parse(query)  # raises
        assert METRIC.findall(query) and set(METRIC.findall(query)) <= known


def queries() -> list[str]:
    """All of the page's PromQL."""
    scrape, alarms = (yaml.safe_load(block) for block in blocks("yaml"))
    assert scrape["scrape_configs"][0]["metrics_path"] == "/metrics/djactor"
    rules = [rule["expr"] for group in alarms["groups"] for rule in group["rules"]]
    return [*"".join(blocks("promql")).splitlines(), *rules]


def test_its_commands_are_understood() -> None:
    found = re.findall(r"^    python manage\.py (\w+) (.*)$", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in found] == ["djactor_spans", "djactor_letters"]
    for name, words in found:
        command = load_command_class("djactor", name)
        options = command.create_parser("manage.py", name).parse_args(words.split())
        assert options.follow and options.position
