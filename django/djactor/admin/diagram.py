"""A trace as a sequence diagram: where its lifelines and arrows are.

Pure computation, from the rows of ``live.trace()`` to coordinates; the template
``djactor/trace.html`` draws them, the heads in a picture of their own, which stays in sight.  Time
runs downwards, a message a row; the order is that of sending.  What is not in the trace any
more (or never was: a view) is the lifeline ``outside``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from djactor.admin.display import duration, shortened

OUTSIDE = ("", "outside")
TIMES = 84  # pixels for the times at the left
COLUMN = 200  # pixels between two lifelines
BOX = 176  # a head's width
HEAD = 52  # the heads' height
ROW = 48  # pixels between two messages
BESIDE = 190  # pixels for the text beside an arrow of the last lifeline to itself
LABEL = 24  # characters of a lifeline's name

# What has not been handled (yet), and what failed; all else is done.
_OPEN = {"waiting", "retrying", "held", "deferred"}


@dataclass(frozen=True)
class Lifeline:
    """An actor, or the outside."""

    name: str
    type: str
    key: str
    x: int


@dataclass(frozen=True)
class Arrow:
    """A message; ``to_self`` if actor and sender are one; ``look`` is "", "open" or "bad"."""

    x1: int
    x2: int
    y: int
    sent: str  # after the first one
    label: str
    detail: str
    to_self: bool
    look: str

    @property
    def text_x(self) -> int:
        """The middle, or beside the loop."""
        return self.x1 + 44 if self.to_self else (self.x1 + self.x2) // 2

    @property
    def end(self) -> int:
        """Where the arrow ends: before the bar of the turn."""
        return self.x2 + (5 if self.x2 < self.x1 else -5)


@dataclass(frozen=True)
class Diagram:
    """What is drawn, and how large it is."""

    lifelines: list[Lifeline]
    arrows: list[Arrow]
    width: int
    height: int


def draw(rows: Sequence[dict[str, Any]]) -> Diagram:
    """Lay out the messages, which come in the order of sending."""
    actor_of = {row["id"]: (row["actor_type"], row["actor_key"]) for row in rows}
    lifelines: dict[tuple[str, str], Lifeline] = {}

    def at(actor: tuple[str, str]) -> int:
        if actor not in lifelines:
            lifelines[actor] = Lifeline(
                " ".join(filter(None, actor)),
                shortened(actor[0], LABEL),
                shortened(actor[1], LABEL),
                TIMES + BOX // 2 + COLUMN * len(lifelines),
            )
        return lifelines[actor].x

    arrows = []
    for number, row in enumerate(rows):
        start, end = at(actor_of.get(row["cause_id"], OUTSIDE)), at(actor_of[row["id"]])
        arrows.append(
            Arrow(
                start,
                end,
                ROW // 2 + ROW * number,
                f"+{duration(row['sent_at'] - rows[0]['sent_at'])}",
                str(row["id"]) if row["kind"] == "user" else f"{row['kind']} {row['id']}",
                _detail(row),
                start == end,
                "bad" if row["status"] == "dead" else "open" if row["status"] in _OPEN else "",
            )
        )
    return Diagram(
        list(lifelines.values()),
        arrows,
        TIMES + COLUMN * len(lifelines) + (BESIDE if any(a.to_self for a in arrows) else 0),
        ROW * len(rows) + ROW // 2,
    )


def _detail(row: dict[str, Any]) -> str:
    """What became of it: ``waited 5.2 ms, ran 1.2 ms``, or its status in a word."""
    if row["run"] is None:
        return str(row["status"])
    took = f"waited {duration(row['wait'])}, ran {duration(row['run'])}"
    return took if row["status"] in ("handled", "replied") else f"{row['status']}, {took}"
