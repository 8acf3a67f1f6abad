"""Losses of many steps, summed on the device: the host looks at them only when something is to be shown or saved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wholereel.batches import Losses
from wholereel.errors import WholereelError
from wholereel.training.distributed import Ranks, sum_over_ranks

__all__ = ["LossMeter", "MeterReading", "NonFiniteLossError"]


class NonFiniteLossError(WholereelError):
    """A loss became NaN or infinite; says where, and what can be gone back to."""


@dataclass(frozen=True)
class MeterReading:
    """Means since the last reading, over all ranks.

    Args:
        sums: by part, (sum, count). total: weighted sum of the means. raised: how many ranks raised their flag.
    """

    sums: dict[str, tuple[float, float]]
    total: float
    raised: int


class LossMeter:
    """Sums losses between two readings.

    Args:
        ranks: over which readings sum.
        device: where losses live.
        last_checkpoint: what the error for a non-finite loss names.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self.ranks, self.device = ranks, device
        self.last_checkpoint = "none was written yet"
        self._restart()

    def _restart(self) -> None:
        self.losses: Losses | None = None
        self.ids: list[tuple[str, ...]] = []
        self.first_bad = torch.full((), -1, device=self.device)

    def add(self, losses: Losses, ids: tuple[str, ...]) -> None:
        """Take in a batch's detached losses; nothing is copied to the host."""
        finite = torch.stack([part.sum for part in losses.parts.values()]).isfinite().all()
        self.first_bad = torch.where((self.first_bad < 0) & ~finite, len(self.ids), self.first_bad)
        self.losses = losses if self.losses is None else self.losses.merge(losses)
        self.ids.append(ids)

    def read(self, *, where: str, flag: bool = False) -> MeterReading:
        """Means since the last reading; the same on all ranks, and to be called by all at the same step.

        Args:
            where: place in the run, for the error.
            flag: something that any rank may raise.
        Raises:
            NonFiniteLossError: a loss on this or another rank was not finite.
            ValueError: nothing was added.
        """
        if self.losses is None:
            raise ValueError("the meter has nothing to read: call add first")
        parts = self.losses.parts
        own = [*(part.sum for part in parts.values()), *(part.count for part in parts.values())]
        flags = torch.tensor([float(flag)], dtype=torch.float64, device=self.device)
        bad = (self.first_bad >= 0).double()[None]
        packed = torch.cat([torch.stack([value.double() for value in own]), bad, flags])
        numbers = sum_over_ranks(packed, self.ranks).tolist()
        if numbers[-2]:
            raise NonFiniteLossError(self._message(where, self.first_bad))
        sums = dict(zip(parts, zip(numbers[: len(parts)], numbers[len(parts) : -2], strict=True), strict=True))
        weights = self.losses.weights
        total = sum(weights.get(name, 1.0) * value / max(count, 1.0) for name, (value, count) in sums.items())
        self._restart()
        return MeterReading(sums, total, round(numbers[-1]))

    def _message(self, where: str, first_bad: Tensor) -> str:
        step = int(first_bad)
        ids = ", ".join(self.ids[step]) if step >= 0 else "on another process, see its message"
        return (
            f"the loss is not finite, {where}; videos of that batch: {ids}. Last checkpoint: {self.last_checkpoint}. "
            "Lower optim.lr, set optim.clip_norm or a longer warm-up; if a batch with the same videos fails again, "
            "look at these files."
        )
