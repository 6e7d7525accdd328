"""A table that a handler writes."""

from django.db import models


class Sale(models.Model):
    product = models.IntegerField()
    amount = models.IntegerField()
