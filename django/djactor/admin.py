"""Django's admin for djactor: what waits, what failed, and the few things to do about it.

Everything is for looking at, but for what djactor allows: redriving and discarding dead
letters, pausing and resuming types.  The live page, the mailboxes and the diagram of a trace are
pages of the ``ActorType`` admin.

What always holds: nobody sees or does anything here without Django's permission for the model
(``view``; ``change`` to redrive, pause and resume; ``delete`` to discard), and no page reads more
than a bounded number of rows, however much waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import DatabaseError, connections, models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from djactor import conf, diagram, live
from djactor.models import Actor, ActorType, DeadLetter, Journal, Message, Reply

TRACE_LIMIT = 200  # messages in a diagram


class BoundedPaginator(Paginator):
    """Counts no further than ``LIMIT`` rows; who looks for older ones filters."""

    LIMIT = 10_000

    @cached_property
    def count(self) -> int:
        """So many rows, or ``LIMIT``."""
        return self.object_list.order_by()[: self.LIMIT].count()


class TypeFilter(admin.SimpleListFilter):
    """By actor type; the choices are the defined types, not those in a large table."""

    title = "actor type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All types."""
        names = ActorType.objects.using(conf.get("DATABASE")).order_by("name")
        return [(name, name) for name in names.values_list("name", flat=True)]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Those of the chosen one."""
        return queryset.filter(actor_type=self.value()) if self.value() else queryset


def _pretty(name: str) -> Callable[[Any, models.Model], SafeString | str]:
    @admin.display(description=name.replace("_", " "))
    def show(self: Any, row: models.Model) -> SafeString | str:
        value = getattr(row, name)
        if value is None:
            return "-"
        text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
        return format_html('<pre class="djactor-json">{}</pre>', text)

    return show


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that djactor writes: shown whole, JSON indented, and not to be changed."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    ordering = ("-id",)

    payload_pretty = _pretty("payload")
    headers_pretty = _pretty("headers")
    meta_pretty = _pretty("meta")
    state_pretty = _pretty("state")
    reply_pretty = _pretty("reply")
    error_pretty = _pretty("error")
    initial_state_pretty = _pretty("initial_state")

    class Media:
        """One style sheet, for indented JSON."""

        css = {"all": ("djactor/djactor.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """Of the database that settings.DJACTOR names."""
        return super().get_queryset(request).using(conf.get("DATABASE"))

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        """All columns; JSON as indented text."""
        return [
            f"{field.name}_pretty" if isinstance(field, models.JSONField) else field.name
            for field in self.opts.concrete_fields
        ]

    def get_readonly_fields(
        self, request: HttpRequest, obj: models.Model | None = None
    ) -> list[str]:
        """All of them."""
        return self.get_fields(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Nobody; what may be done are actions."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Nobody."""
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the user may run the actions: with Django's permission to change."""
        return request.user.has_perm(f"djactor.change_{self.opts.model_name}")

    @admin.display(description="trace")
    def trace(self, row: Any) -> SafeString:
        """A link to the diagram of the trace it belongs to."""
        url = reverse("admin:djactor_trace", args=[row.trace_id], current_app=self.admin_site.name)
        return format_html('<a href="{}">trace of {}</a>', url, row.pk)

    def each(
        self, request: HttpRequest, queryset: QuerySet, function: str, what: str, done: str
    ) -> None:
        """Call a function of djactor for each selected row, all or none, and say how many."""
        keys = list(queryset.order_by("pk").values_list("pk", flat=True))
        column = connections[queryset.db].ops.quote_name(self.opts.pk.column)
        try:
            with connections[queryset.db].cursor() as cursor:
                # Over the table: what is gone meanwhile is passed over.
                cursor.execute(
                    f"SELECT djactor.{function}({column}) FROM {self.opts.db_table}"
                    f" WHERE {column} = ANY(%s) ORDER BY {column}",
                    [keys],
                )
                count = cursor.rowcount
        except DatabaseError as error:
            self.message_user(request, f"Nothing was {done}: {error}", messages.ERROR)
            return
        self.message_user(
            request, f"{count} {what}{'' if count == 1 else 's'} {done}.", messages.SUCCESS
        )


