"""The models in Django's admin: what waits, what failed, and the few things to do about it.

Everything is for looking at, but for what djactor allows: redriving and discarding dead
letters, pausing and resuming types.  What was done, and by whom, is in the admin's log.  The live
page, the mailboxes, the timers and the diagram of a trace are pages of the ``ActorType`` admin.

What always holds: nobody sees or does anything here without Django's permission for the model
(``view``; ``change`` to redrive, pause and resume; ``delete`` to discard), and no page reads more
than a bounded number of rows, however much waits.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import DatabaseError, connections, models
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from djactor import conf
from djactor.admin.display import duration, pretty, shortened
from djactor.admin.pages import PagesMixin
from djactor.models import Actor, ActorType, DeadLetter, Message


class BoundedPaginator(Paginator):
    """Counts no further than ``LIMIT`` rows; who looks for older ones filters."""

    LIMIT = 10_000

    @cached_property
    def count(self) -> int:
        """So many rows, or ``LIMIT``."""
        rows: QuerySet = self.object_list  # type: ignore[assignment]  # lists are query sets
        return rows.order_by()[: self.LIMIT].count()


class LeanList(ChangeList):
    """A list without the JSON, which may be large and is not in any column."""

    def get_queryset(self, *arguments: Any, **named: Any) -> QuerySet:
        """The rows, JSON deferred."""
        json = [f.name for f in self.opts.concrete_fields if isinstance(f, models.JSONField)]
        return super().get_queryset(*arguments, **named).defer(*json)


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


class WordFilter(admin.SimpleListFilter):
    """By a column of few words that are known: Django's own filter would look for them."""

    words: tuple[str, ...] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The words."""
        return [(word, word.replace("_", " ")) for word in self.words]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """The rows with the chosen one."""
        column = str(self.parameter_name)
        return queryset.filter(**{column: self.value()}) if self.value() else queryset


def _by(column: str, *words: str) -> type[WordFilter]:
    return type(
        f"{column.capitalize()}Filter",
        (WordFilter,),
        {"title": column, "parameter_name": column, "words": words},
    )


#
# Columns: each is a function from a row to what the page shows.
#


def _column(name: str, show: Callable[[Any], object], order: str | None = None) -> Any:
    @admin.display(description=name, ordering=order, empty_value="")
    def column(row: Any) -> object:
        return show(row)

    return staticmethod(column)


def _time(value: datetime) -> SafeString:
    """To the second, in the current time zone; the rest is in the tooltip."""
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(),
        local.strftime("%Y-%m-%d %H:%M:%S.%f %Z"),
        local.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _json(value: object) -> SafeString:
    text, left_off = pretty(value)
    more = f"\n… {left_off:,} more characters" if left_off else ""
    return format_html('<pre class="djactor-json" tabindex="0">{}{}</pre>', text, more)


# How values are shown that Django would show otherwise.
_SHOWN: list[tuple[type[models.Field], Callable[[Any], object]]] = [
    (models.JSONField, _json),
    (models.DateTimeField, _time),
    (models.DurationField, duration),
    (models.BooleanField, lambda value: "yes" if value else "no"),
]


def _shown(field: models.Field) -> Any:
    """A column for a field, or None where Django's own will do."""
    show = next((show for kind, show in _SHOWN if isinstance(field, kind)), None)
    if show is None:
        return None
    return _column(
        str(field.verbose_name),
        lambda row: "" if (value := getattr(row, field.name)) is None else show(value),
        field.name,
    )


def _badge(kind: str, text: str) -> SafeString:
    """A word in a box; the word says it, the colour only helps to find it."""
    return format_html('<span class="djactor-badge {}">{}</span>', kind, text)


def _short(text: str) -> SafeString | str:
    """A key or an error; what does not fit is in the tooltip, and on the row's own page."""
    cut = shortened(text)
    return text if cut == text else format_html('<span title="{}">{}</span>', text[:2000], cut)


