"""``progress()`` of async turns, which run outside of any transaction.

The first call opens a connection, which stays; a project that never calls it has none.  Of what a
turn says while an earlier word of it is on its way only the last is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg

from djactor.hosting import logs
from djactor.hosting.context import ID, TOKEN, Turn
from djactor.hosting.session import Options, connect

_SAY = "SELECT djactor.progress(%s::bigint, %s::bigint, %s::jsonb)"


class Teller:
    """Tells the server how far turns are, for all turns of an event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._words: dict[Turn, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._connection: psycopg.AsyncConnection[Any] | None = None

    def say(self, turn: Turn, text: str) -> None:
        """Have it told, soon.

        Args:
            turn: The turn.
            text: What it says, as JSON.
        """
        self._words[turn] = text
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._tell())

    async def close(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    async def _tell(self) -> None:
        while self._words:
            turn = next(iter(self._words))
            text = self._words.pop(turn)
            if turn.over:
                continue
            try:
                connection = await self._connected()
                await connection.execute(_SAY, (turn.row[TOKEN], turn.row[ID], text))
            except psycopg.Error as error:  # the turn goes on without
                logs.logger.warning("%r: progress() failed: %s", turn, str(error).strip())

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = await connect(self._options)
        return connection
