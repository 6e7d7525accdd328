"""URLs of the test project: the admin, and a page that asks."""

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import path

import djactor


def count(request: HttpRequest) -> JsonResponse:
    """Counts its visitors."""
    return JsonResponse(djactor.actor("shop.counter", 1).ask({"add": 1}, timeout=30))


urlpatterns = [path("admin/", admin.site.urls), path("count", count)]
