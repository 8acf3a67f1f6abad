"""`full` and `batch_reduction`: all clips of the videos in one graph, of all videos or of fewer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from wholereel.batches import ClipBatch, Losses
from wholereel.tasks.task import Task
from wholereel.training.strategies.strategy import Autocast, Plan, Scale, Step

__all__ = ["BatchReduction", "Full"]


@dataclass(frozen=True)
class _WholeBatch:
    """One graph of all clips of all videos that are given."""

    autocast: Autocast
    gradient: Literal["exact"] = "exact"

    def check(self, task: Task) -> None:
        """Every task is served."""

    def place(self, batch: ClipBatch, device: torch.device) -> ClipBatch:
        """All of it to the device."""
        return batch.to(device, non_blocking=True)

    def backward(
        self, task: Task, batch: ClipBatch, scale: Scale, step: Step, carry: None = None
    ) -> tuple[Losses, None]:
        """One forward, one backward."""
        with self.autocast():
            losses = task(batch)
        scale(losses).backward()
        step()
        return losses.detach(), None

    def observe(self, task: Task, batch: ClipBatch, carry: None = None) -> None:
        """One forward."""
        with torch.no_grad(), self.autocast():
            task(batch)


@dataclass(frozen=True)
class Full(_WholeBatch):
    """Keep the activations of all clips of the batch."""

    def plan(self, batch: int, clips: int) -> Plan:
        """As wished."""
        return Plan(batch, 1.0)


@dataclass(frozen=True)
class BatchReduction(_WholeBatch):
    """Fewer videos per step, so that the activations are those of about `batch` single clips (arXiv 2104.01198).

    From the paper: Bhat = round(B / N). Our choice: halves are rounded up, at least one video, learning rate times
    Bhat / B (linear scaling, arXiv 1706.02677), epochs as they were, so there are B / Bhat times more steps.
    """

    def plan(self, batch: int, clips: int) -> Plan:
        """Bhat = max(1, floor(B / N + 1/2)) videos, and Bhat / B."""
        videos = max(1, math.floor(batch / clips + 0.5))
        return Plan(videos, videos / batch)