def _actor_name(actor_type: str, key: str) -> SafeString:
    return format_html(
        '<span class="djactor-key"><small>{}</small>{}</span>', actor_type, _short(key)
    )


def _message_state(row: Message) -> SafeString:
    now = timezone.now()
    if row.retry_at is not None and row.retry_at > now:
        return _badge("warn", f"retry in {duration(row.retry_at - now)}")
    if row.deliver_at is not None and row.deliver_at > now and row.attempts == 0:
        return _badge("", f"due in {duration(row.deliver_at - now)}")
    since = max(filter(None, (row.sent_at, row.deliver_at)))
    return _badge("quiet", f"waits for {duration(now - since)}")


def _actor_state(row: Actor) -> SafeString:
    if row.status != "active":
        return _badge("bad", row.status)
    return _badge("warn", "paused") if row.paused else _badge("quiet", row.status)


def _type_state(row: ActorType) -> SafeString:
    if row.paused:
        return format_html("{} {}", _badge("warn", "paused"), row.paused_reason or "")
    if row.problem:
        return format_html("{} {}", _badge("bad", "problem"), row.problem)
    hosts, has_mail = getattr(row, "hosts", None), getattr(row, "has_mail", False)
    if not row.hosted or hosts is None:
        return _badge("quiet", "running")
    if hosts == 0:
        said = "hosted by nobody"
        return (
            format_html("{} {}", _badge("bad", "problem"), f"{said}, and messages wait")
            if has_mail
            else _badge("warn", said)
        )
    return format_html("{} {}", _badge("quiet", "running"), f"hosted by {hosts}")


