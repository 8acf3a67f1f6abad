"""Segments of a model replayed as CUDA graphs: the host asks for a clip's network once, not for each of its kernels.

At one clip a batch a network of a thousand small kernels is bound by the host that asks for them. `exact` sends clip
after clip of one shape through the same weights, so both directions of a segment are captured at the first clip and
replayed for all others. Values and gradients are those of the same kernels, eager.
What has been captured writes to the same place each time. So that nobody sees it change: maps that leave without graph
are copies, gradients of weights are added to existing ones, and those of a segment's input are copied.
Memory: the graph of one part per segment and shape, and gradients of the weights once more, are held all the time.
"""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm

from wholereel.errors import ConfigError
from wholereel.layers.checkpointing import CheckpointedStage
from wholereel.models.video_model import VideoModel

__all__ = ["SegmentGraphs"]

WARMUPS = 3  # before a capture: libraries choose their kernels and make their workspaces
SHAPES = 8  # of clips; each holds a graph of its own
DEVICES = ("cuda",)
SETTING = "strategy.graphs=true"

log = logging.getLogger(__name__)


class SegmentGraphs:
    """The captured segments of one model, by shape and precision; made anew when its weights are at another place."""

    def __init__(self) -> None:
        self.captured: dict[tuple[object, ...], Callable[[Tensor], Tensor]] = {}
        self.fingerprint: tuple[object, ...] = ()

    @contextmanager
    def running(self, model: VideoModel) -> Iterator[None]:
        """Inside, the model's segments are replayed.

        Raises: ConfigError: something in it cannot be replayed, and what to do.
        """
        self._check(model)
        before, model.segment_runner = model.segment_runner, self._run
        self.model = model
        try:
            yield
        finally:
            model.segment_runner = before

    def _check(self, model: VideoModel) -> None:
        stages = list(model.clip_model.stages.values())
        tensors = [tensor for stage in stages for tensor in (*stage.parameters(), *stage.buffers())]
        modules = [module for stage in stages for module in stage.modules()]
        fingerprint = (
            *((tensor.data_ptr(), tensor.requires_grad) for tensor in tensors),
            *(module.training for module in modules),
        )
        if fingerprint == self.fingerprint:
            return
        if tensors and tensors[0].device.type not in DEVICES:
            raise ConfigError(
                f"{SETTING} needs a CUDA device; the model is on {tensors[0].device}. Leave it out there."
            )
        reasons = {
            "BatchNorm in train mode updates its statistics in the first pass only": (
                any(isinstance(module, _BatchNorm) and module.training for module in modules),
                "set optim.norm=frozen",
            ),
            "stages that keep their input alone compute twice": (
                any(isinstance(module, CheckpointedStage) and module.checkpointed for module in modules),
                "leave model.options.checkpointed out; 'exact' needs the memory of one clip anyway",
            ),
            "compiled stages choose their own graphs": (
                any(getattr(module, "_compiled_call_impl", None) is not None for module in modules),
                "set compile=false",
            ),
            "sharded stages gather their weights anew each time": (
                any(isinstance(module, FSDPModule) for module in modules),
                "keep whole weights on each device",
            ),
        }
        for reason, (is_so, remedy) in reasons.items():
            if is_so:
                raise ConfigError(f"{SETTING} replays the same kernels, but {reason}: {remedy}, or leave it out.")
        self.captured.clear()
        self.fingerprint = fingerprint

    def _run(self, index: int, x_BCTHW: Tensor) -> Tensor:
        if not self.model.segments[index]:
            return self.model.run_stages(index, x_BCTHW)
        precision = torch.get_autocast_dtype(x_BCTHW.device.type) if _autocast(x_BCTHW) else None
        key = (index, tuple(x_BCTHW.shape), x_BCTHW.dtype, precision)
        if key not in self.captured:
            if len({seen[1] for seen in self.captured if seen[0] == index}) >= SHAPES:
                raise ConfigError(
                    f"{SETTING} holds a graph for each shape of clips, and met more than {SHAPES}, at last "
                    f"{tuple(x_BCTHW.shape)}: make clips and batches of one size, or leave it out."
                )
            self.captured[key] = self._capture(index, x_BCTHW)
        if not torch.is_grad_enabled():
            return self.captured[key](x_BCTHW).clone()
        for parameter in self._parameters(index):
            if parameter.grad is None:  # autograd would take the graph's own tensor for it, which changes
                parameter.grad = torch.zeros_like(parameter)
        return self.captured[key](cast(Tensor, _GradientCopied.apply(x_BCTHW)))

    def _parameters(self, index: int) -> list[nn.Parameter]:
        stages = [self.model.clip_model.stages[name] for name in self.model.segments[index]]
        return [parameter for stage in stages for parameter in stage.parameters() if parameter.requires_grad]

    def _capture(self, index: int, x_BCTHW: Tensor) -> Callable[[Tensor], Tensor]:
        segment, sample = _Segment(self.model, index), x_BCTHW.detach().clone()
        device, enabled = x_BCTHW.device, _autocast(x_BCTHW)
        before = torch.get_rng_state(), _random_state(device)
        with torch.no_grad():
            segment(sample)
        after = torch.get_rng_state(), _random_state(device)
        if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise ConfigError(
                f"{SETTING} replays the same kernels, but stages draw random numbers: leave stochastic depth and "
                "dropout inside of stages out, or leave it out."
            )
        sample.requires_grad_(index > 0)
        precision = torch.autocast(
            device.type, torch.get_autocast_dtype(device.type), enabled=enabled, cache_enabled=False
        )
        with torch.enable_grad(), precision:
            return capture(segment, sample)


def capture(segment: nn.Module, sample: Tensor) -> Callable[[Tensor], Tensor]:
    """A segment's forward and backward as graphs, for inputs like `sample`; tried twice."""
    captured = functools.partial(
        torch.cuda.make_graphed_callables, segment, (sample,), num_warmup_iters=WARMUPS, allow_unused_input=True
    )
    with _nothing_collected():
        torch.cuda.empty_cache()  # a graph has memory of its own, and cannot take what is kept for reuse
        try:
            made: Any = captured()
        except RuntimeError as error:
            # Seen on an H100: the first capture in bfloat16 of a process fails, all others pass. Why is not known.
            log.info("captured again, since the first try failed: %s", str(error).splitlines()[0])
            made = captured()
    return cast(Callable[[Tensor], Tensor], made)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Python's garbage goes before: what frees a tensor in the middle of a capture may end it."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Segment(nn.Module):
    """The stages of a segment as a module of their own, whose weights are theirs."""

    def __init__(self, model: VideoModel, index: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(model.clip_model.stages[name] for name in model.segments[index])
        self.run = lambda x_BCTHW: model.run_stages(index, x_BCTHW)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.run(x_BCTHW)


class _GradientCopied(torch.autograd.Function):
    """The same values; the gradient is a tensor of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clone()


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
