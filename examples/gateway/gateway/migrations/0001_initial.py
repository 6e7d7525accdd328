"""The tables."""

import datetime

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Client",
            fields=[
                ("name", models.SlugField(primary_key=True, serialize=False)),
                (
                    "rate",
                    models.FloatField(validators=[django.core.validators.MinValueValidator(0.001)]),
                ),
                (
                    "burst",
                    models.PositiveIntegerField(
                        validators=[django.core.validators.MinValueValidator(1)]
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("burst__gte", 1), ("rate__gt", 0)),
                        name="gateway_client_some",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Upstream",
            fields=[
                ("name", models.SlugField(primary_key=True, serialize=False)),
                ("url", models.URLField()),
                ("failures", models.PositiveIntegerField(db_default=3)),
                ("cool_down", models.DurationField(db_default=datetime.timedelta(seconds=5))),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("failures__gte", 1)), name="gateway_upstream_some"
                    )
                ],
            },
        ),
    ]
