"""What correlation of neighbouring frames learns where single frames tell nothing (arXiv 1906.03349): three seeds.

    python benchmarks/motion.py task               # R2D, R(2+1)D and CorrNet on eight directions of a texture
    python benchmarks/motion.py ablation           # neighbourhood, dilation, filters, groups, sum or concat; harder
    python benchmarks/motion.py filters            # where learned filters look when only leftward motion counts
    python benchmarks/motion.py length             # trained on 8 frames, read 16

A clip is a smooth random texture on a torus that moves in one of eight directions; every frame by itself is the same
noise. The networks have two stages of blocks from the library. The specification of the task gives sizes, steps and
rate; stem, inner widths and smoothness of the texture are our own, found on seeds from 100 on, which are not reported.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.bottleneck import BlockPlan, Stage, stage_blocks
from wholereel.layers.correlation import Correlation, CorrelationBlock
from wholereel.models.clip_model import init_convolutions
from wholereel.models.corrnet import MIDDLES

SIDE, DIRECTIONS, WIDTH, BATCH, STEPS = 32, 8, 16, 16, 150


@dataclass(frozen=True)
class Task:
    """A distribution of clips.

    Args:
        speeds: least and most pixels a frame. noise: standard deviation per pixel; textures have 1.
        distractor: standard deviation of a second texture that stands still.
        smooth: standard deviation in pixels of the filter that made the texture. frames: T.
        kind: `directions`, or `leftward`: a texture that moves left against frames that have nothing in common.
    """

    speeds: tuple[float, float] = (3.0, 5.0)
    noise: float = 0.15
    distractor: float = 0.0
    smooth: float = 0.7
    frames: int = 6
    kind: str = "directions"


EASY = Task(smooth=0.8)
HARD = Task(speeds=(3.0, 6.0), noise=0.6, distractor=0.7)
LEFT = Task(kind="leftward", noise=0.4)  # with less noise all is learned before filters have moved


def textures(count: int, task: Task, generator: torch.Generator) -> Tensor:
    """Fourier coefficients of smooth noise, standard deviation 1."""
    frequency = torch.fft.fftfreq(SIDE)
    radius_HW = (frequency[:, None].square() + frequency.square()).sqrt()
    lowpass_HW = torch.exp(-2 * (math.pi * task.smooth * radius_HW).square())
    lowpass_HW[0, 0] = 0
    white_BHW = torch.randn(count, SIDE, SIDE, generator=generator)
    return torch.fft.fft2(white_BHW) * (lowpass_HW / lowpass_HW.square().mean().sqrt())


def clips(count: int, task: Task, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips `(B, 1, T, H, W)` and their classes."""
    times_T = torch.arange(task.frames, dtype=torch.float32)
    low, high = task.speeds
    speed_B = low + (high - low) * torch.rand(count, generator=generator)
    if task.kind == "leftward":
        label_B = torch.randint(2, (count,), generator=generator)
        angle_B = torch.full((count,), math.pi)
    else:
        label_B = torch.randint(DIRECTIONS, (count,), generator=generator)
        angle_B = label_B * (2 * math.pi / DIRECTIONS)
    rows_BT = (speed_B * angle_B.sin())[:, None] * times_T
    columns_BT = (speed_B * angle_B.cos())[:, None] * times_T
    frequency = torch.fft.fftfreq(SIDE)
    turn_BTHW = rows_BT[..., None, None] * frequency[:, None] + columns_BT[..., None, None] * frequency
    moved_BTHW = textures(count, task, generator)[:, None] * torch.exp(-2j * math.pi * turn_BTHW)
    x_BTHW = torch.fft.ifft2(moved_BTHW).real
    if task.kind == "leftward":
        fresh_BTHW = torch.fft.ifft2(textures(count * task.frames, task, generator)).real.unflatten(0, (count, -1))
        x_BTHW = torch.where(label_B[:, None, None, None] == 1, x_BTHW, fresh_BTHW)
    if task.distractor:
        x_BTHW = x_BTHW + task.distractor * torch.fft.ifft2(textures(count, task, generator)).real[:, None]
    x_BTHW = x_BTHW + task.noise * torch.randn(x_BTHW.shape, generator=generator)
    return x_BTHW[:, None], label_B


