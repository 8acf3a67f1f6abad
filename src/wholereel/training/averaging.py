"""Exponential moving average of the weights: what is evaluated and exported when `optim.ema` is set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Average of all floating-point weights and buffers of a module, kept on its device.

    The decay grows with the number of updates, min(decay, (1 + n) / (10 + n)), so that the initial weights do not
    linger in short runs (our choice). BatchNorm statistics are averaged like weights: they must belong to the
    averaged ones.

    Args:
        module: whose weights are averaged; its present weights are the first average.
        decay: in [0, 1).
    Raises: ValueError: decay outside of [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.module, self.decay, self.updates = module, decay, 0
        self.average = {key: tensor.clone() for key, tensor in _floating(module).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's present weights; after each optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        present = _floating(self.module)
        torch._foreach_lerp_(list(self.average.values()), [present[key] for key in self.average], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average inside, and its own weights again afterwards."""
        own = {key: tensor.clone() for key, tensor in _floating(self.module).items()}
        self._fill(self.average)
        try:
            yield
        finally:
            self._fill(own)

    def state_dict(self) -> dict[str, object]:
        """For checkpoints."""
        return {"average": dict(self.average), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """The inverse of `state_dict`, for an average of a module with the same keys."""
        average = state["average"]
        if not isinstance(average, dict) or average.keys() != self.average.keys():
            raise ValueError("the saved average belongs to a module with other keys")
        for key, tensor in average.items():
            self.average[key].copy_(tensor)
        self.updates = int(str(state["updates"]))

    @torch.no_grad()
    def _fill(self, tensors: Mapping[str, Tensor]) -> None:
        for key, tensor in _floating(self.module).items():
            tensor.copy_(tensors[key])


def _floating(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in module.state_dict().items() if tensor.is_floating_point()}
