"""What each choice of MeMViT's memory costs: counted on tensors without storage, and timed.

Our versions of the tables of arXiv 2201.08383 on memory length, layers, compression and pipelining; what the same
choices do to accuracy is measured on a tiny network by `memvit_ablation_accuracy.py`. Each row is MeMViT-16 with one
choice changed; `M2` (two remembered clips, every other layer, convolution 7 x 3 x 3 with stride 4 x 2 x 2, pipelined)
is the published network with a gap of one.

- gmacs: multiply-adds of a clip with full memory, counted as in the public code; more: over the network without memory
- state_mb, training_state_mb: what is kept of one video between two steps; training keeps the newest entry as it was
- saved_mb: what a training step keeps for its backward, weights aside
- forward_s, train_s: process time of a step with full memory, median of interleaved rounds (with --rounds)

    python benchmarks/memvit_ablation.py --rounds 3 --crop 112 --out benchmarks/results/memvit_ablation.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.models.counting import multiply_adds
from wholereel.models.memvit import MeMViT, memvit_config
from wholereel.models.memvit_state import MemoryConfig

DEPTH = 16
EVERY_OTHER = tuple(range(1, DEPTH, 2))
BASE = MemoryConfig(reach=2, gap=1, exclude=EVERY_OTHER)


@dataclass(frozen=True)
class Variant:
    """One row: the table that it belongs to, its name there, and its memory."""

    table: str
    name: str
    memory: MemoryConfig


def excluded(*kept: int) -> MemoryConfig:
    return replace(BASE, exclude=tuple(block for block in range(DEPTH) if block not in kept))


VARIANTS = [
    Variant("memory", "none", excluded()),
    *(Variant("memory", f"M{reach}", replace(BASE, reach=reach)) for reach in (1, 2, 3, 4, 8)),
    Variant("memory", "M2 gap 2", replace(BASE, gap=2)),
    Variant("memory", "M4 gap 2", replace(BASE, reach=4, gap=2)),
    Variant("layers", "first half", excluded(*range(DEPTH // 2))),
    Variant("layers", "second half", excluded(*range(DEPTH // 2, DEPTH))),
    Variant("layers", "every other", BASE),
    Variant("layers", "all", excluded(*range(DEPTH))),
    Variant("compression", "none", replace(BASE, stride=None)),
    Variant("compression", "1 x 2 x 2", replace(BASE, stride=(1, 2, 2), kernel=(1, 3, 3))),
    Variant("compression", "2 x 2 x 2", replace(BASE, stride=(2, 2, 2), kernel=(3, 3, 3))),
    Variant("compression", "4 x 2 x 2", BASE),
    Variant("compression", "4 x 4 x 4", replace(BASE, stride=(4, 4, 4), kernel=(7, 7, 7))),
    Variant("kind", "convolution", BASE),
    Variant("kind", "maximum", replace(BASE, kind="max")),
    Variant("kind", "average", replace(BASE, kind="avg")),
    *(
        Variant("training", f"{name}, M{reach}", replace(BASE, reach=reach, **settings))
        for name, settings in (
            ("pipelined", {}),
            ("naive", {"compression": "naive"}),
            ("attended, gap 2", {"compress_grad": "attended", "gap": 2}),
        )
        for reach in (1, 2, 4, 8)
    ),
]


def make(memory: MemoryConfig, crop: int) -> MeMViT:
    return MeMViT(replace(memvit_config("16x4"), crop=crop, drop_path=0.0, head_dropout=0.0), memory, num_classes=400)


def counted(memory: MemoryConfig, crop: int) -> dict[str, float]:
    with torch.device("meta"):
        model, clip = make(memory, crop), torch.empty(1, 3, 16, crop, crop)
        state = model.init_state(1, pending=True)
        macs = multiply_adds(model.eval(), clip, state)
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits, _ = model(clip, state)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        saved = sum(storage.nbytes() for key, storage in kept.items() if key not in weights)
        del logits
        return {
            "gmacs": round(macs / 1e9, 3),
            "state_mb": round(model.init_state(1, pending=False).nbytes() / 1e6, 2),
            "training_state_mb": round(state.nbytes() / 1e6, 2),
            "saved_mb": round(saved / 1e6, 1),
        }


class Timed:
    """A variant with full memory, ready to be timed."""

    def __init__(self, memory: MemoryConfig, crop: int) -> None:
        torch.manual_seed(0)
        self.model, self.clip = make(memory, crop).eval(), torch.randn(1, 3, 16, crop, crop)
        self.state, self.training = (self.model.init_state(1, pending=pending) for pending in (False, True))
        self.state, self.training = (
            type(state)(tuple(replace(c, entries_B=c.entries_B + memory.reach * memory.gap) for c in state.layers))
            for state in (self.state, self.training)
        )
        self.forward_s: list[float] = []
        self.train_s: list[float] = []

    def round(self) -> None:
        before = time.process_time()
        with torch.no_grad():
            self.model(self.clip, self.state)
        between = time.process_time()
        self.model(self.clip, self.training)[0].square().sum().backward()
        self.forward_s.append(between - before)
        self.train_s.append(time.process_time() - between)
        self.model.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=0, help="0 = count only")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    memories = {variant.memory: counted(variant.memory, given.crop) for variant in VARIANTS}
    without = memories[VARIANTS[0].memory]["gmacs"]
    times: dict[MemoryConfig, Timed] = {}
    if given.rounds:
        times = {memory: Timed(memory, given.crop) for memory in memories}
        for one in times.values():
            one.round()  # warm
            one.forward_s.clear()
            one.train_s.clear()
        for _ in range(given.rounds):
            for one in times.values():
                one.round()
    for variant in VARIANTS:
        row = {"table": variant.table, "name": variant.name, **memories[variant.memory]}
        row["more"] = f"{row['gmacs'] / without - 1:+.2%}"
        if variant.memory in times:
            timed = times[variant.memory]
            row["forward_s"] = round(statistics.median(timed.forward_s), 4)
            row["train_s"] = round(statistics.median(timed.train_s), 4)
        rows.append(row)
        print("  ".join(f"{value!s:>16}" for value in row.values()))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if given.out is None:
        return
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    result = {
        "what": f"MeMViT-16, 16 x {given.crop}^2: what choices of the memory cost",
        "command": "python benchmarks/memvit_ablation.py "
        + " ".join(f"--{name} {value}" for name, value in vars(given).items() if value),
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores (load {load}, other jobs included), no GPU, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        "rounds": given.rounds,
        "rows": rows,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
