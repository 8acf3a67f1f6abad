"""How many bytes of activations a training step holds under each strategy, by the number of clips: no device needed.

The real strategies run on meta tensors, one video a step. Counted are tensors that are alive, in float32
(`ops/live_bytes.py`): not weights, their gradients and the optimiser's states, not the uint8 pixels, no workspaces.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from wholereel import config
from wholereel.batches import ClipBatch, Losses, Target
from wholereel.models.video_model import VideoModel
from wholereel.ops.live_bytes import LiveBytes
from wholereel.tasks.classification import ClassificationTask
from wholereel.training.norms import set_training_mode
from wholereel.training.strategies import create_strategy

__all__ = ["STRATEGY_SETTINGS", "StepBytes", "step_bytes"]

STRATEGY_SETTINGS: dict[str, config.Strategy] = {
    "full": config.Strategy("full"),
    "exact": config.Strategy("exact"),
    "multi_iteration/accumulate": config.Strategy("multi_iteration", "accumulate"),
    "multi_iteration/step": config.Strategy("multi_iteration", "step"),
}
"""By the name in tables. `batch_reduction` is `full` with fewer videos."""


@dataclass(frozen=True)
class StepBytes:
    """The most bytes that were alive at any moment of one step of a video of N clips."""

    strategy: str
    clips: int
    peak: int


def step_bytes(
    model: VideoModel,
    clip_shape: tuple[int, int, int, int],
    counts: Sequence[int],
    *,
    strategies: Sequence[str] = tuple(STRATEGY_SETTINGS),
) -> list[StepBytes]:
    """Run one step of each strategy for each N.

    Args:
        model: with classifier; not changed.
        clip_shape: (C, T, H, W) as the model reads it.
        counts: each N.
    """
    shadow = (model if next(model.parameters()).is_meta else copy.deepcopy(model)).to("meta")
    task = ClassificationTask(shadow, config.Task(), shadow.num_classes)
    set_training_mode(task, "frozen")
    for parameter in task.parameters():
        parameter.grad = torch.empty_like(parameter)
    return [StepBytes(name, count, _peak(task, name, clip_shape, count)) for name in strategies for count in counts]


def _peak(task: ClassificationTask, strategy: str, clip_shape: tuple[int, int, int, int], clips: int) -> int:
    channels, frames, height, width = clip_shape
    with torch.device("meta"):
        batch = ClipBatch(
            clips_BNTCHW=torch.empty(1, clips, frames, channels, height, width, dtype=torch.uint8),
            seconds_BNT=torch.empty(1, clips, frames, dtype=torch.float64),
            valid_BN=torch.ones(1, clips, dtype=torch.bool),
            target=Target({task.label: torch.empty(1, dtype=torch.int64)}),
            ids=("0",),
        )
    gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
    live = LiveBytes([*task.parameters(), *task.buffers(), *gradients, batch.clips_BNTCHW])
    with torch.random.fork_rng(devices=[]), live:
        chosen = create_strategy(STRATEGY_SETTINGS[strategy], nullcontext)
        chosen.backward(task, batch, Losses.total, lambda: None)
    return live.peak
