"""What the pages of the site need beyond Sphinx.

The directive ``django-commands`` lists the commands of the app with their options, and a model is
shown with its fields.  Two lexers are those that the pages mean by ``sql`` and ``conf``.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any, ClassVar

from django.core.management import load_command_class
from django.db import models
from docutils import nodes
from docutils.parsers.rst import Directive
from pygments.lexers.configs import IniLexer
from pygments.lexers.sql import PostgresLexer
from sphinx.application import Sphinx

import djactor.management.commands as management

# Options that all of Django's commands have.
DJANGOS = {
    "--help",
    "--version",
    "--verbosity",
    "--settings",
    "--pythonpath",
    "--traceback",
    "--no-color",
    "--force-color",
    "--skip-checks",
}


def commands() -> dict[str, Any]:
    """The app's own commands by name, without those of Django that it amends."""
    folder = Path(management.__path__[0])
    names = sorted(path.stem for path in folder.glob("djactor_*.py"))
    return {name: load_command_class("djactor", name) for name in names}


class Commands(Directive):
    """A definition for each command: what it is for, and its options."""

    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The nodes of the definitions.

        Returns:
            A section for each command.
        """
        made: list[nodes.Node] = []
        for name, command in commands().items():
            section = nodes.section(ids=[name.replace("_", "-")], names=[name])
            section += nodes.title(text=name)
            section += nodes.paragraph(text=command.help)
            rows = [
                nodes.definition_list_item(
                    "",
                    nodes.term("", "", nodes.literal(text=_usage(action))),
                    nodes.definition("", nodes.paragraph(text=_help(action))),
                )
                for action in command.create_parser("manage.py", name)._actions
                if not DJANGOS & set(action.option_strings)
            ]
            if rows:
                section += nodes.definition_list("", *rows)
            made.append(section)
        return made


def _usage(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        name += f" {action.metavar or action.dest.upper()}"
    return name


def _help(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": "manage.py"}


def add_fields(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Append its fields to the docstring of a model."""
    if inspect.isclass(obj) and issubclass(obj, models.Model):
        fields = ", ".join(f"``{field.name}``" for field in obj._meta.concrete_fields)
        lines += ["", f"Fields: {fields}."]


def give_captions_a_level(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Say to screen readers which level of heading the caption of a list of pages is."""
    if "body" in context:
        context["body"] = context["body"].replace(
            'class="caption" role="heading"', 'class="caption" role="heading" aria-level="2"'
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it all.

    Returns:
        That pages may be read in parallel.
    """
    app.add_lexer("sql", PostgresLexer)
    app.add_lexer("conf", IniLexer)
    app.add_directive("django-commands", Commands)
    app.connect("autodoc-process-docstring", add_fields)
    app.connect("html-page-context", give_captions_a_level)
    return {"parallel_read_safe": True}
