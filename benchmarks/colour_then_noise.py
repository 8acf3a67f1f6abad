"""How far a memory learns to look: "colour, then noise" for several seeds (task: `tests/effects/colour_then_noise.py`).

    python benchmarks/colour_then_noise.py reach            # (a) asked within reach: all known
    python benchmarks/colour_then_noise.py two_hops         # (b) asked two hops away alone: never known
    python benchmarks/colour_then_noise.py staircase --reach 2 --gap 1   # (c) asked at every step: hop after hop

Four blocks remember, so nothing can be known behind 4 * reach * gap steps, nor at steps that are no multiple of the
gap: the staircase is measured two steps beyond, and again among videos that begin at random steps.
Writes one result file for each with every seed's accuracy by distance d, and the CPU-seconds of a training.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the task lives with the tests that hold its thresholds

from tests.effects.colour_then_noise import Videos, accuracies, among_switches, learn  # noqa: E402

BLOCKS = 4  # all of which remember
# name: rows, videos a row, steps of a video, asked steps
CASES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "reach": (32, 120, 3, (0, 1, 2)),
    "two_hops": (32, 72, 5, (0, 4)),
    "staircase": (16, 150, 8, tuple(range(8))),
}


def measure(case: str, seed: int, memory: dict[str, Any], share: float = 1.0) -> dict[str, Any]:
    """One training and what it knows.

    Args:
        share: of the case's videos that are learned from.
    """
    rows, videos, steps, asked = CASES[case]
    begin = time.process_time()
    loader = Videos(round(videos * share), steps, asked, seed=seed, rows=rows)
    task = learn(loader, seed=seed, constant=case != "staircase", **memory)
    seconds = time.process_time() - begin
    far = BLOCKS * memory.get("reach", 1) * memory.get("gap", 1) + 3 if case == "staircase" else 0
    found: dict[str, Any] = {
        "seed": seed,
        "rows": rows,
        "videos_a_row": loader.videos,
        "cpu_seconds": round(seconds, 1),
    }
    if case == "staircase":
        found["accuracy_by_d"] = _rounded(accuracies(task, steps=max(far, steps), videos=8))
        own, leaked = among_switches(task)
        found["among_switches"] = {"accuracy_by_d": _rounded(own)[:steps], "colour_before": round(leaked, 4)}
        return found
    found["accuracy_by_d"] = _rounded(accuracies(task, steps=steps))
    if case == "reach" and memory.get("remember", True):
        found["given_a_foreign_memory"] = _rounded(accuracies(task, steps=steps, foreign=True))
    return found


def _rounded(values: dict[int, float]) -> list[float]:
    return [round(values[step], 4) for step in sorted(values)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reach", type=int, default=2)
    parser.add_argument("--gap", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the case's videos that are learned from")
    parser.add_argument("--no-twin", action="store_true", help="leave out the network without memory")
    parser.add_argument("--twin-share", type=float, default=1.0, help="of the videos that the twin learns from")
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    models: dict[str, dict[str, Any]] = {"memory": {"reach": given.reach, "gap": given.gap}}
    if not given.no_twin:
        models["without memory"] = {"remember": False}
    rows = []
    for name, memory in models.items():
        row: dict[str, Any] = {"name": name, "seeds": []}
        for seed in given.seeds:
            row["seeds"].append(
                measure(given.case, seed, memory, given.twin_share if "remember" in memory else given.share)
            )
            print(name, row["seeds"][-1], flush=True)
        rows.append(row)
    today = datetime.date.today().isoformat()
    result = {
        "what": f"colour, then noise: case {given.case}, reach {given.reach}, gap {given.gap}",
        "command": f"python benchmarks/colour_then_noise.py {' '.join(sys.argv[1:])}",
        "commit": commit.stdout.strip(),
        "date": today,
        "machine": f"{os.cpu_count()} {platform.machine()} cores, CPU only, torch {torch.__version__}",
        "chance": 0.25,
        "rows": rows,
    }
    name = given.case + (f"_m{given.reach}_g{given.gap}" if given.case == "staircase" else "")
    default = Path(__file__).parent / "results" / f"colour_then_noise_{name}_{os.cpu_count()}core_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
