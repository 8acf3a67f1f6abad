"""What a step on N clips of a video costs under each strategy: CPU-seconds, bytes held, error of the gradient.

One table from one run. The network is torchvision's R(2+1)D-18 layout with a memory in front of the head and constant
BatchNorm statistics (so that all strategies have one function to differentiate). First the gradients are compared with
those of `full`; then the strategies take turns, and the best of several rounds counts.

- cpu_s: process time of one optimiser step's forwards and backwards (all threads)
- held_mb: largest amount that autograd keeps for the backward pass, without the weights (counted by saved-tensor hooks)
- peak_mb: on a GPU, the allocator's peak above what was allocated before the step
- gradient_error: relative L2 difference from `full`; `multi_iteration` is truncated by design

    python benchmarks/video_level.py --clips 1 2 4 8 16 --out benchmarks/results/video_level.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.batches import ClipBatch, Losses, Target
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel
from wholereel.tasks.classification import ClassificationTask
from wholereel.training.norms import set_training_mode
from wholereel.training.strategies import Strategy, create_strategy

STRATEGIES = (
    config.Strategy("full"),
    config.Strategy("exact"),
    config.Strategy("multi_iteration", "accumulate"),
    config.Strategy("multi_iteration", "step"),
)
CLASSES = 10


def name_of(settings: config.Strategy) -> str:
    return f"multi_iteration/{settings.variant}" if settings.name == "multi_iteration" else settings.name


def make_task(model: str, device: torch.device) -> ClassificationTask:
    """A network whose memory has non-zero output weights: at zero, all strategies would agree."""
    torch.manual_seed(0)
    video_model = VideoModel(create_model(model, num_classes=CLASSES), config.Memory(value="separate"))
    for parameter in video_model.memories.parameters():
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    task = ClassificationTask(video_model, config.Task(), CLASSES).to(device)
    set_training_mode(task, "frozen")
    return task


def make_batch(videos: int, clips: int, frames: int, side: int) -> ClipBatch:
    generator = torch.Generator().manual_seed(clips)
    return ClipBatch(
        clips_BNTCHW=torch.randint(256, (videos, clips, frames, 3, side, side), generator=generator, dtype=torch.uint8),
        seconds_BNT=torch.zeros(videos, clips, frames, dtype=torch.float64),
        valid_BN=torch.ones(videos, clips, dtype=torch.bool),
        target=Target({"label": torch.randint(CLASSES, (videos,), generator=generator)}),
        ids=tuple(map(str, range(videos))),
    )


def gradient(task: ClassificationTask, strategy: Strategy, batch: ClipBatch) -> Tensor:
    """All gradients of one call, in float64; of the last of several optimiser steps where there are more."""
    task.zero_grad()
    strategy.backward(task, batch, Losses.total, lambda: None)
    return torch.cat([p.grad.double().flatten().cpu() for p in task.parameters() if p.grad is not None])


class Held:
    """Counts the bytes that autograd keeps; several views of one storage are one."""

    def __init__(self, task: nn.Module) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in task.parameters()}
        self.counts: dict[int, int] = {}
        self.now = self.peak = 0

    def hooks(self) -> AbstractContextManager[object]:
        held = self

        class Kept:
            def __init__(self, tensor: Tensor) -> None:
                storage = tensor.untyped_storage()
                self.tensor, self.key, self.bytes = tensor, storage.data_ptr(), storage.nbytes()
                if self.key not in held.weights:
                    held.now += 0 if held.counts.get(self.key) else self.bytes
                    held.counts[self.key] = held.counts.get(self.key, 0) + 1
                    held.peak = max(held.peak, held.now)

            def __del__(self) -> None:
                if self.key not in held.weights:
                    held.counts[self.key] -= 1
                    held.now -= 0 if held.counts[self.key] else self.bytes

        return torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor)


def measure(
    task: ClassificationTask, clips: int, given: argparse.Namespace, device: torch.device, autocast: Callable[[], Any]
) -> list[dict[str, Any]]:
    """One row for each strategy with N clips."""
    batch = make_batch(given.videos, clips, given.frames, given.side)
    rows, times = [], {}
    reference = None
    strategies = {name_of(one): create_strategy(one, autocast) for one in STRATEGIES}
    for name, strategy in strategies.items():
        placed = strategy.place(batch, device)
        row: dict[str, Any] = {"name": name, "clips": clips, "gradient": strategy.gradient}
        try:
            found = gradient(task, strategy, placed)
        except torch.cuda.OutOfMemoryError:
            rows.append({**row, "out_of_memory": True})
            continue
        reference = found if reference is None else reference
        if name != "multi_iteration/step":  # N gradients at N points: nothing to compare
            row["gradient_error"] = float((found - reference).norm() / reference.norm())
        held = Held(task)
        with held.hooks():
            strategy.backward(task, placed, Losses.total, lambda: None)
        row["held_mb"] = round(held.peak / 2**20, 3)
        if device.type == "cuda":
            task.zero_grad(set_to_none=False)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            strategy.backward(task, placed, Losses.total, lambda: None)
            torch.cuda.synchronize()
            row["peak_mb"] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
        times[name] = []
        rows.append(row)
    for _ in range(given.rounds):
        for name in times:
            placed = strategies[name].place(batch, device)
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            begin = clock()
            strategies[name].backward(task, placed, Losses.total, lambda: None)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(clock() - begin)
    for row in rows:
        if row["name"] in times:
            row["seconds" if device.type == "cuda" else "cpu_s"] = round(min(times[row["name"]]), 4)
            if "full" in times:
                row["time_over_full"] = round(min(times[row["name"]]) / min(times["full"]), 3)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="r2plus1d_18")
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/video_level.json"))
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    torch.set_num_threads(1)
    device = torch.device(given.device)

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if given.bf16 else nullcontext()

    task = make_task(given.model, device)
    rows = [row for clips in given.clips for row in measure(task, clips, given, device, autocast)]
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, 1 thread, no GPU"
    result = {
        "what": f"{given.model}, {given.videos} video(s) of N clips of {given.frames} x {given.side} x {given.side}, "
        f"{'bf16' if given.bf16 else 'fp32'}, BatchNorm constant, one memory block in front of the head",
        "command": "python benchmarks/video_level.py --clips " + " ".join(map(str, given.clips)),
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine} (load {os.getloadavg()[1]:.1f}, other jobs included), torch {torch.__version__}",
        "rows": rows,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
