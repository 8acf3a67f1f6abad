"""Line charts and bar comparisons as SVG text, with bands, error bars and named ceilings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wholereel.report.svg import (
    INK,
    MUTED,
    SERIES,
    Box,
    Scale,
    format_number,
    line,
    rect,
    svg,
    text,
    text_width,
    ticks,
)

__all__ = ["Bar", "Mark", "Series", "bar_chart", "line_chart"]

WIDTH = 772.0  # fills a section of a page


@dataclass(frozen=True)
class Series:
    """One line: points (x, y) in order of x; `low` and `high` (same length) draw a band. Non-finite y are gaps."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default_factory=tuple)
    high: Sequence[float] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y)} | {len(edge) for edge in (self.low, self.high) if len(edge)}
        if len(lengths) != 1 or bool(len(self.low)) != bool(len(self.high)):
            raise ValueError(
                f"series {self.name!r}: x, y, low, high have lengths "
                f"{len(self.x)}, {len(self.y)}, {len(self.low)}, {len(self.high)}"
            )


@dataclass(frozen=True)
class Mark:
    """A named level, such as a ceiling known in closed form."""

    name: str
    value: float


@dataclass(frozen=True)
class Bar:
    """A measured value with its interval (`None` = none) and a remark such as "n = 700"."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    y_range: tuple[float, float] | None = None,
    x_names: Mapping[float, str] | None = None,
    height: float = 300,
) -> str:
    """Several lines over a common axis, with bands and horizontal dashed levels.

    Args:
        x_names: what stands at which places of the x axis, where these are not its own numbers.
    Raises: ValueError: there is no finite point.
    """
    points = [
        (x, y) for one in series for x, y in zip(one.x, one.y, strict=True) if math.isfinite(x) and math.isfinite(y)
    ]
    if not points:
        raise ValueError(f"line chart {title!r} has no finite point")
    legend, legend_height = _legend(series, 38)
    mark_width = max((text_width(mark.name, 11) for mark in marks), default=0)
    box = Box(58, 44 + legend_height, WIDTH - 14 - mark_width, height - 44)
    edges = [edge for one in series for edge in (*one.low, *one.high) if math.isfinite(edge)]
    levels = [y for _, y in points] + edges + [mark.value for mark in marks]
    x_scale = Scale(*_widened(min(x for x, _ in points), max(x for x, _ in points), 0), box.left, box.right)
    y_scale = Scale(*(y_range or _widened(min(levels), max(levels), 0.06)), box.bottom, box.top)
    parts = [text(0, 16, title, size=15, weight=600), *legend]
    names = x_names or {tick: format_number(tick) for tick in ticks(x_scale.low, x_scale.high, 6)}
    parts += _axes(box, x_scale, y_scale, x_label, y_label, names)
    for mark, label_y in zip(marks, _spread([y_scale(mark.value) for mark in marks], 14), strict=True):
        y = y_scale(mark.value)
        parts += [line(box.left, y, box.right, y, colour=MUTED, width=1.2, dash="5 4")]
        parts += [text(box.right + 6, label_y + 4, mark.name, size=11, colour=MUTED)]
    for index, one in enumerate(series):
        parts += _line(one, SERIES[index % len(SERIES)], x_scale, y_scale)
    return svg(parts, width=WIDTH, height=height, label=f"{title}: {', '.join(one.name for one in series)}")


def bar_chart(
    bars: Sequence[Bar],
    *,
    title: str,
    x_label: str,
    marks: Sequence[Mark] = (),
    x_range: tuple[float, float] | None = None,
) -> str:
    """Horizontal bars with error bars and vertical dashed levels, one row a bar.

    Raises: ValueError: no bars.
    """
    if not bars:
        raise ValueError(f"bar chart {title!r} has no bars")
    row = 38.0
    ends = [edge for bar in bars for edge in (bar.value, bar.low, bar.high) if edge is not None and math.isfinite(edge)]
    low, high = x_range or (min(0.0, *ends), max(*ends, *(mark.value for mark in marks), 1e-9) * 1.02)
    names = max(text_width(bar.name, 13) for bar in bars) + 12
    notes = max(text_width(_value_label(bar), 12) for bar in bars) + 14
    lanes = _lanes(marks, Scale(low, high, names, WIDTH - notes))
    top = 34.0 + 15.0 * (max(lanes, default=-1) + 1)
    box = Box(names, top, WIDTH - notes, top + row * len(bars))
    scale = Scale(low, high, box.left, box.right)
    parts = [text(0, 16, title, size=15, weight=600)]
    for tick in ticks(low, high):
        parts += [line(scale(tick), box.top, scale(tick), box.bottom)]
        parts += [text(scale(tick), box.bottom + 18, format_number(tick), size=11, anchor="middle", colour=MUTED)]
    parts += [text((box.left + box.right) / 2, box.bottom + 38, x_label, size=12, anchor="middle", colour=MUTED)]
    for index, bar in enumerate(bars):
        parts += _bar(bar, SERIES[index % len(SERIES)], scale, box, box.top + row * index, row)
    for mark, lane in zip(marks, lanes, strict=True):
        parts += [
            line(
                scale(mark.value), 46.0 + 15.0 * lane, scale(mark.value), box.bottom, colour=INK, width=1.2, dash="5 4"
            )
        ]
    for mark, lane in zip(marks, lanes, strict=True):  # after all lines, so that none crosses a name
        words, x = f"{mark.name} {format_number(mark.value)}", scale(mark.value)
        parts += [text(x, 42.0 + 15.0 * lane, words, size=11, colour=MUTED, anchor=_anchor(x, mark.name), halo=True)]
    return svg(parts, width=WIDTH, height=box.bottom + 48, label=f"{title}: {', '.join(_spoken(bar) for bar in bars)}")


def _bar(bar: Bar, colour: str, scale: Scale, box: Box, y: float, row: float) -> list[str]:
    middle, thick = y + row / 2, row * 0.56
    label_x = box.right + 10
    parts = [text(box.left - 10, middle + 4.5, bar.name, size=13, anchor="end")]
    parts += [text(label_x, middle + 4.5, _value_label(bar), size=12, colour=INK)]
    if not math.isfinite(bar.value):
        return parts
    zero = scale(max(scale.low, min(scale.high, 0.0)))
    x = scale(bar.value)
    parts += [
        rect(
            min(zero, x),
            middle - thick / 2,
            abs(x - zero),
            thick,
            colour=colour,
            opacity=0.85,
            radius=2,
            title=_spoken(bar),
        )
    ]
    if bar.low is not None and bar.high is not None:
        low, high = scale(bar.low), scale(bar.high)
        parts += [line(low, middle, high, middle, colour=INK, width=1.6)]
        parts += [line(edge, middle - 5, edge, middle + 5, colour=INK, width=1.6) for edge in (low, high)]
    return parts


def _value_label(bar: Bar) -> str:
    return (
        f"{bar.value:.3f}{'  ' + bar.note if bar.note else ''}"
        if math.isfinite(bar.value)
        else f"not measured  {bar.note}"
    )


def _spoken(bar: Bar) -> str:
    interval = (
        f" (95 % interval {bar.low:.3f} to {bar.high:.3f})" if bar.low is not None and bar.high is not None else ""
    )
    return f"{bar.name} {bar.value:.3f}{interval} {bar.note}".strip()


def _axes(
    box: Box, x_scale: Scale, y_scale: Scale, x_label: str, y_label: str, x_names: Mapping[float, str]
) -> list[str]:
    parts = []
    for tick in ticks(y_scale.low, y_scale.high):
        parts += [line(box.left, y_scale(tick), box.right, y_scale(tick))]
        parts += [text(box.left - 8, y_scale(tick) + 4, format_number(tick), size=11, anchor="end", colour=MUTED)]
    for place, name in x_names.items():
        parts += [text(x_scale(place), box.bottom + 18, name, size=11, anchor="middle", colour=MUTED)]
    parts += [line(box.left, box.bottom, box.right, box.bottom, colour=MUTED)]
    parts += [text((box.left + box.right) / 2, box.bottom + 37, x_label, size=12, anchor="middle", colour=MUTED)]
    middle = (box.top + box.bottom) / 2
    return [*parts, text(14, middle, y_label, size=12, anchor="middle", colour=MUTED, rotate=-90)]


def _line(one: Series, colour: str, x_scale: Scale, y_scale: Scale) -> list[str]:
    parts = []
    if len(one.low):
        rows = [row for row in zip(one.x, one.low, one.high, strict=True) if all(map(math.isfinite, row))]
        upper = [f"{x_scale(x):.1f},{y_scale(high):.1f}" for x, _, high in rows]
        lower = [f"{x_scale(x):.1f},{y_scale(low):.1f}" for x, low, _ in reversed(rows)]
        parts += [f'<polygon points="{" ".join(upper + lower)}" style="fill:{colour};fill-opacity:0.16"/>']
    path, pen_down, dots = [], False, []
    for x, y in zip(one.x, one.y, strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            pen_down = False
            continue
        path.append(f"{'L' if pen_down else 'M'}{x_scale(x):.1f} {y_scale(y):.1f}")
        dots.append(f'<circle cx="{x_scale(x):.1f}" cy="{y_scale(y):.1f}" r="2.6" style="fill:{colour}"/>')
        pen_down = True
    parts += [f'<path d="{" ".join(path)}" style="fill:none;stroke:{colour};stroke-width:2;stroke-linejoin:round"/>']
    return parts + (dots if len(dots) <= 40 else [])  # many dots would hide the line


def _legend(series: Sequence[Series], y: float) -> tuple[list[str], float]:
    """Names with their colours, on as many lines as they need, and the height of these; nothing for a single line."""
    if len(series) < 2:
        return [], 0.0
    parts: list[str] = []
    x, row = 0.0, y
    for index, one in enumerate(series):
        width = 20 + text_width(one.name, 12)
        if x > 0 and x + width > WIDTH:
            x, row = 0.0, row + 18
        parts += [
            rect(x, row - 9, 14, 4, colour=SERIES[index % len(SERIES)], radius=2),
            text(x + 20, row - 3, one.name, size=12),
        ]
        x += width + 18
    return parts, row - y + 22


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """The range with a margin; a single value becomes a range around it."""
    if high <= low:
        return low - 0.5, high + 0.5
    return low - share * (high - low), high + share * (high - low)


def _spread(positions: Sequence[float], distance: float) -> list[float]:
    """The positions, moved apart downwards where labels would overlap."""
    placed: dict[int, float] = {}
    last = -math.inf
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        last = max(positions[index], last + distance)
        placed[index] = last
    return [placed[index] for index in range(len(positions))]


def _anchor(x: float, name: str) -> str:
    half = text_width(name, 11) / 2 + 20
    return "end" if x + half > WIDTH else "start" if x - half < 0 else "middle"


def _lanes(marks: Sequence[Mark], scale: Scale) -> list[int]:
    """A line of text for each mark's name, so that neighbours do not overlap."""
    lanes: dict[int, int] = {}
    ends: list[float] = []
    for index in sorted(range(len(marks)), key=lambda i: marks[i].value):
        width = text_width(f"{marks[index].name} {format_number(marks[index].value)}", 11)
        start = scale(marks[index].value) - width / 2
        lane = next((number for number, end in enumerate(ends) if end + 8 <= start), len(ends))
        ends[lane : lane + 1] = [start + width]
        lanes[index] = lane
    return [lanes[index] for index in range(len(marks))]
