"""The two kinds of actors; their handlers are the .sql files beside this folder."""

from django.db import migrations

from djactor.operations import DefineActorType


class Migration(migrations.Migration):
    dependencies = [("gateway", "0001_initial"), ("djactor", "0001_initial")]

    operations = [
        DefineActorType(
            "gateway.bucket",
            "gateway_bucket_handle",
            sql="bucket.sql",
            reverse_sql="DROP FUNCTION gateway_bucket_handle(jsonb, jsonb)",
            initial_state={"allowed": 0, "refused": 0},
            mailbox_limit=100,  # a flood of one client's requests is refused before it waits
        ),
        DefineActorType(
            "gateway.breaker",
            "gateway_breaker_handle",
            sql="breaker.sql",
            reverse_sql="""
                DROP FUNCTION gateway_breaker_handle(jsonb, jsonb);
                DROP FUNCTION gateway_breaker_try_after(interval)""",
            initial_state={
                "mode": "closed",
                "failures": 0,
                "probing": False,
                "round": 0,
                "passed": 0,
                "refused": 0,
                "until": None,
            },
        ),
    ]
