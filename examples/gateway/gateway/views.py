"""What passes through, and the page that shows buckets and breakers."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

import djactor
from djactor.sse import type_events
from gateway.models import Client, Upstream
from gateway.timing import Timing, summary

ASK_TIMEOUT = 2.0  # seconds; an ask that nobody took up by then is not run later
UPSTREAM_TIMEOUT = 2.0  # seconds
# Seconds for which a connection to an upstream is kept unused: fewer than the upstream keeps it,
# or a request meets its end and counts as a failure of the upstream.  uvicorn keeps it for 5.
KEEPALIVE = 2.0
CLIENT = re.compile(r"[-A-Za-z0-9_]{1,50}")
PASSED_ON = {"accept", "accept-language", "content-type", "if-none-match", "user-agent"}
PASSED_BACK = {"cache-control", "content-language", "content-type", "etag", "location"}

upstreams = httpx.AsyncClient(
    timeout=UPSTREAM_TIMEOUT,
    limits=httpx.Limits(max_connections=100, keepalive_expiry=KEEPALIVE),
    trust_env=False,
)


class Refused(Exception):
    """The request does not pass; the answer says why, and after how many seconds it may."""

    def __init__(self, status: int, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        headers = {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
        self.response = JsonResponse({"error": why}, status=status, headers=headers)


@csrf_exempt
async def proxy(request: HttpRequest, upstream: str, path: str) -> HttpResponse:
    """Pass a request on, if its client has a token left and its upstream is well.

    The header ``X-Client`` says who calls; a gateway of yours would know that from an API key.

    401  nobody that we know
    404  no such upstream
    429  too many requests: Retry-After, and RateLimit-* as in every answer
    502  the upstream did not answer
    503  the upstream's breaker is open, or the actors cannot be asked: Retry-After
    """
    timing = Timing()
    headers: dict[str, str] = {}
    try:
        with timing.step("bucket"):
            await take_token(request.headers.get("X-Client", ""), headers)
        with timing.step("breaker"):
            gate = await pass_breaker(upstream)
        with timing.step("upstream"):
            response = await forward(request, upstream, f"{gate['url']}/{quote(path)}", gate)
    except Refused as refused:
        response = refused.response
    for name, text in {**headers, "Server-Timing": timing.header()}.items():
        response.headers[name] = text
    return response


async def take_token(client: str, headers: dict[str, str]) -> None:
    """Take one from the client's bucket; the headers tell what is left.  Errors: Refused."""
    if not CLIENT.fullmatch(client):
        raise Refused(401, "Who calls? Say so in X-Client.")
    with actors_answer():
        bucket = await djactor.actor("gateway.bucket", client).aask(timeout=ASK_TIMEOUT)
    if not bucket["known"]:
        raise Refused(401, "Nobody knows this client.")
    headers["RateLimit-Limit"] = str(bucket["limit"])
    headers["RateLimit-Remaining"] = str(bucket["remaining"])
    headers["RateLimit-Reset"] = str(math.ceil(bucket["reset"]))
    if not bucket["allowed"]:
        raise Refused(429, "Too many requests.", bucket["wait"])


async def pass_breaker(upstream: str) -> dict[str, Any]:
    """What the upstream's breaker says to a request that may pass.  Errors: Refused."""
    if len(upstream) > 50:
        raise Refused(404, "There is no such upstream.")
    with actors_answer():
        gate = await breaker(upstream).aask({"ask": "pass"}, timeout=ASK_TIMEOUT)
    if not gate["known"]:
        raise Refused(404, "There is no such upstream.")
    if not gate["pass"]:
        raise Refused(503, "The upstream is not well.", gate["wait"])
    return gate


async def forward(
    request: HttpRequest, upstream: str, url: str, gate: dict[str, Any]
) -> HttpResponse:
    """The upstream's answer.  Its breaker is told of failures, and of a success that it waits for.

    Nobody is told if this process dies meanwhile, or the client hangs up; which is why the breaker
    sets a timer for its probe.  Errors: Refused.
    """
    passed_on = {name: text for name, text in request.headers.items() if name.lower() in PASSED_ON}
    try:
        answer = await upstreams.request(
            request.method or "GET",
            url,
            params=request.META["QUERY_STRING"],
            content=request.body,
            headers=passed_on,
        )
    except httpx.RequestError:
        answer = None
    well = answer is not None and answer.status_code < 500
    if not well or gate["report_success"]:
        with contextlib.suppress(OperationalError, InterfaceError):
            await breaker(upstream).asend({"ok": well, "round": gate["round"]})
    if answer is None:
        raise Refused(502, "The upstream does not answer.")
    passed_back = {name: text for name, text in answer.headers.items() if name in PASSED_BACK}
    return HttpResponse(answer.content, status=answer.status_code, headers=passed_back)


def breaker(upstream: str) -> djactor.ActorRef:
    """The actor that knows whether the upstream is well."""
    return djactor.actor("gateway.breaker", upstream)


@contextlib.contextmanager
def actors_answer() -> Iterator[None]:
    """Inside, an actor that cannot be asked is a refusal: what it does not allow is not allowed."""
    try:
        yield
    except djactor.MailboxFull:
        raise Refused(429, "Too many requests at once.", 1) from None
    except (djactor.AskTimeout, OperationalError, InterfaceError):
        raise Refused(503, "The gateway cannot tell now.", 1) from None


#
# The page
#


@require_GET
def board(request: HttpRequest) -> HttpResponse:
    """The page."""
    return render(
        request,
        "gateway/board.html",
        {
            "clients": Client.objects.order_by("-rate"),
            "upstreams": Upstream.objects.order_by("name"),
        },
    )


async def bucket_stream(request: HttpRequest) -> StreamingHttpResponse:
    """The buckets of all clients, live."""
    return type_events("gateway.bucket")


async def breaker_stream(request: HttpRequest) -> StreamingHttpResponse:
    """The breakers of all upstreams, live."""
    return type_events("gateway.breaker")


@require_GET
def latency(request: HttpRequest) -> JsonResponse:
    """What the steps of a request took lately, in this process."""
    return JsonResponse(summary())


@require_POST
async def tell_upstream(request: HttpRequest, upstream: str) -> HttpResponse:
    """Tell the example's own upstream to fail, or to be well again, past its breaker."""
    found = await Upstream.objects.filter(name=upstream).afirst()
    if found is None:
        raise Http404
    await upstreams.post(f"{found.url}/control", params={"fail": request.POST["fail"]})
    return HttpResponse(status=204)
