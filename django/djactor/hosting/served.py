"""Which types a host serves, and what is wrong if it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.utils import Error as DatabaseError

from djactor.hosting.classes import Hosted


class CannotServe(Exception):
    """What is wrong, and what to do, in words for who has started the worker."""


def served(alias: str, names: Sequence[str] | None = None) -> dict[str, Hosted]:
    """The types to serve, by name.

    Args:
        alias: The database.
        names: Names of types; None means all that are registered as hosted.

    Raises:
        CannotServe: There are none, one cannot be served, or one is registered twice.
    """
    from djactor import registry

    if alias not in connections:
        raise CannotServe(f"there is no database {alias!r} in settings.DATABASES")
    if connections[alias].vendor != "postgresql":
        raise CannotServe(f"the database {alias!r} is not PostgreSQL")
    if registry.conflicts():
        raise CannotServe("; ".join(map(str, registry.conflicts())))
    registered = registry.registered()
    wanted = list(names or [name for name, one in registered.items() if one.hosted])
    if not wanted:
        raise CannotServe(
            "no actor types are registered as hosted. Register some in actors.py of an app, with"
            " djactor.register(Order, 'shop.order', hosted=True), or name types with --types."
        )
    stored = _stored(alias, wanted)
    types: dict[str, Hosted] = {}
    for name in wanted:
        if name not in stored:
            raise CannotServe(
                f"the actor type {name!r} is not defined in the database {alias!r}:"
                f" run migrate --database {alias}"
            )
        options = stored[name]
        if not options["hosted"]:
            raise CannotServe(
                f"the actor type {name!r} is not a hosted one: its handler {options['handler']}"
                " runs inside PostgreSQL. Register it with hosted=True and run migrate."
            )
        known = registered[name].options.get("state_version") if name in registered else None
        if known is not None and known != options["state_version"]:
            raise CannotServe(
                f"the states of actor type {name!r} have version {options['state_version']} in the"
                f" database {alias!r}, and {known} in this code: "
                + (
                    f"run migrate --database {alias}"
                    if known > options["state_version"]
                    else "deploy the code that knows them"
                )
            )
        try:
            cls = registry.resolve(name, options["handler"])
            types[name] = Hosted(
                name,
                cls,
                stateless=bool(options.get("stateless")),
                alone=options["batch_size"] == 1,
                state_version=options["state_version"],
            )
        except (ImportError, TypeError, AttributeError) as error:
            raise CannotServe(str(error)) from error
    return types


def _stored(alias: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the database knows of these types.

    Raises:
        CannotServe: It is no database with djactor.
    """
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT name, to_jsonb(t)::text FROM djactor.actor_type t WHERE name = ANY(%s)",
                [list(names)],
            )
            from djactor.fields import load_payload

            return {name: load_payload(text) for name, text in cursor.fetchall()}
    except DatabaseError as error:
        raise CannotServe(f"the database {alias!r}: {str(error).strip()}") from error
