"""The kinds of actors; their handlers are in handlers.sql.

Going back is refused while actors or mail of these types exist: they would be lost.
"""

from datetime import timedelta

from django.db import migrations

from djactor.operations import DefineActorType


class Migration(migrations.Migration):
    dependencies = [("chat", "0001_initial"), ("djactor", "0001_initial")]

    operations = [
        DefineActorType(
            "chat.room",
            "chat_room_handle",
            sql="handlers.sql",
            reverse_sql="DROP FUNCTION chat_room_handle(jsonb, jsonb)",
            initial_state={"count": 0, "members": {}},
            journal=timedelta(hours=1),
        ),
        DefineActorType(
            "chat.user",
            "chat_user_handle",
            reverse_sql="DROP FUNCTION chat_user_handle(jsonb, jsonb)",
            initial_state={"posts": 0},
            journal=timedelta(hours=1),
        ),
    ]
