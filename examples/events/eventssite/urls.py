"""Addresses: the page with its two streams, and where events go in."""

from django.urls import path

from events import views

urlpatterns = [
    path("", views.board, name="board"),
    path("events/", views.ingest, name="ingest"),
    path("stream/devices/", views.device_stream, name="device-stream"),
    path("stream/alerts/", views.alert_stream, name="alert-stream"),
]
