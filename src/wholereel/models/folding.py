"""Norms folded into the convolutions in front of them, for inference.

In eval mode a BatchNorm multiplies and adds constants per channel; both can be moved into the weights and bias of the
convolution that it reads. What reads what is seen in one forward, so that this works for any architecture.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wholereel.errors import ConfigError

__all__ = ["fold_norms"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Model = TypeVar("Model", bound=nn.Module)


def fold_norms(model: Model, *inputs: Any) -> Model:
    """A copy in eval mode without the BatchNorm layers that read a convolution which nothing else reads.

    Args:
        model: it is not changed.
        inputs: of one forward, as small as the model allows; their values don't matter.
    Returns: the copy; its outputs are equal but for rounding, its parameters are no longer the model's.
    Raises: ConfigError: there is no such layer.
    """
    folded = copy.deepcopy(model).eval()
    pairs = _pairs(folded, inputs)
    if not pairs:
        raise ConfigError(f"{type(model).__name__} has no BatchNorm that could be folded into a convolution.")
    for convolution, norm_name in pairs:
        norm = folded.get_submodule(norm_name)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        _fold(convolution, norm)
        parent, _, name = norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Identity())
    return folded


class _Readers(TorchDispatchMode):
    """How many operations have read each tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts.update({id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
        return func(*args, **(kwargs or {}))


def _pairs(model: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[Convolution, str]]:
    """Convolutions that ran once, each with the name of the norm that alone was given its output."""
    outputs: list[tuple[Convolution, Tensor]] = []  # kept, so that no later tensor takes the place of an earlier one
    reads: list[tuple[str, Tensor]] = []
    runs: dict[nn.Module, int] = {}
    readers = _Readers()

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            runs[module] = runs.get(module, 0) + 1
            if isinstance(module, CONVOLUTIONS):
                outputs.append((module, output))
                readers.counts[id(output)] = 0  # what an earlier tensor of this id counted
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                reads.append((name, given[0]))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), readers:
            results = model(*inputs)
            readers.counts.update(id(leaf) for leaf in tree_leaves(results))  # whoever called reads, too
    finally:
        for handle in handles:
            handle.remove()
    producers = {id(output): module for module, output in outputs}
    return [
        (producers[id(read)], name)
        for name, read in reads
        if id(read) in producers
        and readers.counts[id(read)] == 1
        and runs[producers[id(read)]] == runs[model.get_submodule(name)] == 1
    ]


@torch.no_grad()
def _fold(convolution: Convolution, norm: nn.modules.batchnorm._BatchNorm) -> None:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    # float64: a variance of 1e-6 and an epsilon of 1e-5 leave few digits
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    weight, bias = convolution.weight, convolution.bias
    if bias is not None:
        shift = shift + bias.double() * scale
    scaled = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    convolution.weight = nn.Parameter(scaled.to(weight.dtype), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
