"""What the chat stores, and the two tables of djactor that it uses.

``ChatMessage`` is an ordinary table, written by the handler of the actor
``chat.room`` (see handlers.sql) in the transaction that handles the message.

``Message`` and ``Actor`` belong to the extension, so Django does not manage
them.  Sending is creating a ``Message``, alone or with ``bulk_create()``; it is
part of the transaction at hand like any other insert.  Reading an actor is a
query over ``Actor``, JSON lookups included.
"""

from typing import Any

from django.db import models
from django.db.models.functions import Now


class ChatMessage(models.Model):
    """One line of a room's history, numbered from 1 in each room."""

    room = models.TextField()
    number = models.IntegerField()
    author = models.TextField()
    text = models.TextField()
    message_id = models.BigIntegerField(unique=True)  # of the djactor message that brought it
    handled_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["room", "number"], name="chat_room_number"),
        ]

    def __str__(self) -> str:
        return f"{self.room} #{self.number} {self.author}: {self.text}"


class Message(models.Model):
    """A message that waits for its actor: the columns that a sender needs.

    The row is gone once the actor has handled it, so an instance must not be
    saved a second time; PostgreSQL refuses an insert with an id as well.
    """

    actor_type = models.TextField()
    actor_key = models.TextField()
    payload = models.JSONField(default=dict)

    class Meta:
        managed = False
        db_table = '"djactor"."message"'

    def __str__(self) -> str:
        return f"{self.pk} to {self.actor_type} {self.actor_key}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Send it."""
        if self.pk is not None:
            raise TypeError("a message is sent once and cannot be changed")
        super().save(*args, **kwargs)


class Actor(models.Model):
    """An actor and its state, to read."""

    actor_type = models.TextField()
    actor_key = models.TextField()
    state = models.JSONField()
    turns = models.BigIntegerField()

    class Meta:
        managed = False
        db_table = '"djactor"."actor"'

    def __str__(self) -> str:
        return f"{self.actor_type} {self.actor_key}"
