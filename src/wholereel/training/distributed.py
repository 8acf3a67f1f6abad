"""Several processes: who am I, how are gradients and counts summed. Launched by torchrun or by Slurm's srun.

Every process holds the whole model and its own videos. Losses are divided by counts over all ranks before the
backward pass, so gradients are *summed*, once per optimiser step, in buckets: this serves strategies with several
backward passes alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from wholereel.batches import Losses
from wholereel.errors import ConfigError, DeviceError

__all__ = [
    "Launch",
    "Ranks",
    "all_gather_bytes",
    "broadcast_module",
    "broadcast_tensors",
    "choose_device",
    "launch_from_environment",
    "mean_over_ranks",
    "process_group",
    "shard_stages",
    "sum_gradients",
    "sum_over_ranks",
]

BUCKET_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Ranks:
    """This process among all. Neighbours may share the clips of the same videos; such a group is one reader of data.

    Args:
        rank: 0 is the one that writes. world_size: number of processes.
        clip_parallel: number of processes that share the clips of a video.
        clip_group: their process group; `None` where there is one process.
    """

    rank: int = 0
    world_size: int = 1
    clip_parallel: int = 1
    clip_group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    @property
    def clip_rank(self) -> int:
        """Place among those that share the same videos."""
        return self.rank % self.clip_parallel

    @property
    def data_rank(self) -> int:
        """Place of the group among those that read different videos."""
        return self.rank // self.clip_parallel

    @property
    def data_size(self) -> int:
        """Number of groups that read different videos."""
        return self.world_size // self.clip_parallel

    def barrier(self) -> None:
        """Wait for all."""
        if self.world_size > 1:
            dist.barrier()


@dataclass(frozen=True)
class Launch:
    """What the launcher says: place of this process, and where all processes meet (`None` for a single process)."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str | None = None


def launch_from_environment(environment: Mapping[str, str]) -> Launch:
    """Read torchrun's variables, or those of a Slurm job step; one process where there are neither.

    Under Slurm without `MASTER_ADDR` and `MASTER_PORT`, the first node and a port made of the job's number are used.
    Raises: ConfigError: variables that are incomplete or not numbers.
    """
    try:
        if "WORLD_SIZE" in environment and "RANK" in environment:
            meeting = f"tcp://{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
            local = int(environment.get("LOCAL_RANK", "0"))
            return Launch(int(environment["RANK"]), int(environment["WORLD_SIZE"]), local, meeting)
        # set by srun for the processes of a step; a batch script itself is one process, however many tasks the job has
        if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            host = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
            port = environment.get("MASTER_PORT") or str(20000 + int(environment["SLURM_JOB_ID"]) % 20000)
            rank, local = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
            return Launch(rank, int(environment["SLURM_STEP_NUM_TASKS"]), local, f"tcp://{host}:{port}")
    except (KeyError, ValueError) as error:
        raise ConfigError(f"the launcher's environment is incomplete or not a number: {error}") from error
    return Launch()


def _first_host(nodes: str) -> str:
    """`node[03-05,9],other` is `node03`."""
    match = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if match is None:
        raise ValueError(f"no host in the list of nodes {nodes!r}")
    return match[1] + (match[2] or "")


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this process.

    Args:
        name: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"` or `"cuda:1"`.
    Raises: DeviceError: CUDA asked for and not there, or fewer devices than processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise DeviceError(f"device {name!r} was asked for, but PyTorch sees no CUDA device here. Use device='cpu'.")
    index = local_rank if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise DeviceError(
            f"process {local_rank} of this machine needs device {index}; there are {torch.cuda.device_count()}."
        )
    return torch.device("cuda", index)


@contextmanager
def process_group(launch: Launch, device: torch.device, clip_parallel: int = 1) -> Iterator[Ranks]:
    """Join the other processes (NCCL between GPUs, Gloo otherwise), and leave them afterwards.

    A process group that is there already is used and left as it is.

    Args:
        clip_parallel: so many neighbours each share the clips of the same videos.
    Raises: ConfigError: the number of processes is no multiple of that.
    """
    if dist.is_available() and dist.is_initialized():
        yield _layout(dist.get_rank(), dist.get_world_size(), clip_parallel)
        return
    if launch.world_size == 1:
        yield _layout(0, 1, clip_parallel)
        return
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=launch.address,
        rank=launch.rank,
        world_size=launch.world_size,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield _layout(launch.rank, launch.world_size, clip_parallel)
    finally:
        dist.destroy_process_group()


