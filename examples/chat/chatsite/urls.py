"""Addresses: the chat, and Django's admin with djactor's pages."""

from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
]
