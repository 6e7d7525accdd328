"""docs/catalog.md from the extension's own words: ``make reference`` writes it.

Tables, views, functions and their comments come from the catalog of a server that has just
installed the extensions, the settings from ``pg_settings``, the errors from the C sources.  A test
writes the page anew and compares, so what is added appears there, or the test fails.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from private_server import PrivateServer, ServerError

TOP = Path(__file__).resolve().parents[1]
PAGE = TOP / "docs" / "catalog.md"
HEAD = """# Catalog: each table, view, function, setting and error

Made from the comments in the database's catalog, from `pg_settings` and from the sources by
`make reference`. [sql.md](sql.md) explains the same by subject, and [rows.md](rows.md) what the
rows mean to those who look after the server. In psql `\\d+ djactor.message` and
`\\df+ djactor.send` show these comments, too. Names that neither [sql.md](sql.md) nor
[protocol.md](protocol.md) has are internal.
"""
RELATIONS = """
    SELECT c.relname, c.relkind = 'v', obj_description(c.oid, 'pg_class'),
        (SELECT array_agg(ARRAY[a.attname::text, format_type(a.atttypid, a.atttypmod),
            col_description(c.oid, a.attnum)] ORDER BY a.attnum)
         FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    FROM pg_class c
    WHERE c.relnamespace = 'djactor'::regnamespace AND c.relkind IN ('r', 'v')
    ORDER BY 2, c.relname COLLATE "C"
"""
FUNCTIONS = """
    SELECT p.proname, p.prokind = 'p', pg_get_function_arguments(p.oid),
        pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
    FROM pg_proc p
    WHERE p.pronamespace = 'djactor'::regnamespace
    ORDER BY p.proname COLLATE "C", pg_get_function_identity_arguments(p.oid) COLLATE "C"
"""
SETTINGS = """
    SELECT name, boot_val || COALESCE(' ' || unit, ''), min_val, max_val, context,
        concat_ws(' ', short_desc, extra_desc)
    FROM pg_settings
    WHERE name LIKE 'djactor%'
    ORDER BY name COLLATE "C"
"""
CONTEXTS = {"postmaster": "restart", "sighup": "reload", "superuser": "superuser, at any time"}
STRING = r'"(?:[^"\\]|\\.)*"'


def relations(rows: list[Any]) -> Iterator[str]:
    """The sections of tables and of views."""
    for views in (False, True):
        yield f"\n## {'Views' if views else 'Tables'}\n"
        for name, is_view, comment, columns in rows:
            if is_view == views:
                yield f"\n### djactor.{name}\n\n{sentence(comment)}\n\n"
                yield "| column | type | |\n|---|---|---|\n"
                for column, kind, words in columns:
                    yield f"| `{column}` | {kind} | {cell(words)} |\n"


def functions(rows: list[Any]) -> Iterator[str]:
    """The section of functions; those of one name stand together."""
    yield "\n## Functions and procedures\n"
    last = None
    for name, is_procedure, arguments, result, comment in rows:
        if name != last:
            yield f"\n### djactor.{name}()\n"
        last = name
        call = f"{'CALL ' if is_procedure else ''}djactor.{name}({arguments})"
        returns = "" if is_procedure or result is None else f" RETURNS {result}"
        yield f"\n    {call}{returns}\n\n{sentence(comment)}\n"


def settings(rows: list[Any]) -> Iterator[str]:
    """The section of settings."""
    yield "\n## Settings\n\n| setting | default | range | changes with | |\n|---|---|---|---|---|\n"
    for name, default, least, most, context, words in rows:
        span = f"{least} to {most}" if least is not None else ""
        default = f"`{default}`" if default.strip() else ""
        yield f"| `{name}` | {default} | {span} | {CONTEXTS[context]} | {cell(words)} |\n"


def errors(sqlstates: dict[str, str]) -> Iterator[str]:
    """The section of errors: what the sources raise, by SQLSTATE."""
    yield "\n## Errors\n\nBy SQLSTATE; [sql.md](sql.md#errors) says what each means. "
    yield "`%s` and `%d` stand for names and figures.\n"
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((TOP / "src").rglob("*.c")):
        for call in calls(path.read_text(), "ereport"):
            if not re.match(r"ereport\(\s*(ERROR|elevel|level)\b", call):
                continue
            for name in re.findall(r"\b(?:DJA_)?ERRCODE_\w+", first(call, "errcode")):
                for message in texts(first(call, "errmsg")):
                    found[name][message] = " ".join(texts(first(call, "errhint")))
    for name in sorted(found, key=lambda name: sqlstates[name]):
        words = re.sub("^(T_R|E_R_I_E)_", "", name.split("ERRCODE_")[1]).lower()
        yield f"\n### {sqlstates[name]} {words.replace('_', ' ')}\n\n"
        for message, hint in sorted(found[name].items()):
            yield f"- `{message}`{f': {hint}' if hint else ''}\n"


def calls(source: str, name: str) -> Iterator[str]:
    """The calls of a C function or macro, with their arguments."""
    for start in re.finditer(rf"\b{name}\(", source):
        depth = 0
        for token in re.finditer(rf"{STRING}|'(?:[^'\\]|\\.)+'|[()]", source[start.end() - 1 :]):
            depth += {"(": 1, ")": -1}.get(token[0], 0)
            if depth == 0:
                yield source[start.start() : start.end() - 1 + token.end()]
                break


def first(call: str, name: str) -> str:
    """The first call of that name within another call; errmsg also as errmsg_internal or plural."""
    return next(calls(call, rf"{name}(?:_internal|_plural)?"), "")


def texts(call: str) -> list[str]:
    """The strings of a call that are sentences, adjoining literals as one."""
    found = []
    for literals in re.findall(rf"{STRING}(?:\s*(?:INT64_FORMAT)?\s*{STRING})*", call):
        parts = re.findall(rf"{STRING}|INT64_FORMAT", literals)
        text = "".join("%d" if part == "INT64_FORMAT" else part[1:-1] for part in parts)
        found.append(text.replace("%%d", "%d").replace('\\"', '"'))
    return [text for text in found if " " in text]


def sentence(text: str) -> str:
    """A comment as a sentence."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def cell(text: str) -> str:
    """A comment in a table."""
    return text.replace("|", "\\|").replace("*", "\\*")


def sqlstates() -> dict[str, str]:
    """The SQLSTATE of each name of the server's and of djactor's own errors."""
    config = Path(os.environ["DJACTOR_PREFIX"]) / "pg_config"
    headers = subprocess.check_output([config, "--includedir-server"], text=True).strip()
    source = (Path(headers) / "utils/errcodes.h").read_text()
    source += (TOP / "src/turn/failure.h").read_text()
    pattern = r"define ((?:DJA_)?ERRCODE_\w+) MAKE_SQLSTATE\(([^)]*)\)"
    return {name: re.sub(r"\W", "", code) for name, code in re.findall(pattern, source)}


def page() -> str:
    """The page."""
    with PrivateServer(fsync=False) as server, psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE EXTENSION djactor_python CASCADE")

        def rows(query: str) -> list[Any]:
            return connection.execute(query).fetchall()

        parts = [
            *relations(rows(RELATIONS)),
            *functions(rows(FUNCTIONS)),
            *settings(rows(SETTINGS)),
            *errors(sqlstates()),
        ]
    return HEAD + "".join(parts)


def main() -> int:
    """Write the page.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        sys.exit(f"reference: {error}")
