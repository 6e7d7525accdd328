"""Addresses: the shop, an order with its stream, the admin."""

from django.contrib import admin
from django.urls import path

from shop import views

urlpatterns = [
    path("", views.index, name="index"),
    path("cart/", views.put, name="put"),
    path("buy/", views.buy, name="buy"),
    path("orders/<uuid:order>/", views.order_page, name="order"),
    path("orders/<uuid:order>/stream/", views.order_stream, name="order-stream"),
    path("admin/", admin.site.urls),
]
