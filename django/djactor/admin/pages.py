"""The admin's pages that show everything at once: live, mailboxes, timers, a trace as a diagram.

What always holds: each wants Django's permission to view what it shows, none reads more than a
bounded number of rows, and a database that cannot be read is said on the page.

Timers are here, and not among the admin's models, since Django's admin takes no model whose primary
key has several columns.  What may be done with one wants the permission to change timers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse

from djactor import cluster, conf, schedules
from djactor.admin import diagram, live
from djactor.admin.display import pretty
from djactor.models import Timer

TRACE_LIMIT = 200  # messages in a diagram
INTERVAL = 2.0  # seconds between two snapshots of the live page
TIMES = 10  # next times of a timer

# What may be done with a timer: the word on the button, and what is said and logged then.
_ACTIONS = {
    "run_now": ("Run now", "run"),
    "pause": ("Pause", "paused"),
    "resume": ("Resume", "resumed"),
}

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
            path("history.json", wrap(self.history_data), name="djactor_history_data"),
            path("mailboxes/", wrap(self.mailboxes_view), name="djactor_mailboxes"),
            path("timers/", wrap(self.timers_view), name="djactor_timers"),
            path("timer/", wrap(self.timer_view), name="djactor_timer"),
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
            lambda using: {
                "now": live.snapshot(_node(request, using)),
                "interval": int(INTERVAL * 1000),
                "ranges": live.RANGES,
                "nodes": cluster.nodes(),
                "node": _node(request, using),
            },
        )

    def live_data(self, request: HttpRequest) -> JsonResponse:
        """The same as JSON; status 503 with ``error`` while the database cannot be read."""
        _may(request, "actortype")
        try:
            return JsonResponse(live.snapshot(_node(request, conf.get("DATABASE"))))
        except DatabaseError as error:
            return JsonResponse({"error": str(error)}, status=503)

    def history_data(self, request: HttpRequest) -> JsonResponse:
        """What the charts show of the past, for ``?range=`` one of ``live.RANGES``."""
        _may(request, "actortype")
        name = request.GET.get("range", "hour")
        if name not in live.RANGES:
            return JsonResponse({"error": "no such range"}, status=400)
        try:
            return JsonResponse(live.history(_node(request, conf.get("DATABASE")), name))
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

    def timers_view(self, request: HttpRequest) -> HttpResponse:
        """The next timers, of all actors or of those that ``type`` and ``q`` (a key) name."""
        _may(request, "timer")
        actor_type, key = request.GET.get("type", ""), request.GET.get("q", "")

        def context(using: str) -> dict[str, Any]:
            with transaction.atomic(using=using):  # what cannot be read breaks none around it
                return {
                    "timers": live.timers(using, actor_type, key),
                    "types": live.type_names(using),
                    "shown": live.SHOWN,
                }

        page = self._page(request, "djactor/timers.html", "Timers", context)
        page.context_data = {**(page.context_data or {}), "actor_type": actor_type, "key": key}
        return page

    def timer_view(self, request: HttpRequest) -> HttpResponse:
        """The timer that ``type``, ``key`` and ``name`` name; a POST does what ``action`` says.

        Raises:
            PermissionDenied: The user may not see timers, or not change them.
        """
        _may(request, "timer")
        actor_type, key, name = (request.GET.get(part, "") for part in ("type", "key", "name"))
        may_change = request.user.has_perm("djactor.change_timer")
        if request.method == "POST":
            if not may_change:
                raise PermissionDenied
            self._act(request, Timer(actor_type=actor_type, actor_key=key, name=name))
            return HttpResponseRedirect(request.get_full_path())

        def context(using: str) -> dict[str, Any]:
            with transaction.atomic(using=using):
                timer = live.timer(using, actor_type, key, name, TIMES)
            if timer is None:
                return {"timer": None}
            text, left_off = pretty(timer["payload"])
            actions = ["run_now", "resume" if timer["paused_at"] else "pause"]
            return {
                "timer": timer,
                "payload": text,
                "left_off": left_off,
                "actions": [(one, _ACTIONS[one][0]) for one in actions] if may_change else [],
            }

        page = self._page(request, "djactor/timer.html", "Timer", context)
        if page.context_data and page.context_data.get("timer", page) is None:
            said = f'The actor {actor_type} "{key}" has no timer "{name}", or has none any more.'
            self.message_user(request, said, messages.WARNING)
            actor = urlencode({"type": actor_type, "q": key})
            timers = reverse("admin:djactor_timers", current_app=self.admin_site.name)
            return HttpResponseRedirect(f"{timers}?{actor}")
        return page

    def _act(self, request: HttpRequest, timer: Timer) -> None:
        """Do with a timer what was asked for; log it, say so, or why not."""
        using, action = conf.get("DATABASE"), request.POST.get("action", "")
        if action not in _ACTIONS:
            self.message_user(request, "Nothing was done: no such action.", messages.ERROR)
            return
        done = _ACTIONS[action][1]
        try:
            with transaction.atomic(using=using):
                schedules.call(using, action, timer.actor_type, timer.actor_key, timer.name)
        except DatabaseError as error:
            self.message_user(request, f"Nothing was {done}: {error}", messages.ERROR)
            return
        LogEntry.objects.log_actions(
            user_id=cast("int", request.user.pk),
            queryset=[timer],
            action_flag=CHANGE,
            change_message=f"{done.capitalize()}.",
        )
        self.message_user(request, f"The timer {timer.name} was {done}.", messages.SUCCESS)

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


def _node(request: HttpRequest, using: str) -> str:
    """The node of a cluster that a request names, by its alias; else the project's own."""
    named = request.GET.get("node", using)
    return named if named in cluster.nodes().values() else using


def _may(request: HttpRequest, model: str) -> None:
    if not request.user.has_perm(f"djactor.view_{model}"):
        raise PermissionDenied