#
# The models
#


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that djactor writes: shown whole, JSON indented, and not to be changed."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they would count everything
    list_per_page = 50
    ordering = ("-id",)
    # By others would read everything.
    sortable_by: ClassVar[tuple[str, ...]] = ("id", "failed_at_shown")
    empty_value_display = ""
    first: tuple[str, ...] = ()  # columns that a row's page begins with

    _actor = _column("actor", lambda row: _actor_name(row.actor_type, row.actor_key))

    class Media:
        """One style sheet."""

        css = {"all": ("djactor/djactor.css",)}

    def __init__(self, model: type[models.Model], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        for field in self.opts.concrete_fields:
            column = _shown(field)
            if column is not None:
                setattr(self, f"{field.name}_shown", column.__func__)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """Of the database that settings.DJACTOR names."""
        return super().get_queryset(request).using(conf.get("DATABASE"))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list without JSON."""
        return LeanList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list, under its own name: there is nothing to select for a change."""
        context = {
            "title": capfirst(self.opts.verbose_name_plural),
            "djactor_limit": BoundedPaginator.LIMIT,
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """The columns that have a value, what matters first; JSON as indented text."""
        fields = {field.name: field for field in self.opts.concrete_fields}
        names = [*self.first, *(name for name in fields if name not in self.first)]
        return [
            f"{name}_shown" if hasattr(self, f"{name}_shown") else name
            for name in names
            if obj is None or getattr(obj, name) is not None
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

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """A row's page, with links to what belongs to it and buttons for what may be done."""
        row = self.get_object(request, unquote(object_id))
        context = {
            "title": capfirst(self.opts.verbose_name),
            "djactor_links": [] if row is None else list(self.links(row)),
            "show_delete": False,  # it is among the actions, under djactor's word for it
            "djactor_actions": [] if row is None else self.row_actions(request, row),
        }
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def links(self, row: Any) -> list[tuple[str, str]]:
        """Words and addresses of what belongs to the row."""
        return []

    def row_actions(self, request: HttpRequest, row: Any) -> list[tuple[str, str]]:
        """Names and words of the actions that make sense for the row, of those the user may run."""
        return []

    def lists(self, query: dict[str, str], **words: str) -> list[tuple[str, str]]:
        """Links to the lists of the models that ``words`` has words for, filtered."""
        return [
            (said, f"{self.address(f'{model}_changelist')}?{urlencode(query)}")
            for model, said in words.items()
        ]

    def address(self, name: str, *arguments: Any) -> str:
        """Of one of djactor's pages in this admin site."""
        return reverse(f"admin:djactor_{name}", args=arguments, current_app=self.admin_site.name)

    @admin.display(description="trace")
    def trace(self, row: Any) -> SafeString:
        """A link to the diagram of the trace it belongs to."""
        return format_html(
            '<a href="{}" aria-label="Trace of message {}">Trace</a>',
            self.address("trace", row.trace_id),
            row.pk,
        )

    def each(
        self, request: HttpRequest, queryset: QuerySet, function: str, what: str, done: str
    ) -> None:
        """Call a function of djactor for each selected row, all or none; log it, say how many."""
        rows = list(queryset.order_by("pk"))
        column = connections[queryset.db].ops.quote_name(str(self.opts.pk.column))
        try:
            with connections[queryset.db].cursor() as cursor:
                # Over the table: what is gone meanwhile is passed over.
                cursor.execute(
                    f"SELECT djactor.{function}({column}) FROM {self.opts.db_table}"
                    f" WHERE {column} = ANY(%s) ORDER BY {column}",
                    [[row.pk for row in rows]],
                )
                count = cursor.rowcount
        except DatabaseError as error:
            self.message_user(request, f"Nothing was {done}: {error}", messages.ERROR)
            return
        LogEntry.objects.log_actions(
            user_id=cast("int", request.user.pk),
            queryset=rows,
            action_flag=CHANGE,
            change_message=f"{capfirst(done)}.",
        )
        self.message_user(
            request, f"{count} {what}{'' if count == 1 else 's'} {done}.", messages.SUCCESS
        )


class ActorAdmin(ReadOnlyAdmin):
    """Actors and their states."""

    list_display = ("_actor", "_status", "turns", "failures", "updated_at_shown")
    list_filter = (TypeFilter, _by("status", "active", "suspended"), "paused")
    search_fields = ("actor_key__exact",)
    search_help_text = "The whole key of an actor."
    first = ("actor_type", "actor_key", "state", "status", "last_error")

    _status = _column("status", _actor_state)

    def links(self, row: Actor) -> list[tuple[str, str]]:
        """Its mail, what of it was given up, what it has handled, and its timers."""
        query = {"type": row.actor_type, "q": row.actor_key}
        return [
            *self.lists(query, message="Messages", deadletter="Dead letters", journal="Journal"),
            ("Timers", f"{self.address('timers')}?{urlencode(query)}"),
        ]


class _MailAdmin(ReadOnlyAdmin):
    """What the lists of messages, dead letters and handled messages have in common."""

    search_fields = ("actor_key__exact",)
    search_help_text = "The whole key of an actor."

    def links(self, row: Any) -> list[tuple[str, str]]:
        """The trace it belongs to, and its actor."""
        return [
            ("Trace", self.address("trace", row.trace_id)),
            *self.lists({"type": row.actor_type, "q": row.actor_key}, actor="Actor"),
        ]


class MessageAdmin(_MailAdmin):
    """What waits."""

    list_display = (
        "id", "_actor", "kind", "_waits", "attempts", "put_offs", "sent_at_shown", "trace"
    )  # fmt: skip
    list_filter = (TypeFilter, _by("kind", "user", "reply", "error", "timer", "down"))
    first = (
        "actor_type", "actor_key", "kind", "payload", "attempts", "put_offs", "last_error",
        "retry_at",
    )  # fmt: skip

    _waits = _column("state", _message_state)


class DeadLetterAdmin(_MailAdmin):
    """What was given up, to be sent again or discarded."""

    list_display = (
        "id", "_actor", "reason", "_error", "failed_at_shown", "trace"
    )  # fmt: skip
    list_filter = (
        TypeFilter,
        _by("reason", "failed", "expired", "crashed", "rejected", "stopped", "mailbox_full"),
    )
    actions = ("redrive", "delete_selected")
    first = (
        "actor_type", "actor_key", "reason", "error", "sqlstate", "context", "attempts",
        "failed_at", "payload",
    )  # fmt: skip

    _error = _column("error", lambda row: _short(row.error or ""))

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Deleting is discarding."""
        return request.user.has_perm("djactor.delete_deadletter")

    @admin.action(permissions=["delete"], description="Discard selected dead letters")
    def delete_selected(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        """Django's own deletion, which asks first, under djactor's word for it."""
        return delete_selected(self, request, queryset)

    def row_actions(self, request: HttpRequest, row: DeadLetter) -> list[tuple[str, str]]:
        """Redrive, discard."""
        words = {"redrive": "Redrive", "delete_selected": "Discard"}
        return [(name, words[name]) for name in words if name in self.get_actions(request)]

    @admin.action(permissions=["operate"], description="Redrive selected dead letters")
    def redrive(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Send them again, under the ids they had."""
        self.each(request, queryset, "redrive", "dead letter", "redriven")


class JournalAdmin(_MailAdmin):
    """What was handled, of types that keep a journal."""

    list_display = (
        "id", "_actor", "outcome", "turn", "_ran", "finished_at_shown", "trace"
    )  # fmt: skip
    list_filter = (
        TypeFilter,
        _by("outcome", "handled", "deferred", "duplicate", "coalesced", "expired"),
    )
    first = ("actor_type", "actor_key", "outcome", "payload", "reply")

    _ran = _column("ran", lambda row: duration(row.finished_at - row.started_at))


class ReplyAdmin(ReadOnlyAdmin):
    """Answers that wait for their askers."""

    list_display = ("message_id", "created_at_shown", "expires_at_shown")
    ordering = ("-message_id",)


class ActorTypeAdmin(PagesMixin, ReadOnlyAdmin):
    """Kinds of actors, to be paused and resumed; and the pages that show everything at once."""

    list_display = ("name", "_run", "_where", "handler", "owner")
    ordering = ("name",)
    sortable_by = ("name", "handler", "owner")
    actions = ("pause", "resume")
    first = ("name", "handler", "hosted", "owner", "paused", "paused_reason", "problem")

    _run = _column("state", _type_state)
    _where = _column("runs in", lambda row: "processes of Django" if row.hosted else "PostgreSQL")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """With how many hosts there are for a hosted type, and whether mail waits."""
        table = self.opts.db_table
        rows: QuerySet = super().get_queryset(request)
        found: QuerySet = rows.annotate(
            hosts=RawSQL(
                "(SELECT count(*) FROM djactor.host h"
                f" WHERE {table}.name = ANY(h.types) AND h.state <> 'draining')",
                [],
            ),
            has_mail=RawSQL(
                f"(EXISTS (SELECT FROM djactor.message m WHERE m.actor_type = {table}.name))",
                [],
            ),
        )
        return found

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """The state first, in a word; then the columns."""
        name, *others = super().get_fields(request, obj)
        return [name, "_run", *others]

    def links(self, row: ActorType) -> list[tuple[str, str]]:
        """Its actors, its mail, what of it was given up, and its timers."""
        query = {"type": row.name}
        return [
            *self.lists(query, actor="Actors", message="Messages", deadletter="Dead letters"),
            ("Timers", f"{self.address('timers')}?{urlencode(query)}"),
        ]

    def row_actions(self, request: HttpRequest, row: ActorType) -> list[tuple[str, str]]:
        """Pause or resume."""
        name, words = ("resume", "Resume") if row.paused else ("pause", "Pause")
        return [(name, words)] if self.has_operate_permission(request) else []

    @admin.action(permissions=["operate"], description="Pause selected types")
    def pause(self, request: HttpRequest, queryset: QuerySet) -> None:
        """No turn begins any more; mail waits."""
        self.each(request, queryset, "pause", "actor type", "paused")

    @admin.action(permissions=["operate"], description="Resume selected types")
    def resume(self, request: HttpRequest, queryset: QuerySet) -> None:
        """What waited is handled."""
        self.each(request, queryset, "resume", "actor type", "resumed")
