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

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from wholereel.batches import ClipBatch, Losses, map_tensors
from wholereel.datasets.batch_samplers import share_of_clips
from wholereel.errors import ConfigError
from wholereel.memory.collaborative import NO_CLIP
from wholereel.memory.state import PlaceState, VideoState
from wholereel.models.video_model import merge_clips
from wholereel.ops.checks import check_all
from wholereel.tasks.task import ClipSummary, Task
from wholereel.training.clip_parallel import (
    check_same_videos,
    fill_gradients,
    gather_values,
    is_sum,
    sum_states,
    tensors_in,
)
from wholereel.training.distributed import Ranks
from wholereel.training.norms import running_statistics_kept
from wholereel.training.randomness import draw_seeds, seeded
from wholereel.training.segment_graphs import SegmentGraphs
from wholereel.training.strategies.strategy import Autocast, Plan, Scale, Step

__all__ = ["Exact"]

T = TypeVar("T")
AnyState = TypeVar("AnyState", PlaceState, VideoState)


@dataclass(frozen=True)
class Exact:
    """One clip of each video resident; with one block in front of the head not even feature maps are kept.

    The clips stay where the batch has them (host memory); one index at a time travels to the device, twice.

    Args:
        autocast: see `Strategy`.
        resident: clips of a video that go through the network together, and whose graph is alive at once. More are
            quicker where one clip does not fill the device. BatchNorm in train mode sees so many clips of a video at a
            time, so it is another function.
        ranks: processes that may share the clips of a video. Each passes over its own clips; the memory and the few
            numbers per clip are exchanged, so that each judges all clips. Parameters that only the judgement needs
            (the head, W_o) get their gradient on the first of them and zeros on the others: gradients of all processes
            add up, as they do between different videos.
        graphs: replays segments as CUDA graphs; `None` = every kernel is asked for.
    """

    autocast: Autocast
    resident: int = 1
    ranks: Ranks = field(default_factory=Ranks)
    graphs: SegmentGraphs | None = None
    gradient: Literal["exact"] = "exact"

    def check(self, task: Task) -> None:
        """Refuse models whose clips read the past where several clips go together, or to several processes."""
        if task.model.causal and (self.resident > 1 or self.ranks.clip_parallel > 1):
            raise ConfigError(
                "clips that read the past (memory.reads='past') go through 'exact' one by one, in one process: "
                f"strategy.resident={self.resident} and clip_parallel={self.ranks.clip_parallel} must be 1."
            )

    def plan(self, batch: int, clips: int) -> Plan:
        """As wished."""
        return Plan(batch, 1.0)

    def place(self, batch: ClipBatch, device: torch.device) -> ClipBatch:
        """All but the pixels to the device."""
        rest = replace(batch, clips_BNTCHW=batch.clips_BNTCHW[:, :0]).to(device, non_blocking=True)
        return replace(rest, clips_BNTCHW=batch.clips_BNTCHW)

    def backward(
        self, task: Task, batch: ClipBatch, scale: Scale, step: Step, carry: None = None
    ) -> tuple[Losses, None]:
        """Two passes over the clips, one optimiser step."""
        losses = self._through(task, batch, scale)
        fill_gradients(task.parameters(), self.ranks, batch.valid_BN.device)
        step()
        return losses.detach(), None

    def observe(self, task: Task, batch: ClipBatch, carry: None = None) -> None:
        """The first pass over the clips."""
        with torch.no_grad():
            self._through(task, batch, None)

    def _through(self, task: Task, batch: ClipBatch, scale: Scale | None) -> Losses:
        check_all(batch.valid_BN.any(1), NO_CLIP)
        check_same_videos(batch.ids, self.ranks)
        engine = _Engine(task, batch, scale, self.autocast, self.resident, self.ranks)
        with nullcontext() if self.graphs is None else self.graphs.running(task.model):
            return engine.through_summaries() if task.model.summarises else engine.through_maps()


