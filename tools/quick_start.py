"""The quick start of docs/django.md, followed as it stands, in an empty folder.

A block of code after a line that ends with a file's name goes to the end of that file. Indented
lines are commands; those of pip are left out, since who calls this has installed the app in a way
of his own. A block of Python without a file is typed into the shell, and has to print what its
comments say.

As a program it takes the page and the folder, and says what each command has said. The environment
has to name the server and a role that may connect to the database ``mysite``, which is empty.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

STEP = re.compile(
    r"`(?P<file>[\w/]+\.\w+)`:\n\n```\w+\n(?P<content>.*?)^```$"
    r"|^    (?P<command>\w.*?)$"
    r"|^```python\n(?P<typed>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)


class Surprised(Exception):
    """A step of the page does not do what the page says."""


def follow(page: str, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Follow the quick start.

    Args:
        page: The text of docs/django.md.
        folder: An empty folder.
        environment: The environment of its commands.

    Returns:
        What each command has said.

    Raises:
        Surprised: A command fails, or the shell prints something else.
    """

    def run(command: str, typed: str = "") -> str:
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise Surprised(f"{command}\n{done.stdout}")
        return done.stdout

    said = {}
    section = page.split("\n## Quick start\n")[1].split("\n## ")[0]
    for step in STEP.finditer(section):
        if step["file"]:
            with (folder / step["file"]).open("a") as file:
                file.write(step["content"])
        elif step["typed"]:
            shown = run("python manage.py shell", step["typed"])
            expected = re.findall(r"^print.*# (\{.*)$", step["typed"], flags=re.MULTILINE)
            if not expected or shown.splitlines()[-len(expected) :] != expected:
                raise Surprised(f"the shell prints {shown!r} instead of {expected}")
        elif not step["command"].startswith("pip "):
            said[step["command"]] = run(step["command"])
    return said


if __name__ == "__main__":
    for command, output in follow(
        Path(sys.argv[1]).read_text("utf-8"), Path(sys.argv[2]), os.environ
    ).items():
        print(f"$ {command}\n{output}", end="")
