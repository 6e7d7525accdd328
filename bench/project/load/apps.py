"""Hosts that commit each async turn alone, for the benchmark that asks for it.

Hosts put the ends of many async turns into one commit, and have no option not to, since nobody
would want that.  To show what it is worth, it is prevented here: by ``BENCH_COMMIT_EACH`` in the
environment, which is the number of connections.  Sync types have ``batch_size => 1`` for it.
"""

import os

from django.apps import AppConfig


class Load(AppConfig):
    """The app."""

    name = "load"

    def ready(self) -> None:
        """Change the hosts of this process, if that is asked for."""
        connections = int(os.environ.get("BENCH_COMMIT_EACH", "0"))
        if not connections:
            return
        from djactor.hosting import async_host, completer

        completer.MOST = 1
        async_host.COMPLETERS = connections
