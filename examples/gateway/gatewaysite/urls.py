"""Addresses: what is passed on, and the page."""

from django.urls import path

from gateway import views

urlpatterns = [
    path("", views.board, name="board"),
    path("api/<slug:upstream>/<path:path>", views.proxy, name="proxy"),
    path("stream/buckets/", views.bucket_stream, name="bucket-stream"),
    path("stream/breakers/", views.breaker_stream, name="breaker-stream"),
    path("latency/", views.latency, name="latency"),
    path("upstream/<slug:upstream>/", views.tell_upstream, name="tell-upstream"),
]
