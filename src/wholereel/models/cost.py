"""Parameters and multiply-adds of a network, counted on meta tensors: shapes without memory or arithmetic.

Counted as in the papers of these networks: multiply-adds of convolutions and linear layers; norms, ReLU, pooling and
the products of non-local blocks and correlations are not in `macs`.
What a memory block adds is computed from its formulas (`memory_cost`), as written and as the library computes them.
Interactions (arXiv 1904.02811): unordered pairs of input channels that meet in an output channel, summed over
convolutions. Axes of the memory: S positions of a clip, P key width, V value width.
Not here: activations (`profile.py`).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.layers.correlation import Correlation
from wholereel.layers.non_local import NonLocal

__all__ = ["Cost", "MemoryCost", "count_cost", "memory_cost", "module_cost"]

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


@dataclass(frozen=True)
class MemoryCost:
    """What a memory block adds to one clip.

    Args:
        parameters: of the block, without `clip_pos`.
        literal: multiply-adds of the formulas as they are written: every clip pops at every position.
        reduced: multiply-adds where pooling comes before reading, as far as this combination allows it.
        state_bytes: what is kept of one video between clips, float32; of the non-local interactions all tokens.
        affinity_bytes: the matrix between all positions of all clips of a video, float32, where it would be formed
            (the library forms none); 0 for the other interactions.
    """

    parameters: int
    literal: int
    reduced: int
    state_bytes: int
    affinity_bytes: int = 0


def memory_cost(
    memory: config.Memory, dim: int, positions: int, *, clips: int = 1, before_head: bool = True
) -> MemoryCost:
    """Cost of one block, by its settings.

    Products of one position each with a matrix count; sums, sigmoids and products by element do not.

    Args:
        memory: `dim` and `value_dim` of it are P and V.
        dim: D, channels of the features. positions: S.
        clips: N of the video; the non-local interactions alone cost more per clip with more clips.
        before_head: the block stands in front of the head, which reads means over positions alone.
    """
    keys = max(1, dim // 4) if memory.dim is None else memory.dim
    values = keys if memory.value_dim is None else memory.value_dim
    out, out_everywhere = values * dim, positions * values * dim
    everywhere = memory.infusion == "residual" and not before_head
    if memory.interaction in ("avg", "max"):
        project = dim * values if memory.interaction == "avg" else positions * dim * values
        macs = project + out  # the same is read at all positions
        return MemoryCost(2 * dim * values, macs, macs, 4 * values)
    tied = memory.interaction == "assoc" and memory.value == "tied"
    parameters = 2 * dim * keys + values * dim + (0 if tied else dim * values)
    project = positions * dim * (keys + (keys if tied else values))  # keys and values
    query = positions * dim * keys
    infuse = out if memory.infusion == "gate" else out_everywhere
    if memory.interaction == "assoc":
        push, pop = positions * keys * values, positions * keys * values
        literal = project + (0 if tied else query) + push + pop + infuse
        # Tied values are the queries. Otherwise only their mean is needed: the pooled features are projected.
        pooled = project + (0 if tied else dim * keys) + push + keys * values + out
        return MemoryCost(parameters, literal, literal if everywhere else pooled, 4 * keys * values)
    attend = clips * positions**2 * (keys + values)
    literal = project + query + attend + infuse
    if memory.interaction == "nl_dot":  # (Q K^T) V = Q (K^T V)
        push = positions * keys * values
        read = query + positions * keys * values + infuse if everywhere else dim * keys + keys * values + out
        reduced = project + push + read
    else:
        reduced = literal if everywhere else project + query + attend + out
    affinity = 4 * (clips * positions) ** 2
    return MemoryCost(parameters, literal, reduced, 4 * clips * positions * (keys + values), affinity)


def count_cost(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> Cost:
    """Cost of one clip.

    Args:
        model: any clip model; it is not changed.
        clip_shape: (C, T, H, W).
    """
    shadow = (model if next(model.parameters()).is_meta else copy.deepcopy(model).to("meta")).eval()
    cost = Cost(parameters=sum(parameter.numel() for parameter in shadow.parameters()))
    handles = [module.register_forward_hook(lambda *call: module_cost(cost, *call)) for module in shadow.modules()]
    with torch.no_grad():
        shadow(torch.empty(1, *clip_shape, device="meta"))
    for handle in handles:
        handle.remove()
    return cost


def module_cost(cost: Cost, module: nn.Module, inputs: Any, output: Any) -> None:
    """Add one call of a module; to be used in forward hooks of all modules."""
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
