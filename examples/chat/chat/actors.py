"""The kinds of actors; their handlers are in handlers.sql. ``migrate`` defines them."""

from datetime import timedelta

import djactor

djactor.register_sql(
    "chat.room",
    "chat_room_handle",
    sql="handlers.sql",
    initial_state={"count": 0, "members": {}},
    journal=timedelta(hours=1),
)
djactor.register_sql(
    "chat.user",
    "chat_user_handle",
    sql="handlers.sql",
    initial_state={"posts": 0},
    journal=timedelta(hours=1),
)
