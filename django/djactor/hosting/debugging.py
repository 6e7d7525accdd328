"""``djactor_worker --debug``: turns in the foreground, one at a time, so that pdb can be used.

There is no other process, no time limit and no watchdog, and standard input is the handler's.  Each
turn has its mail by ``drain_take()``, as in ``drain()``: the message is claimed by the transaction
of the turn, for as long as that takes, and not by a host whose lease might run out meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from bdb import BdbQuit
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connections, reset_queries, transaction

from djactor import inprocess
from djactor.hosting import logs, turns
from djactor.hosting.classes import Hosted
from djactor.hosting.context import Reject, Turn
from djactor.hosting.errors import describe, sqlstate_of
from djactor.hosting.session import BACKOFF

LOOK = 0.2  # seconds between two looks for mail
_TAKEN = "55P03"  # another process has the mailbox
_LIMITS = (
    "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN"
    " ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout')"
)


class Debugger:
    """Runs turns until it is told to end."""

    def __init__(self, alias: str, types: Mapping[str, Hosted]) -> None:
        self._alias = alias
        self._types = types
        self._failures = 0
        self._ending = False
        self._interruptible = False

    def run(self) -> None:
        """Run turns until Ctrl-C, SIGTERM, or ``q`` in the debugger.

        A turn that is left so is rolled back, and its message waits as before.

        Raises:
            DatabaseError: The role may not do this.
        """
        before = {one: signal.signal(one, self._told) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._ending:
                if not self._round() and not self._ending:
                    with self._may_be_interrupted():
                        time.sleep(LOOK)
        except (KeyboardInterrupt, BdbQuit, SystemExit):
            pass
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            connections.close_all()
        if threading.active_count() > 1:  # an async handler that has been left
            sys.stdout.flush()
            os._exit(0)

    def _round(self) -> bool:
        """Run a turn of each type.

        Returns:
            Whether any of them had mail.
        """
        found = False
        for hosted in self._types.values():
            if self._ending:
                break
            try:
                found |= self._turn(hosted)
                self._failures = 0
            except (OperationalError, InterfaceError) as error:
                if sqlstate_of(error) == _TAKEN:
                    logs.logger.info("%s: %s", hosted.name, str(error).strip())
                    continue
                self._lost(error)
            if settings.DEBUG:
                reset_queries()
        return found

    def _turn(self, hosted: Hosted) -> bool:
        """Run the next turn of a type.

        Returns:
            Whether there was one.
        """
        with transaction.atomic(using=self._alias, durable=True):
            with connections[self._alias].cursor() as cursor:
                cursor.execute(_LIMITS)
            taken = inprocess.take(self._alias, only_type=hosted.name)
            if taken is None:
                return False
            turn = turns.turn_of(taken)
            verdict = "done"
            try:
                with transaction.atomic(using=self._alias), self._may_be_interrupted():
                    turns.run_turn(turn, hosted.cls, self._alias)
            except BdbQuit:
                raise  # who debugs has left; nobody has failed
            except Exception as error:
                if self._ending:  # what the handler has made of the interruption
                    raise KeyboardInterrupt from error
                verdict = self._failed(taken, turn, error)
        turns.tell(turn, verdict)
        return True

    def _failed(self, taken: Mapping[str, Any], turn: Turn, error: Exception) -> str:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(
                "SELECT djactor.fail(%s::bigint, %s::bigint, %s::text, %s::text, %s::text,"
                " %s::jsonb)",
                [taken["token"], taken["id"], *describe(error, turn)],
            )
            verdict = str(cursor.fetchone()[0])
        if isinstance(error, Reject):
            logs.rejected(turn, error)
        else:
            logs.failed(turn, error, verdict)
        return verdict

    def _lost(self, error: Exception) -> None:
        logs.logger.warning("connecting anew: %s", str(error).strip())
        connections[self._alias].close()
        with self._may_be_interrupted():
            time.sleep(BACKOFF[min(self._failures, len(BACKOFF) - 1)])
        self._failures += 1

    @contextmanager
    def _may_be_interrupted(self) -> Iterator[None]:
        """Let a signal end what runs here; elsewhere the first one waits until it is over.

        An exception in the middle of a commit, or of a driver's reading, would leave the
        connection in a state that neither Django nor psycopg expects.
        """
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _told(self, number: int, frame: Any) -> None:
        again, self._ending = self._ending, True
        if self._interruptible or again:
            raise KeyboardInterrupt
