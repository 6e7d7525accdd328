"""Registering types for the length of a test, and removing what the database got of them."""

import contextlib

from django.db import connections

from djactor import registry


@contextlib.contextmanager
def registered(*types):
    """Each is (class, name, options), as ``djactor.register()`` takes them."""
    for cls, name, options in types:
        registry.register(cls, name, **options)
    try:
        yield
    finally:
        for _, name, _ in types:
            registry.unregister(name)
            drop(name)


@contextlib.contextmanager
def registered_sql(name, handler, **options):
    """As ``djactor.register_sql()``; the functions stay."""
    registry.register_sql(name, handler, **options)
    try:
        yield
    finally:
        registry.unregister(name)
        drop(name)


def drop(name):
    with connections["admin"].cursor() as cursor:
        cursor.execute(
            "SELECT djactor.drop_actor_type(name, discard => true) FROM djactor.actor_type"
            " WHERE name = %s",
            [name],
        )