@admin.register(Actor)
class ActorAdmin(ReadOnlyAdmin):
    """Actors and their states."""

    list_display = (
        "actor_type",
        "actor_key",
        "status",
        "paused",
        "turns",
        "failures",
        "updated_at",
    )
    list_display_links = ("actor_type", "actor_key")
    list_filter = (TypeFilter, "status", "paused")
    search_fields = ("actor_key__exact",)
    search_help_text = "a whole key"


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """What waits."""

    list_display = (
        "id", "actor_type", "actor_key", "kind", "sent_at", "attempts", "retry_at", "trace"
    )  # fmt: skip
    list_filter = (TypeFilter, "kind")
    search_fields = ("actor_key__exact",)
    search_help_text = "a whole key"


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """What was given up, to be sent again or discarded."""

    list_display = (
        "id", "actor_type", "actor_key", "reason", "sqlstate", "error", "failed_at", "trace"
    )  # fmt: skip
    list_filter = (TypeFilter, "reason")
    search_fields = ("actor_key__exact",)
    search_help_text = "a whole key"
    error_pretty = None
    actions = ("redrive",)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Deleting is discarding."""
        return request.user.has_perm("djactor.delete_deadletter")

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Django's own deletion, which asks first, under djactor's word for it."""
        actions = super().get_actions(request)
        if "delete_selected" in actions:
            function, name, _ = actions["delete_selected"]
            actions["delete_selected"] = (function, name, "Discard selected dead letters")
        return actions

    @admin.action(permissions=["operate"], description="Redrive selected dead letters")
    def redrive(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Send them again, under the ids they had."""
        self.each(request, queryset, "redrive", "dead letter", "redriven")


@admin.register(Journal)
class JournalAdmin(ReadOnlyAdmin):
    """What was handled, of types that keep a journal."""

    list_display = ("id", "actor_type", "actor_key", "outcome", "turn", "finished_at", "trace")
    list_filter = (TypeFilter, "outcome")
    search_fields = ("actor_key__exact",)
    search_help_text = "a whole key"


@admin.register(Reply)
class ReplyAdmin(ReadOnlyAdmin):
    """Answers that wait for their askers."""

    list_display = ("message_id", "created_at", "expires_at")
    ordering = ("-message_id",)


@admin.register(ActorType)
class ActorTypeAdmin(ReadOnlyAdmin):
    """Kinds of actors, to be paused and resumed; and the pages that show everything at once."""

    list_display = ("name", "handler", "owner", "paused", "paused_reason", "problem")
    ordering = ("name",)
    actions = ("pause", "resume")

    @admin.action(permissions=["operate"], description="Pause selected types")
    def pause(self, request: HttpRequest, queryset: QuerySet) -> None:
        """No turn begins any more; mail waits."""
        self.each(request, queryset, "pause", "actor type", "paused")

    @admin.action(permissions=["operate"], description="Resume selected types")
    def resume(self, request: HttpRequest, queryset: QuerySet) -> None:
        """What waited is handled."""
        self.each(request, queryset, "resume", "actor type", "resumed")

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
        self._may(request, "actortype")
        context: dict[str, Any] = {"title": "Live"}
        try:
            context["now"] = live.snapshot(conf.get("DATABASE"))
        except DatabaseError as error:
            context["error"] = str(error)
        return self._page(request, "djactor/live.html", context)

    def live_data(self, request: HttpRequest) -> JsonResponse:
        """The same as JSON; status 503 with ``error`` while the database cannot be read."""
        self._may(request, "actortype")
        try:
            return JsonResponse(live.snapshot(conf.get("DATABASE")))
        except DatabaseError as error:
            return JsonResponse({"error": str(error)}, status=503)

    def mailboxes_view(self, request: HttpRequest) -> HttpResponse:
        """The longest mailboxes and the next timers."""
        self._may(request, "mailbox")
        using = conf.get("DATABASE")
        return self._page(
            request,
            "djactor/mailboxes.html",
            {
                "title": "Mailboxes",
                "mailboxes": live.mailboxes(using),
                "timers": live.timers(using),
                "shown": live.SHOWN,
                "sample": live.SAMPLE,
            },
        )

    def trace_view(self, request: HttpRequest, trace_id: UUID) -> HttpResponse:
        """One request's messages as a sequence diagram, and as a table."""
        self._may(request, "message")
        rows = live.trace(conf.get("DATABASE"), trace_id, TRACE_LIMIT + 1)
        return self._page(
            request,
            "djactor/trace.html",
            {
                "title": f"Trace {trace_id}",
                "rows": rows[:TRACE_LIMIT],
                "diagram": diagram.draw(rows[:TRACE_LIMIT]),
                "more": len(rows) > TRACE_LIMIT,
                "limit": TRACE_LIMIT,
            },
        )

    def _may(self, request: HttpRequest, model: str) -> None:
        if not request.user.has_perm(f"djactor.view_{model}"):
            raise PermissionDenied

    def _page(
        self, request: HttpRequest, template: str, context: dict[str, Any]
    ) -> TemplateResponse:
        return TemplateResponse(
            request,
            template,
            {**self.admin_site.each_context(request), "opts": self.opts, **context},
        )
