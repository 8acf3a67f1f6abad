"""What a strategy is: a way to obtain the gradient of a batch of videos."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from wholereel.batches import Losses

__all__ = ["Autocast", "Plan", "Scale", "Step", "Strategy"]

Scale = Callable[[Losses], Tensor]
"""Makes one number of the losses: each part divided by its count over all ranks (and by a step's micro-batches)."""

Step = Callable[[], None]
"""To be called when the gradient of an optimiser step is complete: reduces over ranks, updates, clears gradients."""

Autocast = Callable[[], AbstractContextManager[object]]
"""Precision of the forward passes. Backward passes run outside of it."""


class Plan(NamedTuple):
    """Arithmetic of a batch: how many videos a step holds per process, and the factor on the learning rate."""

    videos: int
    lr_scale: float


class Strategy(Protocol):
    """`full`, `exact`, `batch_reduction`, `multi_iteration`; for streams `sequential`.

    Each serves the tasks and batches of one kind, of whole videos or of streams. A *carry* is what a step leaves to the
    next one of the same epoch: of streams what their memories hold, of whole videos nothing (`None`).

    Attributes:
        gradient: `exact` = the gradient of the loss function; `truncated` = other clips of the video are constants.
            Logged and stored with every run.
    """

    @property
    def gradient(self) -> Literal["exact", "truncated"]: ...

    def check(self, task: Any) -> None:
        """Raises: ConfigError: this task cannot be served, and why."""

    def plan(self, batch: int, clips: int) -> Plan:
        """Videos per step and learning-rate factor for a wished batch of `batch` videos with `clips` clips each."""

    def place(self, batch: Any, device: torch.device) -> Any:
        """The batch where this strategy wants it: on the device, or part of it still on the host."""

    def backward(self, task: Any, batch: Any, scale: Scale, step: Step, carry: Any = None) -> tuple[Losses, Any]:
        """Add the batch's gradient to the parameters' `.grad` and call `step` when (or each time) it is complete.

        Args:
            carry: what the step before returned; `None` at the beginning of an epoch.
        Returns: the losses, detached, and the carry for the next step.
        """

    def observe(self, task: Any, batch: Any, carry: Any = None) -> Any:
        """The forward passes of `backward` without gradient or step: norms in train mode see what they see there.

        Returns: the carry for the next step.
        """
