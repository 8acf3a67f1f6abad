"""Pictures made of cells as SVG text: a confusion matrix and the scores of a video's clips over time."""

from __future__ import annotations

from collections.abc import Sequence

from wholereel.report.svg import INK, MUTED, RULE, SERIES, format_number, line, rect, svg, text, text_width, ticks

__all__ = ["confusion_map", "timeline_strip"]

WIDTH = 772.0  # fills a section of a page


def confusion_map(counts: Sequence[Sequence[int]], classes: Sequence[str], *, title: str) -> str:
    """Confusion matrix: a row is a true class, shaded by the share of that class, with its count where there is room.

    Args:
        counts: K rows of K counts; row = true class, column = predicted class.
        classes: the K names.
    Raises: ValueError: the counts are not K x K.
    """
    size = len(classes)
    if size == 0 or len(counts) != size or any(len(row) != size for row in counts):
        raise ValueError(f"confusion matrix of {size} classes needs {size} x {size} counts, and at least one class")
    names = min(200.0, max(text_width(name, 12) for name in classes) + 14)
    cell = min(64.0, (WIDTH - names - 10) / size)
    if cell < 9:  # names would not be legible; the shades still are
        names, cell = 24.0, (WIDTH - 34) / size
    legible = cell >= 9
    top, left = 66.0, names
    bottom = top + cell * size
    parts = [text(0, 16, title, size=15, weight=600)]
    parts += [text(left, 40, "columns: predicted, rows: true, shade: share of the row", size=11, colour=MUTED)]
    for index, row in enumerate(counts):
        total = sum(row)
        y = top + cell * index
        if legible:
            parts += [text(left - 8, y + cell / 2 + 4, _short(classes[index], names), size=min(12, cell), anchor="end")]
        for column, count in enumerate(row):
            parts += _cell(
                left + cell * column, y, cell, count, total, f"{classes[index]} → {classes[column]}: {count} of {total}"
            )
    parts += [line(left, top, left + cell * size, top, colour=RULE), line(left, top, left, bottom, colour=RULE)]
    names_height = 10.0
    if legible:
        for column, name in enumerate(classes):
            parts += [
                text(
                    left + cell * (column + 0.5) + 4,
                    bottom + 8,
                    _short(name, 120),
                    size=min(12, cell),
                    anchor="end",
                    rotate=-45,
                )
            ]
        names_height = min(100.0, 0.72 * max(text_width(_short(name, 120), 12) for name in classes) + 20)
    width = max(left + cell * size + 10, 360)  # room for the line above
    return svg(parts, width=width, height=bottom + names_height, label=f"{title}: confusion matrix of {size} classes")


def timeline_strip(
    seconds: Sequence[tuple[float, float]],
    rows: Sequence[tuple[str, Sequence[float], float]],
    *,
    duration: float,
    title: str,
) -> str:
    """Scores of the clips over time, one row a class, with the score of the whole video at the end of the row.

    Args:
        seconds: begin and end of each of the N clips; clips may overlap or leave gaps.
        rows: class name, its N clip scores in [0, 1], its video score in [0, 1].
        duration: length of the video in seconds, > 0.
    Raises: ValueError: a row has not N scores, or the duration is not positive.
    """
    if duration <= 0 or any(len(scores) != len(seconds) for _, scores, _ in rows):
        raise ValueError(f"timeline {title!r} needs a positive duration and {len(seconds)} scores in every row")
    left = min(190.0, max(text_width(name, 12) for name, _, _ in rows) + 16)
    right, row_height, top = WIDTH - 60, 42.0, 44.0
    bottom = top + row_height * len(rows)
    scale = (right - left) / duration
    parts = [
        text(0, 16, title, size=15, weight=600),
        text(WIDTH, top - 10, "video", size=11, anchor="end", colour=MUTED),
    ]
    parts += [text(left, top - 10, "clips", size=11, colour=MUTED)]
    for index, (name, scores, video_score) in enumerate(rows):
        colour = SERIES[index % len(SERIES)]
        y = top + row_height * index
        parts += [text(left - 10, y + row_height / 2 + 4, _short(name, left - 10), anchor="end")]
        parts += [rect(left, y + 3, right - left, row_height - 6, colour=MUTED, opacity=0.10, radius=3)]
        for number, ((begin, end), score) in enumerate(zip(seconds, scores, strict=True), start=1):
            tip = f"clip {number}, {begin:.1f}–{end:.1f} s: {name} {score:.3f}"
            tall = (row_height - 6) * score
            x, width = left + begin * scale, max(1.5, (min(end, duration) - begin) * scale - 1)
            parts += [rect(x, y + 3, width, row_height - 6, colour=colour, opacity=0.12, title=tip)]
            parts += [rect(x, y + row_height - 3 - tall, width, tall, colour=colour, opacity=0.85, title=tip)]
        parts += [text(WIDTH, y + row_height / 2 + 4, f"{video_score:.3f}", size=13, anchor="end", weight=600)]
    parts += [line(left, bottom + 2, right, bottom + 2, colour=MUTED)]
    for tick in ticks(0.0, duration, 8):
        x = left + tick * scale
        parts += [line(x, bottom + 2, x, bottom + 6, colour=MUTED)]
        parts += [text(x, bottom + 20, f"{format_number(tick)} s", size=11, anchor="middle", colour=MUTED)]
    return svg(
        parts,
        width=WIDTH,
        height=bottom + 28,
        label=f"{title}: scores of {len(seconds)} clips over {duration:.1f} seconds",
    )


def _cell(x: float, y: float, cell: float, count: int, total: int, tip: str) -> list[str]:
    share = count / total if total else 0.0
    gap = 1.0 if cell >= 9 else 0.0
    parts = [rect(x, y, cell - gap, cell - gap, colour=MUTED, opacity=0.08)]
    if count:
        parts = [rect(x, y, cell - gap, cell - gap, colour=SERIES[0], opacity=0.12 + 0.83 * share, title=tip)]
    if count and cell >= 22:
        colour = "#ffffff" if share > 0.55 else INK
        parts += [
            text(x + cell / 2, y + cell / 2 + 4, f"{count}", size=min(12, cell / 2.4), anchor="middle", colour=colour)
        ]
    return parts


def _short(name: str, width: float) -> str:
    """The name, cut to about so many SVG units."""
    largest = max(4, int(width / 6.7))
    return name if len(name) <= largest else name[: largest - 1] + "…"
