"""What the chat stores beside its actors: the history, an ordinary table.

The handler of the actor ``chat.room`` (see handlers.sql) writes it, in the transaction
that handles the message.
"""

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
