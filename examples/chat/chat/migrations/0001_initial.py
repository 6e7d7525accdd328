"""The history.  The extension itself comes with the app djactor."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    initial = True

    operations = [
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
    ]
