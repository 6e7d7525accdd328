"""Spans of what was done inside the server, made of the rows that it has kept.

A turn inside the server runs in no process that could tell OpenTelemetry of it.  The journal, and
dead letters, have what its span needs: when it began and ended, how it came out, what caused it.

The id of a span is made from the id of its message, so that a turn finds its parent without asking
and a row that is exported twice is the same span twice.  The parent is

* the turn that has sent the message, if that ran inside, too, and is in the journal;
* else the span that was current where the message, or the one that has begun the chain inside, was
  sent: ``traceparent`` in its headers;
* else nothing: the trace begins here, and has the number of djactor's trace.

It needs opentelemetry-sdk, as the project has configured it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from djactor import __version__, tracing
from djactor.following import Source

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_FLUSH = 30_000  # milliseconds that a page may take until it is exported

_COLUMNS = """
    SELECT r.id, r.actor_type, r.actor_key, r.kind, r.attempts, r.trace_id, r.cause_id,
        r.headers ->> 'traceparent' AS traceparent, r.headers ->> 'tracestate' AS tracestate,
        greatest(r.sent_at, r.deliver_at) AS since,
        c.headers ->> 'traceparent' IS NOT DISTINCT FROM r.headers ->> 'traceparent'
            AND ct.hosted IS FALSE AS caused_inside, """
_CAUSE = """
        LEFT JOIN djactor.journal c ON c.id = r.cause_id
        LEFT JOIN djactor.actor_type ct ON ct.name = c.actor_type"""

_TURNS = f"{_COLUMNS} r.started_at, r.finished_at, r.outcome FROM djactor.journal r {_CAUSE}"
_LETTERS = f"""
    {_COLUMNS} r.failed_at, r.reason, r.sqlstate, r.error, r.context
    FROM djactor.dead_letter r JOIN djactor.actor_type t ON t.name = r.actor_type AND NOT t.hosted
    {_CAUSE}"""


def of_type(name: str) -> Source:
    """The turns of a type."""
    return Source(
        f"journal {name}",
        _TURNS,
        "r.actor_type = %s AND r.outcome IN ('handled', 'deferred')",
        [name],
        "finished_at",
    )


def of_letters(names: list[str]) -> Source:
    """The messages of some types that were given up."""
    return Source("dead_letter", _LETTERS, "r.actor_type = ANY(%s)", [names], "failed_at")


def span_id(message_id: int, what: str = "turn") -> int:
    """The id of the span of a message's turn."""
    digest = hashlib.blake2b(f"{what} {message_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


class _Ids(IdGenerator):
    """Gives out what the next span is to have."""

    span = 1
    trace = 1

    def generate_span_id(self) -> int:
        return self.span

    def generate_trace_id(self) -> int:
        return self.trace


class Spans:
    """Hands spans to the provider that the project has configured."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._ids = _Ids()
        self._tracer = cast("Any", provider.get_tracer(tracing.NAME, __version__))
        self._tracer.id_generator = self._ids

    def turn(self, row: dict[str, Any]) -> None:
        """Add that of a turn, from its row in the journal."""
        span = self._start(row, span_id(row["id"]), row["started_at"])
        span.set_attribute("djactor.outcome", row["outcome"])
        wait = (row["started_at"] - row["since"]).total_seconds()
        span.set_attribute("djactor.wait_seconds", max(0.0, wait))
        span.end(_nanoseconds(row["finished_at"]))

    def letter(self, row: dict[str, Any]) -> None:
        """Add that of a message that was given up: a moment, and the error."""
        at = row["failed_at"]
        span = self._start(row, span_id(row["id"], f"dead {at.isoformat()}"), at)
        span.set_attribute("djactor.outcome", row["reason"])
        if row["reason"] == "rejected":
            span.set_attribute("djactor.rejected", row["error"] or "")
        else:
            span.add_event(
                "exception",
                {
                    "exception.type": row["sqlstate"] or row["reason"],
                    "exception.message": row["error"] or row["reason"],
                    "exception.stacktrace": row["context"] or "",
                },
                timestamp=_nanoseconds(at),
            )
            span.set_attribute("error.type", row["sqlstate"] or row["reason"])
            span.set_status(trace.StatusCode.ERROR, row["error"] or row["reason"])
        span.end(_nanoseconds(at))

    def flush(self) -> bool:
        """Have all of them exported.

        Returns:
            Whether the exporter has taken them in time.
        """
        return self._provider.force_flush(_FLUSH)

    def _start(self, row: dict[str, Any], number: int, at: datetime) -> trace.Span:
        name = tracing.span_name(row["actor_type"])
        said = tracing.attributes(
            row["actor_type"],
            row["actor_key"],
            row["id"],
            row["kind"],
            row["attempts"],
            row["trace_id"],
        )
        self._ids.span = number
        self._ids.trace = row["trace_id"].int
        span: trace.Span = self._tracer.start_span(
            name,
            context=self._parent(row, name, said),
            kind=trace.SpanKind.CONSUMER,
            attributes=said,
            start_time=_nanoseconds(at),
        )
        return span

    def _parent(self, row: dict[str, Any], name: str, said: dict[str, Any]) -> Context:
        carrier = {key: row[key] for key in ("traceparent", "tracestate") if row[key] is not None}
        above = propagate.extract(carrier, Context())
        if not row["caused_inside"]:
            return above
        known = trace.get_current_span(above).get_span_context()
        if known.is_valid:
            trace_id, flags = known.trace_id, known.trace_flags
        else:
            # the sampler decides as it has about the first one of this trace
            trace_id = row["trace_id"].int
            decided = self._provider.sampler.should_sample(
                Context(), trace_id, name, trace.SpanKind.CONSUMER, said
            )
            flags = trace.TraceFlags(int(decided.decision is Decision.RECORD_AND_SAMPLE))
        cause = trace.SpanContext(trace_id, span_id(row["cause_id"]), True, flags)
        return trace.set_span_in_context(trace.NonRecordingSpan(cause), Context())


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND * 1000
