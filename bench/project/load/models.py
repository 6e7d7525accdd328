"""The table that handlers write to; the benchmarks create it."""

from django.db import models


class State(models.Model):
    """One row for each key."""

    key = models.TextField(primary_key=True)
    total = models.BigIntegerField()
    objects: models.Manager["State"] = models.Manager()

    class Meta:
        managed = False
        db_table = "state"
