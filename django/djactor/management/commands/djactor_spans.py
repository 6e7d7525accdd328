"""``manage.py djactor_spans``: turns inside the server become spans of OpenTelemetry."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import connections

from djactor.following import FollowingCommand, Source


class Command(FollowingCommand):
    """Exports the journal of the types that run inside, and their dead letters."""

    help = (
        "Exports what was handled inside the server to OpenTelemetry, from the journal of the types"
        " that keep one; and what was given up, from the dead letters."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which types."""
        super().add_arguments(parser)
        parser.add_argument(
            "--types", nargs="+", metavar="TYPE", help="only these (default: all that run inside)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Export.

        Raises:
            CommandError: There is no OpenTelemetry, or it is not configured; a type is none that
                runs inside; or the exporter has not taken the spans in time.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
        except ImportError:
            raise CommandError(
                "djactor_spans needs OpenTelemetry's SDK: pip install opentelemetry-sdk, and an"
                " exporter"
            ) from None
        provider = trace.get_tracer_provider()
        if not isinstance(provider, TracerProvider):
            raise CommandError(
                "no TracerProvider is set, so the spans would go nowhere: set one where the project"
                " starts, or run this command by opentelemetry-instrument"
            )
        from djactor.spans import Spans

        self._spans = Spans(provider)
        self._only: list[str] | None = options["types"]
        super().handle(*args, **options)
        self.stdout.write(f"{self.count} exported")

    def sources(self, using: str) -> list[Source]:
        """The journal of each type, and the dead letters."""
        from djactor import spans

        with connections[using].cursor() as cursor:
            cursor.execute(
                "SELECT name, journal IS NOT NULL FROM djactor.actor_type WHERE NOT hosted"
                " ORDER BY name"
            )
            found = dict(cursor.fetchall())
        if self._only is not None:
            missing = sorted(set(self._only) - found.keys())
            if missing:
                raise CommandError(f"no actor type that runs inside: {', '.join(missing)}")
            found = {name: found[name] for name in self._only}
        journals = [spans.of_type(name) for name, kept in found.items() if kept]
        return [*journals, spans.of_letters(list(found))]

    def take(self, source: Source, rows: list[dict[str, Any]]) -> None:
        """Export a page.

        Raises:
            CommandError: The exporter has not taken it in time.
        """
        add = self._spans.letter if source.name == "dead_letter" else self._spans.turn
        for row in rows:
            add(row)
        if not self._spans.flush():
            raise CommandError("the exporter has not taken the spans in time")
