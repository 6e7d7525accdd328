"""What is kept beside the actors: ordinary tables, which the handlers read and write.

A turn's writes commit together with the removal of its message, so each event counts once
in ``Minute`` whatever is killed in between.
"""

from datetime import timedelta

from django.db import models
from django.db.models import F, Q


class Device(models.Model):
    """A device and its limits; a change of them holds from its next event on.

    The actor ``events.device`` with this name adds the row at its first event.
    """

    name = models.SlugField(primary_key=True)
    silent_after = models.DurationField(db_default=timedelta(seconds=5))
    hot_above = models.DecimalField(max_digits=9, decimal_places=3, db_default=80)
    cool_below = models.DecimalField(max_digits=9, decimal_places=3, db_default=75)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(cool_below__lte=F("hot_above")), name="events_device_hysteresis"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Minute(models.Model):
    """What a device measured in one minute of its own clock."""

    device = models.ForeignKey(Device, models.CASCADE, related_name="minutes")
    minute = models.DateTimeField()
    count = models.IntegerField()
    total = models.DecimalField(max_digits=20, decimal_places=3)
    low = models.DecimalField(max_digits=9, decimal_places=3)
    high = models.DecimalField(max_digits=9, decimal_places=3)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["device", "minute"], name="events_minute_of_device"),
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.minute:%H:%M}: {self.count}"


class Alert(models.Model):
    """Something was wrong with a device, and perhaps still is."""

    class Kind(models.TextChoices):
        """What can be wrong."""

        HOT = "hot"
        SILENT = "silent"

    device = models.ForeignKey(Device, models.CASCADE, related_name="alerts")
    kind = models.TextField(choices=Kind)
    value = models.DecimalField(max_digits=9, decimal_places=3, null=True)
    raised_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            # No guard against double work, which does not happen: it would show here.
            models.UniqueConstraint(
                fields=["device", "kind"], condition=Q(resolved_at=None), name="events_alert_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.kind}"
