from django.db import migrations

from djactor.operations import DefineActorType


class Migration(migrations.Migration):
    dependencies = [("firms", "0001_initial"), ("djactor", "0001_initial")]
    operations = [
        DefineActorType("firms.customer", "take_order", sql="order.sql", initial_state={"n": 0})
    ]
