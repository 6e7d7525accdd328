"""OpenTelemetry: messages carry the context of who sends them, and hosted turns are spans.

A message that is sent while a span is current gets the span's context into its headers, as
``traceparent`` and whatever else the project's propagator writes.  A turn in a host is a span of
kind CONSUMER whose parent is that context, and what the turn sends carries the turn's own.  Turns
inside the server are made into spans later, from the journal: ``manage.py djactor_spans``.

This needs opentelemetry-api, ``pip install djactor[otel]``, and without it does nothing: the
functions below are those of a project that has no OpenTelemetry.  To record spans, a project
configures the SDK as it does anyway.
"""

from __future__ import annotations

import contextlib
import functools
from asyncio import CancelledError
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from djactor import __version__
from djactor.hosting.context import (
    ATTEMPTS,
    ID,
    KEY,
    KIND,
    TRACE_ID,
    TYPE,
    Reject,
    turn_or_none,
)

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context, attach, detach
except ImportError:
    trace = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from types import TracebackType

    from djactor.hosting.context import Turn
    from djactor.models import Message

NAME = "djactor"
"""The name of the instrumentation, and of the messaging system."""


def attributes(
    actor_type: str, key: str, message_id: int, kind: str, attempts: int, trace_id: Any
) -> dict[str, Any]:
    """What a span says of its turn, by the conventions of OpenTelemetry for messaging."""
    found = {
        "messaging.system": NAME,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": actor_type,
        "messaging.message.id": str(message_id),
        "djactor.actor.key": key,
        "djactor.message.kind": kind,
        "djactor.message.attempt": attempts + 1,
    }
    if trace_id is not None:
        found["messaging.message.conversation_id"] = str(trace_id)
    return found


def span_name(actor_type: str) -> str:
    """What a span is called."""
    return f"process {actor_type}"


def headers(given: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The headers of a message that is sent now: those given, and the context of the current span.

    Args:
        given: The headers; None stands for those of the message that the turn handles, if a turn
            sends, and for none otherwise.
    """
    found = _current()
    return _with(given, found) if found else given


def stamp(messages: Iterable[Message]) -> None:
    """Give messages that are sent now their ``headers()``."""
    found = _current()
    if found:
        for message in messages:
            message.headers = _with(message.headers, found)


def _current() -> dict[str, str]:
    """What the propagator writes of the current span; nothing without one."""
    found: dict[str, str] = {}
    if trace is not None and trace.get_current_span().get_span_context().is_valid:
        propagate.inject(found)
    return found


def _with(given: Mapping[str, Any] | None, found: dict[str, str]) -> dict[str, Any]:
    if given is None:
        # the server would pass these on, if it were told of no others
        turn = turn_or_none()
        given = None if turn is None else turn.headers
    return {**(given or {}), **found}


def turn(turn: Turn) -> contextlib.AbstractContextManager[object]:
    """The span of a turn, for the length of a block that runs its handler.

    What the block raises is recorded and is the span's error, but for ``Reject``, which is none.
    """
    return _NOTHING if _provider is None else _Turn(turn, _provider)


def look() -> None:
    """See whether the project has set a provider of tracers, for the turns that begin from now on.

    A host does so when it takes mail, and not for each turn: to ask costs some microseconds,
    and to record what nobody wants some ten.
    """
    global _provider
    if trace is None:
        return
    provider = trace.get_tracer_provider()
    _provider = None if type(provider) is trace.ProxyTracerProvider else provider


_NOTHING = contextlib.nullcontext()
_provider: trace.TracerProvider | None = None  # by the last look


@functools.lru_cache(maxsize=1)
def _tracer(provider: trace.TracerProvider) -> trace.Tracer:
    return provider.get_tracer(NAME, __version__)


class _Turn:
    """The block of ``turn()``."""

    __slots__ = ("_provider", "_span", "_token", "_turn")

    def __init__(self, turn: Turn, provider: trace.TracerProvider) -> None:
        self._turn = turn
        self._provider = provider

    def __enter__(self) -> None:
        row = self._turn.row
        said = self._turn.headers or {}
        # what others have put there may be anything
        carrier = {name: value for name, value in said.items() if type(value) is str}
        parent = propagate.extract(carrier, Context())
        self._span = span = _tracer(self._provider).start_span(
            span_name(row[TYPE]),
            context=parent,
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes(
                row[TYPE], row[KEY], row[ID], row[KIND], int(row[ATTEMPTS]), row[TRACE_ID]
            ),
        )
        self._token = attach(trace.set_span_in_context(span, parent))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        detach(self._token)
        try:
            if error is not None and self._span.is_recording():
                self._failed(self._span, error)
        finally:
            self._span.end()

    def _failed(self, span: trace.Span, error: BaseException) -> None:
        if isinstance(error, Reject):
            span.set_attribute("djactor.rejected", str(error))
        elif isinstance(error, CancelledError) and not self._turn.timed_out:
            span.set_attribute("djactor.cancelled", True)  # its message, or the host ends
        else:
            span.record_exception(error)
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(
                trace.StatusCode.ERROR,
                "it has taken longer than the time limit of its type"
                if self._turn.timed_out
                else f"{type(error).__name__}: {error}",
            )
