"""Self-contained HTML: one file, inline style and images, no request to anywhere, light and dark, fit for print.

Everything that is text is escaped here; only charts and what the functions below return go in as markup.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from torch import Tensor

from wholereel.datasets.atomic_files import write_text_file
from wholereel.report.images import encode_jpeg
from wholereel.report.style import STYLE

__all__ = [
    "page",
    "write_page",
    "section",
    "paragraph",
    "note",
    "figure",
    "table",
    "cards",
    "code",
    "jpeg_image",
    "film_strip",
    "side_by_side",
]


def page(title: str, sections: Sequence[str], *, subtitle: str = "", footer: str = "") -> str:
    """The whole document.

    Args:
        title, subtitle, footer: plain text.
        sections: markup from `section`.
    """
    lead = f'<p class="lead">{escape(subtitle)}</p>' if subtitle else ""
    foot = f"<footer>{escape(footer)}</footer>" if footer else ""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1>{lead}</header>\n{body}\n{foot}\n</main>\n</body>\n</html>\n"
    )


def write_page(path: Path, markup: str) -> Path:
    """Write a page in one piece (a reader never sees half of it); returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_file(path, markup)
    return path


def section(heading: str, *parts: str) -> str:
    """A headed section of markup parts."""
    return f"<section><h2>{escape(heading)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(words: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{escape(words)}</p>"


def note(words: str) -> str:
    """A remark that should not be overlooked, such as a limit of the numbers above it."""
    return f'<p class="note">{escape(words)}</p>'


def figure(markup: str, caption: str = "") -> str:
    """A chart or picture with its caption."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{markup}{words}</figure>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """A table; cells that look like numbers are aligned to the right.

    Raises: ValueError: a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"table row {tuple(row)} has {len(row)} cells, the header {len(header)}")
    numeric = [all(_is_number(row[column]) for row in rows) and bool(rows) for column in range(len(header))]
    words = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(_cell("th", name, right) for name, right in zip(header, numeric, strict=True))
    body = "".join(
        "<tr>" + "".join(_cell("td", cell, right) for cell, right in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>{words}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cards(numbers: Sequence[tuple[str, str, str]]) -> str:
    """The few numbers to be seen first: (value, name, remark)."""
    return (
        '<div class="cards">'
        + "".join(
            f"<div><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(remark)}</small></div>"
            for value, name, remark in numbers
        )
        + "</div>"
    )


def code(words: str) -> str:
    """A command or a listing."""
    return f"<pre><code>{escape(words)}</code></pre>"


def jpeg_image(pixels_CHW: Tensor, *, alt: str, width: int | None = None) -> str:
    """An image inside the page.

    Args:
        pixels_CHW: uint8 RGB (C = 3).
        alt: what the picture shows, in words.
        width: shown width in pixels; `None` = its own.
    """
    data = base64.b64encode(encode_jpeg(pixels_CHW)).decode()
    shown = f' width="{width}"' if width else ""
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt, quote=True)}"{shown}>'


def film_strip(images: Sequence[tuple[str, str]]) -> str:
    """Pictures side by side, each with a line below: (image markup, words)."""
    return (
        '<div class="film">'
        + "".join(f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>" for image, words in images)
        + "</div>"
    )


def side_by_side(*parts: str) -> str:
    """Markup parts in a row, as far as the page is wide enough."""
    return f'<div class="side">{"".join(parts)}</div>'


def _cell(tag: str, words: str, right: bool) -> str:
    # long cells may break into lines, short ones look torn if they do
    kind = ' class="number"' if right else ' class="short"' if len(words) <= 28 else ""
    return f"<{tag}{kind}>{escape(words)}</{tag}>"


def _is_number(words: str) -> bool:
    return not words.strip("0123456789.,+-–—%()[] ±e")