@dataclass
class _Engine:
    """The two passes over one batch; the first alone where `scale` is `None`."""

    task: Task
    batch: ClipBatch
    scale: Scale | None
    autocast: Autocast
    resident: int
    ranks: Ranks

    def __post_init__(self) -> None:
        self.model, self.device = self.task.model, self.batch.valid_BN.device
        by_rank = [self._parts(rank) for rank in range(self.ranks.clip_parallel)]
        self.parts = by_rank[self.ranks.clip_rank]
        self.all_parts = [part for parts in by_rank for part in parts]

    def _parts(self, rank: int) -> list[slice]:
        """The clips of one of the processes, as many together as may be resident."""
        begin, end = share_of_clips(self.batch.valid_BN.shape[1], rank, self.ranks.clip_parallel)
        return [slice(n, min(n + self.resident, end)) for n in range(begin, end, self.resident)]

    def through_summaries(self) -> Losses:
        """No block, or one in front of the head: what is kept of a clip is a few numbers."""
        seeds = self._seeds()

        def encode(part: slice) -> ClipSummary:
            with seeded(seeds[part.start], self.device), self.autocast():
                return self.task.encode(self.batch, part)

        shared: _Shared[VideoState] = self._memory()
        summaries: list[Any] = []
        with torch.no_grad():
            for part in self.parts:
                summary = encode(part)
                shared.add(summary.push)
                summaries.append(replace(summary, push=VideoState()))  # type: ignore[type-var]
        memories = shared.complete(len(self.all_parts))
        leaves = [_leaves(summary) for summary in summaries]
        with self.autocast():
            everybody = gather_values(leaves, self.ranks, self.device)
            outputs = [
                self.task.read(summary, memory, self.batch, part)
                for summary, memory, part in zip(everybody, memories, self.all_parts, strict=True)
            ]
            losses = self.task.judge(outputs, self.batch)
        if self.scale is None:
            return losses
        self._judged(self.scale(losses), [leaves, memories])
        if self._learns(0):
            shared.send_back()
            with running_statistics_kept(self.model):
                stand_ins = [replace(leaf, push=shared.stand_in(i)) for i, leaf in enumerate(leaves)]
                self._send_all([partial(encode, part) for part in self.parts], stand_ins)
        return losses

    def through_maps(self) -> Losses:
        """Blocks anywhere: segment by segment, the feature maps of all clips at each block being kept."""
        blocks = len(self.model.places)
        seeds = [self._seeds() for _ in range(blocks + 1)]
        run = partial(self._segment, seeds)
        maps: list[list[Any]] = [[None] * len(self.parts)]  # what segment i reads, before block i - 1 infuses it
        shared: list[_Shared[PlaceState]] = [self._memory() for _ in range(blocks)]
        memories: list[Sequence[PlaceState | None]] = [[None] * len(self.parts)]  # of each part, in front of segment i
        with torch.no_grad():
            for index in range(blocks + 1):
                results = []
                for part, x_BNCTHW, memory in zip(self.parts, maps[index], memories[index], strict=True):
                    x, push = run(index, part, x_BNCTHW, memory)
                    results.append(x)
                    if push is not None:
                        shared[index].add(push)
                maps.append(results)
                if index < blocks:
                    memories.append(shared[index].complete(len(self.parts)))
        outputs = [_leaves(output) for output in maps.pop()]
        with self.autocast():
            everybody = gather_values(outputs, self.ranks, self.device)
            losses = self.task.judge(everybody, self.batch)
        if self.scale is None:
            return losses
        self._judged(self.scale(losses), outputs)
        with running_statistics_kept(self.model):
            ahead: list[tuple[Any, PlaceState | None]] = [(output, None) for output in outputs]  # hold the gradients
            for index in reversed(range(blocks + 1)):
                if not self._learns(index):
                    break
                inputs = [_leaves(x) for x in maps.pop()]
                parts = zip(self.parts, inputs, memories[index], strict=True)
                self._send_all([partial(run, index, part, x, memory) for part, x, memory in parts], ahead)
                if index > 0:
                    shared[index - 1].send_back(from_all=True)
                    ahead = [(x, shared[index - 1].stand_in(i)) for i, x in enumerate(inputs)]
        return losses

    def _segment(
        self, seeds: list[list[int]], index: int, part: slice, x_BNCTHW: Tensor | None, memory: PlaceState | None
    ) -> tuple[Any, PlaceState | None]:
        """Read block `index` - 1, run segment `index`, and push into block `index`, or say what is to be judged."""
        model, valid_BN = self.model, self.batch.valid_BN
        with seeded(seeds[index][part.start], self.device), self.autocast():
            if x_BNCTHW is None or memory is None:
                x_BNCTHW = self.task.inputs(self.batch, part)
            else:
                x_BNCTHW = model.infuse_at(index - 1, x_BNCTHW, memory, valid_BN[:, part])
            x_BNCTHW = model.run_segment(index, x_BNCTHW.flatten(0, 1)).unflatten(0, x_BNCTHW.shape[:2])
            if index == len(model.places):
                return self.task.finish(x_BNCTHW, self.batch, part), None
            order_BN = valid_BN.cumsum(1) - valid_BN.long()
            return x_BNCTHW, model.push_at(index, x_BNCTHW, valid_BN[:, part], order_BN=order_BN[:, part])

    def _send_all(self, computes: Sequence[Callable[[], object]], leaves: Sequence[object]) -> None:
        """Backward through one clip after the other; those that have no part in the loss are not computed.

        Sharded stages add up the gradients of all clips, and reduce them over ranks once, with the last one.
        """
        needed = [i for i, leaf in enumerate(leaves) if any(tensor.grad is not None for tensor in tensors_in(leaf))]
        sharded = [stage for stage in self.model.clip_model.stages.values() if isinstance(stage, FSDPModule)]
        for i in needed:
            for stage in sharded:
                stage.set_requires_gradient_sync(i == needed[-1])
            _send_back(computes[i], leaves[i])

    def _memory(self) -> _Shared[Any]:
        return (_Past if self.model.causal else _Shared)(self.ranks, self.device)

    def _seeds(self) -> list[int]:
        """One seed a clip, the same on all processes that share the video; a part uses that of its first clip."""
        return draw_seeds(self.batch.valid_BN.shape[1])

    def _judged(self, loss: Tensor, leaves: object) -> None:
        """Backward through the judgement, to the leaves and to the parameters that it uses itself."""
        if self.ranks.clip_parallel > 1 and not loss.requires_grad:
            return  # nothing that is judged comes from here
        if self.ranks.clip_rank == 0:
            loss.backward()
        else:  # gradients of parameters would be those of the first process: they count once
            loss.backward(inputs=[leaf for leaf in tensors_in(leaves) if leaf.requires_grad])

    def _learns(self, index: int) -> bool:
        """Does anything up to segment `index` have parameters to learn?"""
        if index == len(self.model.places) > 0:
            return any(p.requires_grad for p in self.task.parameters())
        stages = [self.model.clip_model.stages[name] for names in self.model.segments[: index + 1] for name in names]
        blocks = [block for _, block in self.model.blocks()[: index + 1]]
        return any(p.requires_grad for module in [*stages, *blocks] for p in module.parameters())


