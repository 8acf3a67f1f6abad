"""How far a memory learns to look: "colour, then noise" for several seeds (task: `tests/effects/colour_then_noise.py`).

    python benchmarks/colour_then_noise.py reach            # (a) asked within reach: all known
    python benchmarks/colour_then_noise.py two_hops         # (b) asked two hops away alone: never known
    python benchmarks/colour_then_noise.py staircase --reach 2 --gap 1   # (c) asked on the way: hop after hop

Four blocks remember, so nothing can be known behind 4 * reach * gap steps, nor at steps that are no multiple of the
gap. Stairs are learned from videos of 2 * reach * gap + 1 steps, asked at all multiples of the gap, and measured two
steps beyond what can be known, and again among videos that begin at random steps.
    python benchmarks/colour_then_noise.py picture   # of the staircases that were measured

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
from wholereel.report.charts import Mark, Series, line_chart  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
BLOCKS = 4  # all of which remember
# name: rows, videos a row, steps of a video, asked steps
CASES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "reach": (32, 120, 3, (0, 1, 2)),
    "two_hops": (32, 72, 5, (0, 4)),
}
STAIR_ROWS, STAIR_STEPS = 16, 900  # of a training on stairs, all of its videos together


def measure(case: str, seed: int, memory: dict[str, Any], share: float = 1.0) -> dict[str, Any]:
    """One training and what it knows.

    Args:
        share: of the case's videos that are learned from.
    """
    rows, videos, steps, asked = _stairs(**memory) if case == "staircase" else CASES[case]
    begin = time.process_time()
    loader = Videos(round(videos * share), steps, asked, seed=seed, rows=rows)
    task = learn(loader, seed=seed, constant=case != "staircase", **memory)
    seconds = time.process_time() - begin
    found: dict[str, Any] = {
        "seed": seed,
        "rows": rows,
        "videos_a_row": loader.videos,
        "cpu_seconds": round(seconds, 1),
    }
    if case == "staircase":
        far = BLOCKS * (steps // 2) + 3  # two steps beyond what can be known
        found["accuracy_by_d"] = _rounded(accuracies(task, steps=far, videos=8))
        own, leaked = among_switches(task)
        found["among_switches"] = {"accuracy_by_d": _rounded(own)[:steps], "colour_before": round(leaked, 4)}
        return found
    found["accuracy_by_d"] = _rounded(accuracies(task, steps=steps))
    if case == "reach" and memory.get("remember", True):
        found["given_a_foreign_memory"] = _rounded(accuracies(task, steps=steps, foreign=True))
    return found


def _stairs(reach: int = 2, gap: int = 1, remember: bool = True) -> tuple[int, int, int, tuple[int, ...]]:
    """Videos that are just long enough for two stairs, asked where a memory with this gap can know.

    Args:
        remember: makes no difference; the twin without memory gets the videos of `reach` and `gap`.
    """
    steps = 2 * reach * gap + 1
    return STAIR_ROWS, STAIR_STEPS // steps, steps, tuple(range(0, steps, gap))


def _rounded(values: dict[int, float]) -> list[float]:
    return [round(values[step], 4) for step in sorted(values)]


def draw(files: list[Path]) -> None:
    """Mean accuracy over the seeds by steps since the colour, a line for each memory; docs/_static has the picture."""
    series = []
    for file in files:
        found = json.loads(file.read_text())
        # Of several budgets the last and largest one.
        row = [row for row in found["rows"] if row["name"].startswith("memory")][-1]
        reach, gap = found["reach"], found["gap"]
        # Between multiples of the gap nothing can be known: a line through all steps would be a comb.
        places = range(0, len(row["seeds"][0]["accuracy_by_d"]), gap)
        means = [sum(one["accuracy_by_d"][d] for one in row["seeds"]) / len(row["seeds"]) for d in places]
        series.append(Series(f"reach {reach}, gap {gap}", places, means))
    text = line_chart(
        series,
        title="Colour, then noise: accuracy by steps since the colour (multiples of the gap)",
        x_label="steps since the colour",
        y_label="accuracy",
        marks=[Mark("guessing", 0.25)],
        y_range=(0.0, 1.0),
    )
    (ROOT / "docs" / "_static" / "memvit_colour_then_noise.svg").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=(*CASES, "staircase", "picture"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reach", type=int, default=2)
    parser.add_argument("--gap", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the case's videos that are learned from")
    parser.add_argument("--no-twin", action="store_true", help="leave out the network without memory")
    parser.add_argument("--twin-share", type=float, default=1.0, help="of the videos that the twin learns from")
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    if given.case == "picture":
        draw(sorted(RESULTS.glob(f"colour_then_noise_staircase_m*_g*_{os.cpu_count()}core_*.json")))
        return
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    models: dict[str, dict[str, Any]] = {"memory": {"reach": given.reach, "gap": given.gap}}
    if not given.no_twin:
        models["without memory"] = {**models["memory"], "remember": False}
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
        "reach": given.reach,
        "gap": given.gap,
        "chance": 0.25,
        "rows": rows,
    }
    name = given.case + (f"_m{given.reach}_g{given.gap}" if given.case == "staircase" else "")
    default = RESULTS / f"colour_then_noise_{name}_{os.cpu_count()}core_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
