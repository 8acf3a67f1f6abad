"""Between clip level and video level: putting memory blocks into a trained clip model, and taking them out.

A new block with the `gate` infusion multiplies features by 1 + sigmoid(0) = 1.5. Dividing the weights that read them by
1.5 gives exactly the logits of the model without the block (our choice; arXiv 2104.01198 does not say how blocks
begin).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from wholereel import config
from wholereel.models.clip_model import MemoryView
from wholereel.models.video_model import LAST, VideoModel
from wholereel.models.weights import KeyReport

__all__ = ["to_clip_level", "to_video_level"]

INITIAL_GATE = 1.5


def to_video_level(model: VideoModel, memory: config.Memory) -> tuple[VideoModel, KeyReport]:
    """A copy with fresh memory blocks and, if `memory.rescale_head`, equal logits.

    Behind a block that is not in front of the head the next convolutions are rescaled (a BatchNorm in train mode behind
    them would undo the factor anyway); where a shortcut also reads the features nothing can be rescaled, and the report
    names the place.
    Raises: ValueError: the model has memory already.
    """
    if model.memory is not None:
        raise ValueError(f"the model has memory already: {model.memory}")
    converted = model.rebuilt(copy.deepcopy(model.clip_model), memory)
    like = next(model.parameters())
    converted.memories.to(device=like.device, dtype=like.dtype)
    converted.train(model.training)
    missing = tuple(f"memories.{key}" for key in converted.memories.state_dict())
    return converted, KeyReport(missing=missing) + _rescale(converted, 1 / INITIAL_GATE)


def to_clip_level(model: VideoModel) -> tuple[VideoModel, KeyReport]:
    """A copy without memory blocks; the factor that `to_video_level` put into the weights is taken out again.

    Raises: ValueError: the model has no memory.
    """
    if model.memory is None:
        raise ValueError("the model has no memory that could be taken out")
    kept = copy.deepcopy(model)
    report = _rescale(kept, INITIAL_GATE)
    unused = tuple(f"memories.{key}" for key in model.memories.state_dict())
    return model.rebuilt(kept.clip_model, None).train(model.training), KeyReport(unused=unused) + report


@torch.no_grad()
def _rescale(model: VideoModel, factor: float) -> KeyReport:
    if model.memory is None or model.memory.infusion != "gate" or not model.memory.rescale_head:
        return KeyReport()
    rescaled, not_rescaled = [], []
    for place in model.places:
        stage = list(model.clip_model.stages)[-1] if place == LAST else place
        if model.clip_model.ignores_scale(stage):
            continue
        names = model.clip_model.stage_inputs(stage)
        for name in names:
            weight = model.clip_model.get_parameter(name)
            weight.mul_(_by_channel(model.view(place), weight, factor))
        rescaled += [f"clip_model.{name}" for name in names]
        not_rescaled += [] if names else [place]
    return KeyReport(rescaled=tuple(rescaled), not_rescaled=tuple(not_rescaled))


def _by_channel(view: MemoryView, weight: Tensor, factor: float) -> Tensor:
    """The factor for each input channel of a weight; 1 for those that the block does not see."""
    change = weight.new_full((view.dim, 1, 1, 1), factor - 1)
    spread = view.spread(change)
    if len(spread) == view.dim:
        return weight.new_tensor(factor)  # all alike, also where a weight knows its channels by groups
    return 1 + spread.view(1, -1, *[1] * (weight.ndim - 2))
