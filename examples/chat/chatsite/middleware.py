"""A strict content security policy for all pages, the admin's included.

Scripts, styles and connections are the site's own, and none is written into a page.
(Django 6.0 brings such a middleware.)
"""

from collections.abc import Awaitable, Callable

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import async_only_middleware

POLICY = "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"


@async_only_middleware
def content_security_policy(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], Awaitable[HttpResponse]]:
    """Adds the header to each response."""

    async def middleware(request: HttpRequest) -> HttpResponse:
        response = await get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return middleware
