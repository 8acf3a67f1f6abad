"""The few SVG pieces that every chart is made of: frame, axis, legend, text, and the colours.

Everything is text without a dependency. Colours are CSS variables with a fallback, so that a chart follows the page's
light or dark scheme and still looks right as a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = [
    "INK",
    "MUTED",
    "RULE",
    "SERIES",
    "Box",
    "Scale",
    "format_number",
    "line",
    "rect",
    "svg",
    "text",
    "text_width",
    "ticks",
]

FONT = "system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif"
INK = "var(--ink,#1d2733)"
MUTED = "var(--muted,#66717f)"
RULE = "var(--rule,#dfe4ea)"
# told apart by readers with any of the common colour-vision deficiencies, and legible on white and on near-black
SERIES = tuple(
    f"var(--s{index},{colour})"
    for index, colour in enumerate(("#2f6fb7", "#d06a24", "#2f9070", "#8c5fb0", "#b58a1f", "#6b7a8c"), start=1)
)


@dataclass(frozen=True)
class Box:
    """The drawing area inside a chart, in SVG units: left, top, right, bottom edge."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Scale:
    """Linear map from values [low, high] to positions [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers inside [low, high] at steps of 1, 2 or 5 times a power of ten.

    Raises: ValueError: the range is empty or not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        raise ValueError(f"ticks need a finite range; got [{low}, {high}]")
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def format_number(value: float) -> str:
    """Short form of a number for axes and labels: 3 significant digits, thousands with a separator."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.3g}"


def text_width(words: str, size: float) -> float:
    """Estimated width of a text in SVG units (mean glyph of a sans-serif face, a little on the safe side)."""
    return 0.56 * size * len(words)


def text(
    x: float, y: float, words: str, *, size: float = 12, anchor: str = "start", colour: str = INK,
    weight: int = 400, rotate: float | None = None, halo: bool = False,
) -> str:  # fmt: skip
    """One line of text; `anchor` is start, middle or end; `rotate` in degrees; `halo` hides what is behind."""
    edge = ";paint-order:stroke;stroke:var(--card,#ffffff);stroke-width:5px;stroke-linejoin:round" if halo else ""
    turn = f' transform="rotate({rotate:g} {x:.1f} {y:.1f})"' if rotate is not None else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" font-weight="{weight}"{turn} '
        f'style="fill:{colour}{edge}">{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, *, colour: str = RULE, width: float = 1, dash: str = "") -> str:
    """A straight line; `dash` as in `stroke-dasharray`."""
    dashes = f";stroke-dasharray:{dash}" if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'style="stroke:{colour};stroke-width:{width:g}{dashes}"/>'
    )


def rect(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    colour: str,
    opacity: float = 1,
    radius: float = 0,
    title: str = "",
) -> str:
    """A filled rectangle, with a tooltip where `title` is given."""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}" rx="{radius:g}" '
        f'style="fill:{colour};fill-opacity:{opacity:.3f}">{tip}</rect>'
    )


def svg(parts: Sequence[str], *, width: float, height: float, label: str) -> str:
    """The complete picture; `label` is what a screen reader says. Scales down with its container, never up."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-label="{escape(label, quote=True)}" '
        f'style="max-width:100%;height:auto;font-family:{FONT}">'
        f"\n{body}\n</svg>"
    )
