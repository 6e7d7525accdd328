"""The tables."""

import datetime

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Device",
            fields=[
                ("name", models.SlugField(primary_key=True, serialize=False)),
                ("silent_after", models.DurationField(db_default=datetime.timedelta(seconds=5))),
                ("hot_above", models.DecimalField(db_default=80, decimal_places=3, max_digits=9)),
                ("cool_below", models.DecimalField(db_default=75, decimal_places=3, max_digits=9)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("cool_below__lte", models.F("hot_above"))),
                        name="events_device_hysteresis",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Alert",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.TextField(choices=[("hot", "Hot"), ("silent", "Silent")])),
                ("value", models.DecimalField(decimal_places=3, max_digits=9, null=True)),
                ("raised_at", models.DateTimeField()),
                ("resolved_at", models.DateTimeField(null=True)),
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="alerts",
                        to="events.device",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("resolved_at", None)),
                        fields=("device", "kind"),
                        name="events_alert_open",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Minute",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("minute", models.DateTimeField()),
                ("count", models.IntegerField()),
                ("total", models.DecimalField(decimal_places=3, max_digits=20)),
                ("low", models.DecimalField(decimal_places=3, max_digits=9)),
                ("high", models.DecimalField(decimal_places=3, max_digits=9)),
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="minutes",
                        to="events.device",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("device", "minute"), name="events_minute_of_device"
                    )
                ],
            },
        ),
    ]
