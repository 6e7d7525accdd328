"""The two kinds of actors; their handlers are the .sql files beside this folder."""

from django.db import migrations

from djactor.operations import DefineActorType


class Migration(migrations.Migration):
    dependencies = [("events", "0001_initial"), ("djactor", "0001_initial")]

    operations = [
        DefineActorType(
            "events.device",
            "events_device_handle",
            sql="device.sql",
            reverse_sql="""
                DROP FUNCTION events_device_handle(jsonb, jsonb);
                DROP FUNCTION events_switch_alert(jsonb, text, boolean, numeric)""",
            initial_state={"count": 0, "late": 0, "recent": [], "alerts": []},
            mailbox_limit=5000,  # beyond that senders are told to wait, see views.ingest
        ),
        DefineActorType(
            "events.desk",
            "events_desk_handle",
            sql="desk.sql",
            reverse_sql="DROP FUNCTION events_desk_handle(jsonb, jsonb)",
            initial_state={"open": 0, "latest": []},
        ),
    ]
