"""The models in Django's admin: what waits, what failed, and the few things to do about it.

Everything is for looking at, but for what djactor allows: redriving and discarding dead letters,
pausing, resuming and stopping, sending and cancelling.  What was done, and by whom, is in the
admin's log.  The live page, the groups of dead letters, the mailboxes, the timers and the diagram
of a trace are pages of the ``ActorType`` admin.

What always holds: nobody sees or does anything here without Django's permission for the model
(``view``; ``change`` to redrive, pause and resume; ``delete`` to discard, cancel and stop; ``add``
to send), and no page reads more than a bounded number of rows, however much waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import DatabaseError, connections, models, transaction
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from djactor import conf, summaries
from djactor.admin import repair
from djactor.admin.display import clock, duration, pretty, shortened
from djactor.admin.pages import PagesMixin, confirmation, life_of
from djactor.admin.writing import RedriveForm, SendForm, send_message, written
from djactor.fields import PayloadDecoder
from djactor.models import Actor, ActorType, DeadLetter, Message

TEXT_LIMIT = 100_000  # characters of an error on a page
STOPPED_AT_ONCE = 1000  # actors that are stopped with one question


class BoundedPaginator(Paginator):
    """Counts no further than ``LIMIT`` rows; who looks for older ones filters."""

    LIMIT = 10_000

    @cached_property
    def count(self) -> int:
        """So many rows, or ``LIMIT``."""
        rows: QuerySet = self.object_list  # type: ignore[assignment]  # lists are query sets
        return rows.order_by()[: self.LIMIT].count()


class LeanList(ChangeList):
    """A list without the JSON, which may be large; what is summed up is read if it is small."""

    def get_queryset(self, *arguments: Any, **named: Any) -> QuerySet:
        """The rows, JSON deferred, with ``brief``: the JSON to sum up, or None if it is large."""
        json = [f.name for f in self.opts.concrete_fields if isinstance(f, models.JSONField)]
        rows: QuerySet = super().get_queryset(*arguments, **named).defer(*json)
        column = cast("ReadOnlyAdmin", self.model_admin).summed_up
        if column:
            whole = f"{self.opts.db_table}.{column}"
            rows = rows.annotate(
                brief=RawSQL(
                    f"CASE WHEN pg_column_size({whole}) <= {repair.JSON_BYTES} THEN {whole} END",
                    [],
                    output_field=models.JSONField(null=True, decoder=PayloadDecoder),
                ),
            )
        return rows


class TypeList(LeanList):
    """The types, each with the class that it runs, if it is one of Python's."""

    def get_results(self, request: HttpRequest) -> None:
        """The rows of a page."""
        super().get_results(request)
        classes = repair.python_classes(conf.get("DATABASE"))
        for row in self.result_list:
            row.python_class = classes.get(row.name)


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


class ErrorFilter(admin.SimpleListFilter):
    """By the error that dead letters of a group have in common; the page of groups links here.

    The value begins with ``=``, since there are groups without an error.
    """

    title = "error"
    parameter_name = "error"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The one that was asked for."""
        given = request.GET.get(str(self.parameter_name), "")
        return [(given, shortened(given[1:]) or "none")] if given else []

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Those of the latest dead letters that have it."""
        error = self.value()
        return queryset.filter(pk__in=repair.with_error(error[1:])) if error else queryset


