"""What the migrations say about actor types: which there are, and from which file each is made.

Migrations are read, not run; squashed ones count as what they replace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation

from djactor.operations import DefineActorType, DropActorType


@dataclass(frozen=True)
class Definition:
    """The last word of the migrations on an actor type."""

    app_label: str
    migration: str
    operation: DefineActorType


def last_definitions(loader: MigrationLoader) -> dict[str, Definition]:
    """By the type's name, in the order of the migrations."""
    found: dict[str, Definition] = {}
    for app_label, migration in _in_order(loader):
        for operation in _flat(loader.graph.nodes[app_label, migration].operations):
            if isinstance(operation, DefineActorType):
                found.pop(operation.name, None)
                found[operation.name] = Definition(app_label, migration, operation)
            elif isinstance(operation, DropActorType):
                found.pop(operation.name, None)
    return found


def _in_order(loader: MigrationLoader) -> Iterator[tuple[str, str]]:
    seen = set()
    for leaf in sorted(loader.graph.leaf_nodes()):
        for node in loader.graph.forwards_plan(leaf):
            if node not in seen:
                seen.add(node)
                yield node


def _flat(operations: Sequence[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from _flat(operation.database_operations)
        else:
            yield operation
