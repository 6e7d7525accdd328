"""A table that a handler writes, and one that names actors."""

from django.db import models
from django.db.models.functions import Cast

from djactor.fields import ActorRelation, KeyField


class Sale(models.Model):
    product = models.IntegerField()
    amount = models.IntegerField()


class Product(models.Model):
    """Each has a counter: the actor of type shop.counter whose key is the product's number."""

    name = models.TextField()
    number = models.IntegerField(unique=True)
    actor_type = models.GeneratedField(
        expression=models.Value("shop.counter"), output_field=models.TextField(), db_persist=True
    )
    actor_key = models.GeneratedField(
        expression=Cast("number", KeyField()), output_field=KeyField(), db_persist=True
    )
    counter = ActorRelation(related_name="products")


class Ticket(models.Model):
    """Names a counter in columns whose collations, and one of whose types, are not djactor's."""

    actor_type = models.TextField()
    actor_key = KeyField(db_collation="POSIX")
    counter = ActorRelation(related_name="tickets")

    kind = models.CharField(max_length=100, db_collation="POSIX")
    also = ActorRelation("kind", related_name="stubs")
