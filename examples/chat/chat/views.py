"""The pages: a list of rooms, and a room with its posts as they come.

Posting sends a message to the room's actor, nothing more: its handler writes the history.
A page that shows a room has a stream of server-sent events which carries what matters of
the actor's state; when the count has grown, the page asks for the posts it has not seen.  So
each browser gets every post once and in order, whatever the stream left out or the network lost.
"""

import uuid

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

import djactor
from chat.forms import JoinForm, PostForm
from chat.models import ChatMessage
from djactor.models import Actor
from djactor.sse import state_events

SHOWN = 50  # posts of a room's history, and rooms


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The busiest rooms, and the way into one of them."""
    name = request.session.get("name", "")
    form = JoinForm(request.POST or None, initial={"name": name, "room": request.GET.get("room")})
    if request.method == "POST" and form.is_valid():
        request.session["name"] = form.cleaned_data["name"]
        return redirect("room", form.cleaned_data["room"])
    rooms = Actor.objects.filter(actor_type="chat.room").order_by("-state__count", "actor_key")
    return render(request, "chat/index.html", {"form": form, "rooms": rooms[:SHOWN]})


@require_http_methods(["GET", "POST"])
def room(request: HttpRequest, room: str) -> HttpResponse:
    """A room: its last posts, and a form for the next one."""
    name = request.session.get("name")
    if not name:
        return redirect(f"{reverse('index')}?room={room}")
    actor = djactor.actor("chat.room", room)
    if request.method == "POST":
        form = PostForm(request.POST)
        if not form.is_valid():
            return HttpResponse("A post has 1 to 500 characters.", status=400)
        actor.send(
            {"author": name, "text": form.cleaned_data["text"]},
            idempotency_key=str(form.cleaned_data["key"]),
        )
        return redirect("room", room)
    context = {
        "room": room,
        "name": name,
        "seen": summary(actor.state() or {}),
        "posts": last_posts(room),
        "key": uuid.uuid4(),
    }
    return render(request, "chat/room.html", context)


@require_GET
def posts(request: HttpRequest, room: str) -> HttpResponse:
    """The last posts after number ``after``, as JSON."""
    after = request.GET.get("after", "")
    if not (after.isdecimal() and len(after) < 19):
        return HttpResponse("after is the number of a post.", status=400)
    return JsonResponse({"posts": last_posts(room, int(after))})


async def events(request: HttpRequest, room: str) -> HttpResponseBase:
    """A stream of events ``state``, one whenever the room has changed."""
    return state_events(djactor.actor("chat.room", room), summary)


def summary(state: dict) -> dict[str, int]:
    """What a page shows of a room's state."""
    return {"posts": state.get("count", 0), "people": len(state.get("members", ()))}


def last_posts(room: str, after: int = 0) -> list[dict]:
    """The last posts after that number, in order."""
    fields = ("number", "author", "text", "handled_at")
    found = ChatMessage.objects.filter(room=room, number__gt=after).order_by("-number")
    return list(found.values(*fields)[:SHOWN])[::-1]
