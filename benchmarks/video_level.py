"""What a step on N clips of a video costs under each strategy: time, bytes held, error of the gradient.

One table from one run. The network is torchvision's R(2+1)D-18 layout with a memory in front of the head and constant
BatchNorm statistics (so that all strategies have one function to differentiate). First the gradients are compared with
those of `full`; then the strategies take turns, and the best of several rounds counts.

- cpu_s: process time of one optimiser step's forwards and backwards (all threads); on a GPU `seconds` of the clock
- held_mb: largest amount that autograd keeps for the backward pass, without the weights (counted by saved-tensor hooks)
- peak_mb: on a GPU, the allocator's peak above what was allocated before the step
- gradient_error: relative L2 difference from `full`; `multi_iteration` is truncated by design
- `full, clip by clip` is one graph of all clips whose forwards run one clip at a time: the terms of `exact`. `full`
  gains from its larger batch where layers are small, and `exact` does with `strategy.resident=2`, or `--videos 2`

    python benchmarks/video_level.py
    python benchmarks/video_level.py --device cuda --bf16 --model slowfast_8x8_50 --frames 32 --side 224 --gpu-report

The second line measures what is asked of a GPU: peak of `exact` at N = 16 over N = 1, a step on 64 clips of a video,
time of `exact` over `full` for given numbers of videos and clips, the memory block's share of the forward pass,
gradients in float32, float64 and bfloat16. Each part is written as it comes.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.batches import ClipBatch, Losses, Target
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel, merge_clips
from wholereel.report.charts import Series, line_chart
from wholereel.tasks.classification import ClassificationTask
from wholereel.training.norms import set_training_mode
from wholereel.training.strategies import Strategy, create_strategy
from wholereel.training.strategies.full import Full

STRATEGIES = {
    "full": config.Strategy("full"),
    "exact": config.Strategy("exact"),
    "exact, 2 resident": config.Strategy("exact", resident=2),
    "multi_iteration, accumulate": config.Strategy("multi_iteration", "accumulate"),
    "multi_iteration, step": config.Strategy("multi_iteration", "step"),
}
CLIP_BY_CLIP = "full, clip by clip"
CLASSES = 10
CLIPS = (1, 2, 4, 8, 16, 32)
GPU_CLIPS = (1, 16, 32, 64)
GPU_PARTS = ("gradients", "block", "half_gradients", "times", "graph_peaks", "peaks")
ROWS = ("8x8", "1x32-graphs", "1x32x4", "4x8", "1x32")
TIME_ROW = "videos x clips, x resident where it is not 1, -graphs for replayed CUDA graphs: 8x8, 1x32x4, 1x32-graphs"
CPU = torch.device("cpu")
PICTURES = Path("docs/_static")


@dataclass(frozen=True)
class ClipByClip(Full):
    """The graph of `full`, made one clip at a time."""

    def backward(self, task: Any, batch: ClipBatch, scale: Any, step: Any, carry: None = None) -> tuple[Losses, None]:
        parts = [slice(n, n + 1) for n in range(batch.valid_BN.shape[1])]
        with self.autocast():
            summaries = [task.encode(batch, part) for part in parts]
            memory = merge_clips([summary.push for summary in summaries])
            outputs = [task.read(one, memory, batch, part) for one, part in zip(summaries, parts, strict=True)]
            losses: Losses = task.judge(outputs, batch)
        scale(losses).backward()
        step()
        return losses.detach(), None


def make_task(model: str, device: torch.device, **options: Any) -> ClassificationTask:
    """A network whose memory has non-zero output weights: at zero, all strategies would agree."""
    torch.manual_seed(0)
    video_model = VideoModel(create_model(model, num_classes=CLASSES, **options), config.Memory(value="separate"))
    for parameter in video_model.memories.parameters():
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    video_model.clip_model.dropout.p = 0.0
    task = ClassificationTask(video_model, config.Task(), CLASSES).to(device)
    set_training_mode(task, "frozen")
    return task


def make_batch(videos: int, clips: int, frames: int, side: int, device: torch.device = CPU) -> ClipBatch:
    """In host memory, as a loader gives it: pinned where there is a GPU, which then draws the pixels."""
    generator = torch.Generator().manual_seed(clips)
    shape, own = (videos, clips, frames, 3, side, side), torch.Generator(device).manual_seed(clips)
    pixels = torch.randint(256, shape, generator=own, dtype=torch.uint8, device=device).cpu()
    batch = ClipBatch(
        clips_BNTCHW=pixels,
        seconds_BNT=torch.zeros(videos, clips, frames, dtype=torch.float64),
        valid_BN=torch.ones(videos, clips, dtype=torch.bool),
        target=Target({"label": torch.randint(CLASSES, (videos,), generator=generator)}),
        ids=tuple(map(str, range(videos))),
    )
    return batch.pin_memory() if device.type == "cuda" else batch


def strategies_of(names: Sequence[str], autocast: Callable[[], AbstractContextManager[object]]) -> dict[str, Strategy]:
    """By name, in the order of the table."""
    found: dict[str, Strategy] = {}
    for name in names:
        made = ClipByClip(autocast) if name == CLIP_BY_CLIP else create_strategy(STRATEGIES[name], autocast)
        found[name] = cast(Strategy, made)
    return found


def gradients(
    task: ClassificationTask, strategy: Strategy, batch: ClipBatch, device: torch.device
) -> dict[str, Tensor]:
    """Of one call, by parameter, flat and in float64."""
    task.zero_grad()
    strategy.backward(task, strategy.place(batch, device), Losses.total, lambda: None)
    return {name: p.grad.double().flatten().cpu() for name, p in task.named_parameters() if p.grad is not None}


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


def seconds(task: ClassificationTask, strategy: Strategy, batch: ClipBatch, device: torch.device) -> float:
    """Of one step: process time on CPU, the clock's on a GPU."""
    placed = strategy.place(batch, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    synchronize(device)
    begin = clock()
    strategy.backward(task, placed, Losses.total, lambda: None)
    synchronize(device)
    return clock() - begin


def peak_bytes(task: ClassificationTask, strategy: Strategy, batch: ClipBatch, device: torch.device) -> int:
    """The allocator's peak during one step, above what was allocated before it; on a CPU what autograd held."""
    task.zero_grad(set_to_none=False)
    if device.type != "cuda":
        held = Held(task)
        with held.hooks():
            strategy.backward(task, batch, Losses.total, lambda: None)
        return held.peak
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    strategy.backward(task, strategy.place(batch, device), Losses.total, lambda: None)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(
    task: ClassificationTask,
    clips: int,
    names: Sequence[str],
    given: argparse.Namespace,
    device: torch.device,
    autocast: Callable[[], Any],
) -> list[dict[str, Any]]:
    """One row for each strategy with N clips."""
    batch = make_batch(given.videos, clips, given.frames, given.side, device)
    rows: list[dict[str, Any]] = []
    times: dict[str, list[float]] = {}
    reference = None
    strategies = strategies_of(names, autocast)
    for name, strategy in strategies.items():
        placed = strategy.place(batch, device)
        row: dict[str, Any] = {"name": name, "clips": clips, "gradient": strategy.gradient}
        try:
            found = gradient(task, strategy, placed)
        except torch.cuda.OutOfMemoryError:
            rows.append({**row, "out_of_memory": True})
            continue
        reference = found if reference is None else reference
        if name != "multi_iteration, step":  # N gradients at N points: nothing to compare
            row["gradient_error"] = float((found - reference).norm() / reference.norm())
        held = Held(task)
        with held.hooks():
            strategy.backward(task, placed, Losses.total, lambda: None)
        row["held_mb"] = round(held.peak / 2**20, 3)
        if device.type == "cuda":
            row["peak_mb"] = round(peak_bytes(task, strategy, batch, device) / 2**20, 1)
        times[name] = []
        rows.append(row)
    for _ in range(given.rounds):
        for name in times:
            times[name].append(seconds(task, strategies[name], batch, device))
    for row in rows:
        if row["name"] in times:
            best = min(times[row["name"]])
            row["seconds" if device.type == "cuda" else "cpu_s"] = round(best, 4)
            for base in ("full", CLIP_BY_CLIP):
                if base in times and base != row["name"]:
                    row[f"time_over_{'full' if base == 'full' else 'clip_by_clip'}"] = round(best / min(times[base]), 3)
        print(row, flush=True)
    return rows


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class GpuReport:
    """What is asked of a GPU, as numbers next to what was asked; each part by itself, so that one that fails costs no
    other. On a CPU it runs too, for a trial: peaks are then what autograd holds."""

    def __init__(self, task: ClassificationTask, given: argparse.Namespace, device: torch.device) -> None:
        self.task, self.given, self.device = task, given, device
        self.begin = time.perf_counter()
        self.found: dict[str, Any] = {"seconds": {}}

    def run(self, write: Callable[[dict[str, Any]], None]) -> None:
        """The parts that were asked for, in that order; `write` gets what is known after each."""
        for name in self.given.gpu_parts:
            part, begin = getattr(self, name), time.perf_counter()
            if begin - self.begin > self.given.seconds:
                self.found[name] = f"left out: {self.given.seconds} seconds are over"
            else:
                try:
                    part()
                except Exception:  # the other parts are wanted all the same
                    traceback.print_exc()
                    self.found[name] = f"failed: {traceback.format_exc(limit=-1)}"
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            self.found["seconds"][name] = round(time.perf_counter() - begin, 1)
            write(self.found)

    def batch(self, videos: int, clips: int, side: int | None = None) -> ClipBatch:
        return make_batch(videos, clips, self.given.frames, side or self.given.side, self.device)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.given.bf16 else nullcontext()

    def strategy(self, name: str, resident: int = 1, *, full_precision: bool = False, graphs: bool = False) -> Strategy:
        autocast = nullcontext if full_precision else self.autocast
        if name == CLIP_BY_CLIP:
            return cast(Strategy, ClipByClip(autocast))
        settings = config.Strategy(name, resident=resident, graphs=graphs)  # type: ignore[arg-type]
        return cast(Strategy, create_strategy(settings, autocast))

    def peaks(self, *, graphs: bool = False) -> None:
        """Of `exact` with one video: N = 1, 16, 64."""
        exact, prefix = self.strategy("exact", graphs=graphs), "graphs_" if graphs else ""
        seconds(self.task, exact, self.batch(1, 2), self.device)  # gradients, workspaces and graphs are there then
        counts = [n for n in (1, 16, 64) if n <= max(self.given.clips)]
        peaks = {n: peak_bytes(self.task, exact, self.batch(1, n), self.device) for n in counts}
        self.found[f"{prefix}peak_mb"] = {str(n): round(peak / 2**20, 1) for n, peak in peaks.items()}
        if self.device.type == "cuda":
            self.found[f"{prefix}reserved_mb"] = round(torch.cuda.max_memory_reserved() / 2**20)
        if 16 in peaks:
            self.found[f"{prefix}peak_16_over_1"] = [round(peaks[16] / peaks[1], 4), "at most 1.10"]
        if 64 in peaks:
            finite = all(bool(p.grad.isfinite().all()) for p in self.task.parameters() if p.grad is not None)
            self.found[f"{prefix}64_clips_train"] = [finite, "on one device"]

    def graph_peaks(self) -> None:
        """The same with replayed graphs, which hold their clip between steps, too: see what is reserved."""
        self.peaks(graphs=True)

    def times(self) -> None:
        """Of `exact` over `full`, row by row of `--rows`."""
        rows: list[dict[str, Any]] = []
        self.found["times"], full = rows, {}
        for videos, clips, resident, graphs in self.given.rows:
            if time.perf_counter() - self.begin > self.given.seconds:
                break
            row: dict[str, Any] = {"videos": videos, "clips": clips, "resident": resident, "graphs": graphs}
            batch = self.batch(videos, clips)
            try:
                if (videos, clips) not in full:
                    full[videos, clips] = self._best(self.strategy("full"), batch)
                exact = self._best(self.strategy("exact", resident, graphs=graphs), batch)
                row |= {"full_s": round(full[videos, clips], 4), "exact_s": round(exact, 4)}
                row["exact_over_full"] = round(exact / full[videos, clips], 3)
            except torch.cuda.OutOfMemoryError:
                row["out_of_memory"] = True
            except Exception as error:  # the other rows are wanted all the same
                row["failed"] = str(error).splitlines()[0][:200]
            gc.collect()  # graphs hold memory
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            rows.append(row)
            print(row, flush=True)
        known = [row for row in rows if "exact_over_full" in row]
        if known:
            best = min(known, key=lambda row: row["exact_over_full"])
            self.found["exact_over_full_time"] = [best["exact_over_full"], "at most 1.45"]
            self.found["at"] = {key: best[key] for key in ("videos", "clips", "resident", "graphs")}

    def _best(self, strategy: Strategy, batch: ClipBatch) -> float:
        """Seconds of a step, after one that warms up."""
        return min([seconds(self.task, strategy, batch, self.device) for _ in range(self.given.rounds + 1)][1:])

    def gradients(self) -> None:
        """In float32 without TF32, and in float64 on small clips, by parameter.

        Kernels for several clips may add in another order than those for one, and where a sum is next to zero a
        rectifier then opens in one and not in the other: `full, clip by clip` has the terms of `exact`.
        """
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
            try:
                errors = self._errors(self.task, self.batch(1, 2))
                wide = self._errors(copy.deepcopy(self.task).double(), self.batch(1, 2, min(self.given.side, 64)))
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before
        self.found["fp32_gradient_error"] = [errors, "at most 1e-4 in each parameter"]
        self.found["fp64_gradient_error"] = [wide, "at most 1e-10 in each parameter"]

    def _errors(self, task: ClassificationTask, batch: ClipBatch) -> dict[str, float]:
        """The largest relative L2 difference of a parameter's gradient."""
        ours = gradients(task, self.strategy("exact", full_precision=True), batch, self.device)
        errors = {}
        for name in ("full", CLIP_BY_CLIP):
            theirs = gradients(task, self.strategy(name, full_precision=True), batch, self.device)
            errors[f"against {name}"] = max(
                float((ours[key] - theirs[key]).norm() / theirs[key].norm().clamp(min=1e-30)) for key in theirs
            )
        return errors

    def half_gradients(self) -> None:
        """Directions of the gradients of `exact` and `full` in the precision given."""
        ours, theirs = (
            gradients(self.task, self.strategy(name), self.batch(1, 4), self.device) for name in ("exact", "full")
        )
        cosine = torch.nn.functional.cosine_similarity
        whole = cosine(torch.cat(list(ours.values())), torch.cat(list(theirs.values())), dim=0)
        least = min(float(cosine(ours[key], theirs[key], dim=0)) for key in theirs if theirs[key].any())
        self.found["gradient_cosine"] = [float(whole), "at least 0.999"]
        self.found["least_cosine_of_a_parameter"] = least
        if self.device.type == "cuda":
            graphs = gradients(self.task, self.strategy("exact", graphs=True), self.batch(1, 4), self.device)
            between = cosine(torch.cat(list(graphs.values())), torch.cat(list(ours.values())), dim=0)
            self.found["graphs_gradient_cosine"] = [float(between), "at least 0.999"]

    def block(self) -> None:
        """Time of the memory block over that of the whole forward pass, in a batch that keeps the device busy."""
        videos, clips = (8, 8) if max(self.given.clips) > 1 else (1, 1)
        model, batch = self.task.model, self.batch(videos, clips).to(self.device)

        def clock(function: Callable[[], object]) -> float:
            times = []
            for _ in range(self.given.rounds + 2):
                synchronize(self.device)
                begin = time.perf_counter()
                function()
                synchronize(self.device)
                times.append(time.perf_counter() - begin)
            return min(times)

        with torch.no_grad(), self.autocast():
            clips_BNCTHW = self.task.inputs(batch)
            x_BNCTHW = model.run_segment(0, clips_BNCTHW.flatten(0, 1)).unflatten(0, clips_BNCTHW.shape[:2])
            whole = clock(lambda: model(clips_BNCTHW))
            block = clock(lambda: model.infuse_at(0, x_BNCTHW, model.push_at(0, x_BNCTHW)))
        self.found["block_share_of_forward"] = [round(block / whole, 4), "at most 0.02"]
        self.found["block_at"] = {"videos": videos, "clips": clips}
        self.found["block_and_forward_s"] = [round(block, 6), round(whole, 6)]


def time_row(text: str) -> tuple[int, int, int, bool]:
    """What `TIME_ROW` says, read."""
    sizes, _, graphs = text.partition("-")
    videos, clips, *resident = (int(size) for size in sizes.split("x"))
    if len(resident) > 1 or graphs not in ("", "graphs"):
        raise argparse.ArgumentTypeError(f"expected {TIME_ROW}; got {text!r}")
    return videos, clips, resident[0] if resident else 1, bool(graphs)


def pictures(rows: list[dict[str, Any]], folder: Path, unit: str) -> None:
    """Time per clip and bytes held, over N, one line a strategy."""
    names = list(dict.fromkeys(row["name"] for row in rows))

    def series(key: str, divide: bool) -> list[Series]:
        found = []
        for name in names:
            own = [row for row in rows if row["name"] == name and key in row]
            values = [row[key] / row["clips"] if divide else row[key] for row in own]
            found.append(Series(name.removeprefix("multi_iteration, "), [row["clips"] for row in own], values))
        return found

    charts = {
        "video_level_time.svg": (series(unit, True), "seconds a clip"),
        "video_level_held.svg": (series("held_mb", False), "MiB held for the backward pass"),
    }
    for file, (lines, label) in charts.items():
        svg = line_chart(lines, title=f"{label}, by strategy", x_label="clips of a video (N)", y_label=label)
        (folder / file).write_text(svg + "\n", encoding="utf-8")


def commit() -> str:
    """Of the code that ran; a copy without history is told by `WHOLEREEL_COMMIT`."""
    if "WHOLEREEL_COMMIT" in os.environ:
        return os.environ["WHOLEREEL_COMMIT"]
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="r2plus1d_18")
    parser.add_argument("--width", type=int, help="of the network; 64 is the published one")
    parser.add_argument("--clips", type=int, nargs="+", help="N; 1 to 32, for the GPU report up to 64")
    parser.add_argument("--strategies", nargs="+", choices=[CLIP_BY_CLIP, *STRATEGIES])
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--gpu-report", action="store_true", help="what is asked of a GPU instead of the table")
    parser.add_argument("--gpu-parts", nargs="+", choices=GPU_PARTS, default=GPU_PARTS, help="in this order")
    parser.add_argument("--rows", nargs="+", type=time_row, default=[time_row(row) for row in ROWS], help=TIME_ROW)
    parser.add_argument("--cudnn-benchmark", action="store_true", help="cuDNN tries its kernels, some seconds a shape")
    parser.add_argument("--seconds", type=float, default=70.0, help="no part of the GPU report begins later")
    parser.add_argument("--pictures", type=Path, help=f"folder for the pictures; {PICTURES} is the committed one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/video_level.json"))
    given = parser.parse_args()
    given.clips = given.clips or (GPU_CLIPS if given.gpu_report else CLIPS)
    torch.set_num_threads(1)
    device = torch.device(given.device)

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if given.bf16 else nullcontext()

    task = make_task(given.model, device, **({} if given.width is None else {"width": given.width}))
    loads, rows = [os.getloadavg()[0]], []
    names = given.strategies or ["full", CLIP_BY_CLIP, *list(STRATEGIES)[1:]]

    def write(report: dict[str, Any] | None = None) -> None:
        machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, 1 thread, no GPU"
        width = "" if given.width is None else f" (width {given.width})"
        result = {
            "what": f"{given.model}{width}, {given.videos} video(s) of N clips of {given.frames} x {given.side} x "
            f"{given.side}, {'bf16' if given.bf16 else 'fp32'}, BatchNorm constant, one memory block in front of the "
            "head",
            "command": "python " + " ".join(sys.argv),
            "commit": commit(),
            "date": datetime.date.today().isoformat(),
            "machine": f"{machine} (load {min(loads):.1f} to {max(loads):.1f}, other jobs included), "
            f"torch {torch.__version__}",
            "rows": rows,
            **({} if report is None else {"cudnn_benchmark": given.cudnn_benchmark, "gpu": report}),
        }
        print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=1), flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")

    if given.gpu_report:
        with torch.backends.cudnn.flags(enabled=True, benchmark=given.cudnn_benchmark, benchmark_limit=4):
            GpuReport(task, given, device).run(write)
        return
    for clips in given.clips:
        rows += measure(task, clips, names, given, device, autocast)
        loads.append(os.getloadavg()[0])
    write()
    if given.pictures is not None and rows:
        pictures(rows, given.pictures, "seconds" if device.type == "cuda" else "cpu_s")


if __name__ == "__main__":
    main()
