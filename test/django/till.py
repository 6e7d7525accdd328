"""An actor type whose handler is a function of the database, with the file that creates it."""

import contextlib

from django.db import connection

TILL = "shop.till"
HANDLER = """
CREATE OR REPLACE FUNCTION till_handle(state jsonb, message jsonb) RETURNS djactor.result
LANGUAGE sql AS $$ SELECT djactor.result(jsonb_build_object('last', message), '{"by": "%s"}') $$;
"""


@contextlib.contextmanager
def handler_file(folder):
    """The file, whose handler says that it is by one; the function is gone afterwards."""
    file = folder / "till.sql"
    file.write_text(HANDLER % "one")
    try:
        yield file
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION IF EXISTS till_handle(jsonb, jsonb)")
