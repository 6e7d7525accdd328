"""``manage.py djactor_letters``: dead letters are logged as they arrive."""

import logging
import re
from typing import Any

from djactor import sentry
from djactor.following import FollowingCommand, Source

logger = logging.getLogger("djactor.dead_letter")

# What hosts have logged themselves, attempt by attempt.
_LOGGED = "COALESCE(t.hosted, false) AND r.reason IN ('failed', 'rejected')"
_LETTERS = """
    SELECT r.id, r.actor_type, r.actor_key, r.kind, r.attempts, r.trace_id, r.sender_type,
        r.sender_key, r.reason, r.sqlstate, r.error, r.context, r.failed_at
    FROM djactor.dead_letter r LEFT JOIN djactor.actor_type t ON t.name = r.actor_type"""
_NUMBER = re.compile(r"\d+|'[^']*'|\"[^\"]*\"")


class Command(FollowingCommand):
    """Logs what the server has given up by Django's logging, and so to Sentry."""

    help = (
        "Logs dead letters by the logger djactor.dead_letter, as errors: what failed inside the"
        " server, crashed, expired or found a full mailbox. With --follow as they arrive."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Log them."""
        super().handle(*args, **options)
        self.stdout.write(f"{self.count} logged")

    def sources(self, using: str) -> list[Source]:
        """The dead letters, but for those that a host has logged."""
        return [Source("dead_letter", _LETTERS, f"NOT ({_LOGGED})", [], "failed_at")]

    def take(self, source: Source, rows: list[dict[str, Any]]) -> None:
        """Log a page."""
        for row in rows:
            facts = {
                "actor_type": row["actor_type"],
                "actor_key": row["actor_key"],
                "message_id": row["id"],
            }
            more = {name: row[name] for name in ("kind", "reason", "sqlstate", "context")}
            more |= {"attempts": row["attempts"], "trace_id": str(row["trace_id"])}
            # Errors that differ in their numbers and names are one issue.
            alike = _NUMBER.sub("?", row["error"] or "")
            with sentry.told(
                facts | more, [row["actor_type"], row["reason"], row["sqlstate"] or "", alike]
            ):
                logger.log(
                    logging.INFO if row["reason"] == "rejected" else logging.ERROR,
                    "message %d to %s %s was given up (%s): %s",
                    row["id"],
                    row["actor_type"],
                    row["actor_key"],
                    row["reason"],
                    row["error"],
                    extra=facts,
                )