class PausedFilter(WordFilter):
    """By whether an actor is paused."""

    title = parameter_name = "paused"
    words = ("yes", "no")

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Those that are, or are not."""
        return queryset.filter(paused=self.value() == "yes") if self.value() else queryset


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


def _json(value: object) -> SafeString:
    text, left_off = pretty(value)
    more = f"\n… {left_off:,} more characters" if left_off else ""
    return format_html('<pre class="djactor-json" tabindex="0">{}{}</pre>', text, more)


def _text(value: object) -> SafeString:
    """A traceback, or where a function was: the lines as they are."""
    text = str(value)
    left_off = max(0, len(text) - TEXT_LIMIT)
    more = f"\n… {left_off:,} more characters" if left_off else ""
    return format_html('<pre class="djactor-json" tabindex="0">{}{}</pre>', text[:TEXT_LIMIT], more)


# How values are shown that Django would show otherwise.
_SHOWN: list[tuple[type[models.Field], Callable[[Any], object]]] = [
    (models.JSONField, _json),
    (models.DateTimeField, clock),
    (models.DurationField, duration),
    (models.BooleanField, lambda value: "yes" if value else "no"),
]
_TEXTS = ("error", "last_error", "context")


def _shown(field: models.Field) -> Any:
    """A column for a field, or None where Django's own will do."""
    show = next((show for kind, show in _SHOWN if isinstance(field, kind)), None)
    if field.name in _TEXTS:
        show = _text
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
    now = row.now  # type: ignore[attr-defined]  # the server's, as all other times here
    if row.retry_at is not None and row.retry_at > now:
        return _badge("warn", f"retry in {duration(row.retry_at - now)}")
    if row.deliver_at is not None and row.deliver_at > now and row.attempts == 0:
        return _badge("", f"due in {duration(row.deliver_at - now)}")
    since = max(filter(None, (row.sent_at, row.deliver_at)))
    return _badge("quiet", f"waits for {duration(now - since)}")


def _tries(row: Message) -> str:
    """How many attempts have failed; put off is what seems to be nobody's fault."""
    return f"{row.attempts}, {row.put_offs} put off" if row.put_offs else str(row.attempts)


def _summary(setting: str) -> Any:
    """A column: a few words instead of JSON."""

    def show(row: Any) -> str:
        if row.brief is None:
            return "(large)"
        return summaries.summary(setting, row.actor_type, row.brief)

    return _column(setting.removesuffix("_SUMMARY").lower(), show)


