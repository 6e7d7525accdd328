"""The site: ``make docs`` builds it with Sphinx, MyST and furo.

The source directory is the tree itself, so a link between two pages is the same here and where the
repository is browsed.  Warnings are errors, and so is a link to a file or a heading that does not
exist; links to other sites are not followed.  What the pages load comes with them, so that they can
be read and searched from a disk.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import django
from django.conf import settings

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP / "django"), str(TOP / "docs" / "_site")]

project = "djactor"
author = "the djactor developers"
release = version = importlib.import_module("djactor").__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "pages"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "SECURITY.md",
    "deploy/README.md",
    "src/README.md",
    "test/README.md",
    "bench/**.md",
    "examples/*/README.md",
]
exclude_patterns = [".*", "bench/results/*"]

myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # tables of figures, one below the other, have low headings
    "ref.python",  # two classes are called Turn; an annotation leads to one of them
]
highlight_language = "text"  # of indented blocks, which are commands

html_theme = "furo"
html_title = f"djactor {release}"
html_static_path = ["_site/static"]
html_js_files = ["scrollable.js"]
html_extra_path = ["_site/root"]  # index.html, which leads to docs/index.html
html_copy_source = False
html_show_sourcelink = False

# The Python reference.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

settings.configure(
    SECRET_KEY="pages keep no secrets",
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.messages",
        "django.contrib.admin",
        "djactor",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "unused"}},
    USE_TZ=True,
)
django.setup()
