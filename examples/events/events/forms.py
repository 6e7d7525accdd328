"""What an event must look like."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from djactor.models import Message

TOLERANCE = timedelta(minutes=1)  # by which a device's clock may be ahead of ours


class EventForm(forms.Form):
    """One event: ``{"id": ..., "device": ..., "at": ..., "value": ...}``."""

    id = forms.RegexField(r"\A[A-Za-z0-9._:-]{1,100}\Z")
    device = forms.SlugField(max_length=50)
    at = forms.DateTimeField()
    value = forms.DecimalField(max_digits=9, decimal_places=3)

    @classmethod
    def of(cls, event: Any) -> EventForm:  # noqa: ANN401
        """The form for what came as JSON."""
        found = event if isinstance(event, dict) else {}
        return cls(
            {
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in found.items()
                if value is not None
            }
        )

    def clean_at(self) -> datetime:
        """A time from the future would make all that follow look late."""
        at = self.cleaned_data["at"]
        if at > timezone.now() + TOLERANCE:
            raise ValidationError("This is in the future.", code="future")
        return at

    def message(self) -> Message:
        """The message for the device's actor.

        A second message with the idempotency key of an earlier one is accepted and comes to
        nothing, so a sender that does not know whether we got an event sends it again.
        """
        event = self.cleaned_data
        return Message(
            actor_type="events.device",
            actor_key=event["device"],
            payload={"at": event["at"], "value": event["value"]},
            idempotency_key=event["id"],
        )
