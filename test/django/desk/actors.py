"""Actors of a help desk, hosted, with typed messages."""

from dataclasses import dataclass
from datetime import timedelta

from django.core.mail import send_mail
from django.utils import timezone

import djactor
from djactor.hosting import current


@dataclass
class Open:
    text: str


@dataclass
class Answer:
    text: str


class Desk:
    """Counts the tickets of everybody."""

    def __init__(self, key: str):
        self.n = 0

    async def handle_message(self, message: Open):
        self.n += 1


@djactor.register("desk.ticket", hosted=True)
class Ticket(djactor.PythonActor[Open | Answer]):
    def __init__(self, number: int):
        self.number = number
        self.lines: list[str] = []
        self.opened = ""

    @djactor.handles(Open)
    def open(self, message: Open):
        if not message.text:
            raise djactor.Reject("an empty ticket")
        self.opened = timezone.now().date().isoformat()
        self.lines.append(message.text)
        send_mail("We have got it", message.text, None, ["ann@example.org"])
        self.send(Desk, "all", message)
        current().set_timer("remind", timedelta(hours=1), Answer("reminded"))
        return {"opened": self.opened}

    @djactor.handles(Answer)
    def answer(self, message: Answer):
        self.lines.append(message.text)


djactor.register(Desk, "desk.desk", hosted=True)
