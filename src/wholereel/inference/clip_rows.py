"""Numbers of each clip of a stream that may be long, at no more than their own size.

Not here: which numbers these are (`stream_judges.py`, `stream_track.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Rows"]


class Rows:
    """Vectors of one size on the host, one a clip, in blocks: a small tensor for each clip would take several times
    its numbers (measured: 4 kB instead of 0.5)."""

    BLOCK = 256

    def __init__(self, rows_ND: Tensor | None = None) -> None:
        self.count = 0
        self._blocks: list[Tensor] = []
        for row_D in () if rows_ND is None else rows_ND:
            self.append(row_D)

    def append(self, row_D: Tensor) -> None:
        """One more."""
        place = self.count % self.BLOCK
        if place == 0:
            self._blocks.append(torch.zeros(self.BLOCK, len(row_D), dtype=row_D.dtype))
        self._blocks[-1][place] = row_D  # copies, from whatever device
        self.count += 1

    @property
    def nbytes(self) -> int:
        """What is held, empty places of the newest block included."""
        return sum(block.numel() * block.element_size() for block in self._blocks)

    def part(self, block: int) -> Tensor:
        """Those of a block that are filled."""
        return self._blocks[block][: self.count - block * self.BLOCK]

    def parts(self) -> list[Tensor]:
        """All, block by block."""
        return [self.part(block) for block in range(len(self._blocks))]

    def joined(self) -> Tensor:
        """All as `(N, D)`; there must be one."""
        return torch.cat(self.parts())
