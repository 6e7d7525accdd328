"""The pages of the admin that show everything at once: live, mailboxes, a trace as a diagram.

What always holds: each wants Django's permission to view what it shows, none reads more than a
bounded number of rows, and a database that cannot be read is said on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse

from djactor import conf, diagram, live

TRACE_LIMIT = 200  # messages in a diagram
INTERVAL = 2.0  # seconds between two snapshots of the live page

# Where a message is, by what became of it; else in the journal.
_MODEL_OF = dict.fromkeys(("waiting", "retrying", "held"), "message") | {"dead": "deadletter"}


class PagesMixin(admin.ModelAdmin):
    """Adds the pages to the addresses of a ModelAdmin."""

    def get_urls(self) -> list[Any]:
        """The pages, before ``<path:object_id>``, which takes anything."""
        wrap = self.admin_site.admin_view
        return [
            path("live/", wrap(self.live_view), name="djactor_live"),
            path("live.json", wrap(self.live_data), name="djactor_live_data"),
            path("mailboxes/", wrap(self.mailboxes_view), name="djactor_mailboxes"),
            path("trace/<uuid:trace_id>/", wrap(self.trace_view), name="djactor_trace"),
            *super().get_urls(),
        ]

    def live_view(self, request: HttpRequest) -> HttpResponse:
        """Throughput, what waits, failures, workers; the script keeps it up to date."""
        _may(request, "actortype")
        return self._page(
            request,
            "djactor/live.html",
            "Live",
            lambda using: {"now": live.snapshot(using), "interval": int(INTERVAL * 1000)},
        )

    def live_data(self, request: HttpRequest) -> JsonResponse:
        """The same as JSON; status 503 with ``error`` while the database cannot be read."""
        _may(request, "actortype")
        try:
            return JsonResponse(live.snapshot(conf.get("DATABASE")))
        except DatabaseError as error:
            return JsonResponse({"error": str(error)}, status=503)

    def mailboxes_view(self, request: HttpRequest) -> HttpResponse:
        """The longest mailboxes, those that were put off, and the next timers."""
        _may(request, "mailbox")
        return self._page(
            request,
            "djactor/mailboxes.html",
            "Mailboxes",
            lambda using: {
                "mailboxes": live.mailboxes(using),
                "put_off": live.put_off(using),
                "timers": live.timers(using),
                "shown": live.SHOWN,
                "sample": live.SAMPLE,
            },
        )

    def trace_view(self, request: HttpRequest, trace_id: UUID) -> HttpResponse:
        """One request's messages as a sequence diagram, and as a table."""
        _may(request, "message")

        def context(using: str) -> dict[str, Any]:
            found = live.trace(using, trace_id, TRACE_LIMIT + 1)
            rows = found[:TRACE_LIMIT]
            for row in rows:
                row["address"] = reverse(
                    f"admin:djactor_{_MODEL_OF.get(row['status'], 'journal')}_change",
                    args=[row["id"]],
                    current_app=self.admin_site.name,
                )
            return {
                "rows": rows,
                "diagram": diagram.draw(rows),
                "head": diagram.HEAD,
                "box": diagram.BOX,
                "half_box": -(diagram.BOX // 2),
                "more": len(found) > TRACE_LIMIT,
                "limit": TRACE_LIMIT,
            }

        page = self._page(request, "djactor/trace.html", "Trace", context)
        page.context_data = {**(page.context_data or {}), "trace_id": trace_id}
        return page

    def _page(
        self,
        request: HttpRequest,
        template: str,
        title: str,
        context: Callable[[str], dict[str, Any]],
    ) -> TemplateResponse:
        """A page as wide as the window; ``context`` reads the database of the alias it gets."""
        found: dict[str, Any]
        try:
            found = context(conf.get("DATABASE"))
        except DatabaseError as error:
            found = {"error": str(error)}
        return TemplateResponse(
            request,
            template,
            {
                **self.admin_site.each_context(request),
                "is_nav_sidebar_enabled": False,
                "opts": self.opts,
                "title": title,
                **found,
            },
        )


def _may(request: HttpRequest, model: str) -> None:
    if not request.user.has_perm(f"djactor.view_{model}"):
        raise PermissionDenied
