"""What Sentry is told of a failure beside its traceback: which actor, which message.

Failures reach Sentry by Django's logging, as all errors do; there is nothing to configure, and this
module does nothing in a project that has not imported sentry-sdk.  Each attempt that fails is one
event.  Those of a handler are grouped by their tracebacks, as Sentry does it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from djactor.hosting.context import Turn

_LONGEST = 200  # characters of a tag


@contextlib.contextmanager
def about(turn: Turn) -> Iterator[None]:
    """Have what is reported in the block say that it is about this turn."""
    with told(
        {
            "actor_type": turn.actor_type,
            "actor_key": turn.key,
            "message_id": turn.message_id,
            "kind": turn.kind,
            "attempt": turn.attempts + 1,
            "trace_id": str(turn.trace_id),
            "sender_type": turn.sender_type,
            "sender_key": turn.sender_key,
        }
    ):
        yield


@contextlib.contextmanager
def told(facts: Mapping[str, Any], group: Sequence[str] = ()) -> Iterator[None]:
    """Have what is reported in the block carry some facts.

    Args:
        facts: They become the context ``djactor``, and actor and message tags, too.
        group: What events of one issue have in common (default: their tracebacks, or messages).
    """
    sdk: Any = sys.modules.get("sentry_sdk")
    if sdk is None:
        yield
        return
    with sdk.new_scope() as scope:
        scope.set_context("djactor", dict(facts))
        for name in ("actor_type", "actor_key", "message_id"):
            scope.set_tag(f"djactor.{name}", str(facts[name])[:_LONGEST])
        if group:
            scope.fingerprint = ["djactor", *group]
        yield
