"""Stages whose activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["CheckpointedStage"]


class CheckpointedStage(nn.Module):
    """Base of stages; subclasses define `run`.

    Attribute `checkpointed`: in training only the stage's input is kept. Values, gradients and running statistics are
    those without it.
    """

    checkpointed = False

    def run(self, x_BCTHW: Tensor) -> Tensor:
        """The stage itself."""
        raise NotImplementedError

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if not (self.checkpointed and self.training and torch.is_grad_enabled()):
            return self.run(x_BCTHW)
        if torch.compiler.is_compiling():  # takes no such contexts; its second forward moves no statistics
            compiled_BCTHW: Tensor = checkpoint(self.run, x_BCTHW, use_reentrant=False)
            return compiled_BCTHW
        y_BCTHW: Tensor = checkpoint(self.run, x_BCTHW, use_reentrant=False, context_fn=self._contexts)
        return y_BCTHW

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_stand_still(self)


@contextmanager
def _statistics_stand_still(module: nn.Module) -> Iterator[None]:
    """The second forward must not move running statistics; it must save the same tensors as the first, so they stay."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
