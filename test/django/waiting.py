"""Waiting for what will be true in a moment."""

import time

from django.db import connection


def until(condition, seconds=60):
    """What ``condition()`` returns once it is true; errors: AssertionError, if it takes long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def until_visible():
    """Until the commands that follow a table read what was committed before this call."""
    from djactor import following

    def horizon():
        with connection.cursor() as cursor:
            cursor.execute(following._HORIZON, [0.0])
            return cursor.fetchone()[0]

    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now = cursor.fetchone()[0]
    until(lambda: horizon() >= now)
