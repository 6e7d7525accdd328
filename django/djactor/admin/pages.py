"""The admin's pages that show everything at once.

They are: live, dead letters by their errors, mailboxes, timers, a trace as a diagram, and the life
of an actor.

What always holds: each wants Django's permission to view what it shows, none reads more than a
bounded number of rows, and a database that cannot be read is said on the page.

Timers are here, and not among the admin's models, since Django's admin takes no model whose primary
key has several columns.  What may be done with one wants the permission to change timers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
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

from djactor import cluster, conf, schedules, summaries
from djactor.admin import diagram, live, repair
from djactor.admin.display import count, pretty
from djactor.models import Actor, ActorType, Timer

TRACE_LIMIT = 200  # messages in a diagram
INTERVAL = 2.0  # seconds between two snapshots of the live page
TIMES = 10  # next times of a timer

# What may be done with a timer: the word on the button, and what is said and logged then.
_ACTIONS = {
    "run_now": ("Run now", "run"),
    "pause": ("Pause", "paused"),
    "resume": ("Resume", "resumed"),
}

# The same for a group of dead letters: the function, the permission, what is said then.
_GROUP_ACTIONS = {
    "redrive_one": ("redrive(id)", "change", "redriven"),
    "redrive": ("redrive(id)", "change", "redriven"),
    "discard": ("discard(id)", "delete", "discarded"),
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
            path("failures/", wrap(self.failures_view), name="djactor_failures"),
            path("life/", wrap(self.life_view), name="djactor_life"),
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

    def failures_view(self, request: HttpRequest) -> HttpResponse:
        """Dead letters in groups; a POST does with one of them what ``action`` says."""
        _may(request, "deadletter")
        if request.method == "POST":
            return self._act_on_group(request)

        def context(using: str) -> dict[str, Any]:
            with transaction.atomic(using=using):
                groups = repair.groups(using)
            for group in groups:
                named = {one: group[one] for one in ("actor_type", "reason", "error")}
                group["query"] = repair.Group(**named).query
            return {
                "groups": groups,
                "letters": sum(group["letters"] for group in groups),
                "sample": repair.LETTERS,
                "shown": repair.GROUPS,
            }

        return self._page(request, "djactor/failures.html", "Dead letters by error", context)

    def _act_on_group(self, request: HttpRequest) -> HttpResponse:
        """Redrive or discard the dead letters of a group; log it, say so, or why not."""
        using, action = conf.get("DATABASE"), request.POST.get("action", "")
        back = HttpResponseRedirect(request.path)
        if action not in _GROUP_ACTIONS:
            self.message_user(request, "Nothing was done: no such action.", messages.ERROR)
            return back
        call, permission, done = _GROUP_ACTIONS[action]
        if not request.user.has_perm(f"djactor.{permission}_deadletter"):
            raise PermissionDenied
        named = {one: request.POST.get(one, "") for one in ("actor_type", "reason", "error")}
        group = repair.Group(**named)
        try:
            with transaction.atomic(using=using):
                ids = repair.in_group(using, group)
                if action == "discard" and "post" not in request.POST:
                    return confirmation(
                        self,
                        request,
                        title="Discard dead letters",
                        question=f"{_dead_letters(len(ids))} will be deleted,"
                        " and cannot be brought back.",
                        things=[f"{group.actor_type}, {group.reason}: {group.error or 'no error'}"],
                        fields=[("action", action), *asdict(group).items()],
                        back=request.path,
                    )
                number = repair.call_each(
                    using,
                    call,
                    "djactor.dead_letter",
                    "id",
                    ids[:1] if action == "redrive_one" else ids,
                )
        except DatabaseError as error:
            self.message_user(request, f"Nothing was {done}: {error}", messages.ERROR)
            return back
        said = f"{_dead_letters(number)} {done}"
        LogEntry.objects.log_actions(
            user_id=cast("int", request.user.pk),
            queryset=[ActorType(name=group.actor_type)],
            action_flag=CHANGE,
            change_message=f"{said}: {group.reason}, {group.error}",
        )
        self.message_user(request, f"{said}.", messages.SUCCESS)
        return back

    def life_view(self, request: HttpRequest) -> HttpResponse:
        """The life of the actor that ``type`` and ``key`` name, if it has no page of its own."""
        _may(request, "actor")
        actor_type, key = request.GET.get("type", ""), request.GET.get("key", "")

        def context(using: str) -> dict[str, Any]:
            with transaction.atomic(using=using):
                named = Actor.objects.using(using).filter(actor_type=actor_type, actor_key=key)
                found = named.values_list("pk", flat=True).first()
                return {"found": found} if found else life_of(self, request, actor_type, key)

        page = self._page(request, "djactor/actor.html", "Actor", context)
        data = page.context_data or {}
        if data.get("found"):
            return HttpResponseRedirect(
                reverse(
                    "admin:djactor_actor_change",
                    args=[data["found"]],
                    current_app=self.admin_site.name,
                )
            )
        page.context_data = {**data, "actor_type": actor_type, "key": key}
        return page

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
                row["summary"] = _said(row["actor_type"], row["kind"], row["payload"], row["meta"])
            return {
                "rows": rows,
                "diagram": diagram.draw(rows),
                "head": diagram.HEAD,
                "fit": diagram.FIT,
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
                    "may_change": request.user.has_perm("djactor.change_timer"),
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
                "has_times": template != "djactor/live.html",  # whose script has its own clock
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


def _dead_letters(number: int) -> str:
    return "1 dead letter" if number == 1 else f"{count(number)} dead letters"


def _said(actor_type: str, kind: str, payload: Any, meta: Any) -> str:
    """What a message says, in a few words; a firing has the name of its timer."""
    if kind == "timer" and isinstance(meta, dict):
        return str(meta.get("name", ""))
    if kind == "error" and isinstance(meta, dict):
        error = meta.get("error") or meta.get("reason")
        return summaries.of_state(actor_type, error) if isinstance(error, dict) else str(error)
    return "" if payload is None else summaries.summary("MESSAGE_SUMMARY", actor_type, payload)


# What an event in the life of an actor is called, and how its outcome looks.
_EVENTS = {"timer": "timer", "message": "mail", "deadletter": "dead letter", "journal": "handled"}
_LOOKS = {
    "waiting": "warn", "retrying": "warn", "running": "busy", "paused": "warn", "handled": "quiet"
}  # fmt: skip


def life_of(
    page: admin.ModelAdmin, request: HttpRequest, actor_type: str, key: str
) -> dict[str, Any]:
    """What ``djactor/life.html`` shows: the events that the user may see, of those there are.

    Raises:
        DatabaseError: The role may not read them.
    """
    using, site = conf.get("DATABASE"), page.admin_site.name
    seen = [kind for kind in _EVENTS if request.user.has_perm(f"djactor.view_{kind}")]
    events, more = repair.life(using, actor_type, key, seen)
    for event in events:
        what = event["what"]
        event["called"] = _EVENTS[what]
        event["look"] = "bad" if what == "deadletter" else _LOOKS.get(event["outcome"], "")
        if event["large"]:
            event["said"] = "(large)"
        else:
            event["said"] = summaries.summary("MESSAGE_SUMMARY", actor_type, event["payload"])
        if what == "timer":
            query = urlencode({"type": actor_type, "key": key, "name": event["name"]})
            event["address"] = f"{reverse('admin:djactor_timer', current_app=site)}?{query}"
        else:
            event["address"] = reverse(
                f"admin:djactor_{what}_change", args=[event["id"]], current_app=site
            )
    types = ActorType.objects.using(using).filter(name=actor_type)
    return {
        "events": events,
        "more_events": more,
        "kinds": seen,
        "known_type": types.exists(),
        "keeps_journal": types.filter(journal__isnull=False).exists(),
        "entries": repair.ENTRIES,
        "each": repair.EVENTS,
        "send": urlencode({"type": actor_type, "key": key}),
    }


def confirmation(
    page: admin.ModelAdmin,
    request: HttpRequest,
    *,
    title: str,
    question: str,
    things: list[str],
    fields: list[tuple[str, str]],
    back: str,
) -> TemplateResponse:
    """A page that asks before something is done that cannot be undone.

    Args:
        page: The admin that it belongs to.
        request: The POST that asks for it; the answer is another one to the same address.
        title: What is to be done.
        question: What that means.
        things: What it is done to.
        fields: What the answer says beside ``post``.
        back: The address for those who do not want it.
    """
    return TemplateResponse(
        request,
        "djactor/confirm.html",
        {
            **page.admin_site.each_context(request),
            "is_nav_sidebar_enabled": False,
            "opts": page.opts,
            "title": title,
            "question": question,
            "things": things,
            "fields": fields,
            "back": back,
        },
    )
