"""What a model costs: multiply-adds and bytes of a clip stage by stage, and the memory's share. On meta tensors.

Bytes are those of float32 tensors that are alive (`ops/live_bytes.py`), weights not included: `forward_bytes` the most
at any moment of a forward pass without gradient, `kept_bytes` what autograd keeps for the backward pass.
Not here: what a training step holds under each strategy (`training/step_memory.py`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wholereel.models.cost import Cost, MemoryCost, count_cost, memory_cost, module_cost
from wholereel.models.video_model import LAST, VideoModel
from wholereel.ops.live_bytes import LiveBytes

__all__ = ["PlaceCost", "Profile", "StageCost", "profile_model"]


@dataclass(frozen=True)
class StageCost:
    """One stage of the clip model, for one clip; or its head.

    Args:
        output: (C, T, H, W), or (K,) of the head.
        macs: multiply-adds, those of non-local products and of correlations included.
        kept_bytes: what autograd keeps of it.
    """

    name: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    kept_bytes: int


@dataclass(frozen=True)
class PlaceCost:
    """One memory block, for one clip of a video of N.

    Args:
        place: the stage behind which it stands, or "last".
        channels, positions: of the features there.
        cost: see `MemoryCost`.
        kept_bytes: what autograd keeps of it, mean over the clips.
    """

    place: str
    channels: int
    positions: int
    cost: MemoryCost
    kept_bytes: int


@dataclass(frozen=True)
class Profile:
    """Args:
    clip_shape: (C, T, H, W). clips: N.
    stages: in order, the head last.
    places: memory blocks.
    cost: of the clip model, see `Cost`.
    forward_bytes, kept_bytes: of one clip, memory included; see the module.
    """

    clip_shape: tuple[int, int, int, int]
    clips: int
    stages: tuple[StageCost, ...]
    places: tuple[PlaceCost, ...]
    cost: Cost
    forward_bytes: int
    kept_bytes: int

    @property
    def macs(self) -> int:
        """Multiply-adds of the clip model."""
        return sum(stage.macs for stage in self.stages)

    @property
    def memory_macs(self) -> int:
        """Of all blocks, as computed."""
        return sum(place.cost.reduced for place in self.places)


def profile_model(model: VideoModel, clip_shape: tuple[int, int, int, int], *, clips: int = 1) -> Profile:
    """Count; nothing is computed, and the model is not changed.

    Args:
        clip_shape: (C, T, H, W).
        clips: N of a video.
    """
    shadow = (model if next(model.parameters()).is_meta else copy.deepcopy(model).to("meta")).train()
    cost = count_cost(shadow.clip_model, clip_shape)
    shadow.train()
    stages = dict(shadow.clip_model.stages)
    head = shadow.clip_model.get_submodule(shadow.clip_model.classifier)
    macs = _macs_of({**stages, "head": head}, shadow.clip_model, clip_shape)
    outputs, kept, seen = _kept_of(shadow, clip_shape, clips)
    rows = [
        StageCost(
            name,
            outputs[name],
            _parameters(module),
            macs[name],
            kept[name] // clips,
        )
        for name, module in {**stages, "head": head}.items()
    ]
    places = []
    for place, block in shadow.blocks():
        assert shadow.memory is not None
        positions = seen[place]
        block_cost = memory_cost(shadow.memory, block.dim, positions, clips=clips, before_head=place == LAST)
        places.append(PlaceCost(place, block.dim, positions, block_cost, kept[f"memory {place}"] // clips))
    kept_one = kept["total"] if clips == 1 else _kept_of(shadow, clip_shape, 1)[1]["total"]
    return Profile(clip_shape, clips, tuple(rows), tuple(places), cost, _forward_bytes(shadow, clip_shape), kept_one)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _macs_of(parts: dict[str, nn.Module], model: nn.Module, clip_shape: tuple[int, int, int, int]) -> dict[str, int]:
    """Multiply-adds by part, products of positions included."""
    counts: dict[str, Cost] = {name: Cost() for name in parts}
    handles = [
        inner.register_forward_hook(lambda *call, count=counts[name]: module_cost(count, *call))
        for name, part in parts.items()
        for inner in part.modules()
    ]
    training = model.training
    with torch.no_grad():
        model.eval()(torch.empty(1, *clip_shape, device="meta"))
    model.train(training)
    for handle in handles:
        handle.remove()
    return {name: count.macs + count.attention + count.correlation for name, count in counts.items()}


def _kept_of(
    model: VideoModel, clip_shape: tuple[int, int, int, int], clips: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, int], dict[str, int]]:
    """Shapes by stage; bytes that autograd keeps by stage, memory block and in all, of all clips together; and a clip's
    positions by memory block."""
    live = LiveBytes([*model.parameters(), *model.buffers()])
    outputs: dict[str, tuple[int, ...]] = {}
    kept: dict[str, int] = {}
    before = 0

    def note(name: str, output: Tensor | None) -> None:
        nonlocal before
        if output is not None:
            outputs[name] = tuple(output.shape[1:])
        now = live.now()
        kept[name], before = now - before, now

    handles = [
        stage.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, stage in model.clip_model.stages.items()
    ]
    seen: dict[str, int] = {}
    x_BNCTHW = torch.empty(1, clips, *clip_shape, device="meta")
    with live:
        live.note(x_BNCTHW)
        for index, (place, block) in enumerate(model.blocks()):
            x_BNCTHW = model.run_segment(index, x_BNCTHW.flatten(0, 1))[None]
            view_BNCTHW = model.view(place).seen(x_BNCTHW)
            seen[place] = view_BNCTHW[0, 0, 0].numel()
            memory = block.push(view_BNCTHW)
            del view_BNCTHW
            x_BNCTHW = model.infuse_at(index, x_BNCTHW, memory)
            note(f"memory {place}", None)
        x_BNCTHW = model.run_segment(len(model.places), x_BNCTHW.flatten(0, 1))[None]
        logits_BNK = model.head(x_BNCTHW)
        del x_BNCTHW
        note("head", logits_BNK[0])
    for handle in handles:
        handle.remove()
    # What the last stage handed on is no longer needed behind the average over positions.
    last = list(model.clip_model.stages)[-1]
    freed = min(kept["head"], 0)
    return outputs, {**kept, last: kept[last] + freed, "head": kept["head"] - freed, "total": live.now()}, seen


def _forward_bytes(model: VideoModel, clip_shape: tuple[int, int, int, int]) -> int:
    live = LiveBytes([*model.parameters(), *model.buffers()])
    x_BNCTHW = torch.empty(1, 1, *clip_shape, device="meta")
    with torch.no_grad(), live:
        live.note(x_BNCTHW)
        model.eval()(x_BNCTHW)
    model.train()
    return live.peak
