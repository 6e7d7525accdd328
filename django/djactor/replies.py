"""``wait_replies()``: the answers to many asks, from sync and async code.

Send with ``wants_reply``, commit, and hand the ids over: the wait ends once all are answered, or
with its timeout.  Outside of a transaction who waits holds no snapshot and no lock on the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.utils import DatabaseError

from djactor import conf, listener
from djactor.actors import _LOOK, in_transaction, statement_timeout
from djactor.exceptions import AskFailed, AskInTransaction, DjactorError
from djactor.fields import load_payload
from djactor.hosting.context import in_turn


def wait_replies(
    ids: Iterable[int], *, timeout: float = 5.0, using: str | None = None
) -> dict[int, Any]:
    """Wait for the answers to many asks.

    Args:
        ids: Of messages that were sent with ``wants_reply``; one that is given twice counts once.
        timeout: How long to wait in all, in seconds.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Returns:
        The answers that came in time, by id, in the order of the ids: as Python has their JSON,
        and ``AskFailed``, which is not raised, for an answer that is an error.

    Raises:
        AskInTransaction: A message was sent in the transaction at hand, so nobody sees it; or
            a turn is running.
        DatabaseError: A message wants no reply, the role may not read ``djactor.reply``, or the
            connection was lost.
    """
    alias = using or conf.get("DATABASE")
    wanted = list(dict.fromkeys(ids))
    if in_turn():
        raise AskInTransaction(
            "wait_replies() inside a turn: no turn waits for another actor."
            " The answers to what a turn has sent come as messages of their own."
        )
    found = _wait(alias, wanted, max(0.0, timeout)) if wanted else {}
    return {message_id: found[message_id] for message_id in wanted if message_id in found}


async def await_replies(
    ids: Iterable[int], *, timeout: float = 5.0, using: str | None = None
) -> dict[int, Any]:
    """``wait_replies()`` for async code: waits without holding a thread or a connection.

    Args:
        ids: As those of ``wait_replies()``.
        timeout: How long to wait in all, in seconds.
        using: Alias of the database (default: ``DJACTOR["DATABASE"]``).

    Returns:
        As ``wait_replies()``.

    Raises:
        AskInTransaction: As by ``wait_replies()``.
        DatabaseError: As by ``wait_replies()``.
    """
    alias = using or conf.get("DATABASE")
    wanted = list(dict.fromkeys(ids))
    look = sync_to_async(wait_replies)
    end = time.monotonic() + timeout
    found = await look(wanted, timeout=0.0, using=alias)
    missing = [message_id for message_id in wanted if message_id not in found]
    answers = listener.get(alias)
    with contextlib.ExitStack() as stack:
        # No epoch: what came since we have looked is looked for once more.
        futures = {each: stack.enter_context(answers.expect(each, -1)) for each in missing}
        while any(not future.done() for future in futures.values()):
            left = max(0.0, end - time.monotonic())
            open_ = [future for future in futures.values() if not future.done()]
            await asyncio.wait(open_, timeout=min(left, _LOOK))
            missing = [each for each, future in futures.items() if not future.done()]
            if missing and (left == 0.0 or not answers.connected):
                answers.revive()
                late = await look(missing, timeout=0.0, using=alias)
                found |= late
                for each in late:
                    futures.pop(each)
            if left == 0.0:
                break
        for each, future in futures.items():
            if future.done():
                answer = future.result()
                found[each] = _answer(each, answer.payload, answer.error)
    return {message_id: found[message_id] for message_id in wanted if message_id in found}


def _answer(message_id: int, reply: str | None, error: str | None) -> Any:
    if error is not None:
        return AskFailed(message_id, load_payload(error))
    return None if reply is None else load_payload(reply)


def _wait(alias: str, ids: list[int], timeout: float) -> dict[int, Any]:
    """Wait, in pieces if the server cancels statements that last long."""
    end = time.monotonic() + timeout
    piece = timeout
    found: dict[int, Any] = {}
    bound = in_transaction(alias)
    while True:
        began = time.monotonic()
        left = max(0.0, end - began)
        missing = [message_id for message_id in ids if message_id not in found]
        try:
            found |= _look(alias, missing, min(left, piece), bound)
        except DatabaseError as error:
            state = getattr(error.__cause__, "sqlstate", None)
            if state == "55000" and not isinstance(error, DjactorError):
                raise AskInTransaction(str(error).strip()) from error
            limit = statement_timeout(alias) if state == "57014" and not bound else 0.0
            if not 0.0 < limit <= time.monotonic() - began:
                raise
            piece = limit / 2
            continue
        if len(found) == len(ids) or left <= piece:
            return found


def _look(alias: str, ids: list[int], seconds: float, bound: bool) -> Mapping[int, Any]:
    """The answers to these that come within so many seconds."""
    with connections[alias].cursor() as cursor:
        if bound:  # a procedure cannot commit here
            cursor.execute(
                "SELECT message_id, reply::text, error::text"
                " FROM djactor.wait_replies(%s::bigint[], make_interval(secs => %s))",
                [ids, seconds],
            )
            return {row[0]: _answer(*row) for row in cursor.fetchall()}
        cursor.execute(
            "CALL djactor.wait_replies(%s::bigint[], make_interval(secs => %s), NULL)",
            [ids, seconds],
        )
        return {
            each["message_id"]: each["reply"]
            if each["error"] is None
            else AskFailed(each["message_id"], each["error"])
            for each in load_payload(cursor.fetchone()[0])
        }
