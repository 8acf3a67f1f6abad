"""`exact`: the gradient of the whole video with the graph of one clip in memory.

A clip enters the loss only through its push, its query and its pooled features, or through its feature map at a block.
So a first pass without gradient collects these, the loss is judged on them, and a second pass recomputes each clip with
graph and is given the gradients that it has to send back: by the chain rule the gradient of the same function. Forwards
2N, backwards N, instead of N and N: 4/3 of the cost, and nothing that grows with N but these few tensors.
Derived from the formulas of arXiv 2104.01198 (the paper itself has only approximate ways, `batch_reduction` and
`multi_iteration`); the clip-wise relative of gradient caching (arXiv 2101.06983).

BatchNorm in train mode sees the clips one index at a time: the gradient is exact for this function, not for the one in
which all clips go through BatchNorm together. Running statistics are updated by the first pass only. Both passes of a
clip draw the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from wholereel.batches import ClipBatch, Losses, map_tensors
from wholereel.memory.state import PlaceState
from wholereel.models.video_model import merge_clips
from wholereel.tasks.task import ClipSummary, Task
from wholereel.training.norms import running_statistics_kept
from wholereel.training.randomness import draw_seeds, seeded
from wholereel.training.strategies.strategy import Autocast, Plan, Scale, Step

__all__ = ["Exact"]

T = TypeVar("T")


@dataclass(frozen=True)
class Exact:
    """One clip of each video resident; with one block in front of the head not even feature maps are kept.

    The clips stay where the batch has them (host memory); one index at a time travels to the device, twice.
    """

    autocast: Autocast
    gradient: Literal["exact"] = "exact"

    def check(self, task: Task) -> None:
        """Every task is served."""

    def plan(self, batch: int, clips: int) -> Plan:
        """As wished."""
        return Plan(batch, 1.0)

    def place(self, batch: ClipBatch, device: torch.device) -> ClipBatch:
        """All but the pixels to the device."""
        rest = replace(batch, clips_BNTCHW=batch.clips_BNTCHW[:, :0]).to(device, non_blocking=True)
        return replace(rest, clips_BNTCHW=batch.clips_BNTCHW)

    def backward(self, task: Task, batch: ClipBatch, scale: Scale, step: Step) -> Losses:
        """Two passes over the clips, one optimiser step."""
        way = _through_summaries if task.model.summarises else _through_maps
        losses = way(task, batch, scale, self.autocast)
        step()
        return losses.detach()


def _through_summaries(task: Task, batch: ClipBatch, scale: Scale, autocast: Autocast) -> Losses:
    """No block, or one in front of the head: what is kept of a clip is a few numbers."""
    model, device = task.model, batch.valid_BN.device
    clips = _clips_of(batch)
    seeds = draw_seeds(len(clips))

    def encode(n: int) -> ClipSummary:
        with seeded(seeds[n], device), autocast():
            return task.encode(batch, clips[n])

    with torch.no_grad():
        kept = [encode(n) for n in range(len(clips))]
    leaves = [map_tensors(summary, _leaf) for summary in kept]
    with autocast():
        memory = merge_clips([leaf.push for leaf in leaves], batch.valid_BN)
        outputs = [task.read(leaf, memory, batch, clip) for leaf, clip in zip(leaves, clips, strict=True)]
        losses = task.judge(outputs, batch)
    scale(losses).backward()
    encoder = [
        *model.memories.parameters(),
        *(p for stage in model.clip_model.stages.values() for p in stage.parameters()),
    ]
    if any(parameter.requires_grad for parameter in encoder):
        with running_statistics_kept(model):
            for n, leaf in enumerate(leaves):
                _send_back(partial(encode, n), leaf)
    return losses


def _through_maps(task: Task, batch: ClipBatch, scale: Scale, autocast: Autocast) -> Losses:
    """Blocks anywhere: segment by segment, the feature maps of all clips at each block being kept."""
    model, valid_BN = task.model, batch.valid_BN
    device, blocks, clips = valid_BN.device, len(model.places), _clips_of(batch)
    seeds = [draw_seeds(len(clips)) for _ in range(blocks + 1)]
    order_BN = valid_BN.cumsum(1) - valid_BN.long()

    def segment(
        index: int, n: int, x_BNCTHW: Tensor | None, memory: PlaceState | None
    ) -> tuple[Any, PlaceState | None]:
        """Read block `index` - 1, run segment `index`, and push into block `index`, or say what is to be judged."""
        with seeded(seeds[index][n], device), autocast():
            if x_BNCTHW is None or memory is None:
                x_BNCTHW = task.inputs(batch, clips[n])
            else:
                x_BNCTHW = model.infuse_at(index - 1, x_BNCTHW, memory)
            x_BNCTHW = model.run_segment(index, x_BNCTHW.flatten(0, 1)).unflatten(0, x_BNCTHW.shape[:2])
            if index == blocks:
                return task.finish(x_BNCTHW, batch, clips[n]), None
            return x_BNCTHW, model.push_at(index, x_BNCTHW, valid_BN[:, clips[n]], order_BN=order_BN[:, clips[n]])

    maps: list[list[Any]] = [[None] * len(clips)]  # what segment i reads, before block i - 1 infuses it
    pushes: list[list[PlaceState]] = []
    memories: list[PlaceState | None] = [None]
    with torch.no_grad():
        for index in range(blocks + 1):
            results = [segment(index, n, maps[index][n], memories[index]) for n in range(len(clips))]
            maps.append([x for x, _ in results])
            if index < blocks:
                pushes.append([push for _, push in results if push is not None])
                memories.append(merge_clips(pushes[index], valid_BN))
    outputs = [_leaves(output) for output in maps.pop()]
    with autocast():
        losses = task.judge(outputs, batch)
    scale(losses).backward()
    with running_statistics_kept(model):
        ahead: list[tuple[Any, PlaceState | None]] = [(output, None) for output in outputs]  # they hold the gradients
        for index in reversed(range(blocks + 1)):
            if not _learns(task, index):
                break
            memory = _leaves(memories[index])
            inputs = [_leaves(x) for x in maps.pop()]
            for n in range(len(clips)):
                _send_back(partial(segment, index, n, inputs[n], memory), ahead[n])
            if index > 0 and memory is not None:
                own = [map_tensors(push, _leaf) for push in pushes.pop()]
                _send_back(partial(merge_clips, own, valid_BN), memory)
                ahead = list(zip(inputs, own, strict=True))
    return losses


def _learns(task: Task, index: int) -> bool:
    """Does anything up to segment `index` have parameters to learn?"""
    model = task.model
    if index == len(model.places):
        return any(p.requires_grad for p in task.parameters())
    stages = [model.clip_model.stages[name] for names in model.segments[: index + 1] for name in names]
    blocks = [block for _, block in model.blocks()[: index + 1]]
    return any(p.requires_grad for module in [*stages, *blocks] for p in module.parameters())


def _clips_of(batch: ClipBatch) -> list[slice]:
    """The clips of a batch one by one."""
    return [slice(n, n + 1) for n in range(batch.valid_BN.shape[1])]


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor


def _leaves(value: T) -> T:
    return map_tensors(value, _leaf)


def _send_back(compute: Callable[[], object], leaves: object) -> None:
    """Compute values anew and go backward from them, with the gradients that their stand-ins have received.

    Where these have received none, nothing is computed: such a clip has no part in the loss.
    """
    received = [leaf.grad for leaf in _tensors(leaves)]
    if all(gradient is None for gradient in received):
        return
    pairs = zip(_tensors(compute()), received, strict=True)
    sent = [(out, gradient) for out, gradient in pairs if out.requires_grad and gradient is not None]
    if sent:
        torch.autograd.backward([out for out, _ in sent], [gradient for _, gradient in sent])


def _tensors(value: object) -> Iterator[Tensor]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return iter(found)
