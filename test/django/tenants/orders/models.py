"""What each tenant has a table of."""

from django.db import models


class Order(models.Model):
    customer = models.TextField()
    amount = models.IntegerField()