def _layout(rank: int, world_size: int, clip_parallel: int) -> Ranks:
    if world_size % clip_parallel:
        raise ConfigError(
            f"clip_parallel={clip_parallel} does not divide the {world_size} processes of this run. "
            f"Start a multiple of {clip_parallel}, or change clip_parallel."
        )
    if clip_parallel == 1:
        return Ranks(rank, world_size)
    if clip_parallel == world_size:
        return Ranks(rank, world_size, clip_parallel, dist.group.WORLD)
    group, _ = dist.new_subgroups(clip_parallel)
    return Ranks(rank, world_size, clip_parallel, group)


def shard_stages(task: nn.Module, stages: Iterable[nn.Module], ranks: Ranks, device: torch.device) -> None:
    """FSDP2: each rank keeps a part of every stage's weights; a stage gathers them while it runs.

    Memory blocks and the head stay whole: they are small, and called by other methods than `forward`. Gradients are
    summed over all ranks, as `sum_gradients` sums those of the rest. In place, and before an optimiser is made.

    Args:
        task: on its device, with equal weights on all ranks.
        stages: of its clip model; no two share weights.
    """
    if ranks.world_size == 1:
        return
    mesh = init_device_mesh(device.type, (ranks.world_size,))
    for stage in stages:
        for parameter in stage.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP2 shards no other memory format
        sharded = fully_shard(stage, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)  # sums, not means,
        sharded.set_force_sum_reduction_for_comms(True)  # and without a factor, which Gloo does not know


def sum_over_ranks(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Sum of every rank's tensor, on every rank; the argument itself stays as it is."""
    if ranks.world_size == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(losses: Losses, ranks: Ranks) -> Tensor:
    """This rank's share of the total loss: its sums divided by the counts of all ranks.

    The shares, and so the gradients, of all ranks add up to those of one process that has all the videos. A part that
    nothing counts towards (no video has this clip) is zero. Ranks that share videos hold the same losses, which count
    once.
    """
    counts = torch.stack([part.count for part in losses.parts.values()])
    total = (sum_over_ranks(counts, ranks) / ranks.clip_parallel).clamp(min=1)
    return losses.total(dict(zip(losses.parts, total.unbind(), strict=True)))


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks, *, bucket_bytes: int = BUCKET_BYTES) -> None:
    """Replace each gradient by its sum over ranks; few large messages instead of many small ones.

    Parameters without gradient are left out: which they are follows from the model, so it is the same on all ranks; and
    sharded ones, whose gradients have been summed on their way (`shard_stages`).
    """
    if ranks.world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    for bucket in _buckets(gradients, bucket_bytes):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [piece.view_as(g) for piece, g in zip(pieces, bucket, strict=True)])


def _buckets(gradients: list[Tensor], bucket_bytes: int) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, together at most `bucket_bytes` (a larger tensor is a bucket of its own)."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        bytes_ = gradient.numel() * gradient.element_size()
        if bucket and (gradient.dtype != bucket[0].dtype or size + bytes_ > bucket_bytes):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += bytes_
    if bucket:
        yield bucket


@torch.no_grad()
def broadcast_module(module: nn.Module, ranks: Ranks, *, buffers_only: bool = False) -> None:
    """Give every rank the first one's weights and buffers (or only buffers: BatchNorm's statistics differ)."""
    broadcast_tensors(module.buffers() if buffers_only else [*module.parameters(), *module.buffers()], ranks)


def broadcast_tensors(tensors: Iterable[Tensor], ranks: Ranks) -> None:
    """Give every rank the first one's values; the same tensors in the same order on all."""
    if ranks.world_size == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor.detach(), src=0)


def all_gather_bytes(tensor: Tensor, ranks: Ranks, device: torch.device) -> list[Tensor]:
    """Every rank's uint8 CPU tensor (of equal length), in the order of ranks; messages travel on `device`."""
    if ranks.world_size == 1:
        return [tensor]
    own = tensor.to(device)
    gathered = [torch.empty_like(own) for _ in range(ranks.world_size)]
    dist.all_gather(gathered, own)
    return [each.cpu() for each in gathered]
