"""PGQ: one consumer, a batch in one transaction, as PGQ's own consumer framework has it.

With the setting ``in_server`` the loop over a batch's events is a PL/pgSQL function
(``consume``), and this program only calls it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import psycopg

CONFIG: dict[str, Any] = json.loads(sys.argv[1])
UPDATE = "UPDATE state SET total = total + %s WHERE key = %s"


def consume(cursor: psycopg.Cursor, batch: int) -> int:
    """Handle a batch's events one after the other."""
    cursor.execute("SELECT ev_data FROM pgq.get_batch_events(%s)", (batch,))
    events = cursor.fetchall()
    for (data,) in events:
        message = json.loads(data)
        if CONFIG["handler"] == "update":
            cursor.execute(UPDATE, (message["n"], message["key"]))
        elif CONFIG["handler"] == "sleep":
            time.sleep(0.01)
    return len(events)


def consume_in_server(cursor: psycopg.Cursor, batch: int) -> int:
    """The same within the server."""
    cursor.execute("SELECT consume(%s)", (batch,))
    row = cursor.fetchone()
    return row[0] if row else 0


def main() -> None:
    """Wait for the word, consume until the input ends."""
    handle = consume_in_server if CONFIG["settings"].get("in_server") else consume
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    handled = 0
    with psycopg.connect(CONFIG["url"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        connection.commit()
        print("ready", flush=True)
        if not sys.stdin.readline():
            return
        threading.Thread(target=wait_for_end, daemon=True).start()
        while not ended.is_set():
            cursor.execute("SELECT pgq.next_batch('bench', 'bench')")
            row = cursor.fetchone()
            if row is None or row[0] is None:
                connection.commit()
                ended.wait(0.1)
                continue
            done = handle(cursor, row[0])
            cursor.execute("SELECT pgq.finish_batch(%s)", (row[0],))
            connection.commit()
            handled += done
    print(handled, flush=True)


main()