class Net(nn.Module):
    """Stem, two stages, average, classifier; perhaps a correlation block behind the first stage.

    Blocks are as wide inside as outside, so that four channels are not all that a block says to the next one.
    """

    def __init__(self, middle: str, classes: int, correlation: dict[str, Any] | None) -> None:
        super().__init__()
        block = None if correlation is None else CorrelationBlock(WIDTH, **correlation)
        first = stage_blocks(1, BlockPlan(WIDTH, WIDTH, WIDTH), middle=MIDDLES[middle])
        second = stage_blocks(1, BlockPlan(WIDTH, 2 * WIDTH, 2 * WIDTH, (1, 2)), middle=MIDDLES[middle])
        self.stem = nn.Sequential(
            nn.Conv3d(1, WIDTH, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(WIDTH),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(Stage(first, {} if block is None else {0: block}), Stage(second))
        self.head = nn.Linear(2 * WIDTH, classes)
        init_convolutions(self)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x_BCTHW)).mean((2, 3, 4)))


NETS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "R2D": ("2d", None),
    "R(2+1)D": ("2plus1d", None),
    "CorrNet": ("2plus1d", {"kernel": 7, "dilation": 1}),
}


def train(
    net: tuple[str, dict[str, Any] | None],
    task: Task,
    seed: int,
    steps: int = STEPS,
    rate: float = 0.05,
    *,
    filter_rate: float = 1.0,
) -> Net:
    """SGD with momentum 0.9 and a cosine; a pure function of its arguments.

    `filter_rate`: learning rate of the correlation filters in units of `rate`; 0 = they stay ones.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    middle, correlation = net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = None if correlation is None else {"frames": task.frames, **correlation}
        model = Net(middle, 2 if task.kind == "leftward" else DIRECTIONS, settings)
    filters = [module.filter for module in model.modules() if isinstance(module, Correlation)]
    others = [p for p in model.parameters() if all(p is not filter for filter in filters)]
    groups = [{"params": others}, *({"params": [filter], "lr": filter_rate * rate} for filter in filters)]
    for filter in filters:
        filter.requires_grad_(filter_rate > 0)
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x, label = clips(BATCH, task, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), label).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: Net, task: Task, seed: int, count: int = 512) -> float:
    """On clips that training never saw."""
    generator = torch.Generator().manual_seed(90_000 + seed)
    right = 0
    for _ in range(count // 64):
        x, label = clips(64, task, generator)
        right += int((model(x).argmax(1) == label).sum())
    return right / count


# ------------------------------------------------------------------------------------------------------------ questions

CORRELATION = {"kernel": 7, "dilation": 1}
FILTER_RATE = 50.0
# Row of the ablation -> settings of the block, learning rate of its filters. The blocks see single frames, so that all
# that is known of motion comes through the correlation: (2+1)D convolutions bring even K = 3 to 0.99 in 600 steps.
# The features are 16 x 16: K = 3 with D = 1 reaches two pixels of the picture, K = 7 six. The block correlates four
# channels; 49 correlations are too many to be joined to 16 channels, so that concat is read with K = 3.
ABLATION: dict[str, tuple[dict[str, Any] | None, float]] = {
    **{f"K={k} D={d}": ({"kernel": k, "dilation": d}, 1.0) for d in (1, 2) for k in (3, 5, 7, 9)},
    "K=7 D=1, filters stay ones": (CORRELATION, 0.0),
    "K=7 D=1, groups of 1": ({**CORRELATION, "group_size": 1}, 1.0),
    "K=3 D=2, concat": ({"kernel": 3, "dilation": 2, "join": "concat"}, 1.0),
    "no correlation": (None, 1.0),
}
ABLATION_STEPS = 300


def ask_task(seed: int) -> dict[str, float]:
    """Accuracy of the three networks on the easy task."""
    return {name: accuracy(train(net, EASY, seed), EASY, seed) for name, net in NETS.items()}


def ask_ablation(seed: int) -> dict[str, float]:
    """Accuracy on the hard task."""
    found = {}
    for name, (correlation, filter_rate) in ABLATION.items():
        model = train(("2d", correlation), HARD, seed, ABLATION_STEPS, filter_rate=filter_rate)
        found[name] = accuracy(model, HARD, seed)
        print(f"  seed {seed} {name}: {found[name]:.3f}", flush=True)
    return found


def ask_filters(seed: int) -> dict[str, float]:
    """Mean weight of the half of displacements where leftward motion comes from, minus the other half's.

    What is at column j came from column j + speed of the frame before, so the matching half is b > r. `z` is the
    difference over its standard error; the samples are the filters of all channels and slices, averaged over
    displacements (slice 0, where a frame meets itself, is left out). At the rate of all other weights filters hardly
    leave the ones that they begin as, so theirs is `FILTER_RATE` times as large here. The blocks see single frames,
    so that all that is known of motion comes through the filters.
    """
    model = train(("2d", CORRELATION), LEFT, seed, filter_rate=FILTER_RATE)
    (correlation,) = [module for module in model.modules() if isinstance(module, Correlation)]
    filter_TCKK = correlation.filter.detach()[1:]
    r = filter_TCKK.shape[3] // 2
    difference_TC = (filter_TCKK[..., r + 1 :] - filter_TCKK[..., :r]).mean((2, 3))
    error = difference_TC.std() / difference_TC.numel() ** 0.5
    return {
        "accuracy": accuracy(model, LEFT, seed),
        "difference": difference_TC.mean().item(),
        "z": (difference_TC.mean() / error).item(),
    }


def ask_length(seed: int) -> dict[str, float]:
    """Trained on 8 frames; read at 8 and, with interpolated filters, at 16; `shared` has one filter for all frames."""
    short, long = Task(frames=8), Task(frames=16)
    found = {}
    for name, frames in (("per frame", 8), ("shared", 1)):
        model = train(("2plus1d", {**CORRELATION, "frames": frames}), short, seed)
        found |= {f"{name}, 8 frames": accuracy(model, short, seed), f"{name}, 16 frames": accuracy(model, long, seed)}
    return found


QUESTIONS: dict[str, Callable[[int], dict[str, float]]] = {
    "task": ask_task,
    "ablation": ask_ablation,
    "filters": ask_filters,
    "length": ask_length,
}


TITLES = {
    "task": "accuracy of three networks on the easy task",
    "ablation": "accuracy on the hard task",
    "filters": "where learned filters look when leftward motion counts",
    "length": "trained on 8 frames, read at 8 and at 16",
}


def result(question: str, seeds: dict[int, dict[str, float]], commit: str, seconds: float) -> dict[str, Any]:
    """All seeds of one question, by row."""
    rows = []
    for name in next(iter(seeds.values())):
        values = [round(found[name], 4) for found in seeds.values()]
        spread = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
        rows.append({"name": name, "n": len(values), "mean": round(statistics.mean(values), 4), "std": spread})
        rows[-1]["seeds"] = values
    return {
        "what": f"motion {question}: {TITLES[question]}",
        "command": f"python benchmarks/motion.py {question} --seeds {' '.join(map(str, seeds))}",
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores, CPU only, torch {torch.__version__}",
        "cpu_seconds": round(seconds),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    began = time.process_time()
    seeds = {}
    name = f"motion_{given.question}_{os.cpu_count()}core_{datetime.date.today().isoformat()}.json"
    path = given.result or Path(__file__).parent / "results" / name
    for seed in given.seeds:  # the file is written after each, so that a killed run leaves what it found
        seeds[seed] = QUESTIONS[given.question](seed)
        found = result(given.question, seeds, commit.stdout.strip(), time.process_time() - began)
        path.write_text(json.dumps(found, indent=1) + "\n")
    for row in found["rows"]:
        print(f"{row['name']:<32} {row['mean']:.3f} +- {row['std']:.3f}  {row['seeds']}")


if __name__ == "__main__":
    main()
