"""Another database, for a while."""

import contextlib

from django.db import connection


@contextlib.contextmanager
def elsewhere(**where):
    """The alias ``default`` means another database: HOST, NAME, USER and so on."""
    before = {name: connection.settings_dict[name] for name in where}
    connection.close()
    connection.settings_dict.update(where)
    try:
        yield connection
    finally:
        connection.close()
        connection.settings_dict.update(before)
