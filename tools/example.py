"""An example, run whole: ``make example NAME=events``.

Starts a PostgreSQL of its own and the project's site on it, and lets the project's management
command ``demo``, or another one, make some traffic, until it ends or Ctrl-C ends it.  Afterwards
everything is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from django_site import DjangoSite
from private_server import PrivateServer, ServerError

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def main() -> int:
    """Run the example; the result is the exit status of its demo."""
    names = sorted(path.parts[-5] for path in EXAMPLES.glob("*/*/management/commands/demo.py"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=names)
    parser.add_argument("command", nargs="?", default="demo", help="default: demo")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the command")
    options = parser.parse_args()
    name = options.name
    with (
        PrivateServer() as server,
        DjangoSite(EXAMPLES / name, f"{name}site", f"{name.upper()}_DB", server) as site,
    ):
        demo = site.start(options.command, site.url, *options.arguments)
        with contextlib.suppress(KeyboardInterrupt):  # it hears of a Ctrl-C, too
            return demo.wait()
        return demo.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except ServerError as error:
        sys.exit(f"example: {error}")
