"""deploy/grafana.json: each of its queries, run as the role that docs/operations.md makes."""

import itertools
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from django.db import connection

import djactor
from djactor.test import reset, wait_idle
from elsewhere import elsewhere
from hosting_worker import define, drop, query, serving
from waiting import until

TOP = Path(__file__).parents[2]
DASHBOARD = json.loads((TOP / "deploy/grafana.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
SOURCE = {"type": "grafana-postgresql-datasource", "uid": "${datasource}"}
TYPES = "'grafana', 'host.counter'"
OVER_TIME = (
    "Turns a second, by type",
    "Failed attempts a second, by type",
    "Duration of a turn, 95th percentile",
    "Wait for a turn, 95th percentile",
)
# A minute and an hour, with turns in the eleventh bucket, from 32 to 48 microseconds.
PAST = """
    INSERT INTO djactor.stat_history
    SELECT 'grafana', date_trunc('minute', now()) - ago, minutes, handled, failed, 0, 0, 0, 0, 0,
        array_fill(0, ARRAY[10]) || handled, array_fill(0, ARRAY[10]) || handled
    FROM (VALUES (interval '55 min', 1, 120, 6), (interval '50 min', 60, 1800, 36))
        v (ago, minutes, handled, failed)"""


def grants():
    """What the page on operations lets its role do."""
    text = (TOP / "docs/operations.md").read_text().split("\n## Monitoring\n")[1]
    return re.search(r"^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]


def expanded(sql, types=TYPES):
    """What Grafana makes of a query: its macros for a time range of an hour, and variables."""
    until = datetime.now(timezone.utc) + timedelta(minutes=1)
    since = until - timedelta(hours=1)
    sql = re.sub(
        r"\$__timeFilter\((\w+)\)",
        rf"\1 BETWEEN '{since.isoformat()}' AND '{until.isoformat()}'",
        sql,
    )
    sql = re.sub(
        r"\$__timeGroupAlias\((\w+), \$__interval\)",
        r'floor(extract(epoch from \1)/60)*60 AS "time"',
        sql,
    )
    sql = sql.replace("$__interval_ms", "60000").replace("${actor_type:sqlstring}", types)
    assert "$" not in sql, sql
    return sql


@pytest.fixture(scope="module")
def busy(project):
    """A database in which each panel has something to show."""
    with connection.cursor() as cursor:
        cursor.execute("""
            CREATE FUNCTION grafana_handle(state jsonb, message jsonb) RETURNS jsonb
            LANGUAGE plpgsql AS $$
            BEGIN
                IF message ? 'fail' THEN
                    RAISE EXCEPTION 'told to fail';
                END IF;
                RETURN state;
            END $$""")
        cursor.execute(
            "SELECT djactor.define_actor_type('grafana', 'grafana_handle', max_attempts => 1),"
            " djactor.define_actor_type('grafana.retried', 'grafana_handle', backoff => '1 hour')"
        )
    hosted = {"host.counter": ("Counter", {}), "host.acounter": ("AsyncCounter", {})}
    with serving(project, hosted):
        for i in range(10):
            djactor.actor("grafana", i % 3).send({"fail": True} if i == 5 else {})
            djactor.actor("host.counter", i % 3).send({})
        wait_idle(60, "grafana")
        wait_idle(60, "host.counter")
        djactor.actor("grafana.retried", 1).send({"fail": True})
        query("SELECT djactor.pause('grafana')")
        djactor.actor("grafana", 1).send_many([{}] * 4)
        until(
            lambda: query(
                "SELECT FROM djactor.stat"
                " WHERE actor_type = 'grafana' AND handled = 9 AND failed = 1"
            )
        )
        until(lambda: query("SELECT FROM djactor.message WHERE retry_at IS NOT NULL"))
        project.sql(PAST, "shop")
        yield project
    project.sql("DELETE FROM djactor.stat_history WHERE actor_type = 'grafana'", "shop")
    for name in ("grafana", "grafana.retried"):
        drop(name)
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION grafana_handle(jsonb, jsonb)")
    reset()


@pytest.fixture(scope="module")
def monitor(busy):
    """``monitor(sql)``: the columns and the rows that the role gets."""
    busy.sql(grants(), "shop")
    with elsewhere(USER="djactor_monitor"):

        def run(sql):
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = on")
                cursor.execute(sql)
                return [column.name for column in cursor.description], cursor.fetchall()

        yield run
    busy.sql("DROP OWNED BY djactor_monitor; DROP ROLE djactor_monitor", "shop")


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is cleared between these tests."""


def test_the_page_says_what_grafana_asks_of_a_dashboard():
    assert DASHBOARD["uid"] == "djactor" and DASHBOARD["schemaVersion"] >= 39
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) == len(PANELS)
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"] == SOURCE and panel["description"]
        (target,) = panel["targets"]
        assert target["datasource"] == SOURCE and target["rawQuery"] is True
        assert target["format"] == ("time_series" if panel["type"] == "timeseries" else "table")
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "actor_type"]


def test_panels_do_not_overlap():
    for one, other in itertools.combinations(DASHBOARD["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (one["title"], other["title"])
        assert a["x"] + a["w"] <= 24


@pytest.mark.parametrize("title", PANELS)
def test_each_query_finds_something(monitor, title):
    panel = PANELS[title]
    types = f"{TYPES}, 'grafana.retried'"
    names, rows = monitor(expanded(panel["targets"][0]["rawSql"], types))
    assert rows
    if panel["type"] == "timeseries":
        assert names == ["time", "metric", "value"]
        assert {type(row[1]) for row in rows} == {str}
        assert all(float(row[0]) % 60 == 0 and float(row[2]) >= 0 for row in rows)
    if panel["type"] == "stat":
        ((value,),) = rows
        assert isinstance(value, int | float) and value >= 0


def test_the_figures_are_right(monitor):
    def of(title, types=TYPES):
        return monitor(expanded(PANELS[title]["targets"][0]["rawSql"], types))[1]

    assert of("Messages that are due") == [(4,)]
    assert of("Messages that are due", "'host.counter'") == [(0,)]
    assert 0 < of("The oldest of them waits for")[0][0] < 600
    assert of("To be retried", "'grafana.retried'") == [(1,)]
    assert of("Dead letters") == [(1,)] and of("Held as a copy") == [(0,)]
    minute, hour = {}, {}
    for title in OVER_TIME:
        found = {time: value for time, name, value in of(title) if name == "grafana"}
        minute[title], hour[title] = (value for time, value in sorted(found.items())[:2])
    assert list(minute.values()) == pytest.approx([2, 0.1, 40e-6, 40e-6], rel=0.25)
    assert list(hour.values()) == pytest.approx([0.5, 0.01, 40e-6, 40e-6], rel=0.25)
    assert sum(count for _, name, count in of("Given up") if name == "grafana: failed") == 1
    kinds = {row[0]: row for row in of("Types")}
    assert kinds["grafana"][1:3] == (9, 1) and kinds["grafana"][-1] == "paused by shop"
    assert kinds["host.counter"][-1] == ""
    (box,) = of("The longest mailboxes")
    assert box[:3] == ("grafana", "1", 4)
    (letter,) = of("The last dead letters")
    assert letter[1] == "grafana" and "told to fail" in letter[6]
    assert [row[0] for row in of("Workers and hosts")].count("host") == 2


def test_the_variable_lists_the_types(monitor):
    (variable,) = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "actor_type"]
    _, rows = monitor(variable["query"])
    assert {"grafana", "host.counter"} <= {name for (name,) in rows}
    assert variable["query"] == variable["definition"]


def test_a_hosted_type_without_host_is_named(monitor):
    with elsewhere(USER="shop"):
        define("host.nobody", "Counter")
    try:
        _, rows = monitor(expanded(PANELS["Types"]["targets"][0]["rawSql"], "'host.nobody'"))
        assert rows[0][-1] == "hosted by nobody"
    finally:
        with elsewhere(USER="shop"):
            drop("host.nobody")
