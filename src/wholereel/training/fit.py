"""The training loop: straight from batch to step, for every task and every strategy; knows no paper.

A run directory holds `config.json`, `metrics.jsonl`, `faults.tsv`, `checkpoint.pt` (with streams also what they
remember, `carry_*.pt`), and the model packages `last/` and `best/`.
Not here: how a batch becomes a gradient (`strategies/`), what a batch is (`datasets/loader.py`), what a killed run goes
on from (`saved_run.py`), how a model is measured (the caller brings that, since evaluation is a room of its own).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from torch import Tensor, nn

from wholereel.batches import ClipBatch, Losses, StreamBatch
from wholereel.config import Train
from wholereel.datasets.loader import TooManyFaultsError, clip_loader
from wholereel.datasets.manifest import Manifest
from wholereel.datasets.stream_loader import stream_loader
from wholereel.errors import ConfigError, DataError
from wholereel.inference.predictor import precision_context
from wholereel.models.stream_models import StreamState
from wholereel.tasks import AnyTask, create_task
from wholereel.training import distributed
from wholereel.training.averaging import WeightAverage
from wholereel.training.checks import check_train, select_of
from wholereel.training.distributed import Ranks
from wholereel.training.meter import LossMeter
from wholereel.training.norms import prepare_norms, set_training_mode
from wholereel.training.optimiser import create_optimizer, freeze, set_lr
from wholereel.training.packages import write_package
from wholereel.training.precise_norms import check_precise_norms, precise_norms
from wholereel.training.randomness import kept_randomness
from wholereel.training.run_log import Display, RunLog, format_seconds
from wholereel.training.saved_run import Parts, Progress, Run, prepare_directory, restore, restore_carry, save
from wholereel.training.schedule import lr_factor, peak_lr
from wholereel.training.settings import settings_of
from wholereel.training.strategies import Strategy, create_strategy

__all__ = ["FitResult", "Loader", "Validate", "fit", "train_task"]

Batch = ClipBatch | StreamBatch

Validate = Callable[[AnyTask], Mapping[str, float]]
"""Measures a task's model; called on every rank, returns the same numbers on all of them."""


class Loader(Protocol):
    """What the loop needs of `datasets.loader.ClipLoader` and `datasets.stream_loader.StreamLoader`."""

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterable[Batch]: ...


@dataclass(frozen=True)
class FitResult:
    """What a run made.

    Args:
        package: the best model package by `train.select`; the last one where there was no validation.
        metrics: what validation said of it, and `epoch`, from 1; empty where there was none.
    """

    package: Path
    metrics: Mapping[str, float]


def fit(
    train: Train,
    manifest: Manifest,
    run_dir: str | Path,
    *,
    validate: Validate | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    device: str = "auto",
    cache_dir: Path | None = None,
    tensorboard: bool = False,
    log_every: int = 10,
    stream: TextIO | None = sys.stderr,
) -> FitResult:
    """Train a model on a manifest; launched directly, by torchrun or by srun.

    Args:
        train: settings; `model.weights` names a file or hub entry (`"stage:…"` is resolved by the recipe's runner).
        manifest: the training samples.
        run_dir: made if it is not there.
        validate: measures the model every `train.validate_every` epochs and at the end.
        resume: go on from the directory's checkpoint; a finished run returns at once. Without checkpoint, begin.
        allow_changes: resume with other settings where position and states keep their meaning (`training.settings`).
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`.
        cache_dir: folder of decoded frames, where `train.data.cache` is set; `run_dir/cache` by default.
        tensorboard: also write event files (extra `tensorboard`).
        log_every: steps between two looks at the losses; only there does the host wait for the device.
        stream: for progress; `None` = be silent.
    Raises:
        ConfigError: settings that cannot be used, a directory with a run in it and no `resume`, or other settings
            than the checkpoint's. DataError: too many broken samples. NonFiniteLossError: see there.
    """
    check_train(train)
    launch = distributed.launch_from_environment(os.environ)
    device_ = distributed.choose_device(device, launch.local_rank)
    directory = Path(run_dir)
    with ExitStack() as stack:
        if device_.type == "cuda":
            stack.enter_context(torch.cuda.device(device_))
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True))
        ranks = stack.enter_context(distributed.process_group(launch, device_, train.clip_parallel))
        stack.enter_context(kept_randomness(device_))
        torch.manual_seed(train.seed)
        task, classes = create_task(train, manifest)
        task = task.to(device_)
        strategy = _strategy(train, task, device_, ranks)
        share = {"share": (ranks.clip_rank, ranks.clip_parallel)} if train.data.streams is None else {}
        load: Callable[..., Any] = clip_loader if train.data.streams is None else stream_loader
        loader = load(
            manifest,
            train.data,
            train=True,
            seed=train.seed,
            batch=strategy.plan(train.batch, train.data.clips.count).videos,
            rank=ranks.data_rank,
            world_size=ranks.data_size,
            **share,
            cache_dir=cache_dir or directory / "cache",
        )
        stack.callback(loader.close)
        return train_task(
            task, strategy, loader, train, directory, classes=classes, ranks=ranks, device=device_, validate=validate,
            sample_ids=[sample.id for sample in manifest.samples[: train.data.limit]], resume=resume,
            allow_changes=allow_changes, tensorboard=tensorboard, log_every=log_every, stream=stream,
        )  # fmt: skip