def _type_handler(row: ActorType) -> str:
    """The class of a type that is Python's, else its function."""
    return getattr(row, "python_class", None) or row.handler or ""


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
    summed_up = ""  # the column with the JSON that a list shows a summary of

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
            if obj is None or name not in fields or getattr(obj, name) is not None
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

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Whether the user may run actions that end something: with the permission to delete."""
        return request.user.has_perm(f"djactor.delete_{self.opts.model_name}")

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
            "djactor_links": [] if row is None else list(self.links(request, row)),
            "show_delete": False,  # it is among the actions, under djactor's word for it
            "djactor_actions": [] if row is None else self.row_actions(request, row),
        }
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def links(self, request: HttpRequest, row: Any) -> list[tuple[str, str]]:
        """Words and addresses of what belongs to the row."""
        return []

    def send_link(self, request: HttpRequest, **named: str) -> list[tuple[str, str]]:
        """A link to the page that sends a message, for those who may."""
        if not request.user.has_perm("djactor.add_message"):
            return []
        return [("Send a message", f"{self.address('message_add')}?{urlencode(named)}")]

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
        self, request: HttpRequest, queryset: QuerySet, call: str, what: str, done: str
    ) -> None:
        """Call a function of djactor for each selected row, all or none; log it, say how many.

        Args:
            request: The request.
            queryset: The selected rows.
            call: The call, such as ``redrive(id)``.
            what: A row, in a word.
            done: What was done then.
        """
        rows = list(queryset.order_by("pk"))
        column = connections[queryset.db].ops.quote_name(str(self.opts.pk.column))
        try:
            with transaction.atomic(using=queryset.db):
                count = repair.call_each(
                    queryset.db, call, self.opts.db_table, column, [row.pk for row in rows]
                )
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
    """Actors: their states, their lives, and what may be done with them."""

    list_display = ("_actor", "_status", "_brief", "turns", "failures", "updated_at_shown")
    list_filter = (TypeFilter, _by("status", "active", "suspended"), PausedFilter)
    search_fields = ("actor_key__exact",)
    search_help_text = "The whole key of an actor."
    actions = ("resume", "pause", "stop")
    first = ("state", "_status", "last_error", "failures", "turns")
    summed_up = "state"
    change_form_template = "admin/djactor/actor/change_form.html"

    _status = _column("status", _actor_state)
    _brief = _summary("STATE_SUMMARY")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The state, and then the life."""
        row = self.get_object(request, unquote(object_id))
        found: dict[str, Any] = {}
        if row is not None:
            try:
                with transaction.atomic(using=conf.get("DATABASE")):
                    found = life_of(self, request, row.actor_type, row.actor_key)
            except DatabaseError as error:
                self.message_user(request, f"Its life cannot be read: {error}", messages.ERROR)
        return super().change_view(request, object_id, form_url, found | (extra_context or {}))

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """What stands before the life, and the rest, which stands behind it."""
        names = self.get_fields(request, obj)
        before = [name for name in names if name.removesuffix("_shown") in self.first]
        told = ("status", "paused_shown")  # in a word, before
        return [
            (None, {"fields": before}),
            ("More", {"fields": [name for name in names if name not in (*before, *told)]}),
        ]

    def links(self, request: HttpRequest, row: Actor) -> list[tuple[str, str]]:
        """Its mail, what of it was given up, what it has handled, and its timers."""
        query = {"type": row.actor_type, "q": row.actor_key}
        return [
            *self.lists(query, message="Messages", deadletter="Dead letters", journal="Journal"),
            ("Timers", f"{self.address('timers')}?{urlencode(query)}"),
            *self.send_link(request, type=row.actor_type, key=row.actor_key),
        ]

    def row_actions(self, request: HttpRequest, row: Actor) -> list[tuple[str, str]]:
        """Resume or pause; stop."""
        stands = row.paused or row.status != "active"
        words = {"resume": "Resume"} if stands else {"pause": "Pause"}
        words |= {"stop": "Stop"}
        return [(name, words[name]) for name in words if name in self.get_actions(request)]

    @admin.action(permissions=["operate"], description="Resume selected actors")
    def resume(self, request: HttpRequest, queryset: QuerySet) -> None:
        """End a pause or a suspension; what failed is tried again."""
        self.each(request, queryset, "resume(actor_type, actor_key)", "actor", "resumed")

    @admin.action(permissions=["operate"], description="Pause selected actors")
    def pause(self, request: HttpRequest, queryset: QuerySet) -> None:
        """No turn begins any more; mail waits."""
        self.each(request, queryset, "pause(actor_type, actor_key)", "actor", "paused")

    @admin.action(permissions=["end"], description="Stop selected actors")
    def stop(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        """State and timers go, after a question."""
        if "post" in request.POST:
            self.each(request, queryset, "stop_actor(actor_type, actor_key)", "actor", "stopped")
            return None
        rows = list(queryset.order_by("pk")[: STOPPED_AT_ONCE + 1])
        if len(rows) > STOPPED_AT_ONCE:
            self.message_user(
                request, f"Select at most {STOPPED_AT_ONCE:,} actors to stop.", messages.ERROR
            )
            return None
        return confirmation(
            self,
            request,
            title="Stop actors" if len(rows) > 1 else "Stop an actor",
            question="Their states and timers are deleted, and cannot be brought back."
            " Mail that waits goes to fresh actors. Who watches them is told.",
            things=[str(row) for row in rows],
            fields=[("action", "stop"), *(("_selected_action", str(row.pk)) for row in rows)],
            back=self.address("actor_changelist"),
        )


class _MailAdmin(ReadOnlyAdmin):
    """What the lists of messages, dead letters and handled messages have in common."""

    search_fields = ("actor_key__exact",)
    search_help_text = "The whole key of an actor."
    summed_up = "payload"

    _brief = _summary("MESSAGE_SUMMARY")

    def links(self, request: HttpRequest, row: Any) -> list[tuple[str, str]]:
        """The trace it belongs to, and its actor."""
        actor = urlencode({"type": row.actor_type, "key": row.actor_key})
        return [
            ("Trace", self.address("trace", row.trace_id)),
            ("Actor", f"{self.address('life')}?{actor}"),
        ]


class MessageAdmin(_MailAdmin):
    """What waits, to be cancelled; and what is to be sent."""

    list_display = (
        "id", "_actor", "kind", "_brief", "_waits", "_tries", "sent_at_shown", "trace"
    )  # fmt: skip
    list_filter = (TypeFilter, _by("kind", "user", "reply", "error", "timer", "down"))
    actions = ("cancel", "break_off")
    first = (
        "actor_type", "actor_key", "kind", "payload", "attempts", "put_offs", "last_error",
        "retry_at",
    )  # fmt: skip

    _waits = _column("state", _message_state)
    _tries = _column("attempts", _tries)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """With the server's time."""
        found: QuerySet = super().get_queryset(request).annotate(now=Now())
        return found

    def has_add_permission(self, request: HttpRequest) -> bool:
        """To add one is to send it."""
        return request.user.has_perm("djactor.add_message")

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """A message of a person, to an actor that need not be there yet."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = SendForm(
            request.POST or None,
            initial={"key": request.GET.get("key", ""), "type": request.GET.get("type", "")},
        )

        def life(said: dict[str, Any]) -> str:
            actor = urlencode({"type": said["type"], "key": said["key"]})
            return f"{self.address('life')}?{actor}"

        return written(self, request, form, "Send a message", "Send", send_message, life)

    def row_actions(self, request: HttpRequest, row: Message) -> list[tuple[str, str]]:
        """Cancel, with a turn that runs or without."""
        words = {"cancel": "Cancel", "break_off": "Cancel, and break off its turn"}
        return [(name, words[name]) for name in words if name in self.get_actions(request)]

    @admin.action(permissions=["end"], description="Cancel selected messages")
    def cancel(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Take them back; who has asked gets an error."""
        self.each(request, queryset, "cancel(id)", "message", "cancelled")

    @admin.action(permissions=["end"], description="Cancel them, and break off their turns")
    def break_off(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Take them back, though turns handle them."""
        self.each(request, queryset, "cancel(id, true)", "message", "cancelled")


class DeadLetterAdmin(_MailAdmin):
    """What was given up, to be sent again, as it was or changed, or discarded."""

    list_display = (
        "id", "_actor", "_brief", "reason", "_error", "failed_at_shown", "trace"
    )  # fmt: skip
    list_filter = (
        TypeFilter,
        _by("reason", "failed", "expired", "crashed", "rejected", "stopped", "mailbox_full"),
        ErrorFilter,
    )
    actions = ("redrive", "delete_selected")
    first = (
        "actor_type", "actor_key", "reason", "error", "sqlstate", "context", "attempts",
        "failed_at", "payload",
    )  # fmt: skip

    _error = _column("error", lambda row: _short((row.error or "").split("\n")[0]))

    def get_urls(self) -> list[Any]:
        """With the page that changes one and redrives it."""
        wrap = self.admin_site.admin_view
        return [
            path(
                "<int:number>/redrive/",
                wrap(self.redrive_view),
                name="djactor_deadletter_redrive",
            ),
            *super().get_urls(),
        ]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """What was said last is the error, as a rule: once is enough."""
        names = super().get_fields(request, obj)
        if isinstance(obj, DeadLetter) and obj.last_error and obj.last_error in (obj.error or ""):
            names.remove("last_error_shown")
        return names

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Deleting is discarding."""
        return request.user.has_perm("djactor.delete_deadletter")

    def may_edit(self, request: HttpRequest) -> bool:
        """To redrive with another payload is to send, too."""
        return self.has_operate_permission(request) and request.user.has_perm("djactor.add_message")

    @admin.action(permissions=["delete"], description="Discard selected dead letters")
    def delete_selected(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        """Django's own deletion, which asks first, under djactor's word for it."""
        return delete_selected(self, request, queryset)

    def links(self, request: HttpRequest, row: DeadLetter) -> list[tuple[str, str]]:
        """Those like it, too."""
        return [
            *super().links(request, row),
            ("Equal ones", f"{self.address('deadletter_changelist')}?{repair.query_of(row)}"),
            *(
                [("Edit and redrive", self.address("deadletter_redrive", row.pk))]
                if self.may_edit(request)
                else []
            ),
        ]

    def row_actions(self, request: HttpRequest, row: DeadLetter) -> list[tuple[str, str]]:
        """Redrive, discard."""
        words = {"redrive": "Redrive", "delete_selected": "Discard"}
        return [(name, words[name]) for name in words if name in self.get_actions(request)]

    @admin.action(permissions=["operate"], description="Redrive selected dead letters")
    def redrive(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Send them again, under the ids they had."""
        self.each(request, queryset, "redrive(id)", "dead letter", "redriven")

    def redrive_view(self, request: HttpRequest, number: int) -> HttpResponse:
        """Change the payload of a dead letter, and redrive it."""
        if not self.may_edit(request):
            raise PermissionDenied
        row = self.get_queryset(request).filter(pk=number).first()
        if row is None:
            self.message_user(request, f"There is no dead letter {number}.", messages.WARNING)
            return HttpResponseRedirect(self.address("deadletter_changelist"))
        text, left_off = pretty(row.payload)
        if left_off:
            self.message_user(
                request, "The payload is too large to be edited here.", messages.ERROR
            )
            return HttpResponseRedirect(self.address("deadletter_change", number))
        form = RedriveForm(request.POST or None, initial={"payload": text})

        def act(using: str, said: dict[str, Any]) -> tuple[models.Model, str]:
            row.redrive(using, payload=said["payload"])
            return row, "redriven with a payload that was edited"

        actor = urlencode({"type": row.actor_type, "key": row.actor_key})
        return written(
            self,
            request,
            form,
            f"Edit and redrive message {number}",
            "Redrive",
            act,
            lambda said: f"{self.address('life')}?{actor}",
            about=f"To {row.actor_type} {row.actor_key}, {row.reason}. It keeps its id, and is"
            " handled as if it had never failed.",
            why=(row.error or "")[:2000],
        )


class JournalAdmin(_MailAdmin):
    """What was handled, of types that keep a journal."""

    list_display = (
        "id", "_actor", "_brief", "outcome", "turn", "_ran", "finished_at_shown", "trace"
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

    list_display = ("name", "_run", "_where", "_handler", "owner")
    ordering = ("name",)
    sortable_by = ("name", "_handler", "owner")
    actions = ("pause", "resume")
    first = ("name", "handler", "hosted", "owner", "paused", "paused_reason", "problem")

    _run = _column("state", _type_state)
    _handler = _column("handler", _type_handler, "handler")
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

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list with classes."""
        return TypeList

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> ActorType | None:
        """With its class."""
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            classes = repair.python_classes(conf.get("DATABASE"))
            row.python_class = classes.get(row.name)
        return row

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """The state first, in a word; then the columns, with the class for the handler."""
        name, *others = super().get_fields(request, obj)
        return [name, "_run", *("_handler" if one == "handler" else one for one in others)]

    def links(self, request: HttpRequest, row: ActorType) -> list[tuple[str, str]]:
        """Its actors, its mail, what of it was given up, and its timers."""
        query = {"type": row.name}
        return [
            *self.lists(query, actor="Actors", message="Messages", deadletter="Dead letters"),
            ("Timers", f"{self.address('timers')}?{urlencode(query)}"),
            *self.send_link(request, **query),
        ]

    def row_actions(self, request: HttpRequest, row: ActorType) -> list[tuple[str, str]]:
        """Pause or resume."""
        name, words = ("resume", "Resume") if row.paused else ("pause", "Pause")
        return [(name, words)] if self.has_operate_permission(request) else []

    @admin.action(permissions=["operate"], description="Pause selected types")
    def pause(self, request: HttpRequest, queryset: QuerySet) -> None:
        """No turn begins any more; mail waits."""
        self.each(request, queryset, "pause(name)", "actor type", "paused")

    @admin.action(permissions=["operate"], description="Resume selected types")
    def resume(self, request: HttpRequest, queryset: QuerySet) -> None:
        """What waited is handled."""
        self.each(request, queryset, "resume(name)", "actor type", "resumed")
