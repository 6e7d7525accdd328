"""Who may call, how often, and what lies behind: ordinary tables, which the actors read.

A row that is changed holds from the next request on.
"""

from datetime import timedelta

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q


class Client(models.Model):
    """Who calls.  Its bucket gets ``rate`` tokens a second, and holds ``burst``."""

    name = models.SlugField(primary_key=True)
    rate = models.FloatField(validators=[MinValueValidator(0.001)])
    burst = models.PositiveIntegerField(validators=[MinValueValidator(1)])

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(rate__gt=0, burst__gte=1), name="gateway_client_some"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Upstream(models.Model):
    """What is called.  Its breaker opens after ``failures`` in a row, for ``cool_down``."""

    name = models.SlugField(primary_key=True)
    url = models.URLField()
    failures = models.PositiveIntegerField(db_default=3)
    cool_down = models.DurationField(db_default=timedelta(seconds=5))

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(failures__gte=1), name="gateway_upstream_some")
        ]

    def __str__(self) -> str:
        return self.name
