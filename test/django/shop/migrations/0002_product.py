from django.db import migrations, models
from django.db.models.functions import Cast

import djactor.fields


class Migration(migrations.Migration):
    dependencies = [("djactor", "0001_initial"), ("shop", "0001_initial")]
    operations = [
        migrations.CreateModel(
            "Product",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.TextField()),
                ("number", models.IntegerField(unique=True)),
                (
                    "actor_type",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Value("shop.counter"),
                        output_field=models.TextField(),
                    ),
                ),
                (
                    "actor_key",
                    models.GeneratedField(
                        db_persist=True,
                        expression=Cast("number", djactor.fields.KeyField()),
                        output_field=djactor.fields.KeyField(),
                    ),
                ),
                (
                    "counter",
                    djactor.fields.ActorRelation(
                        "actor_type", "actor_key", related_name="products"
                    ),
                ),
            ],
        ),
    ]