class _Shared(Generic[AnyState]):
    """A memory that clips fill one after the other, and the way back of its gradient to what they pushed.

    Where the memory is a sum, each push has the sum's gradient, and none of them is kept.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self.ranks, self.device = ranks, device
        self.pushes: list[AnyState] = []
        self.leaf: AnyState | None = None

    def add(self, push: AnyState) -> None:
        """One more push, without graph."""
        if self.pushes and is_sum(push):
            self.pushes[0] = self.pushes[0].merge(push)  # type: ignore[arg-type]
        else:
            self.pushes.append(push)

    def complete(self, count: int) -> list[AnyState]:
        """For each of `count` parts what it reads: the memory of all clips, of other processes too. A leaf, which will
        hold the gradient of all that reads it."""
        if is_sum(self.pushes[0]):
            self.leaf = _leaves(sum_states(self.pushes.pop(), self.ranks))
        else:
            self.pushes = [_leaves(push) for push in self.pushes]
            with torch.enable_grad():
                everybody = gather_values(self.pushes, self.ranks, self.device)
                self.merged: AnyState = merge_clips(everybody)
            self.leaf = _leaves(self.merged)
        return [self.leaf] * count

    def send_back(self, *, from_all: bool = False) -> None:
        """Hand the memory's gradient on to the pushes.

        Args:
            from_all: the other processes' clips have read the memory, too, and hold the rest of its gradient.
        """
        if from_all and self.ranks.clip_parallel > 1:
            for leaf in tensors_in(self.leaf):
                if leaf.requires_grad:
                    leaf.grad = sum_states([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad], self.ranks)[0]
        if self.pushes:
            _send_back(lambda: self.merged, self.leaf)

    def stand_in(self, i: int) -> AnyState:
        """What holds the gradient of the i-th push."""
        found = self.pushes[i] if self.pushes else self.leaf
        assert found is not None
        return found


class _Past(_Shared[AnyState]):
    """The same for clips that read the clips up to themselves.

    What clip n pushed has the gradients of all memories from the n-th on: dP_n = sum over t >= n of dM_t / t, which
    autograd sums up, going backward through the chain of memories. All pushes are kept for that, and as many memories.
    """

    def add(self, push: AnyState) -> None:
        self.pushes.append(push)

    def complete(self, count: int) -> list[AnyState]:
        self.pushes = [_leaves(push) for push in self.pushes]
        with torch.enable_grad():
            chain: list[Any] = [self.pushes[0]]
            for push in self.pushes[1:]:
                chain.append(chain[-1].merge(push))
        self.chain, self.leaves = chain, [_leaves(memory) for memory in chain]
        return self.leaves

    def send_back(self, *, from_all: bool = False) -> None:
        _send_back(lambda: self.chain, self.leaves)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor


def _leaves(value: T) -> T:
    return map_tensors(value, _leaf)


def _send_back(compute: Callable[[], object], leaves: object) -> None:
    """Compute values anew and go backward from them, with the gradients that their stand-ins have received."""
    pairs = zip(tensors_in(compute()), tensors_in(leaves), strict=True)
    sent = [(out, leaf.grad) for out, leaf in pairs if out.requires_grad and leaf.grad is not None]
    if sent:
        torch.autograd.backward([out for out, _ in sent], [gradient for _, gradient in sent])
