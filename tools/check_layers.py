"""Check that the layers of src/ use only themselves and those below.

Each folder of src/ is a layer; LAYERS names them from the bottom up, and src/README.md says
what each holds.  A file may include headers, and use functions and variables, of its own layer
and of the layers below it.  Files that lie in src/ itself are above all layers.

Both are read from the text: the ``#include`` lines, and every mention of a name that a file of
another layer defines without ``static``.  A declaration by hand, instead of an ``#include``,
is no way around.  A violation is printed with its file and line, and the status is 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS = ("base", "shmem", "tables", "xact", "turn", "process", "sql")
SOURCE = Path(__file__).resolve().parent.parent / "src"

COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
INCLUDE = re.compile(r'^#include "((\w+)/\w+\.h)"')
NAME = re.compile(r"\b(?:dja_|Dja|DJA_)\w+")
FUNCTION = re.compile(r"^(dja_\w+)\(", re.MULTILINE)
VARIABLE = re.compile(
    r"^(?!static|typedef|extern)[A-Za-z_][\w \t*]*?\b(dja_\w+)(?: =|;|\[)", re.MULTILINE
)
STATIC_BEFORE = re.compile(r"^static\b[^;{}()]*\Z", re.MULTILINE)


def height(path: Path) -> int:
    """How high a file stands: the number of its layer, or one above all."""
    folder = path.relative_to(SOURCE).parts[0]
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


def without_comments(text: str) -> str:
    """Blank comments and strings out, and keep the lines.  Names of headers stay."""

    def blank(match: re.Match[str]) -> str:
        if match[0].endswith('.h"'):
            return match[0]
        return "\n" * match[0].count("\n")

    return COMMENT_OR_STRING.sub(blank, text)


def definitions(text: str) -> Iterator[str]:
    """Name what a C file defines for others."""
    for match in FUNCTION.finditer(text):
        if not STATIC_BEFORE.search(text[: match.start()].rsplit("}", 1)[-1].rsplit(";", 1)[-1]):
            yield match[1]
    for match in VARIABLE.finditer(text):
        yield match[1]


def main() -> int:
    """Report each use that runs up."""
    files = sorted(path for path in SOURCE.rglob("*.[ch]"))
    texts = {path: without_comments(path.read_text()) for path in files}
    home: dict[str, Path] = {}
    for path in files:
        if path.suffix == ".c":
            home.update(dict.fromkeys(definitions(texts[path]), path))

    status = 0
    for path in files:
        if path.parent != SOURCE and path.parent.name not in LAYERS:
            print(f"{path}: no layer is named {path.parent.name}", file=sys.stderr)
            status = 1
            continue
        # a static function may bear the name of another file's
        own = set(FUNCTION.findall(texts[path]))
        for number, line in enumerate(texts[path].splitlines(), 1):
            used: dict[str, Path] = {}
            if (included := INCLUDE.match(line)) and included[2] in LAYERS:
                used[f'"{included[1]}"'] = SOURCE / included[1]
            for name in NAME.findall(line):
                if name in home and name not in own:
                    used[name] = home[name]
            for name, place in used.items():
                if height(place) > height(path):
                    print(
                        f"{path.relative_to(SOURCE.parent)}:{number}: uses {name},"
                        f" which stands higher: {place.relative_to(SOURCE.parent)}",
                        file=sys.stderr,
                    )
                    status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
