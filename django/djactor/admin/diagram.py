"""A trace as a sequence diagram: where its lifelines and arrows are.

Pure computation, from the rows of ``live.trace()`` to coordinates; the template
``djactor/trace.html`` draws them, the heads in a picture of their own, which stays in sight.  Time
runs downwards, an arrow a row: a message, in the order of sending, or the answer to an ask from
outside.

What always holds: who has sent or got a message of the trace has a lifeline.  That is so, too, if
the turn that has sent it is not in the trace, since its type keeps no journal; the lifeline says
so then.  And all lifelines fit into ``FIT`` pixels: they come closer, and if that is not enough,
actors of one type share one.  Only with more than ``MOST`` types the diagram is wider.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from djactor.admin.display import duration, shortened

OUTSIDE = ("", "outside")
FIT = 1150  # pixels for a diagram in a window of 1280
TIMES = 84  # pixels for the times at the left
COLUMN = 200  # pixels between two lifelines, at most
NARROW = 92  # and at least
MOST = (FIT - TIMES) // NARROW  # lifelines that fit
GAP = 12  # pixels between two heads, at least
BOX = 176  # a head's width, at most
HEAD = 52  # the heads' height
ROW = 48  # pixels between two messages
BESIDE = 190  # pixels for the text beside an arrow of the last lifeline to itself
LABEL = 26  # characters on an arrow
GLYPH = 7  # pixels of a character, 8 if it is bold, 6 if it is small
ROOMY = 170  # pixels between two lifelines that leave room for times below an arrow

# What has not been handled (yet), and what failed; all else is done.
_OPEN = {"waiting", "retrying", "held", "deferred"}

Actor = tuple[str, str]


@dataclass(frozen=True)
class Lifeline:
    """An actor, the actors of a type, or the outside; ``unseen`` if its turns are not there."""

    name: str
    type: str
    key: str
    x: int
    unseen: bool = False


@dataclass(frozen=True)
class Arrow:
    """A message; ``to_self`` if actor and sender are one; ``look`` is "", "open" or "bad".

    An ``answer`` goes back to the outside.
    """

    x1: int
    x2: int
    y: int
    sent: str  # after the first one
    label: str
    detail: str
    to_self: bool
    look: str
    answer: bool = False

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
    """What is drawn, and how large it is; ``unseen`` types keep no journal."""

    lifelines: list[Lifeline]
    arrows: list[Arrow]
    width: int
    height: int
    box: int
    unseen: list[str]

    @property
    def half_box(self) -> int:
        """From a lifeline to the left edge of its head."""
        return -(self.box // 2)


def draw(rows: Sequence[dict[str, Any]]) -> Diagram:
    """Lay out the messages, which come in the order of sending, with a ``summary`` each."""
    actor_of: dict[Any, Actor] = {row["id"]: (row["actor_type"], row["actor_key"]) for row in rows}
    sender_of = {row["id"]: _sender(row, actor_of) for row in rows}
    seen = set(actor_of.values())
    actors = list(
        dict.fromkeys(one for row in rows for one in (sender_of[row["id"]], actor_of[row["id"]]))
    )
    lane_of = _lanes(actors)
    lanes = Counter(lane_of.values())  # in the order of appearance
    loops = any(lane_of[sender_of[n]] == lane_of[actor_of[n]] == list(lanes)[-1] for n in actor_of)
    beside = BESIDE if loops else 0
    column = max(NARROW, min(COLUMN, (FIT - TIMES - beside) // max(1, len(lanes))))
    box = min(BOX, column - GAP)
    at = {lane: TIMES + column // 2 + column * i for i, lane in enumerate(lanes)}
    unseen = {one for one in actors if one not in seen and one != OUTSIDE}
    lifelines = [
        Lifeline(
            " ".join(filter(None, lane)),
            _tail(lane[0], (box - 4) // GLYPH),
            _tail(lane[1], box // (GLYPH + 1)),
            at[lane],
            all(one in unseen for one in actors if lane_of[one] == lane),
        )
        for lane in lanes
    ]

    arrows: list[Arrow] = []
    for when, row, answer in _events(rows):
        start, end = lane_of[sender_of[row["id"]]], lane_of[actor_of[row["id"]]]
        x1, x2 = (at[end], at[start]) if answer else (at[start], at[end])
        arrows.append(
            Arrow(
                x1,
                x2,
                ROW // 2 + ROW * len(arrows),
                f"+{duration(when - rows[0]['sent_at'])}",
                shortened(f"{row['id']} {row['answer'] if answer else _said(row)}", LABEL),
                _answer(row) if answer else _detail(row, lanes[end] > 1, column),
                x1 == x2,
                _look(row, answer),
                answer,
            )
        )
    silent = {row["actor_type"] for row in rows if row.get("unseen")}
    silent |= {
        row["sender_type"] for row in rows if row.get("sender_unseen") and row["sender_type"]
    }
    return Diagram(
        lifelines,
        arrows,
        TIMES + column * len(lifelines) + beside,
        ROW * len(arrows) + ROW // 2,
        box,
        sorted(silent),
    )


def _sender(row: dict[str, Any], actor_of: dict[Any, Actor]) -> Actor:
    """Who has sent it: the actor whose turn has, also if that is not in the trace."""
    if row["cause_id"] in actor_of:
        return actor_of[row["cause_id"]]
    if row.get("sender_type") is not None:
        return row["sender_type"], row["sender_key"]
    return OUTSIDE


def _lanes(actors: list[Actor]) -> dict[Actor, Actor]:
    """The lifeline of each actor: its own, or, if there are too many, that of its type."""
    of_type = Counter(one[0] for one in actors)
    lanes, shared = len(actors), set()
    for name, number in of_type.most_common():
        if lanes <= MOST or number == 1:
            break
        shared.add(name)
        lanes -= number - 1
    return {
        one: (one[0], f"{of_type[one[0]]} actors") if one[0] in shared else one for one in actors
    }


def _events(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, dict[str, Any], bool]]:
    """Messages, and answers to the outside, in the order of time."""
    events = [(row["sent_at"], row, False) for row in rows]
    events += [(row["answered_at"], row, True) for row in rows if row.get("answered_at")]
    return sorted(events, key=lambda event: (event[0], event[2]))


def _tail(text: str, limit: int) -> str:
    """The end of a name, on one line: in most names it differs more than the beginning."""
    line = " ".join(text.split()) or text
    return line if len(line) <= limit else "…" + line[1 - limit :]


def _said(row: dict[str, Any]) -> str:
    """What the arrow of a message says beside its id."""
    summary = row.get("summary") or ""
    return summary if row["kind"] == "user" else f"{row['kind']} {summary}".rstrip()


def _look(row: dict[str, Any], answer: bool) -> str:
    if answer:
        return "bad" if row["answered_badly"] else ""
    if row["status"] == "dead" or row["kind"] == "error":
        return "bad"
    return "open" if row["status"] in _OPEN else ""


def _answer(row: dict[str, Any]) -> str:
    return "answered by an error" if row["answered_badly"] else "answered"


def _detail(row: dict[str, Any], shared: bool, column: int) -> str:
    """What became of it: ``waited 5.2 ms, ran 1.2 ms``, or its status in a word.

    Args:
        row: The message.
        shared: Whether the lifeline is that of several actors, so that the key has to be said.
        column: How far apart the lifelines are; the table has what finds no room.
    """
    done, roomy = row["status"] in ("handled", "replied"), column >= ROOMY
    if shared and not roomy:
        return _tail(row["actor_key"], (column - GAP) // (GLYPH - 1) - 1)
    said = [] if done and row["run"] is not None else [str(row["status"])]
    if row["run"] is not None:
        said += [f"waited {duration(row['wait'])}"] * roomy + [f"ran {duration(row['run'])}"]
    key = f"{_tail(row['actor_key'], 16)}: " if shared else ""
    return key + ", ".join(said)
