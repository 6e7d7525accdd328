"""One turn, here and now, with what it has changed: what ``manage.py djactor_call`` shows.

The message is sent and handled in one transaction, so that no worker sees it before the turn is
over; when the turn fails, nothing remains of either.  A class of a hosted type runs in this
process, by the code of ``drain()``; a handler inside PostgreSQL runs in this connection's session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from djactor import inprocess
from djactor.actors import actor
from djactor.registry import resolve

if TYPE_CHECKING:
    from djactor.hosting.context import Turn

NOTHING = object()
"""Instead of a payload: run the next message that waits."""


class CannotRun(Exception):
    """Why there is no turn, and what to do, in words."""


@dataclass
class Outcome:
    """What a turn has changed; JSON is text.

    Attributes:
        message_id: The message.
        runs: What handles it.
        before: The state before; None if the actor had no row.
        after: The state after; None if the actor has no row.
        reply: The reply; None if there is none, as when it is deferred.
        error: The answer of ``reply_error()``.
        sent: What the turn has sent.
        timers: What it has done to the actor's timers.
    """

    message_id: int
    runs: str
    before: str | None
    after: str | None = None
    reply: str | None = None
    error: str | None = None
    sent: list[str] = field(default_factory=list)
    timers: list[str] = field(default_factory=list)


def call(
    using: str,
    actor_type: str,
    key: str,
    payload: Any = NOTHING,
    *,
    dry_run: bool = False,
    begins: Callable[[Outcome], None] = lambda outcome: None,
    log: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run one turn of an actor in a transaction of its own.

    Args:
        using: The database.
        actor_type: The type of the actor.
        key: Its key.
        payload: The message to send; ``NOTHING`` takes the next one that waits.
        dry_run: Whether to roll back at the end.
        begins: Called before the turn, with what is known by then.
        log: Gets what a handler of the database says by RAISE NOTICE and the like.

    Returns:
        What the turn has changed, or would have.

    Raises:
        CannotRun: There is no such type or message, or it cannot be run now.
        DatabaseError: What a handler of the database raises; the server refuses the message; 55P03
            when another process runs the actor for ten seconds.
        Exception: What a class raises.
    """
    with transaction.atomic(using=using, durable=True), connections[using].cursor() as cursor:
        hosted, runs = _type(cursor, using, actor_type)
        before = _actor(cursor, actor_type, key)
        timers = _timers(cursor, actor_type, key)
        waiting = _next(cursor, actor_type, key)
        if payload is NOTHING:
            if waiting is None:
                raise CannotRun(f"no mail that is due waits for {actor_type} {key}: give a payload")
            message_id = waiting
        elif waiting is not None:
            raise CannotRun(
                f"message {waiting} waits for {actor_type} {key}, and comes first: let a worker"
                " handle it, or leave out the payload to run it here"
            )
        else:
            message_id = actor(actor_type, key, using=using).send(payload, wants_reply=True)
        cursor.execute("SELECT max(id) FROM djactor.message")
        (last,) = cursor.fetchone()
        outcome = Outcome(message_id, runs, before)
        begins(outcome)
        turn = None
        if hosted:
            turn = _run_hosted(using, actor_type, key, message_id)
        else:
            _run_inside(using, actor_type, key, message_id, log)
        outcome.after = _state(cursor, actor_type, key)
        cursor.execute(
            "SELECT payload::text, error::text FROM djactor.reply WHERE message_id = %s",
            [message_id],
        )
        outcome.reply, outcome.error = cursor.fetchone() or (None, None)
        outcome.sent = _sent(cursor, message_id, last)
        after = _timers(cursor, actor_type, key)
        outcome.timers = [
            *(f"set {name}: {said}" for name, said in after.items() if timers.get(name) != said),
            *(f"ended {name}" for name in timers if name not in after),
        ]
        transaction.set_rollback(dry_run, using=using)
    if turn is not None and not dry_run:
        from djactor.hosting import turns

        turns.tell(turn, "done")
    return outcome


def _type(cursor: Any, using: str, name: str) -> tuple[bool, str]:
    """Whether it is hosted, and what runs it.

    Raises:
        CannotRun: There is no such type, or its mail is not to be handled here.
    """
    cursor.execute(
        """
        SELECT hosted, handler, paused, paused_reason, owner::text, owner::text = quote_ident(
            session_user), djactor.held()
        FROM djactor.actor_type WHERE name = %s""",
        [name],
    )
    row = cursor.fetchone()
    if row is None:
        cursor.execute("SELECT string_agg(name, ', ' ORDER BY name) FROM djactor.actor_type")
        known = cursor.fetchone()[0] or "none"
        raise CannotRun(
            f"the database {using!r} has no actor type {name!r}. There are {known}; what actors.py"
            " declares is defined by migrate."
        )
    hosted, handler, paused, reason, owner, ours, held = row
    if held:
        raise CannotRun(f"the mail of the database {using!r} is held: SELECT djactor.resume()")
    if paused:
        raise CannotRun(
            f"the actor type {name!r} is paused ({reason or 'by hand'}): SELECT"
            f" djactor.resume('{name}')"
        )
    if not ours:
        raise CannotRun(
            f"the actor type {name!r} belongs to {owner}: name an alias that logs in as that role"
            " with --database"
        )
    return hosted, f"the class {handler}, in this process" if hosted else f"{handler}, inside"


