"""Plain text for terminals and pipes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Rows as aligned columns, two spaces apart; the last column is not padded. All rows have equally many cells."""
    lines = [list(head), *rows] if head else list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)
