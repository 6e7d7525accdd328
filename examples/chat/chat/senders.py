"""People who post: what each sender process of the demo does.

A sender works through the ORM alone, on a connection of its own.  A seeded share
of its transactions changes its mind at the end and rolls back; the texts of those
are marked, so that one that got through after all would be seen.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized

ROLLED_BACK = "never said"


@dataclass(frozen=True)
class Plan:
    """What one sender is to do."""

    number: int
    posts: int  # to commit
    rooms: int
    users: int  # each belongs to one sender
    rollback_share: float  # of its transactions
    seed: int


@dataclass
class Report:
    """What one sender did."""

    ids: list[int] = field(default_factory=list)  # of committed messages, in order
    by_room: Counter[str] = field(default_factory=Counter)
    by_author: Counter[str] = field(default_factory=Counter)
    rolled_back: int = 0


class ChangedMyMind(Exception):
    """Rolls a transaction back."""


def run(plan: Plan, committed: Synchronized[int], result: Connection) -> None:
    """Send what the plan says, counting in ``committed``; then hand in a report.

    The target of a process that was spawned, so Django is set up here.
    """
    # A Ctrl-C reaches all processes at the terminal; the parent ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    import django

    django.setup()
    from django.db import transaction

    from djactor.models import Message

    chance = random.Random(f"{plan.seed} {plan.number}")
    report = Report()

    while len(report.ids) < plan.posts:
        size = min(chance.choice([1, 1, 2, 10, 50]), plan.posts - len(report.ids))
        in_bulk = chance.random() < 0.5
        rolls_back = chance.random() < plan.rollback_share
        posts = [
            {
                "actor_type": "chat.room",
                "actor_key": f"room-{chance.randrange(plan.rooms)}",
                "payload": {
                    "author": f"user-{plan.number}-{chance.randrange(plan.users)}",
                    "text": ROLLED_BACK if rolls_back else f"post {len(report.ids) + nth}",
                },
            }
            for nth in range(size)
        ]
        try:
            with transaction.atomic():
                if in_bulk:
                    messages = Message.objects.bulk_create([Message(**post) for post in posts])
                else:
                    messages = [Message.objects.create(**post) for post in posts]
                if rolls_back:
                    raise ChangedMyMind
        except ChangedMyMind:
            report.rolled_back += size
            continue

        report.ids += [message.pk for message in messages]
        report.by_room.update(message.actor_key for message in messages)
        report.by_author.update(message.payload["author"] for message in messages)
        with committed.get_lock():
            committed.value += size

    result.send(report)