def _actor(cursor: Any, actor_type: str, key: str) -> str | None:
    """Its state.

    Raises:
        CannotRun: It is not to have turns.
    """
    cursor.execute(
        "SELECT state::text, paused, status, last_error FROM djactor.actor"
        " WHERE actor_type = %s AND actor_key = %s",
        [actor_type, key],
    )
    row = cursor.fetchone()
    if row is None:
        return None
    state, paused, status, error = row
    if paused or status == "suspended":
        why = "paused" if paused else f"suspended, after a failure: {error}"
        raise CannotRun(
            f"the actor {actor_type} {key} is {why}. SELECT djactor.resume('{actor_type}', '{key}')"
        )
    found: str = state
    return found


def _state(cursor: Any, actor_type: str, key: str) -> str | None:
    cursor.execute(
        "SELECT state::text FROM djactor.actor WHERE actor_type = %s AND actor_key = %s",
        [actor_type, key],
    )
    row = cursor.fetchone()
    return None if row is None else str(row[0])


def _next(cursor: Any, actor_type: str, key: str) -> int | None:
    """The message that its next turn is for; None if none is due."""
    cursor.execute(
        """
        SELECT m.id, m.retry_at > now() AND t.retry_order = 'hold', m.retry_at, m.last_error
        FROM djactor.message m JOIN djactor.actor_type t ON t.name = m.actor_type
        WHERE m.actor_type = %s AND m.actor_key = %s AND m.aside IS NULL
            AND (m.deliver_at IS NULL OR m.deliver_at <= now())
            AND (m.retry_at IS NULL OR m.retry_at <= now() OR t.retry_order = 'hold')
            AND (m.expires_at IS NULL OR m.expires_at > now())
        ORDER BY m.priority DESC, m.id LIMIT 1""",
        [actor_type, key],
    )
    row = cursor.fetchone()
    if row is None:
        return None
    message_id, holds, retry_at, error = row
    if holds:
        raise CannotRun(
            f"message {message_id} to {actor_type} {key} has failed, is tried again at {retry_at},"
            f" and nothing overtakes it: {error}"
        )
    return int(message_id)


def _run_hosted(using: str, actor_type: str, key: str, message_id: int) -> Turn:
    row = inprocess.take(using, only_type=actor_type, only_key=key)
    if row is None or row["id"] != message_id:
        raise CannotRun(_overtaken(using, actor_type, key, message_id))
    from djactor.hosting import turns  # a project without hosted types has no use for it

    turn = turns.turn_of(row)
    turns.run_turn(turn, resolve(actor_type, inprocess.handler(using, actor_type)), using)
    return turn


def _run_inside(
    using: str, actor_type: str, key: str, message_id: int, log: Callable[[str], None]
) -> None:
    with _notices(using, log), connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT djactor.drain(max => 1, only_type => %s, only_key => %s)", [actor_type, key]
        )
        (handled,) = cursor.fetchone()
        cursor.execute(
            "SELECT EXISTS (SELECT FROM djactor.message WHERE id = %s AND aside IS NULL)",
            [message_id],
        )
        if not handled or cursor.fetchone()[0]:
            raise CannotRun(_overtaken(using, actor_type, key, message_id))


def _overtaken(using: str, actor_type: str, key: str, message_id: int) -> str:
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM djactor.message WHERE id = %s AND aside IS NULL)",
            [message_id],
        )
        if not cursor.fetchone()[0]:
            return (
                f"message {message_id} to {actor_type} {key} gets no turn: it was merged with"
                " another one, or has the idempotency key of one that was handled. Nothing was"
                " done; a worker settles it."
            )
    return (
        f"the actor {actor_type} {key} is busy: another process handles its mail, or has sent some"
        " meanwhile. Nothing was done; try again."
    )


@contextmanager
def _notices(using: str, log: Callable[[str], None]) -> Iterator[None]:
    raw = connections[using].connection

    def said(diagnostic: Any) -> None:
        log(f"{diagnostic.severity}: {diagnostic.message_primary}")

    raw.add_notice_handler(said)
    try:
        yield
    finally:
        raw.remove_notice_handler(said)


def _sent(cursor: Any, message_id: int, last: int) -> list[str]:
    cursor.execute(
        """
        SELECT concat_ws(' ', actor_type, actor_key, payload::text, '(' || kind || ')',
            'at ' || deliver_at::text)
        FROM djactor.message
        WHERE id > %s AND cause_id = %s AND kind <> 'timer' ORDER BY id""",
        [last, message_id],
    )
    return [line for (line,) in cursor.fetchall()]


def _timers(cursor: Any, actor_type: str, key: str) -> dict[str, str]:
    cursor.execute(
        """
        SELECT name, concat_ws(' ', 'due ' || due_at::text, 'every ' || every::text,
            'cron ' || cron, payload::text)
        FROM djactor.timer WHERE actor_type = %s AND actor_key = %s ORDER BY name""",
        [actor_type, key],
    )
    return dict(cursor.fetchall())
