"""Sphinx settings: MyST pages, furo, autodoc; any warning fails the build (`make docs`)."""

from __future__ import annotations

import doctest
import re
from typing import Any

from wholereel import __version__

project = "wholereel"
author = "the wholereel authors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"wholereel {__version__}"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings are written for the reader of the source: single backticks mean code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
napoleon_numpy_docstring = False

doctest_global_setup = "import torch, wholereel"
doctest_default_flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL

INLINE_SECTION = re.compile(r"(Returns|Raises|Yields|Args): (.+)")


def expand_inline_sections(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """`Returns: text` on one line is how our docstrings save space; napoleon wants the text below its heading."""
    expanded: list[str] = []
    inside = False
    for line in lines:
        match = INLINE_SECTION.fullmatch(line)
        if match:
            expanded += ["", f"{match[1]}:", f"    {match[2]}"]
        elif inside and line.startswith(" "):
            expanded.append(f"    {line.strip()}")
        else:
            expanded.append(line)
        inside = bool(match) or (inside and line.startswith(" "))
    lines[:] = expanded


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", expand_inline_sections, priority=400)  # before napoleon's 500
