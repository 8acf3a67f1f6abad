"""What a run's directory remembers: the checkpoint that is written as it goes on, and taken over when it is resumed.

Killed at any moment, a run goes on from its checkpoint; on CPU with the same number of processes, to the same bits.
Not here: how a checkpoint file is written (`checkpoint.py`), which settings may change (`settings.py`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim import Optimizer

from wholereel.config import Train
from wholereel.errors import CheckpointError, ConfigError
from wholereel.models.stream_models import StreamState
from wholereel.tasks import AnyTask
from wholereel.tasks.stream_task import StreamTask
from wholereel.training import distributed
from wholereel.training.averaging import WeightAverage
from wholereel.training.carry import forget_carries, load_carry, save_carry
from wholereel.training.checkpoint import load_checkpoint, save_checkpoint
from wholereel.training.distributed import Ranks
from wholereel.training.meter import LossMeter
from wholereel.training.optimiser import load_optimizer_state
from wholereel.training.randomness import get_random_state, set_random_state
from wholereel.training.run_log import Display, RunLog
from wholereel.training.settings import check_resumable

__all__ = ["Parts", "Progress", "Run", "prepare_directory", "restore", "restore_carry", "save"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        epoch: complete epochs. step: steps made in the next one. update: steps made in all.
        metrics: of the best package so far.
    """

    epoch: int = 0
    step: int = 0
    update: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What stays the same during a run."""

    train: Train
    directory: Path
    classes: tuple[str, ...]
    ranks: Ranks
    device: torch.device
    settings: Mapping[str, Any]
    display: Display
    log_every: int

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint.pt"


@dataclass(frozen=True)
class Parts:
    """What a checkpoint holds besides the progress."""

    task: AnyTask
    optimizer: Optimizer
    average: WeightAverage | None
    log: RunLog
    meter: LossMeter
    scaler: torch.amp.GradScaler


def prepare_directory(run: Run, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, or `None` with a fresh directory."""
    exists = run.checkpoint.exists()
    if exists and not resume:
        raise ConfigError(f"{run.directory} holds a run already. Resume it, or choose another directory.")
    if exists:
        return load_checkpoint(run.checkpoint)
    run.ranks.barrier()  # nobody may make files before all have looked
    run.directory.mkdir(parents=True, exist_ok=True)
    if run.ranks.first:
        for file in [run.directory / "metrics.jsonl", *run.directory.glob("faults*.tsv")]:
            file.unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
        text = json.dumps(run.settings, indent=1)
        (run.directory / "config.json").write_text(text + "\n", encoding="utf-8")
    run.ranks.barrier()
    return None


def save(run: Run, parts: Parts, progress: Progress, carry: StreamState | None = None) -> None:
    """Gather what each rank knows alone; the first writes. Memories are written by each rank, before and for this."""
    if carry is not None:
        save_carry(run.directory, carry, rank=run.ranks.rank, update=progress.update)
        run.ranks.barrier()
    own = get_random_state(run.device)
    random = {name: distributed.all_gather_bytes(state, run.ranks, run.device) for name, state in own.items()}
    size = torch.tensor([parts.log.faults.size]).view(torch.uint8)
    faults = [int(each.view(torch.int64)) for each in distributed.all_gather_bytes(size, run.ranks, run.device)]
    if run.ranks.first:
        content = {
            "progress": {**dataclasses.asdict(progress), "metrics": dict(progress.metrics)},
            "carried": carry is not None,
            "settings": json.dumps(run.settings),
            "task": parts.task.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "scaler": parts.scaler.state_dict(),
            "average": None if parts.average is None else parts.average.state_dict(),
            "random": random,
            "sizes": parts.log.sizes(progress.update, faults),
        }
        save_checkpoint(run.checkpoint, content)
    if run.train.data.streams is not None:
        run.ranks.barrier()  # only now nobody needs the older ones
        forget_carries(run.directory, rank=run.ranks.rank, update=None if carry is None else progress.update)
    parts.meter.last_checkpoint = f"{run.checkpoint} (epoch {progress.epoch + 1}, step {progress.step})"


def restore(run: Run, parts: Parts, saved: dict[str, Any], allow_changes: bool) -> Progress:
    """Take over all states of a checkpoint."""
    progress = Progress(**saved["progress"])
    updates = torch.tensor([progress.update, progress.update**2], dtype=torch.float64, device=run.device)
    total, squares = distributed.sum_over_ranks(updates, run.ranks).tolist()
    if squares * run.ranks.world_size != total**2:  # some variance: ranks would wait for each other for ever
        raise CheckpointError(
            run.checkpoint,
            f"process {run.ranks.rank} reads update {progress.update}, others another one",
            "the same file on all nodes",
            "Put the run's directory on a disk that all nodes share.",
        )
    before = json.loads(saved["settings"])
    changes = check_resumable(before, run.settings, allow_changes=allow_changes, mid_epoch=progress.step > 0)
    for change in changes:
        run.display.line(f"resuming with a change: {change}")
    parts.task.load_state_dict(saved["task"])
    load_optimizer_state(parts.optimizer, saved["optimizer"])
    if saved.get("scaler") and parts.scaler.is_enabled():
        parts.scaler.load_state_dict(saved["scaler"])
    if parts.average is not None:
        parts.average.load_state_dict(saved["average"])
    if before["world_size"] == run.ranks.world_size:
        states = {name: each[run.ranks.rank] for name, each in saved["random"].items()}
        set_random_state(states, run.device)
    parts.meter.last_checkpoint = f"{run.checkpoint} (epoch {progress.epoch + 1}, step {progress.step})"
    return progress


def restore_carry(run: Run, parts: Parts, progress: Progress) -> StreamState:
    """What this process's streams remembered when the run stopped inside an epoch."""
    tensors = load_carry(run.directory, rank=run.ranks.rank, update=progress.update)
    return cast(StreamTask, parts.task).restore(tensors)
