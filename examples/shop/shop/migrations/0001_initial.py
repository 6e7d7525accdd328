"""The tables."""

import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("customer", models.EmailField(max_length=254)),
                ("card", models.CharField(max_length=20)),
                ("total", models.PositiveIntegerField(help_text="in cents")),
                (
                    "status",
                    models.TextField(
                        choices=[
                            ("new", "new"),
                            ("reserving", "reserving the goods"),
                            ("paying", "waiting for the bank"),
                            ("taking", "packing"),
                            ("cancelling", "being cancelled"),
                            ("paid", "paid, on its way"),
                            ("cancelled", "cancelled"),
                            ("stuck", "looked at by a person"),
                        ],
                        db_default="new",
                    ),
                ),
                ("reason", models.TextField(db_default="", help_text="why it was cancelled")),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                ("slug", models.SlugField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                ("price", models.PositiveIntegerField(help_text="in cents")),
                (
                    "delivered",
                    models.PositiveIntegerField(default=0, help_text="units that ever came"),
                ),
                (
                    "stock",
                    models.PositiveIntegerField(
                        default=0, help_text="units on the shelf, not reserved"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("stock__lte", models.F("delivered"))),
                        name="shop_product_some",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Line",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("quantity", models.PositiveIntegerField()),
                ("price", models.PositiveIntegerField(help_text="in cents, of one, on the day")),
                (
                    "order",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="lines",
                        to="shop.order",
                    ),
                ),
                (
                    "product",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, to="shop.product"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("order", "product"), name="shop_line_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Reservation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("quantity", models.PositiveIntegerField()),
                (
                    "status",
                    models.TextField(
                        choices=[("held", "Held"), ("taken", "Taken"), ("returned", "Returned")],
                        default="held",
                    ),
                ),
                (
                    "order",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="reservations",
                        to="shop.order",
                    ),
                ),
                (
                    "product",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reservations",
                        to="shop.product",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("order", "product"), name="shop_reservation_once"
                    )
                ],
            },
        ),
    ]
