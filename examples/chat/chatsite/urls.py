"""Addresses: the chat, and Django's admin with djactor's pages."""

from django.contrib import admin
from django.urls import path

from chat import views

urlpatterns = [
    path("", views.index, name="index"),
    path("rooms/<slug:room>/", views.room, name="room"),
    path("rooms/<slug:room>/posts", views.posts, name="posts"),
    path("rooms/<slug:room>/events", views.events, name="events"),
    path("admin/", admin.site.urls),
]
