"""`multi_iteration`: one clip of each video resident, its other clips are constants (a truncated gradient).

From arXiv 2104.01198: the N clips of a video are unrolled into N consecutive iterations, so that the batch is not
reduced. How the memory is filled and when the optimiser steps is not stated in what could be consulted; both variants
are our choice.
The bias: clip n lacks what the other clips' readings would send back to its contribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from wholereel.batches import ClipBatch, Losses, Target, map_tensors
from wholereel.errors import ConfigError
from wholereel.memory.state import VideoState
from wholereel.models.video_model import VideoModel
from wholereel.tasks.task import Task
from wholereel.training.norms import running_statistics_kept
from wholereel.training.randomness import draw_seeds, get_random_state, replayed, seeded
from wholereel.training.strategies.strategy import Autocast, Plan, Scale, Step

__all__ = ["Accumulate", "StepPerClip"]


@dataclass(frozen=True)
class StepPerClip:
    """Variant `step`: N optimiser steps per batch; clip n reads the clips before it and itself.

    The learning rate is divided by N (our choice). The contributions of earlier clips come from the slightly older
    weights with which they were read. Loss of clip n: on the clips so far, earlier logits being constants; the
    separable parts (`clip`) on clip n alone. Videos that have no clip n are left out of the n-th step; if none has it,
    the gradient is zero, and only momentum and decay of weights move them. All ranks need the same N.
    """

    autocast: Autocast
    gradient: Literal["truncated"] = "truncated"

    def check(self, task: Task) -> None:
        """Refuse a task in which some clips only push: nothing would train them."""
        _check_that_every_clip_learns(task)

    def plan(self, batch: int, clips: int) -> Plan:
        """All videos, 1 / N."""
        return Plan(batch, 1.0 / clips)

    def place(self, batch: ClipBatch, device: torch.device) -> ClipBatch:
        """All of it to the device."""
        return batch.to(device, non_blocking=True)

    def backward(
        self, task: Task, batch: ClipBatch, scale: Scale, step: Step, carry: None = None
    ) -> tuple[Losses, None]:
        """N times forward, backward and optimiser step; returns the sum of the N steps' losses and counts."""
        total: Losses | None = None
        for losses in self._steps(task, _valid_first(batch)):
            scale(losses).backward()
            step()
            total = losses.detach() if total is None else total.merge(losses.detach())
        if total is None:
            raise ValueError(f"a batch needs at least one clip, got clips {tuple(batch.clips_BNTCHW.shape)}")
        return total, None

    def observe(self, task: Task, batch: ClipBatch, carry: None = None) -> None:
        """N forwards."""
        with torch.no_grad():
            for _ in self._steps(task, _valid_first(batch)):
                pass

    def _steps(self, task: Task, ordered: ClipBatch) -> Iterator[Losses]:
        """The losses of each step, with graph of its clip alone; the step is made before the next one is asked for."""
        valid_BN = ordered.valid_BN
        state: VideoState | None = None
        earlier: list[Tensor] = []
        for n in range(valid_BN.shape[1]):
            clip_B1CTHW = _clip(task, ordered, n)
            state = _empty_memory(task.model, clip_B1CTHW, valid_BN.shape[1]) if state is None else state
            with self.autocast():
                own_B1K, pushed = _judge(task.model, clip_B1CTHW, n, state, valid_BN)
                losses = _losses_so_far(task, ordered, [*earlier, own_B1K])
            yield losses
            state = pushed.detach()
            earlier.append(own_B1K.detach())


