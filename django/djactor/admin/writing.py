"""The admin's forms: a message is sent, and a dead letter is edited before it is redriven.

What always holds: what a person has typed is not lost.  If it is not JSON, or if the server refuses
it, the page says why and still has the text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.db import DatabaseError, models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from djactor import conf
from djactor.actors import actor
from djactor.exceptions import DjactorError
from djactor.fields import load_payload, normalise_key
from djactor.models import ActorType, Message

Act = Callable[[str, dict[str, Any]], tuple[models.Model, str]]


class JSONText(forms.CharField):
    """JSON as text; numbers stay as large as they are."""

    widget = forms.Textarea(attrs={"rows": 14, "cols": 80, "spellcheck": "false"})

    def clean(self, value: Any) -> Any:
        """What the text means.

        Raises:
            ValidationError: It is not JSON.
        """
        text = super().clean(value)
        try:
            return load_payload(text)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(f"This is not JSON: {error}") from error


class RedriveForm(forms.Form):
    """The payload of a dead letter."""

    payload = JSONText()


class SendForm(forms.Form):
    """A message: to whom, and what."""

    type = forms.ChoiceField()
    key = forms.CharField(help_text="The actor need not exist yet.")
    payload = JSONText(initial="{}")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        names = ActorType.objects.using(conf.get("DATABASE")).order_by("name")
        choices = [(name, name) for name in names.values_list("name", flat=True)]
        cast("forms.ChoiceField", self.fields["type"]).choices = choices

    def clean_key(self) -> str:
        """The key.

        Raises:
            ValidationError: It cannot be one.
        """
        try:
            return normalise_key(self.cleaned_data["key"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


def send_message(using: str, said: dict[str, Any]) -> tuple[Message, str]:
    """Send what a ``SendForm`` says."""
    number = actor(said["type"], said["key"], using=using).send(said["payload"])
    return Message(pk=number, actor_type=said["type"], actor_key=said["key"]), "sent"


def written(
    page: admin.ModelAdmin,
    request: HttpRequest,
    form: forms.Form,
    title: str,
    button: str,
    act: Act,
    then: Callable[[dict[str, Any]], str],
    about: str = "",
    why: str = "",
) -> HttpResponse:
    """A page with a form; once that is filled in, what it says is done.

    Args:
        page: The admin that the page belongs to.
        request: The request.
        form: The form.
        title: Of the page.
        button: The word on the button.
        act: Does it, by an alias and the data of the form; returns what the log is to name, and
            what was done with that.
        then: The address of the page to show then, by the data.
        about: What it is about, to be read above the form.
        why: An error that led here.
    """
    if request.method == "POST" and form.is_valid():
        using = conf.get("DATABASE")
        try:
            with transaction.atomic(using=using):
                what, done = act(using, form.cleaned_data)
        except (DatabaseError, DjactorError, ValueError) as error:
            form.add_error(None, f"Nothing was done: {error}")
        else:
            LogEntry.objects.log_actions(
                user_id=cast("int", request.user.pk),
                queryset=[what],
                action_flag=ADDITION if done == "sent" else CHANGE,
                change_message=f"{done.capitalize()}.",
            )
            page.message_user(request, f"Message {what.pk} was {done}.", messages.SUCCESS)
            return HttpResponseRedirect(then(form.cleaned_data))
    return TemplateResponse(
        request,
        "djactor/write.html",
        {
            **page.admin_site.each_context(request),
            "is_nav_sidebar_enabled": False,
            "opts": page.opts,
            "title": title,
            "form": form,
            "button": button,
            "about": about,
            "why": why,
        },
    )
