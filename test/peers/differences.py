"""What tests of PostgreSQL and of Django say with djactor that they do not say without it, and why.

``peers.py`` compares with this list, line by line, so a new difference fails, and so does one
that is no more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """Of one test: the lines that are only said in these variants."""

    suite: str
    test: str
    variants: tuple[str, ...]
    reason: str
    lines: str


DIFFERENCES = (
    Difference(
        suite="regress",
        test="opr_sanity",
        variants=("extension",),
        reason=(
            "The test wants no function with the name and the arguments of a built-in one, in "
            "whatever schema. djactor.now() is the time by which mail is due, which drain(until) "
            "moves. Who writes now() calls it only with djactor in search_path before pg_catalog."
        ),
        lines="""
- oid | proname | oid | proname
------+---------+-----+---------
-(0 rows)
+  oid  | proname |  oid  | proname
+-------+---------+-------+---------
+  1299 | now     | (new) | now
+ (new) | now     |  1299 | now
+(2 rows)
""",
    ),
)
