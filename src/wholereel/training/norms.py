"""BatchNorm while training: batch statistics, frozen ones, those of all ranks, and passes that leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wholereel.errors import ConfigError

__all__ = ["prepare_norms", "running_statistics_kept", "set_training_mode"]

NormMode = Literal["train", "frozen", "sync"]


def prepare_norms(module: nn.Module, mode: NormMode, *, world_size: int, device: torch.device) -> None:
    """Exchange BatchNorm layers where `sync` asks for it; keys of the state dict stay the same.

    Args:
        module: changed in place below its root.
        world_size: with one process, `sync` is the same as `train` and nothing is exchanged.
    Raises: ConfigError: `sync` over several CPU processes, which PyTorch does not offer.
    """
    if mode != "sync" or world_size == 1:
        return
    if device.type != "cuda":
        raise ConfigError(
            f"norm='sync' needs GPUs, but this run has {world_size} processes on {device.type}. "
            "Use 'train' or 'frozen'."
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(module)


def set_training_mode(module: nn.Module, mode: NormMode) -> None:
    """`module.train()`; if `frozen`, BatchNorm stays in evaluation mode: constant statistics, scale and shift learn."""
    module.train()
    if mode == "frozen":
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Run BatchNorm on batch statistics as in training, and leave its running statistics and counter as they are.

    For passes that are repeated with gradient: updating twice would change the effective momentum
    (pytorch/pytorch issues 62471 and 96136).
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
