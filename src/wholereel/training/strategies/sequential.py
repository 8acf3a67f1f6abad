"""`sequential`: one clip of each stream a step; what the model remembers is carried from step to step, without graph.

Source: arXiv 2201.08383, section "online": the gradient of a step's loss reaches the clip of that step, and the
compression of the one before, no further. The carry is a state that goes in and comes out; the loop keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from wholereel.batches import Losses, StreamBatch
from wholereel.errors import ConfigError
from wholereel.models.stream_models import StreamState
from wholereel.tasks.stream_task import StreamTask
from wholereel.training.strategies.strategy import Autocast, Plan, Scale, Step

__all__ = ["Sequential"]


@dataclass(frozen=True)
class Sequential:
    """The only strategy whose steps know of each other: its carry is what the memories of all rows hold."""

    autocast: Autocast
    gradient: Literal["truncated"] = "truncated"

    def check(self, task: Any) -> None:
        """Raises: ConfigError: the task does not read streams."""
        if not isinstance(task, StreamTask):
            raise ConfigError(
                f"strategy 'sequential' trains on streams, and {type(task).__name__} judges whole videos. "
                "Choose a task of streams (task.kind='stream') or another strategy."
            )

    def plan(self, batch: int, clips: int) -> Plan:
        """As many rows as wished."""
        return Plan(batch, 1.0)

    def place(self, batch: StreamBatch, device: torch.device) -> StreamBatch:
        """All of it to the device."""
        return batch.to(device, non_blocking=True)

    def backward(
        self, task: StreamTask, batch: StreamBatch, scale: Scale, step: Step, carry: StreamState | None = None
    ) -> tuple[Losses, StreamState]:
        """Add the step's gradient to the parameters' `.grad` and call `step`.

        Args:
            carry: what the step before returned; `None` at the beginning of an epoch, when nothing is remembered. Rows
                whose video begins with this clip are reset here.
        Returns: the losses, detached, and the carry for the next step, without graph.
        """
        losses, state = self._forward(task, batch, carry)
        scale(losses).backward()
        step()
        return losses.detach(), state.detach()

    def observe(self, task: StreamTask, batch: StreamBatch, carry: StreamState | None = None) -> StreamState:
        """One forward; the carry for the next step."""
        with torch.no_grad():
            return self._forward(task, batch, carry)[1]

    def _forward(self, task: StreamTask, batch: StreamBatch, carry: StreamState | None) -> tuple[Losses, StreamState]:
        state = task.begin(batch) if carry is None else carry
        with self.autocast():
            losses, state = task(batch, state.reset(batch.starts_B))
        return losses, state
