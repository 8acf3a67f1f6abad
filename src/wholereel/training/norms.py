"""BatchNorm while training: batch statistics, frozen ones, those of all ranks, precise ones, passes without trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wholereel.training.distributed import Ranks, sum_over_ranks

__all__ = [
    "SyncedBatchNorm",
    "norm_layers",
    "precise_statistics",
    "prepare_norms",
    "running_statistics_kept",
    "set_training_mode",
    "statistics_given_back",
]

NormMode = Literal["train", "frozen", "sync"]
Batch = TypeVar("Batch")


def prepare_norms(module: nn.Module, mode: NormMode, *, ranks: Ranks, device: torch.device) -> None:
    """Exchange BatchNorm layers where `sync` asks for it; keys of the state dict stay the same.

    Statistics are those of the processes that read different videos; of processes that share the clips of a video, each
    keeps to its own clips, as one process would with one clip after the other.

    Args:
        module: changed in place below its root.
        ranks: with one reader of data, `sync` is the same as `train` and nothing is exchanged.
    """
    if mode != "sync" or ranks.data_size == 1:
        return
    group = _group_of_same_clips(ranks)
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module, group)
        return
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _BatchNorm):
                setattr(parent, name, SyncedBatchNorm.like(layer, group))


def _group_of_same_clips(ranks: Ranks) -> dist.ProcessGroup | None:
    """The processes that hold the same clips of different videos; all where videos are not shared."""
    if ranks.clip_parallel == 1:
        return None
    size = ranks.clip_parallel
    groups = [dist.new_group(list(range(rank, ranks.world_size, size))) for rank in range(size)]
    return groups[ranks.clip_rank]  # type: ignore[return-value]  # another type only where one is no member


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm over all processes of a group, of PyTorch's own operations: the twin of `nn.SyncBatchNorm` on CPU.

    Args:
        group: process group; `None` = all processes.
        arguments: as of `nn.BatchNorm3d`.
    """

    def __init__(self, *arguments: Any, group: dist.ProcessGroup | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.group = group

    @classmethod
    def like(cls, layer: _BatchNorm, group: dist.ProcessGroup | None) -> SyncedBatchNorm:
        """With the same weights and statistics."""
        made = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, group=group)
        made.weight, made.bias = layer.weight, layer.bias
        made.running_mean, made.running_var = layer.running_mean, layer.running_var
        made.num_batches_tracked = layer.num_batches_tracked
        made.training = layer.training
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least (batch, channels), got {tuple(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *[1] * (x.ndim - 2))
        count = _summed(wide.new_tensor(float(x.numel() // x.shape[1])), self.group)
        if count <= 1:  # as `nn.BatchNorm3d` does; this twin runs on CPUs, where a look at the number costs nothing
            raise ValueError(
                f"expected more than one value per channel over all processes when training, got {tuple(x.shape)}; "
                "take more videos a step, or optim.norm=frozen"
            )
        mean = _summed(wide.sum(axes), self.group) / count
        centred = wide - mean.view(shape)
        variance = _summed(centred.square().sum(axes), self.group) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._update(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """The sum over processes; each has a part in everybody's, so gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def _summed(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total: Tensor = _Sum.apply(tensor, group)
    return total


def set_training_mode(module: nn.Module, mode: NormMode) -> None:
    """`module.train()`; if `frozen`, BatchNorm stays in evaluation mode: constant statistics, scale and shift learn."""
    module.train()
    if mode == "frozen":
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()


def norm_layers(module: nn.Module) -> list[_BatchNorm]:
    """Its BatchNorm layers that have running statistics."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Run BatchNorm on batch statistics as in training, and leave its running statistics and counter as they are.

    For passes that are repeated with gradient: updating twice would change the effective momentum
    (pytorch/pytorch issues 62471 and 96136).
    """
    layers = norm_layers(module)
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def statistics_given_back(module: nn.Module) -> Iterator[None]:
    """Running statistics and counters are afterwards what they are now, whatever happens to them inside."""
    buffers = [buffer for layer in norm_layers(module) for buffer in layer.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


@torch.no_grad()
def precise_statistics(
    module: nn.Module, batches: Iterable[Batch], run: Callable[[Batch], object], ranks: Ranks | None = None
) -> int:
    """Running statistics anew, as the plain mean over batches (facebookresearch/SlowFast's precise BN takes 200).

    The usual ones weigh the last batches most, which saw other weights. Everything else of the module is in evaluation
    mode meanwhile (our choice; there it trains on), so that nothing is dropped.
    Args:
        module: its BatchNorm layers are changed in place; modes and momenta are given back.
        batches: of training data. run: a forward of the module on one of them.
        ranks: the mean is over the batches of all of them, who have equally many; `None` = this process alone.
    Returns: number of batches. Raises: ValueError: no batch; statistics are then as they were.
    """
    layers = norm_layers(module)
    modes = {part: part.training for part in module.modules()}
    before = [(layer.momentum, {name: buffer.clone() for name, buffer in layer.named_buffers()}) for layer in layers]
    module.eval()
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all so far
    count = 0
    try:
        for batch in batches:
            run(batch)
            count += 1
    finally:
        for layer, (momentum, buffers) in zip(layers, before, strict=True):
            layer.momentum = momentum
            if count == 0:
                layer.load_state_dict({**layer.state_dict(), **buffers})
        for part, mode in modes.items():
            part.training = mode
    if count == 0:
        raise ValueError("precise statistics need at least one batch")
    if ranks is not None:
        _mean_over_ranks(
            [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()], ranks
        )
    return count


def _mean_over_ranks(tensors: list[Tensor], ranks: Ranks) -> None:
    """Replace each by its mean over all processes."""
    for tensor in tensors:
        tensor.copy_(sum_over_ranks(tensor, ranks) / ranks.world_size)
