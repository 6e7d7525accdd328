"""The health endpoint of a supervisor: ``/live`` and ``/ready``, for Kubernetes and the like."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Report = Callable[[], tuple[bool, dict[str, Any]]]
"""Whether all is well, and what there is to say."""


def serve(port: int, live: Report, ready: Report) -> ThreadingHTTPServer:
    """Answer on a port, in a thread.

    Args:
        port: The port; 0 means any.
        live: What ``/live`` tells.
        ready: What ``/ready`` tells.

    Returns:
        The server.

    Raises:
        OSError: The port cannot be had.
    """
    reports = {"/live": live, "/ready": ready}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            report = reports.get(self.path.partition("?")[0])
            if report is None:
                self.send_error(404)
                return
            well, body = report()
            text = json.dumps(body).encode()
            self.send_response(200 if well else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            """Nothing: probes come every second."""

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="djactor-health", daemon=True).start()
    return server
