"""Where events go in, and the page that shows what became of them."""

from __future__ import annotations

import json

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

import djactor
from djactor.models import Message
from djactor.sse import state_events, type_events
from events.forms import EventForm

BATCH = 1000  # events in one request at most
WAIT = 1  # seconds after which a sender may try again


@csrf_exempt
@require_POST
def ingest(request: HttpRequest) -> JsonResponse:
    """Take an event, or a list of them: all or none.

    202  they are committed as messages; devices' actors handle each exactly once
    400  ``{"errors": [{"index": ..., "errors": {field: [...]}}]}``
    413  too many at once
    429  a device has sent much more than could be handled: try again after Retry-After
    503  the database is away, try again; whether it got these is unknown, which does not
         matter, since an event's id counts once
    """
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return JsonResponse({"errors": "The body is not JSON."}, status=400)
    events = body if isinstance(body, list) else [body]
    if len(events) > BATCH:
        return JsonResponse({"errors": f"More than {BATCH} events."}, status=413)

    forms = [EventForm.of(event) for event in events]
    errors = [
        {"index": index, "errors": form.errors.get_json_data()}
        for index, form in enumerate(forms)
        if not form.is_valid()
    ]
    if errors:
        return JsonResponse({"errors": errors}, status=400)

    try:
        Message.objects.bulk_create([form.message() for form in forms])
    except djactor.MailboxFull:
        return _later("A device's mailbox is full.", 429)
    except (OperationalError, InterfaceError):
        return _later("The database is away.", 503)
    return JsonResponse({"accepted": len(forms)}, status=202)


def _later(why: str, status: int) -> JsonResponse:
    return JsonResponse({"errors": why}, status=status, headers={"Retry-After": str(WAIT)})


@require_GET
def board(request: HttpRequest) -> HttpResponse:
    """The page."""
    return render(request, "events/board.html")


async def device_stream(request: HttpRequest) -> StreamingHttpResponse:
    """The states of all devices, live."""
    return type_events("events.device")


async def alert_stream(request: HttpRequest) -> StreamingHttpResponse:
    """The alert desk, live."""
    return state_events(djactor.actor("events.desk", "main"))
