"""djactor.metrics: what Prometheus is told, and who may ask."""

import importlib
import logging
import sys
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import djactor
from djactor import metrics
from djactor.models import Stat
from djactor.test import wait_idle
from elsewhere import elsewhere
from hosting_worker import drop, query, serving
from waiting import until

TYPE = "shop.counter"
urlpatterns = [path("metrics", metrics.view)]


@pytest.fixture(autouse=True)
def urls(fresh):
    """The project has the page of this module."""
    with override_settings(ROOT_URLCONF=__name__):
        yield


def text(**headers):
    with override_settings(DJACTOR={"METRICS_TOKEN": "s3cret"}):
        response = Client().get("/metrics", headers={"authorization": "Bearer s3cret"} | headers)
    assert response.status_code == 200, response.content
    return response.content.decode()


def scrape():
    """By name and labels the value of each sample."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text())
        for sample in family.samples
    }


@contextmanager
def uncounted(name):
    """A type like TYPE of which nothing was counted so far."""
    query(
        "SELECT djactor.define_actor_type(%s, handler, initial_state => initial_state,"
        " max_attempts => 1) FROM djactor.actor_type WHERE name = %s",
        name,
        TYPE,
    )
    yield
    drop(name)


def counted(name, **counters):
    """Until a worker has said what it has done, which it does after its commit."""
    until(lambda: Stat.objects.filter(actor_type=name, **counters).exists())


@pytest.fixture
def new_type(request):
    name = f"metrics.{request.node.name}"
    with uncounted(name):
        yield name


def test_the_counters_are_those_of_stat(new_type):
    actor = djactor.actor(new_type, 1)
    for _ in range(3):
        actor.send({"add": 1})
    actor.send({"fail": True})
    wait_idle(60)
    counted(new_type, handled=3, dead=1)
    after = scrape()
    stat = Stat.objects.get(actor_type=new_type)
    for column, name in (
        ("handled", "djactor_turns_handled_total"),
        ("failed", "djactor_attempts_failed_total"),
        ("retried", "djactor_attempts_retried_total"),
        ("dead", "djactor_messages_dead_total"),
        ("duplicates", "djactor_messages_duplicate_total"),
        ("expired", "djactor_asks_expired_total"),
        ("coalesced", "djactor_messages_coalesced_total"),
        ("conflicts", "djactor_conflicts_total"),
    ):
        assert after[name, new_type] == getattr(stat, column), name
    assert after["djactor_dead_letters", new_type] == 1
    assert after["djactor_up",] == 1 and after["djactor_held",] == 0


@pytest.mark.parametrize("name", ["djactor_wait_seconds", "djactor_run_seconds"])
def test_the_histograms_have_each_turn_once_and_only_grow(name, new_type):
    def buckets():
        found = [
            (float(sample.labels["le"]), sample.value)
            for family in text_string_to_metric_families(text())
            for sample in family.samples
            if sample.name == f"{name}_bucket" and sample.labels["actor_type"] == new_type
        ]
        assert found == sorted(found) and len(found) == metrics.LAST - metrics.FIRST + 2
        return dict(found)

    before: dict = {}
    for turns in (0, 20, 50):
        sent = [djactor.actor(new_type, i % 4).send({"add": 1}) for i in range(turns)]
        total = before.get(float("inf"), 0) + len(sent)
        counted(new_type, handled=total)
        after, all_of_them = buckets(), scrape()
        assert after[float("inf")] == all_of_them[f"{name}_count", new_type] == total
        assert all(after[bound] >= before.get(bound, 0) for bound in after)
        shortest = min(bound for bound in after if after[bound] == total)
        seconds = all_of_them[f"{name}_sum", new_type]
        assert (seconds > 0) == (total > 0)
        assert seconds <= total * shortest or shortest == float("inf")
        before = after


def test_what_waits_is_counted_by_why(paused):
    actor = djactor.actor(TYPE, 1)
    actor.send({"add": 1})
    actor.send({"add": 1})
    actor.send({"add": 1}, delay=timedelta(hours=1))
    found = scrape()
    assert found["djactor_messages_waiting", TYPE] == 2
    assert found["djactor_messages_scheduled", TYPE] == 1
    assert found["djactor_messages_retrying", TYPE] == 0
    assert 0 < found["djactor_oldest_message_seconds", TYPE] < 600
    assert found["djactor_type_paused", TYPE] == 1 and found["djactor_type_problem", TYPE] == 0


def test_workers_and_hosts_are_counted_by_state(project):
    types = {"host.counter": ("Counter", {}), "host.acounter": ("AsyncCounter", {})}
    with serving(project, types):
        found = scrape()
        assert found["djactor_type_hosts", "host.counter"] == 1
        hosts = [found["djactor_hosts", state] for state in ("idle", "waiting", "busy", "draining")]
        assert sum(hosts) == 2

        def workers():
            found = scrape()
            return sum(found["djactor_workers", state] for state in ("starting", "idle", "busy"))

        # they come and go
        until(lambda: workers() == len(query("SELECT FROM djactor.worker")) > 0)


def test_a_scrape_is_one_statement_and_as_openmetrics_too():
    with CaptureQueriesContext(connection) as captured:
        found = text(accept="application/openmetrics-text; version=1.0.0")
    asked = [one["sql"] for one in captured if one["sql"] not in ("BEGIN", "COMMIT")]
    assert len(asked) == 1
    names = {family.name for family in openmetrics.text_string_to_metric_families(found)}
    assert {"djactor_turns_handled", "djactor_run_seconds", "djactor_up"} <= names


def test_it_says_when_there_is_more_than_it_counts(paused, monkeypatch):
    djactor.actor(TYPE, 1).send_many([{"add": 1}] * 5)
    assert scrape()["djactor_sample_full",] == 0
    few = metrics._SCRAPE.replace(f"LIMIT {metrics.SAMPLE}", "LIMIT 3")
    few = few.replace(f"= {metrics.SAMPLE}", "= 3").replace(f"LIMIT {metrics.TYPES}", "LIMIT 1")
    monkeypatch.setattr(metrics, "_SCRAPE", few)
    found = scrape()
    assert found["djactor_sample_full",] == 1 and found["djactor_messages_waiting", TYPE] == 3
    assert found["djactor_types_left_out",] == len(query("SELECT FROM djactor.actor_type")) - 1


@pytest.mark.parametrize("where", [{"NAME": "template1"}, {"HOST": "/nowhere"}])
def test_without_the_extension_or_the_server_it_is_not_up(where, caplog):
    with elsewhere(**where), caplog.at_level(logging.WARNING, "djactor.metrics"):
        assert scrape() == {("djactor_up",): 0}
    (record,) = caplog.records
    assert "gives no figures" in record.getMessage()


def test_a_failed_scrape_leaves_a_transaction_as_it_was(monkeypatch):
    monkeypatch.setattr(metrics, "_SCRAPE", "SELECT 1/0")
    with transaction.atomic():
        (up,) = list(metrics.Collector().collect())
        assert up.samples[0].value == 0
        assert query("SELECT 1") == [(1,)]


def test_registering_it_asks_no_database():
    with CaptureQueriesContext(connection) as captured:
        CollectorRegistry(auto_describe=True).register(metrics.Collector())
    assert len(captured) == 0


def test_the_figures_are_for_who_has_the_token_or_the_permission():
    client = Client()
    bearer = {"authorization": "Bearer s3cret"}
    with override_settings(DJACTOR={"METRICS_TOKEN": "s3cret"}):
        assert client.get("/metrics", headers=bearer).status_code == 200
        assert client.post("/metrics", headers=bearer).status_code == 405
        for wrong in ({}, {"authorization": "Bearer S3cret"}, {"authorization": "s3cret"}):
            response = client.get("/metrics", headers=wrong)
            assert response.status_code == 401 and response["WWW-Authenticate"].startswith("Bearer")
            assert b"djactor_" not in response.content
    for empty in ({"authorization": "Bearer "}, {"authorization": "Bearer"}, bearer):
        assert client.get("/metrics", headers=empty).status_code == 401
    user = User.objects.create_user("ann")
    client.force_login(user)
    assert client.get("/metrics").status_code == 401
    user.user_permissions.add(Permission.objects.get(codename="view_stat"))
    assert client.get("/metrics").status_code == 200


@override_settings(DJACTOR={"METRICS_TOKEN": 7})
def test_a_token_is_a_text():
    assert "djactor.E005" in [message.id for message in run_checks()]


def test_without_prometheus_client_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "djactor.metrics")
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'djactor\[prometheus\]'"):
        importlib.import_module("djactor.metrics")
