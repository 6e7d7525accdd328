"""The two kinds of actors; their handlers are the .sql files beside. ``migrate`` defines them."""

import djactor

djactor.register_sql(
    "events.device",
    "events_device_handle",
    sql="device.sql",
    initial_state={"count": 0, "late": 0, "recent": [], "alerts": []},
    mailbox_limit=5000,  # beyond that senders are told to wait, see views.ingest
)
djactor.register_sql(
    "events.desk", "events_desk_handle", sql="desk.sql", initial_state={"open": 0, "latest": []}
)
