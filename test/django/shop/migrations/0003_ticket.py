from django.db import migrations, models

import djactor.fields


class Migration(migrations.Migration):
    dependencies = [("djactor", "0001_initial"), ("shop", "0002_product")]
    operations = [
        migrations.CreateModel(
            "Ticket",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("actor_type", models.TextField()),
                ("actor_key", djactor.fields.KeyField(db_collation="POSIX")),
                (
                    "counter",
                    djactor.fields.ActorRelation("actor_type", "actor_key", related_name="tickets"),
                ),
                ("kind", models.CharField(db_collation="POSIX", max_length=100)),
                (
                    "also",
                    djactor.fields.ActorRelation("kind", "actor_key", related_name="stubs"),
                ),
            ],
        ),
    ]