def train_task(
    task: AnyTask,
    strategy: Strategy,
    loader: Loader,
    train: Train,
    directory: Path,
    *,
    classes: tuple[str, ...],
    ranks: Ranks,
    device: torch.device,
    sample_ids: Iterable[str],
    validate: Validate | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    tensorboard: bool = False,
    log_every: int = 10,
    stream: TextIO | None = None,
) -> FitResult:
    """The loop itself, for a task that stands on its device and a loader of this rank; arguments as in `fit`."""
    train = replace(train, select=select_of(train))
    settings = settings_of(train, sample_ids, ranks.world_size)
    display = Display(stream if ranks.first else None)
    run = Run(train, directory, classes, ranks, device, settings, display, log_every)
    saved = prepare_directory(run, resume)
    mode = train.optim.norm
    check_precise_norms(train, task)
    prepare_norms(task, mode, ranks=ranks, device=device)
    distributed.broadcast_module(task, ranks)
    if train.compile:
        task.model.compile_stages()
    freeze(task, train.optim.frozen)
    optimizer = create_optimizer(task, train.optim)
    average = None if train.optim.ema is None else WeightAverage(task, train.optim.ema)
    # From here on, ranks draw different dropout, except those that share videos.
    torch.manual_seed(train.seed * 1_000_003 + ranks.data_rank + 1)
    sizes = None if saved is None else saved["sizes"]
    log = RunLog(directory, rank=ranks.rank, tensorboard=tensorboard, sizes=sizes)
    scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")  # else it does nothing
    parts = Parts(task, optimizer, average, log, LossMeter(ranks, device), scaler)
    progress = Progress() if saved is None else restore(run, parts, saved, allow_changes)
    carry = restore_carry(run, parts, progress) if saved is not None and saved.get("carried") else None
    if progress.epoch >= train.epochs:
        return _result(run, progress)
    steps = -(-loader.steps_per_epoch // train.accumulate)
    peak = _peak_lr(train, strategy, ranks)
    log.write("resume" if saved else "start", update=progress.update, gradient=strategy.gradient, steps_per_epoch=steps,
              peak_lr=peak, world_size=ranks.world_size, device=str(device))  # fmt: skip
    clock = _Clock(progress.update, steps * train.epochs)

    while progress.epoch < train.epochs:
        set_training_mode(task, mode)
        batches = loader.epoch(progress.epoch, start_step=progress.step * train.accumulate)
        batches = _listed(batches, log, progress, train.accumulate)
        for group in _groups(batches, train.accumulate):
            lr = peak * lr_factor(train.optim, step=progress.update, steps_per_epoch=steps, epochs=train.epochs)
            set_lr(optimizer, lr)
            update = _updater(run, parts)
            for i, batch in enumerate(group):
                placed = strategy.place(batch, device)
                scale = _scale(ranks, len(group), scaler)
                step = update if i + 1 == len(group) else _nothing
                losses, carry = strategy.backward(task, placed, scale, step, carry)
                parts.meter.add(losses, batch.ids)
                clock.clips += _clips_of(batch) * ranks.data_size
            progress = replace(progress, step=progress.step + 1, update=progress.update + 1)
            if progress.update % log_every == 0 or progress.step == steps:
                due = clock.since_checkpoint() >= 60 * train.checkpoint_minutes
                if _report(run, parts, clock, progress, steps, lr, due) and progress.step < steps:
                    _save(run, parts, progress, clock, carry)
        carry = None  # an epoch remembers nothing of the one before
        measuring = partial(_measuring, run, parts, strategy, loader.epoch(progress.epoch))
        progress = _end_epoch(run, parts, progress, validate, clock, measuring)
        clock.throughput()  # measuring and saving are no training
    log.close()
    ranks.barrier()
    return _result(run, progress)


def _strategy(train: Train, task: AnyTask, device: torch.device, ranks: Ranks) -> Strategy:
    strategy = create_strategy(train.strategy, lambda: precision_context(train.precision, device), ranks)
    strategy.check(task)
    if train.accumulate < 1:
        raise ConfigError(f"accumulate must be at least 1, got {train.accumulate}")
    if train.accumulate > 1 and (train.strategy.name, train.strategy.variant) == ("multi_iteration", "step"):
        raise ConfigError(
            f"multi_iteration/step makes an optimiser step for each clip, so accumulate={train.accumulate} has no "
            "meaning. Use accumulate=1, or the variant 'accumulate'."
        )
    return strategy


def _peak_lr(train: Train, strategy: Strategy, ranks: Ranks) -> float:
    videos = train.batch * train.accumulate * ranks.data_size
    plan = strategy.plan(train.batch, train.data.clips.count)
    return peak_lr(train.optim, videos=videos, strategy_scale=plan.lr_scale)


def _listed(batches: Iterable[Batch], log: RunLog, begin: Progress, accumulate: int) -> Iterator[Batch]:
    """The same batches; their faults are written as they come, also those that end the run."""
    numbers = itertools.count(begin.step * accumulate)
    try:
        for batch in batches:
            log.fault(begin.epoch + 1, next(numbers) // accumulate + 1, batch.faults)
            yield batch
    except TooManyFaultsError as error:
        log.fault(begin.epoch + 1, next(numbers) // accumulate + 1, error.faults)
        raise


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The micro-batches of each optimiser step; the last step of an epoch may have fewer."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _scale(ranks: Ranks, micro_batches: int, scaler: torch.amp.GradScaler) -> Callable[[Losses], Tensor]:
    """The mean over all ranks' videos; micro-batches of a step weigh alike. Times the factor of loss scaling, if any:
    whatever a strategy sends back is scaled with it, and the step takes it out once."""

    def scale(losses: Losses) -> Tensor:
        scaled: Tensor = scaler.scale(distributed.mean_over_ranks(losses, ranks) / micro_batches)
        return scaled

    return scale


def _updater(run: Run, parts: Parts) -> Callable[[], None]:
    """One optimiser step on gradients summed over ranks; with loss scaling it is left out if one is not finite."""
    parameters = [parameter for group in parts.optimizer.param_groups for parameter in group["params"]]

    def update() -> None:
        distributed.sum_gradients(parameters, run.ranks)
        parts.scaler.unscale_(parts.optimizer)
        if run.train.optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, run.train.optim.clip_norm)
        parts.scaler.step(parts.optimizer)
        parts.scaler.update()
        parts.optimizer.zero_grad(set_to_none=True)
        if parts.average is not None:
            parts.average.update()

    return update


def _nothing() -> None:
    """The step of a micro-batch that is not the last of its group."""


def _clips_of(batch: Batch) -> int:
    return batch.valid_B.numel() if isinstance(batch, StreamBatch) else batch.valid_BN.numel()


@dataclass
class _Clock:
    """Times for people: throughput, time left, when to save."""

    first_update: int
    updates: int
    clips: int = 0

    def __post_init__(self) -> None:
        self.begin = self.read = self.saved = time.monotonic()

    def since_checkpoint(self) -> float:
        return time.monotonic() - self.saved

    def throughput(self) -> float:
        """Clips per second since the last call."""
        now = time.monotonic()
        rate = self.clips / max(now - self.read, 1e-9)
        self.read, self.clips = now, 0
        return rate

    def left(self, update: int) -> float:
        """Seconds to the end at the mean pace of this process."""
        made = max(1, update - self.first_update)
        return (time.monotonic() - self.begin) / made * max(0, self.updates - update)


def _report(run: Run, parts: Parts, clock: _Clock, progress: Progress, steps: int, lr: float, due: bool) -> bool:
    """Look at the losses since the last look, write and show them; tells whether a checkpoint is due."""
    where = f"epoch {progress.epoch + 1}, between steps {progress.step - run.log_every + 1} and {progress.step}"
    reading = parts.meter.read(where=where, flag=due and run.ranks.first)
    rate = clock.throughput()
    means = {name: value / max(count, 1.0) for name, (value, count) in reading.sums.items()}
    parts.log.write("train", update=progress.update, epoch=progress.epoch + 1, step=progress.step, loss=reading.total,
                    parts=means, lr=lr, clips_per_second=round(rate, 3))  # fmt: skip
    run.display.progress(
        f"epoch {progress.epoch + 1}/{run.train.epochs}  step {progress.step}/{steps}  loss {reading.total:.4f}  "
        f"lr {lr:.2e}  {rate:.1f} clips/s  {format_seconds(clock.left(progress.update))} left"
    )
    return reading.raised > 0


def _save(run: Run, parts: Parts, progress: Progress, clock: _Clock, carry: StreamState | None = None) -> None:
    save(run, parts, progress, carry)
    clock.saved = time.monotonic()


def _end_epoch(
    run: Run,
    parts: Parts,
    progress: Progress,
    validate: Validate | None,
    clock: _Clock,
    measuring: Callable[[], AbstractContextManager[None]],
) -> Progress:
    """Measure and save the model where that is due, and turn the page."""
    train = run.train
    done = progress.epoch + 1
    due = done % train.validate_every == 0 or done == train.epochs
    distributed.broadcast_module(parts.task, run.ranks, buffers_only=True)  # statistics of the first rank, everywhere
    if parts.average is not None:
        distributed.broadcast_tensors(parts.average.average.values(), run.ranks)  # it holds averages of statistics
    if due and validate is not None:
        _save(run, parts, progress, clock)  # a measurement that is killed must not cost the epoch
    if due:
        with measuring():
            progress = _measure(run, parts, progress, validate)
    progress = replace(progress, epoch=done, step=0)
    _save(run, parts, progress, clock)
    return progress


def _measure(run: Run, parts: Parts, progress: Progress, validate: Validate | None) -> Progress:
    """Write `last/`, and `best/` if this is the best so far."""
    epoch, metrics, better = progress.epoch + 1, {}, False
    if validate is not None:
        parts.task.eval()
        metrics = {**validate(parts.task), "epoch": float(epoch)}
        better = _is_better(select_of(run.train), metrics, progress.metrics)
        parts.log.write("validation", update=progress.update, **metrics)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name != "epoch")
        run.display.line(f"epoch {epoch}/{run.train.epochs}  {shown}{'  (best)' if better else ''}")
    if run.ranks.first:
        info = parts.task.model.info
        extra = {"epoch": epoch, "update": progress.update, "metrics": metrics, "strategy": _strategy_note(run),
                 "licence": info.licence, "origin": info.origin, "weights": run.train.model.weights}  # fmt: skip
        for name in ["last", "best"] if better else ["last"]:
            write_package(run.directory / name, parts.task, run.train, run.classes, extra)
    return replace(progress, metrics=metrics) if better else progress


def _strategy_note(run: Run) -> dict[str, str]:
    strategy = create_strategy(run.train.strategy, nullcontext)
    return {**dataclasses.asdict(run.train.strategy), "gradient": strategy.gradient}


def _is_better(select: str, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
    """Larger is better, except for losses; NaN never is, unless there is nothing else."""
    if select not in metrics:
        raise ConfigError(f"select={select!r} is not measured. Measured: {', '.join(sorted(metrics))}.")
    if select not in best or best[select] != best[select]:
        return True
    sign = -1.0 if select.endswith("loss") else 1.0
    return sign * metrics[select] > sign * best[select]


@contextmanager
def _measuring(run: Run, parts: Parts, strategy: Strategy, batches: Iterable[Batch]) -> Iterator[None]:
    """What is measured and packaged stands in place: averaged weights and precise statistics, where asked for.

    Args:
        batches: an epoch of training data, for the statistics.
    """
    average = nullcontext() if parts.average is None else parts.average.applied()
    count = run.train.optim.precise_norm
    precise = precise_norms(parts.task, strategy, batches, count, ranks=run.ranks, device=run.device)
    with kept_randomness(run.device), average, precise:  # statistics are those of the averaged weights
        yield


def _result(run: Run, progress: Progress) -> FitResult:
    package = run.directory / ("best" if progress.metrics else "last")
    if not (package / "model.json").exists():
        raise DataError(package, "the run is finished, but its model package is gone", remedy="Train it again.")
    return FitResult(package, progress.metrics)
