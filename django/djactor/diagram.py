"""A trace as a sequence diagram: where its lifelines and arrows are.

Pure computation, from the rows of ``live.trace()`` to coordinates; the template
``djactor/trace.html`` draws them.  Time runs downwards, a message a row; the order is that
of sending.  What is not in the trace any more (or never was: a view) is the lifeline
``outside``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

OUTSIDE = "outside"
COLUMN = 200  # pixels between two lifelines
ROW = 46  # pixels between two messages
TOP = 56
MARGIN = 110
LABEL = 26  # characters of a lifeline's name


@dataclass(frozen=True)
class Lifeline:
    """An actor, or the outside."""

    name: str
    label: str
    x: int


@dataclass(frozen=True)
class Arrow:
    """A message; ``to_self`` if actor and sender are one, ``bad`` if it failed."""

    x1: int
    x2: int
    y: int
    label: str
    detail: str
    to_self: bool
    bad: bool

    @property
    def text_x(self) -> int:
        """The middle, or beside the loop."""
        return self.x1 + 46 if self.to_self else (self.x1 + self.x2) // 2


@dataclass(frozen=True)
class Diagram:
    """What is drawn, and how large it is."""

    lifelines: list[Lifeline]
    arrows: list[Arrow]
    width: int
    height: int


def draw(rows: Sequence[dict[str, Any]]) -> Diagram:
    """Lay out the messages, which come in the order of sending."""
    actor_of = {row["id"]: f"{row['actor_type']} {row['actor_key']}" for row in rows}
    lifelines: dict[str, Lifeline] = {}

    def at(name: str) -> int:
        if name not in lifelines:
            label = name if len(name) <= LABEL else name[: LABEL - 1] + "…"
            lifelines[name] = Lifeline(name, label, MARGIN + COLUMN * len(lifelines))
        return lifelines[name].x

    arrows = []
    for number, row in enumerate(rows, 1):
        start, end = at(actor_of.get(row["cause_id"], OUTSIDE)), at(actor_of[row["id"]])
        arrows.append(
            Arrow(
                start,
                end,
                TOP + ROW * number,
                f"{row['kind']} {row['id']}",
                ", ".join(
                    [row["status"]]
                    + [
                        f"{name} {milliseconds(row[name])}"
                        for name in ("wait", "run")
                        if row[name] is not None
                    ]
                ),
                start == end,
                row["error"] is not None,
            )
        )
    return Diagram(
        list(lifelines.values()),
        arrows,
        2 * MARGIN + COLUMN * max(0, len(lifelines) - 1) + 60,
        TOP + ROW * (len(rows) + 1),
    )


def milliseconds(span: timedelta) -> str:
    """``1.25 ms``, for people."""
    return f"{span.total_seconds() * 1000:,.2f} ms"
