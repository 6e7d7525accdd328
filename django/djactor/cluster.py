"""``DJACTOR["CLUSTER"]``: a project whose actors live on the nodes of ``djactor_cluster``.

Each node is a database with an alias in DATABASES, and ``DJACTOR["NODES"]`` names the aliases by
the numbers of the nodes::

    DJACTOR = {"CLUSTER": True, "NODES": {1: "default", 2: "two"}}

What always holds: ``actor().send()`` and ``Message`` send to actors of all nodes, as part of the
transaction on the node that the project is connected to; ``Actor``, ``Message`` and ``DeadLetter``
are read from all nodes.  What is done to one actor or message, and is no message, happens on its
own node: over that node's alias, and not in the transaction at hand.

Types are defined from ``DJACTOR["DATABASE"]``, on all nodes or on none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model

from djactor import conf

_ID_BITS = 42  # of an id below the number of the node that has given it

# What is read in a cluster, by the names of the models.
_VIEWS = {"Actor": "actor", "Message": "mail", "DeadLetter": "dead_letter"}


def on() -> bool:
    """Whether the project's settings say that it is on a cluster."""
    return bool(conf.get("CLUSTER"))


def nodes() -> dict[int, str]:
    """The aliases of the nodes, by their numbers; empty if the settings name none."""
    return dict(conf.get("NODES")) if on() else {}


def set_tables() -> None:
    """Have the models read what the settings say.

    The tables are set behind Django's back, so that no migration is wanted.
    """
    from djactor import models

    for name, view in _VIEWS.items():
        model = getattr(models, name)
        table = model._meta.original_attrs["db_table"]
        model._meta.db_table = f'"djactor_cluster"."{view}"' if on() else table
        for field in model._meta.local_fields:
            vars(field).pop("cached_col", None)  # which knows the table by its name


def sending(alias: str) -> contextlib.AbstractContextManager[Any]:
    """As long as the block lasts, an INSERT of a ``Message`` by this connection sends."""
    return _instead(alias, '"djactor_cluster"."mail"', '"djactor_cluster"."message"')


def writing(table: str, alias: str) -> contextlib.AbstractContextManager[Any]:
    """As long as the block lasts, an UPDATE or DELETE concerns rows of this connection's node.

    Args:
        table: ``"actor"`` or ``"dead_letter"``.
        alias: The connection.
    """
    return _instead(alias, f'"djactor_cluster"."{table}"', f'"djactor"."{table}"')


def _instead(alias: str, view: str, table: str) -> contextlib.AbstractContextManager[Any]:
    """Statements about a view are about the table that is written instead."""
    if not on():
        return contextlib.nullcontext()

    def run(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        return execute(sql.replace(view, table), params, many, context)

    return connections[alias].execute_wrapper(run)


def alias_of_id(given: int, using: str) -> str:
    """The alias of the node that has given an id to a message or an actor.

    Args:
        given: The id.
        using: What it is without a cluster, or for a node that the settings do not name; the server
            then says whose the id is.
    """
    return nodes().get(given >> _ID_BITS, using)


def alias_of_row(row: Model, using: str) -> str:
    """The alias of the node that has a message or dead letter, or of the one that its id names.

    Args:
        row: The message or dead letter.
        using: Alias of a node that is asked; the result without a cluster, or for a node that the
            settings do not name.
    """
    if not on():
        return using
    view = _VIEWS[type(row).__name__]
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"SELECT node FROM djactor_cluster.{view} WHERE id = %s AND actor_key = %s",
            [row.pk, row.actor_key],  # type: ignore[attr-defined]
        )
        found = cursor.fetchone()
    return nodes().get(found[0], using) if found else alias_of_id(row.pk, using)


def alias_of_key(key: str, using: str) -> str:
    """The alias of the node on which actors of this key live.

    Args:
        key: The key.
        using: Alias of a node that is asked; the result without a cluster.

    Raises:
        ImproperlyConfigured: The settings name no alias of that node.
    """
    if not on():
        return using
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT djactor_cluster.this_node(), djactor_cluster.node_of_key(%s)", [key])
        here, there = cursor.fetchone()
    if here == there:
        return using
    try:
        return nodes()[there]
    except KeyError:
        raise ImproperlyConfigured(
            f"the actor lives on node {there}, of which DJACTOR['NODES'] has no alias"
        ) from None


def defined_elsewhere(alias: str) -> bool:
    """Whether types are defined in this database from another one: it is one of the other nodes."""
    return on() and alias != conf.get("DATABASE") and alias in nodes().values()


class Everywhere:
    """A schema editor whose statements run on all nodes, or on none.

    Args:
        editor: That of the database which runs them.
        key: An actor's key: the statements are SELECTs, for the node alone where it lives.
    """

    def __init__(self, editor: BaseDatabaseSchemaEditor, key: str | None = None) -> None:
        self._editor = editor
        self._key = key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._editor, name)

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Run a statement on all nodes.

        Raises:
            DatabaseError: One of them has raised it, or cannot be reached.
        """
        text = str(sql)
        compose = self._editor.connection.ops.compose_sql  # type: ignore[attr-defined]
        if params:
            text = compose(text, params)
        if self._key is not None:
            text += compose(" WHERE djactor_cluster.is_here(%s)", [self._key])
        self._editor.execute("SELECT djactor_cluster.execute(%s)", [text])


def everywhere(editor: BaseDatabaseSchemaEditor, key: str | None = None) -> Any:
    """The editor for what is to be the same on all nodes: itself, if there is no cluster.

    Args:
        editor: That of the database.
        key: As that of ``Everywhere``.
    """
    ours = on() and editor.connection.alias == conf.get("DATABASE")
    return Everywhere(editor, key) if ours else editor


def move_to(node: str) -> None:
    """Have this process take a node for ``DJACTOR["DATABASE"]``, before it works there."""
    alias = str(conf.get("DATABASE"))
    connections.settings[alias] = dict(connections.settings[node])
    with contextlib.suppress(AttributeError):
        del connections[alias]
