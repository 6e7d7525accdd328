"""The shop, asked from async views, and an order with its live status."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

import djactor
from djactor.sse import state_events
from shop.forms import BuyForm, PutForm
from shop.models import Order, Product

CART = "cart"  # the cookie


async def ask_cart(request: HttpRequest, question: dict[str, Any]) -> dict[str, Any]:
    """What the cart of this browser answers.

    Raises:
        djactor.AskFailed: It refuses.
        djactor.AskTimeout: It did not answer in time.
    """
    key = request.get_signed_cookie(CART, default=None) or str(uuid.uuid4())
    request.META[CART] = key  # for remember()
    found: dict[str, Any] = await djactor.actor("shop.cart", key).aask(question, timeout=5)
    return found


def remember(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Give the browser the cookie that names its cart."""
    response.set_signed_cookie(CART, request.META[CART], httponly=True, samesite="Lax")
    return response


@require_GET
async def index(request: HttpRequest) -> HttpResponse:
    """What there is, and what is in the cart."""
    return await page(request, BuyForm())


async def page(request: HttpRequest, form: BuyForm, status: int = 200) -> HttpResponse:
    """The shop."""
    try:
        lines = (await ask_cart(request, {}))["lines"]
        products = [product async for product in Product.objects.order_by("name")]
    except (djactor.AskTimeout, OperationalError, InterfaceError):
        return later(request)
    context = {
        "products": [(product, lines.get(product.slug, 0)) for product in products],
        "total": sum(product.price * lines.get(product.slug, 0) for product in products),
        "form": form,
    }
    return remember(request, render(request, "shop/index.html", context, status=status))


@require_POST
async def put(request: HttpRequest) -> HttpResponse:
    """Put something into the cart."""
    form = PutForm(request.POST)
    if not form.is_valid():
        return HttpResponse("A product, and how many of it: 0 to 99.", status=400)
    question = {"put": form.cleaned_data["product"], "quantity": form.cleaned_data["quantity"]}
    try:
        await ask_cart(request, question)
    except djactor.AskFailed as error:
        return HttpResponse(error.message, status=400)
    except (djactor.AskTimeout, OperationalError, InterfaceError):
        return later(request)
    return remember(request, redirect("index"))


@require_POST
async def buy(request: HttpRequest) -> HttpResponse:
    """Buy what is in the cart.  Who does not get an answer may press the button again."""
    form = BuyForm(request.POST)
    if not form.is_valid():
        return await page(request, form, status=400)
    try:
        cart = await ask_cart(request, {"buy": form.cleaned_data})
    except (djactor.AskTimeout, OperationalError, InterfaceError):
        return later(request)
    if "order" not in cart:
        return redirect("index")  # there was nothing in it
    return remember(request, redirect("order", cart["order"]))


async def order_page(request: HttpRequest, order: uuid.UUID) -> HttpResponse:
    """An order; its number is hard to guess, and who knows it may look."""
    found = await Order.objects.filter(pk=order).prefetch_related("lines__product").afirst()
    if found is None:
        raise Http404
    return render(request, "shop/order.html", {"order": found})


async def order_stream(request: HttpRequest, order: uuid.UUID) -> StreamingHttpResponse:
    """Its status, live: a part of the state of its actor."""
    return state_events(
        djactor.actor("shop.order", order),
        lambda state: Order.Status(state["status"]).label,
        after=request.headers.get("Last-Event-ID"),
    )


def later(request: HttpRequest) -> HttpResponse:
    """The database is away, or busy; whether it got the question is unknown, which is no harm."""
    return HttpResponse("Please try again.", status=503, headers={"Retry-After": "1"})
