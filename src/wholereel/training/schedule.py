"""Learning rate of each step: a pure function of the step, so that a resumed run cannot differ."""

from __future__ import annotations

import math

from wholereel.config import Optim

__all__ = ["lr_factor", "peak_lr"]

DROP = 0.1  # at each of `optim.steps`


def peak_lr(optim: Optim, *, videos: int, strategy_scale: float = 1.0) -> float:
    """Learning rate at the peak of the schedule.

    Args:
        videos: per optimiser step over all processes, before the strategy's arithmetic; counts where `lr_batch` is set.
        strategy_scale: the strategy's own factor.
    """
    linear = videos / optim.lr_batch if optim.lr_batch else 1.0
    return optim.lr * linear * strategy_scale


def lr_factor(optim: Optim, *, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Factor on the peak: linear warm-up from `warmup_start`, then half a cosine down to `final`, constant or steps.

    Args:
        step: from 0, counted over the whole run; beyond the end the factor stays at its last value.
    Returns: `warmup_start` at step 0 (with warm-up), 1 at the first step after it, `final` at the end (with `cosine`).
    """
    warmup = round(optim.warmup * steps_per_epoch)
    if step < warmup:
        return optim.warmup_start + (1.0 - optim.warmup_start) * step / warmup
    if optim.schedule == "constant":
        return 1.0
    if optim.schedule == "steps":
        return DROP ** sum(step >= round(epoch * steps_per_epoch) for epoch in optim.steps)
    rest = max(1, epochs * steps_per_epoch - warmup)
    progress = min(1.0, (step - warmup) / rest)
    return optim.final + (1.0 - optim.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
