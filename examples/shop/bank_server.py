"""A bank on this machine, slow and unreliable: ``python bank_server.py --fail 0.2 --lose 0.2``.

    POST /charges   {"amount", "card"}, Idempotency-Key: books a charge, unless it has one under
                    this key; 201 with the receipt, 402 if the card begins with 0000, 409 if the
                    key was voided
    POST /voids     Idempotency-Key: refunds the charge of this key, and refuses later ones
    GET /bookings   all of them: key, kind (charge, refund), amount

What is booked is in a file, so it outlives a SIGKILL.  Its answers do not: ``--fail`` is the share
of requests that get a 503 and do nothing, ``--lose`` the share that are done and get no answer,
``--delay`` the most seconds that a request takes.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Books:
    """What is booked, one line of JSON each; the last line may be torn by a kill."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.bookings: list[dict[str, Any]] = []
        self.voided: set[str] = set()
        path.touch()
        self._file = path.open("r+", buffering=1)
        whole = self._file.read().rpartition("\n")[0]
        self._file.seek(0)
        self._file.truncate(len(whole) + 1 if whole else 0)
        self._file.seek(0, 2)
        for line in whole.splitlines():
            self._remember(json.loads(line))

    def _remember(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "void":
            self.voided.add(entry["key"])
        else:
            self.bookings.append(entry)

    def _write(self, **entry: Any) -> None:
        self._file.write(json.dumps(entry) + "\n")  # before anybody hears of it
        self._remember(entry)

    def _find(self, key: str, kind: str) -> int | None:
        for number, entry in enumerate(self.bookings, 1):
            if entry["key"] == key and entry["kind"] == kind:
                return number
        return None

    def charge(self, key: str, amount: int, card: str) -> tuple[int, dict[str, Any]]:
        """Book a charge once."""
        with self.lock:
            if key in self.voided:
                return 409, {"error": "was voided"}
            if card.startswith("0000"):
                return 402, {"error": "the card is declined"}
            if self._find(key, "charge") is None:
                self._write(key=key, kind="charge", amount=amount)
            return 201, {"receipt": self._find(key, "charge")}

    def void(self, key: str) -> tuple[int, dict[str, Any]]:
        """Refund once, and refuse what comes later."""
        with self.lock:
            if key not in self.voided:
                self._write(key=key, kind="void")
            charge = self._find(key, "charge")
            if charge is not None and self._find(key, "refund") is None:
                self._write(key=key, kind="refund", amount=self.bookings[charge - 1]["amount"])
            return 200, {"refunded": charge is not None}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    disable_nagle_algorithm = True
    server: Bank

    def do_GET(self) -> None:
        """The books."""
        with self.server.books.lock:
            bookings = list(self.server.books.bookings)
        self.answer(200, bookings)

    def do_POST(self) -> None:
        """A charge or a void, with all that may go wrong."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        options, books = self.server.options, self.server.books
        time.sleep(random.uniform(0, options.delay))
        if random.random() < options.fail:
            self.answer(503, {"error": "try again"})
            return
        if self.path == "/charges":
            status, answer = books.charge(key, body["amount"], body["card"])
        else:
            status, answer = books.void(key)
        if random.random() >= options.lose:
            self.answer(status, answer)

    def answer(self, status: int, body: Any) -> None:  # noqa: ANN401
        """Answer with JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Bank(ThreadingHTTPServer):
    """The server."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.books = Books(options.books)
        super().__init__((options.host, options.port), Handler)

    def handle_error(self, *args: Any) -> None:
        """A client that has gone is no news."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8010)
    parser.add_argument("--books", type=Path, default=Path("bank.jsonl"), help="the file")
    parser.add_argument("--delay", type=float, default=1.0)
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--lose", type=float, default=0.0)
    Bank(parser.parse_args()).serve_forever()
