"""Precise BatchNorm in the training loop: statistics of the weights that are measured and packaged, not of older ones.

Source: facebookresearch/SlowFast recomputes statistics over 200 batches before each evaluation (`utils/precise_bn`).
Not here: how statistics are taken over batches (`norms.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wholereel.config import Train
from wholereel.errors import ConfigError
from wholereel.tasks import AnyTask
from wholereel.training.distributed import Ranks
from wholereel.training.norms import norm_layers, precise_statistics, statistics_given_back
from wholereel.training.strategies import Strategy

__all__ = ["check_precise_norms", "precise_norms"]


def check_precise_norms(train: Train, task: AnyTask) -> None:
    """Raises: ConfigError: `optim.precise_norm` has no meaning for this model or this `optim.norm`."""
    if train.optim.precise_norm == 0:
        return
    if train.optim.norm == "frozen":
        raise ConfigError(
            f"optim.precise_norm={train.optim.precise_norm} takes statistics anew, optim.norm='frozen' keeps those "
            "that the weights came with. Set precise_norm=0, or norm to 'train' or 'sync'."
        )
    if not norm_layers(task):
        raise ConfigError(
            f"optim.precise_norm={train.optim.precise_norm}, but {train.model.name} has no BatchNorm: nothing has "
            "running statistics. Set precise_norm=0."
        )


@contextmanager
def precise_norms(
    task: AnyTask, strategy: Strategy, batches: Iterable[Any], count: int, *, ranks: Ranks, device: torch.device
) -> Iterator[None]:
    """Inside, running statistics are the plain mean over the first `count` batches of all ranks; afterwards as before.

    So the training that goes on is the same with and without.

    Args:
        batches: of training data of this rank, as many on all ranks; fewer than `count` are taken as they are.
        count: 0 = do nothing.
    """
    if count == 0:
        yield
        return
    carry: Any = None

    def observe(batch: Any) -> None:
        nonlocal carry
        carry = strategy.observe(task, strategy.place(batch, device), carry)

    with statistics_given_back(task):
        precise_statistics(task, itertools.islice(batches, count), observe, ranks)
        yield
