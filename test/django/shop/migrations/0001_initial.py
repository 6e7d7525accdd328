from datetime import timedelta

from django.db import migrations, models

from djactor.operations import DefineActorType


class Migration(migrations.Migration):
    dependencies = [("djactor", "0001_initial")]
    operations = [
        migrations.CreateModel(
            "Sale",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("product", models.IntegerField()),
                ("amount", models.IntegerField()),
            ],
        ),
        DefineActorType(
            "shop.counter",
            "counter_handle",
            sql="counter.sql",
            reverse_sql="DROP FUNCTION counter_handle(jsonb, jsonb)",
            initial_state={"n": 0},
            backoff=timedelta(milliseconds=50),
            max_attempts=3,
        ),
    ]