@dataclass(frozen=True)
class Accumulate:
    """Variant `accumulate`: a pass without gradient fills the memory, then each clip adds its gradient; one step.

    BatchNorm sees one clip of each video per call, and its running statistics are updated by the passes with gradient
    only. Each clip draws the same random numbers (dropout) in all its passes where the clips can be encoded one by
    one; otherwise the contributions have draws of their own, which matters only if something random stands before a
    memory block. All ranks need the same N.
    """

    autocast: Autocast
    gradient: Literal["truncated"] = "truncated"

    def check(self, task: Task) -> None:
        """Refuse a task in which some clips only push: nothing would train them."""
        _check_that_every_clip_learns(task)
        if task.model.causal:
            raise ConfigError(
                "multi_iteration/accumulate reads all other clips, but memory.reads='past'. Use the variant 'step', "
                "which reads the clips before, or 'exact' or 'full'."
            )

    def plan(self, batch: int, clips: int) -> Plan:
        """All videos, learning rate as it is."""
        return Plan(batch, 1.0)

    def place(self, batch: ClipBatch, device: torch.device) -> ClipBatch:
        """All of it to the device."""
        return batch.to(device, non_blocking=True)

    def backward(
        self, task: Task, batch: ClipBatch, scale: Scale, step: Step, carry: None = None
    ) -> tuple[Losses, None]:
        """One pass without gradient and one with; the loss is that of the complete videos."""
        for losses in self._parts(task, batch):
            scale(losses).backward()
        step()
        return losses.detach(), None

    def observe(self, task: Task, batch: ClipBatch, carry: None = None) -> None:
        """Both passes without gradient."""
        with torch.no_grad():
            for _ in self._parts(task, batch):
                pass

    def _parts(self, task: Task, batch: ClipBatch) -> Iterator[Losses]:
        """The loss of the complete videos, once for each clip, with graph of that one alone."""
        valid_BN = batch.valid_BN
        device, count = batch.clips_BNTCHW.device, valid_BN.shape[1]
        if count == 1:  # nothing is left out: this is the full gradient
            with self.autocast():
                losses = task(batch)
            yield losses
            return
        seeds = draw_seeds(count)
        with torch.no_grad(), running_statistics_kept(task.model), self.autocast():
            others, logits_BNK = _constants(task, batch, seeds)
        for n in range(count):
            with seeded(seeds[n], device), self.autocast():
                own_B1K, _ = _judge(task.model, _clip(task, batch, n), n, others[n], valid_BN)
                clip_logits_BNK = torch.cat([logits_BNK[:, :n], own_B1K, logits_BNK[:, n + 1 :]], dim=1)
                losses = task.losses(clip_logits_BNK, batch)
            yield losses


def _check_that_every_clip_learns(task: Task) -> None:
    if not task.every_clip_predicts:
        raise ConfigError(
            f"strategy 'multi_iteration' cannot serve {type(task).__name__}: clips that only push into the memory "
            "(context clips) get no gradient at all, since the gradient is cut between clips. Use 'full' or "
            "'batch_reduction'."
        )


def _clip(task: Task, batch: ClipBatch, n: int) -> Tensor:
    """Clip n of each video as the model wants it; only this one is held as floating point numbers."""
    return task.inputs(batch, slice(n, n + 1))


def _valid_first(batch: ClipBatch) -> ClipBatch:
    """Each video's valid clips first, in their order, so that no step reads an empty memory."""
    order_BN = (~batch.valid_BN).to(torch.uint8).argsort(dim=1, stable=True)
    rows_B1 = torch.arange(len(order_BN), device=order_BN.device)[:, None]

    def moved(tensor: Tensor) -> Tensor:
        return tensor[rows_B1.to(tensor.device), order_BN.to(tensor.device)]

    place_BN = order_BN.argsort(dim=1)
    target = _of_clips(batch.target, moved)
    if target.boxes is not None:
        boxes = target.boxes
        target = replace(target, boxes=replace(boxes, clip_R=place_BN[boxes.video_R, boxes.clip_R]))
    if target.poses is not None:
        poses = target.poses
        target = replace(target, poses=replace(poses, clip_P=place_BN[poses.video_P, poses.clip_P]))
    return replace(
        batch,
        clips_BNTCHW=moved(batch.clips_BNTCHW),
        seconds_BNT=moved(batch.seconds_BNT),
        valid_BN=moved(batch.valid_BN),
        audio=map_tensors(batch.audio, moved),
        target=target,
        erased=tuple(replace(patch, clip=int(place_BN[patch.row, patch.clip])) for patch in batch.erased),
    )


def _of_clips(target: Target, function: Callable[[Tensor], Tensor]) -> Target:
    """Apply a function to the labels that clips have of their own: `(B, N)` class indices and `(B, N, K)`."""
    labels = {
        name: function(label) if label.ndim == 3 or (label.ndim == 2 and not label.is_floating_point()) else label
        for name, label in target.labels.items()
    }
    return replace(target, labels=labels)


