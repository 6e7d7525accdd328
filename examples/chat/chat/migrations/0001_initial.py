"""The extension and the tables.

Going back leaves the extension alone: dropping it would drop every message that
waits and every actor's state, of other apps too.  To remove it, say so in SQL.
"""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.RunSQL(
            "CREATE EXTENSION IF NOT EXISTS djactor",
            reverse_sql=migrations.RunSQL.noop,
        ),
        migrations.CreateModel(
            name="ChatMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("room", models.TextField()),
                ("number", models.IntegerField()),
                ("author", models.TextField()),
                ("text", models.TextField()),
                ("message_id", models.BigIntegerField(unique=True)),
                ("handled_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["room", "number"], name="chat_room_number")
                ],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("actor_type", models.TextField()),
                ("actor_key", models.TextField()),
                ("payload", models.JSONField(default=dict)),
            ],
            options={"db_table": '"djactor"."message"', "managed": False},
        ),
        migrations.CreateModel(
            name="Actor",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("actor_type", models.TextField()),
                ("actor_key", models.TextField()),
                ("state", models.JSONField()),
                ("turns", models.BigIntegerField()),
            ],
            options={"db_table": '"djactor"."actor"', "managed": False},
        ),
    ]
