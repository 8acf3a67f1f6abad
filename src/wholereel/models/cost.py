"""Parameters and multiply-adds of a network, counted on meta tensors: shapes without memory or arithmetic.

Counted as in the papers of these networks: multiply-adds of convolutions and linear layers; norms, ReLU, pooling and
the products of non-local blocks and correlations are not in `macs`.
Interactions (arXiv 1904.02811): unordered pairs of input channels that meet in an output channel, summed over
convolutions.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wholereel.layers.correlation import Correlation
from wholereel.layers.non_local import NonLocal

__all__ = ["Cost", "count_cost"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Cost:
    """Args:
    parameters: all of them. weights: those of convolutions and linear layers, without biases.
    macs: multiply-adds of one clip in convolutions and linear layers.
    attention: multiply-adds of the products of positions in non-local blocks, in the quadratic form.
    correlation: products of two positions and a weight, one per channel, in correlations.
    interactions: pairs of channels.
    """

    parameters: int = 0
    weights: int = 0
    macs: int = 0
    attention: int = 0
    correlation: int = 0
    interactions: int = 0


def count_cost(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> Cost:
    """Cost of one clip.

    Args:
        model: any clip model; it is not changed.
        clip_shape: (C, T, H, W).
    """
    shadow = (model if next(model.parameters()).is_meta else copy.deepcopy(model).to("meta")).eval()
    cost = Cost(parameters=sum(parameter.numel() for parameter in shadow.parameters()))
    handles = [module.register_forward_hook(lambda *call: _add(cost, *call)) for module in shadow.modules()]
    with torch.no_grad():
        shadow(torch.empty(1, *clip_shape, device="meta"))
    for handle in handles:
        handle.remove()
    return cost


def _add(cost: Cost, module: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(module, CONVOLUTIONS):
        cost.weights += module.weight.numel()
        cost.macs += math.prod(module.weight.shape[1:]) * output.numel()
        cost.interactions += module.out_channels * math.comb(module.in_channels // module.groups, 2)
    elif isinstance(module, nn.Linear):
        cost.weights += module.weight.numel()
        cost.macs += module.in_features * output.numel()
    elif isinstance(module, Correlation):
        cost.correlation += math.prod(module.filter.shape[2:]) * inputs[0].numel()
    elif isinstance(module, NonLocal):
        cost.attention += _attention(module, inputs[0])


def _attention(block: NonLocal, x_BCTHW: Tensor) -> int:
    positions = math.prod(x_BCTHW.shape[2:])
    read = math.prod(max(size // side, 1) for size, side in zip(x_BCTHW.shape[2:], block.pool, strict=True))
    return 2 * positions * read * (x_BCTHW.shape[1] // 2)
