"""What each choice of MeMViT's memory does to accuracy: "colour, then noise" on the trial network of four blocks.

    python benchmarks/memvit_ablation_accuracy.py --seeds 0 --out benchmarks/results/memvit_ablation_accuracy.json

The tables of `memvit_ablation.py` on a task that memory alone can solve (`tests/effects/colour_then_noise.py`): videos
of five steps, the colour is shown in the first and asked for in all. The base attends with all four blocks to two
steps, compressed by a convolution 3 x 3 x 3 with stride 2 x 2 x 2, pipelined; each row changes one choice. The budget
is small (300 steps of 16 videos), so a row says how soon something is learned, not only whether it can be.

- accuracy_by_d: of new videos, by steps since the colour; after: mean over d = 1 to 4, 0.25 by chance
- state_kb: what is kept of one video between two steps of a stream; train_s: process time of the training
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.effects.colour_then_noise import FRAMES, SIDE, Videos, accuracies, learn
from tests.models.counting import multiply_adds
from wholereel.models.memvit_state import MemoryConfig

BLOCKS, STEPS, ROWS = range(4), 5, 16
BASE = MemoryConfig(reach=2, kernel=(3, 3, 3), stride=(2, 2, 2))


def remembering(*blocks: int) -> MemoryConfig:
    return replace(BASE, exclude=tuple(block for block in BLOCKS if block not in blocks))


# table, name there, memory; rows with equal memories are trained once
VARIANTS: list[tuple[str, str, MemoryConfig]] = [
    ("memory", "none", remembering()),
    *(("memory", f"M{reach}", replace(BASE, reach=reach)) for reach in (1, 2, 4)),
    ("layers", "first half", remembering(0, 1)),
    ("layers", "second half", remembering(2, 3)),
    ("layers", "every other", remembering(0, 2)),
    ("layers", "all", BASE),
    ("compression", "none", replace(BASE, stride=None)),
    ("compression", "1 x 2 x 2", replace(BASE, stride=(1, 2, 2), kernel=(1, 3, 3))),
    ("compression", "2 x 2 x 2", BASE),
    ("compression", "4 x 4 x 4", replace(BASE, stride=(4, 4, 4), kernel=(7, 7, 7))),
    ("kind", "convolution", BASE),
    ("kind", "maximum", replace(BASE, kind="max")),
    ("kind", "average", replace(BASE, kind="avg")),
    ("training", "pipelined", BASE),
    ("training", "naive", replace(BASE, compression="naive")),
]


def measure(memory: MemoryConfig, seeds: list[int], videos: int) -> dict[str, Any]:
    found, seconds = [], []
    for seed in seeds:
        begin = time.process_time()
        task = learn(
            Videos(videos, STEPS, range(STEPS), seed=seed, rows=ROWS), seed=seed, constant=False, memory=memory
        )
        seconds.append(time.process_time() - begin)
        found.append(accuracies(task, steps=STEPS))
    model = task.model
    state = model.init_state(1, pending=False)
    clip = torch.zeros(1, 3, FRAMES, SIDE, SIDE)
    by_d = [[round(one[d], 4) for d in range(STEPS)] for one in found]
    return {
        "after": round(statistics.mean(statistics.mean(one[1:]) for one in by_d), 4),
        "accuracy_by_d": by_d,
        "mmacs": round(multiply_adds(model.eval(), clip, model.init_state(1, pending=True)) / 1e6, 3),
        "state_kb": round(state.nbytes() / 1e3, 1),
        "train_s": round(statistics.mean(seconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--videos", type=int, default=60, help="of each of 16 rows, five steps each")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="rows of these names alone")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    head = {
        "what": "MeMViT, four blocks on colour, then noise: what choices of the memory do to accuracy; chance 0.25",
        "command": f"python benchmarks/memvit_ablation_accuracy.py {' '.join(sys.argv[1:])}",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores, busy, one thread, torch {torch.__version__}",
        "seeds": given.seeds,
    }
    known: dict[MemoryConfig, dict[str, Any]] = {}
    rows = []
    for table, name, memory in VARIANTS:
        if given.only and name not in given.only:
            continue
        if memory not in known:
            known[memory] = measure(memory, given.seeds, given.videos)
        rows.append({"table": table, "name": name, **known[memory]})
        print(rows[-1], flush=True)
        if given.out is not None:  # row by row: a run that is stopped keeps what it has
            given.out.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
