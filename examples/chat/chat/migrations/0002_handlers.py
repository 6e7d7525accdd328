"""The handlers, from handlers.sql.

Going back is refused, by drop_actor_type(), while actors or mail of these types
exist: they would be lost.
"""

from pathlib import Path

from django.db import migrations

HANDLERS = Path(__file__).parent.parent / "handlers.sql"

REMOVE = """
    SELECT djactor.drop_actor_type('chat.room');
    SELECT djactor.drop_actor_type('chat.user');
    DROP FUNCTION chat_room_handle(jsonb, jsonb);
    DROP FUNCTION chat_user_handle(jsonb, jsonb);
"""


class Migration(migrations.Migration):
    dependencies = [("chat", "0001_initial")]

    operations = [migrations.RunSQL(HANDLERS.read_text(), reverse_sql=REMOVE)]
