"""What Prometheus scrapes: the counters, histograms and queues of djactor's database.

``view`` is for the URLs of a project.  ``Collector`` is for a registry that the project has
already, such as that of django-prometheus::

    from prometheus_client import REGISTRY
    REGISTRY.register(djactor.metrics.Collector())

This module needs prometheus-client: ``pip install djactor[prometheus]``.

What always holds:

* A scrape is one statement, and its cost is bounded: of very many waiting messages and dead letters
  the first are counted, and of very many types the busiest are shown.  Nothing locks or waits.
* A scrape raises no error.  Without the extension, or without the server, ``djactor_up`` is 0 and
  the reason is in the log.
* Whoever may not see the figures gets none: see ``view``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from djactor import conf
from djactor.admin.live import _MAIL, LETTERS, SAMPLE, TYPES

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector as _Collector
except ImportError as error:
    raise ImproperlyConfigured(
        "djactor.metrics needs prometheus-client: pip install 'djactor[prometheus]'"
    ) from error

if TYPE_CHECKING:
    from prometheus_client.core import Metric

logger = logging.getLogger("djactor.metrics")

FIRST, LAST = 6, 28  # buckets that are shown end at 2 to these powers of two microseconds

_COUNTERS = {
    "handled": "Successful turns.",
    "failed": "Failed attempts.",
    "retried": "Attempts to be made again, those after transient errors included.",
    "dead": "Messages that were given up.",
    "duplicates": "Messages discarded because of their idempotency key.",
    "expired": "Asks that were not run because they were past their expires_at.",
    "coalesced": "Messages merged into others of their coalesce key.",
    "conflicts": "Batches that gave way to other sessions, or waited for them.",
}
_GAUGES = {
    "waiting": "Messages that are due.",
    "retrying": "Messages that wait for their next attempt.",
    "scheduled": "Messages that are due later because their senders, or timers, say so.",
    "oldest": "Seconds for which the oldest message that is due has waited.",
    "letters": "Dead letters that nobody has redriven or discarded.",
    "hosts": "Processes outside of the server that serve the type; 0 for one that runs inside.",
    "paused": "1 if the type is paused, by somebody or by its breaker.",
    "problem": "1 if the type's handler cannot be called.",
}
_NAMES = {
    "handled": "djactor_turns_handled",
    "failed": "djactor_attempts_failed",
    "retried": "djactor_attempts_retried",
    "dead": "djactor_messages_dead",
    "duplicates": "djactor_messages_duplicate",
    "expired": "djactor_asks_expired",
    "coalesced": "djactor_messages_coalesced",
    "conflicts": "djactor_conflicts",
    "waiting": "djactor_messages_waiting",
    "retrying": "djactor_messages_retrying",
    "scheduled": "djactor_messages_scheduled",
    "oldest": "djactor_oldest_message_seconds",
    "letters": "djactor_dead_letters",
    "hosts": "djactor_type_hosts",
    "paused": "djactor_type_paused",
    "problem": "djactor_type_problem",
}
_TIMES = {
    "wait": "Seconds from when a message was sent, or due, to the start of its turn.",
    "run": "Seconds that a turn took.",
}

_SCRAPE = f"""
    WITH sample AS MATERIALIZED (
        SELECT actor_type, greatest(sent_at, deliver_at) AS since, retry_at,
            coalesce(retry_at, deliver_at, '-infinity') <= clock_timestamp() AS due
        FROM djactor.message WHERE {_MAIL} LIMIT {SAMPLE}),
    letters AS MATERIALIZED (SELECT actor_type FROM djactor.dead_letter LIMIT {LETTERS}),
    hosts AS MATERIALIZED (SELECT types, state, claims FROM djactor.host),
    workers AS MATERIALIZED (SELECT state FROM djactor.worker),
    mail AS (
        SELECT actor_type, count(*) FILTER (WHERE due) AS waiting,
            count(*) FILTER (WHERE NOT due AND retry_at IS NOT NULL) AS retrying,
            count(*) FILTER (WHERE NOT due AND retry_at IS NULL) AS scheduled,
            extract(epoch FROM clock_timestamp() - min(since) FILTER (WHERE due)) AS oldest
        FROM sample GROUP BY actor_type),
    dead AS (SELECT actor_type, count(*) AS letters FROM letters GROUP BY actor_type),
    types AS (
        SELECT t.name, coalesce(m.waiting, 0) AS waiting, coalesce(m.retrying, 0) AS retrying,
            coalesce(m.scheduled, 0) AS scheduled, coalesce(m.oldest, 0) AS oldest,
            coalesce(d.letters, 0) AS letters,
            (SELECT count(*) FROM hosts h WHERE t.name = ANY(h.types) AND h.state <> 'draining')
                AS hosts,
            t.paused::int, (t.problem IS NOT NULL)::int AS problem,
            s.handled, s.failed, s.retried, s.dead, s.duplicates, s.expired, s.coalesced,
            s.conflicts, extract(epoch FROM s.since) AS since,
            json_build_array(extract(epoch FROM h.waited), h.waits) AS wait,
            json_build_array(extract(epoch FROM h.ran), h.runs) AS run
        FROM djactor.actor_type t
        JOIN djactor.stat s ON s.actor_type = t.name
        JOIN djactor.stat_times h ON h.actor_type = t.name
        LEFT JOIN mail m ON m.actor_type = t.name
        LEFT JOIN dead d ON d.actor_type = t.name
        ORDER BY coalesce(m.waiting, 0) + s.handled DESC, t.name LIMIT {TYPES})
    SELECT json_build_object(
        'held', djactor.held()::int,
        'types', coalesce((SELECT json_agg(types ORDER BY name) FROM types), '[]'),
        'left_out', (SELECT count(*) FROM djactor.actor_type) - (SELECT count(*) FROM types),
        'full', ((SELECT count(*) FROM sample) = {SAMPLE}
            OR (SELECT count(*) FROM letters) = {LETTERS})::int,
        'claims', (SELECT coalesce(sum(claims), 0) FROM hosts),
        'workers', (SELECT coalesce(json_object_agg(state, n), '{{}}')
            FROM (SELECT state, count(*) AS n FROM workers GROUP BY state) w),
        'hosts', (SELECT coalesce(json_object_agg(state, n), '{{}}')
            FROM (SELECT state, count(*) AS n FROM hosts GROUP BY state) h))::text"""

_WORKER_STATES = ("starting", "idle", "busy")
_HOST_STATES = ("idle", "waiting", "busy", "draining")


class Collector(_Collector):
    """What a registry of prometheus-client asks; each ``collect()`` is one statement."""

    def __init__(self, using: str | None = None) -> None:
        """Make one.

        Args:
            using: Alias of the database (default: ``DJACTOR["DATABASE"]``).
        """
        self._using = using

    def describe(self) -> Iterable[Metric]:
        """What it will collect: not told, so that registering it asks no database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask the server.

        Yields:
            The metrics; only ``djactor_up``, which is 0, if the server does not answer.
        """
        found = self._ask()
        yield _gauge("up", "1 if the database answers and has djactor.", int(found is not None))
        if found is not None:
            yield from _of_database(found)
            yield from _of_types(found["types"])

    def _ask(self) -> dict[str, Any] | None:
        using = self._using or conf.get("DATABASE")
        try:
            # In a savepoint, if there is a transaction: what fails here fails nothing else.
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                cursor.execute(_SCRAPE)
                found: dict[str, Any] = json.loads(cursor.fetchone()[0])
                return found
        except (DatabaseError, InterfaceError) as error:
            logger.warning("the database %s gives no figures: %s", using, str(error).strip())
            return None


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"djactor_{name}", text, value=value)


def _of_database(found: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge("held", "1 if the database is a copy whose mail is held.", found["held"])
    yield _gauge("types_left_out", "Types that are not shown, for want of room.", found["left_out"])
    yield _gauge(
        "sample_full",
        f"1 if more than {SAMPLE:,} messages or {LETTERS:,} dead letters are there: only so many"
        " are counted.",
        found["full"],
    )
    yield _gauge("claims", "Actors whose mail processes outside have taken.", found["claims"])
    for name, text, states in (
        ("workers", "Workers inside the server.", _WORKER_STATES),
        ("hosts", "Processes outside of the server that run turns.", _HOST_STATES),
    ):
        family = GaugeMetricFamily(f"djactor_{name}", text, labels=["state"])
        for state in states:
            family.add_metric([state], found[name].get(state, 0))
        yield family


def _of_types(types: list[dict[str, Any]]) -> Iterator[Metric]:
    for column, text in _COUNTERS.items():
        counter = CounterMetricFamily(_NAMES[column], text, labels=["actor_type"])
        for row in types:
            counter.add_metric([row["name"]], row[column], created=row["since"])
        yield counter
    for column, text in _GAUGES.items():
        gauge = GaugeMetricFamily(_NAMES[column], text, labels=["actor_type"])
        for row in types:
            gauge.add_metric([row["name"]], row[column])
        yield gauge
    for column, text in _TIMES.items():
        histogram = HistogramMetricFamily(f"djactor_{column}_seconds", text, labels=["actor_type"])
        for row in types:
            seconds, counts = row[column]
            histogram.add_metric([row["name"]], list(_buckets(counts)), sum_value=seconds)
        yield histogram


def _buckets(counts: list[int]) -> Iterator[tuple[str, float]]:
    """The buckets of a histogram as Prometheus wants them: each has all that are shorter, too."""
    for power in range(FIRST, LAST + 1):
        yield repr(2**power / 1e6), sum(counts[:power])
    yield "+Inf", sum(counts)


def _may_see(request: HttpRequest) -> bool:
    token = conf.get("METRICS_TOKEN")
    if token and constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {token}"):
        return True
    user = getattr(request, "user", None)
    return bool(user is not None and user.is_active and user.has_perm("djactor.view_stat"))


@require_safe
@never_cache
@transaction.non_atomic_requests
def view(request: HttpRequest) -> HttpResponse:
    """The metrics of ``DJACTOR["DATABASE"]``, for ``urls.py``.

    They are for who sends ``Authorization: Bearer`` and ``DJACTOR["METRICS_TOKEN"]``, and for users
    who are logged in with the permission ``djactor.view_stat``; without the setting for these only.
    """
    if not _may_see(request):
        return HttpResponse(
            "These figures need a token or a login.\n",
            status=401,
            content_type="text/plain; charset=utf-8",
            headers={"WWW-Authenticate": 'Bearer realm="djactor"'},
        )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type)
