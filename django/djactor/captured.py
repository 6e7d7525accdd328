"""What is sent in a block of a test: ``djactor.test.capture_sends()``.

It is read from the mailboxes, so it does not matter who has sent it: the ORM, SQL, or a turn that
``drain()`` has run in the block.  Since a turn takes its message away, ``drain()`` has what waits
looked at before each turn as long as somebody captures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import connections
from django.db.models import Max

from djactor import conf
from djactor.messages import receiver_of
from djactor.registry import registered

_DEFAULTS = {
    "priority": 0,
    "deliver_at": None,
    "expires_at": None,
    "idempotency_key": None,
    "headers": None,
    "wants_reply": False,
    "coalesce_key": None,
    "coalesce_mode": None,
    "coalesce_until": None,
}


@dataclass(frozen=True)
class Sent:
    """A message that was sent.

    Attributes:
        type: The name of the type of the actor that gets it.
        key: The key of that actor.
        payload: The payload, as JSON has it.
        options: What its sender has chosen: those columns of the message that are not as they are
            by default, such as ``priority``, ``deliver_at`` and ``headers``.
        id: The id of the message.
    """

    type: str
    key: str
    payload: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = field(default=None, compare=False)

    @property
    def message(self) -> Any:
        """The object, if a class is registered for the type and takes typed messages.

        Raises:
            InvalidMessage: The class does not take it.
        """
        one = registered().get(self.type)
        receiver = None if one is None else receiver_of(one.cls)
        return self.payload if receiver is None else receiver.read(self.payload)[1]


def options_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Those columns of a message that are not as they are by default."""
    said = {name: columns.get(name, default) for name, default in _DEFAULTS.items()}
    return {name: value for name, value in said.items() if value != _DEFAULTS[name]}


class _Capture:
    """One block."""

    def __init__(self, alias: str) -> None:
        from djactor.models import Message  # not before the apps are ready

        self.alias = alias
        self.sent: list[Sent] = []
        self._rows = Message.objects.using(alias).filter(kind="user")
        # Later ids are higher, whoever draws them.
        self._last = self._rows.aggregate(last=Max("id"))["last"] or 0

    def look(self) -> None:
        """Add what waits and was not there before."""
        names = ("id", "actor_type", "actor_key", "payload")
        for row in self._rows.filter(id__gt=self._last).order_by("id").values(*names, *_DEFAULTS):
            number, actor_type, key, payload = (row[name] for name in names)
            self.sent.append(Sent(actor_type, key, payload, options_of(row), number))
            self._last = number


_open: list[_Capture] = []


def is_capturing(alias: str) -> bool:
    """Whether a block is open."""
    return any(one.alias == alias for one in _open)


def look(alias: str) -> None:
    """Have all open blocks look at what waits."""
    for one in _open:
        if one.alias == alias:
            one.look()


@contextlib.contextmanager
def capture_sends(using: str | None = None) -> Iterator[list[Sent]]:
    """What is sent in a block, in the order of the ids; no worker is needed.

    It is for ``TestCase``: where a test commits, a worker may have taken a message before anybody
    has looked.  What was sent before the block, and what is rolled back in it, is not there.

    Args:
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Yields:
        The list, which has all of it when the block has ended.
    """
    capture = _Capture(using or conf.get("DATABASE"))
    _open.append(capture)
    try:
        yield capture.sent
        if not connections[capture.alias].needs_rollback:
            capture.look()
    finally:
        _open.remove(capture)