def _losses_so_far(task: Task, batch: ClipBatch, logits: list[Tensor]) -> Losses:
    """Separable parts of the newest clip alone, the others of all up to it; of the videos that have that clip."""
    n = len(logits)
    present_B1 = batch.valid_BN[:, n - 1 : n]
    seen = replace(batch, target=_of_clips(batch.target, lambda label: label[:, :n]))
    newest = replace(batch, target=_of_clips(batch.target, lambda label: label[:, n - 1 : n]))
    together = task.losses(torch.cat(logits, dim=1), seen, batch.valid_BN[:, :n] & present_B1)
    alone = task.losses(logits[-1], newest, present_B1)
    parts = {name: (alone if name in task.separable else together).parts[name] for name in together.parts}
    return Losses(parts, together.weights)


def _empty_memory(model: VideoModel, clip_B1CTHW: Tensor, count: int) -> VideoState:
    """Memory of nothing; with room for `count` such clips where the memory keeps their tokens."""
    room: dict[str, Any] = {}
    if _keeps_tokens(model):
        room = {"clip_shape": tuple(clip_B1CTHW.shape[2:]), "clips": count}
    return model.init_state(len(clip_B1CTHW), device=clip_B1CTHW.device, **room)


def _keeps_tokens(model: VideoModel) -> bool:
    return model.memory is not None and model.memory.interaction.startswith("nl_")


def _judge(
    model: VideoModel, clip_B1CTHW: Tensor, n: int, state: VideoState, valid_BN: Tensor
) -> tuple[Tensor, VideoState]:
    """Logits (B, 1, K) of clip n alone, read with `state` and its own contribution; and the state with it."""
    if not model.places:  # no memory: an invalid clip harms nobody, and its logits are left out of the loss
        logits_B1K, empty = model(clip_B1CTHW, state)
        return logits_B1K, empty
    order_B1 = valid_BN[:, :n].sum(1, keepdim=True)
    logits_B1K, state = model(clip_B1CTHW, state, valid_BN[:, n : n + 1], order_BN=order_B1)
    return logits_B1K, state


def _constants(task: Task, batch: ClipBatch, seeds: list[int]) -> tuple[list[VideoState], Tensor]:
    """For each clip the memory of all others; and all clips' logits under the complete memory, `(B, N, K)`."""
    if task.model.summarises:
        return _from_summaries(task, batch, seeds)
    # Blocks elsewhere: the feature maps of all clips are held anyway.
    others = _all_but_one(task.model.contributions(task.inputs(batch), batch.valid_BN))
    logits = []
    for n, seed in enumerate(seeds):
        clip_B1CTHW = _clip(task, batch, n)
        with seeded(seed, clip_B1CTHW.device):
            logits_B1K, _ = _judge(task.model, clip_B1CTHW, n, others[n], batch.valid_BN)
        logits.append(logits_B1K)
    return others, torch.cat(logits, dim=1)


def _from_summaries(task: Task, batch: ClipBatch, seeds: list[int]) -> tuple[list[VideoState], Tensor]:
    """The same with each clip encoded once: no block, or one in front of the head, needs only summaries to be read."""
    model, valid_BN, device = task.model, batch.valid_BN, batch.clips_BNTCHW.device
    summaries, pushed, states = [], [], []
    for n, seed in enumerate(seeds):
        with seeded(seed, device):
            summary = model.encode(_clip(task, batch, n)[:, 0], order_B=valid_BN[:, :n].sum(1))
            states.append(get_random_state(device))  # where the head's own draws begin
        summaries.append(summary)
        pushed.append(summary.push.reset(~valid_BN[:, n]))
    complete = pushed[0]
    for state in pushed[1:]:
        complete = complete.merge(state)
    logits = []
    for summary, random_state in zip(summaries, states, strict=True):
        with replayed(random_state, device):
            logits.append(model.read(summary, complete))
    return _all_but_one(pushed), torch.stack(logits, dim=1)


def _all_but_one(states: Sequence[VideoState]) -> list[VideoState]:
    """For each n the merge of all other states; from prefixes and suffixes, as subtracting leaves rounding behind."""
    suffixes = [states[-1]]
    for state in reversed(states[1:-1]):
        suffixes.append(state.merge(suffixes[-1]))
    suffixes.reverse()  # suffixes[i] = merge of states[i + 1 :]
    others = [suffixes[0]]
    prefix = states[0]
    for n in range(1, len(states) - 1):
        others.append(prefix.merge(suffixes[n]))
        prefix = prefix.merge(states[n])
    others.append(prefix)
    return others
