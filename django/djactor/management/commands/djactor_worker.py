"""``manage.py djactor_worker``: runs the turns of hosted actor types, in processes of Django."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from djactor import cluster, conf


class Command(BaseCommand):
    """A supervisor, and processes that take mail and run handlers."""

    help = "Runs the turns of hosted actor types, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which types, and how much at once."""
        parser.add_argument(
            "--types", nargs="+", metavar="TYPE", help="actor types (default: all that are hosted)"
        )
        parser.add_argument(
            "--processes",
            type=int,
            default=1,
            help="processes, for each node of a cluster (default 1)",
        )
        parser.add_argument(
            "--concurrency", type=int, default=100, help="async turns at once (default 100)"
        )
        parser.add_argument("--threads", type=int, default=4, help="sync turns at once (default 4)")
        parser.add_argument(
            "--grace",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="how long turns may go on at the end, and after their time limit (default 30)",
        )
        parser.add_argument(
            "--health", type=int, metavar="PORT", help="answer to GET /live and /ready there"
        )
        parser.add_argument(
            "--autoreload", action="store_true", help="start anew when code has changed"
        )
        parser.add_argument(
            "--debug",
            action="store_true",
            help="one process, here, one turn at a time, without time limits: for breakpoint()",
        )
        parser.add_argument("--database", metavar="ALIAS", help="alias of the database")
        parser.add_argument(
            "--direct-database",
            metavar="ALIAS",
            help="alias of the same database without a pooler, if the other one has one",
        )
        parser.add_argument(
            "--code-version", default="", help="shown in djactor.host, to tell deployments apart"
        )
        parser.add_argument(
            "--no-uvloop", action="store_true", help="use asyncio's own loop in any case"
        )

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Check the project without its databases.

        Django 6.1 connects to each of them for models with a ``GeneratedField``, and a node of a
        cluster that is down must not keep the others from being served.

        Raises:
            SystemCheckError: The project has an error.
        """
        kwargs.setdefault("databases", [])
        super().check(*args, **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to end.

        Raises:
            CommandError: It cannot serve; the text says why.
        """
        from djactor.hosting import logs, served
        from djactor.hosting.session import Options
        from djactor.hosting.supervisor import Plan, Supervisor

        for name, least in ("processes", 1), ("concurrency", 1), ("threads", 1), ("grace", 0):
            if options[name] < least:
                raise CommandError(f"--{name} is a number of at least {least}")
        if options["threads"] > 200:
            raise CommandError("--threads is a number of at most 200")
        if options["debug"] and (
            options["processes"] > 1 or options["autoreload"] or options["health"] is not None
        ):
            raise CommandError("--debug goes without --processes, --autoreload, --health")
        nodes = self._nodes(options["database"])
        alias = conf.get("DATABASE")
        if options["debug"] and nodes[-1] is not None:
            cluster.move_to(options["database"] or alias)
        elif nodes[-1] is None:
            alias = options["database"] or alias
        try:
            types = served.served(alias, options["types"])
        except served.CannotServe as error:
            raise CommandError(str(error)) from error
        connections.close_all()
        logs.to_stderr(options["verbosity"])
        if options["debug"]:
            self._debug(alias, types)
            return
        plan = Plan(
            Options(
                alias=alias,
                direct=options["direct_database"] or alias,
                concurrency=options["concurrency"],
                threads=options["threads"],
                grace=options["grace"],
                version=options["code_version"],
            ),
            options["types"],
            nodes,
            options["processes"],
            options["health"],
            options["autoreload"],
            not options["no_uvloop"],
            options["verbosity"],
        )
        self._say(types)
        self.stdout.write(
            f"on {', '.join(node or alias for node in nodes)},"
            f" {plan.processes} process{'es' if plan.processes != 1 else ''}"
            f"{' for each' if len(nodes) > 1 else ''},"
            f" {options['concurrency']} async turns and {options['threads']} sync turns at once in"
            " each"
        )
        self.stdout.flush()
        try:
            status = Supervisor(plan).run()
        except OSError as error:
            raise CommandError(f"cannot serve: {error}") from error
        if status:
            sys.exit(status)

    @staticmethod
    def _nodes(named: str | None) -> list[str | None]:
        """Whom processes are started for: nodes of a cluster, or a database that is none."""
        nodes = list(cluster.nodes().values())
        if named is not None:
            return [named if named in nodes else None]
        return [*nodes] or [None]

    def _say(self, types: dict[str, Any]) -> None:
        for name, one in sorted(types.items()):
            kind = "async" if one.is_async else "sync"
            self.stdout.write(f"serves {name}: {one.cls.__module__}.{one.label}, {kind}")

    def _debug(self, alias: str, types: dict[str, Any]) -> None:
        from djactor.hosting import logs
        from djactor.hosting.debugging import Debugger

        logs.install()
        self._say(types)
        self.stdout.write(f"on {alias}, one turn at a time, without time limits; Ctrl-C ends it")
        self.stdout.flush()
        Debugger(alias, types).run()
