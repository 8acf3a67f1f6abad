"""What the memory's parts can learn on small tasks with known answers: exclusive or of vectors and of moving squares,
key frame, and accuracy by number of clips. Tasks and models: `tests/effects/feature_tasks.py`.

    python benchmarks/feature_tasks.py xor
    python benchmarks/feature_tasks.py pixel_xor
    python benchmarks/feature_tasks.py key_frame
    python benchmarks/feature_tasks.py by_count

Each writes one result file with every seed's numbers; `by_count` also draws its table (`docs/_static`). Five to fifteen
minutes each on one core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the tasks live with the tests that hold their thresholds

from tests.effects import feature_tasks as tasks  # noqa: E402
from wholereel.report.charts import Mark, Series, line_chart  # noqa: E402

STEPS = {"xor": 1500, "pixel_xor": 900, "key_frame": 2000, "by_count": 1500}
TEST_CLIPS = (2, 3, 4, 6, 8, 12, 16, 32)
TRAINED_WITH = {"N = 4": (4, 4), "N drawn from 2 to 8": (2, 8)}
MEMORIES: dict[str, dict[str, str] | None] = {
    "none (late averaging)": None,
    "assoc tied, gate": {"interaction": "assoc", "infusion": "gate"},
    "assoc separate, gate": tasks.SEPARATE,
    "assoc separate, residual": {"interaction": "assoc", "value": "separate", "infusion": "residual"},
    "max, gate": {"interaction": "max", "infusion": "gate"},
}


def xor(seeds: list[int]) -> list[dict[str, Any]]:
    return _exclusive_or({**tasks.CANNOT, **tasks.SOLVE}, seeds, STEPS["xor"], "vectors")


def pixel_xor(seeds: list[int]) -> list[dict[str, Any]]:
    return _exclusive_or(tasks.IN_PIXELS, seeds, STEPS["pixel_xor"], "pixels")


def _exclusive_or(
    named: Mapping[str, tuple[Any, Any]], seeds: list[int], steps: int, shown: str
) -> list[dict[str, Any]]:
    rows = []
    for name, (memory, read) in named.items():
        found = [tasks.learn(memory, seed=seed, steps=steps, read=read, shown=shown) for seed in seeds]
        rows.append(
            {
                "name": name,
                "xor_accuracy": [round(one.xor, 4) for one in found],
                "xor_loss": [round(one.xor_loss, 4) for one in found],
                "accuracy_a_b": [[round(value, 4) for value in one.accuracies[: tasks.XOR]] for one in found],
            }
        )
        say(rows[-1])
    return rows


def key_frame(seeds: list[int]) -> list[dict[str, Any]]:
    rows = []
    for name, row in tasks.KEY_FRAME.items():
        found = [tasks.learn_key_frame(row, seed=seed, steps=STEPS["key_frame"]) for seed in seeds]
        rows.append({"name": name, "accuracy": [round(one, 4) for one in found]})
        say(rows[-1])
    return rows


def by_count(seeds: list[int]) -> list[dict[str, Any]]:
    rows = []
    for name, memory in MEMORIES.items():
        for trained, clips in TRAINED_WITH.items():
            settings: dict[str, Any] = {"steps": STEPS["by_count"], "clips": clips, "test_clips": TEST_CLIPS}
            found = [tasks.learn(memory, seed=seed, **settings) for seed in seeds]
            for count in TEST_CLIPS:
                values = [one.by_count[count] for one in found]
                rows.append(
                    {
                        "name": name,
                        "trained_with": trained,
                        "test_clips": count,
                        "xor_accuracy": [round(value[tasks.XOR], 4) for value in values],
                        "accuracy_a_b": [[round(one, 4) for one in value[: tasks.XOR]] for value in values],
                    }
                )
            say({"name": name, "trained_with": trained, "xor": [r["xor_accuracy"] for r in rows[-len(TEST_CLIPS) :]]})
    return rows


TABLES: dict[str, Callable[[list[int]], list[dict[str, Any]]]] = {
    "xor": xor,
    "pixel_xor": pixel_xor,
    "key_frame": key_frame,
    "by_count": by_count,
}


def draw(rows: list[dict[str, Any]], file: Path, trained: str) -> None:
    """Mean accuracy of the third label over the seeds, by the number of clips at test time; the band is their range."""
    series = []
    for name in MEMORIES:
        chosen = [row for row in rows if (row["name"], row["trained_with"]) == (name, trained)]
        counts, values = [row["test_clips"] for row in chosen], [row["xor_accuracy"] for row in chosen]
        means, lows, highs = ([f(one) for one in values] for f in (lambda one: sum(one) / len(one), min, max))
        series.append(Series(name, counts, means, lows, highs))
    text = line_chart(
        series,
        title=f"Exclusive or by clips at test time, trained with {trained}",
        x_label="clips at test time",
        y_label="accuracy",
        marks=[Mark("adding up", 0.75), Mark("guessing", 0.5)],
        y_range=(0.3, 1.0),
    )
    file.write_text(text + "\n")


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    rows = TABLES[given.table](given.seeds)
    today = datetime.date.today().isoformat()
    result = {
        "what": f"feature tasks, {given.table}: every seed",
        "command": f"python benchmarks/feature_tasks.py {given.table} --seeds {' '.join(map(str, given.seeds))}",
        "commit": commit.stdout.strip(),
        "date": today,
        "machine": f"{os.cpu_count()} {platform.machine()} cores, CPU only, torch {torch.__version__}",
        "steps": STEPS[given.table],
        "seeds": given.seeds,
        "rows": rows,
    }
    default = ROOT / "benchmarks" / "results" / f"feature_tasks_{given.table}_{os.cpu_count()}core_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")
    if given.table == "by_count":
        for trained, (low, high) in TRAINED_WITH.items():
            draw(rows, ROOT / "docs" / "_static" / f"clips_at_test_{low}_{high}.svg", trained)


if __name__ == "__main__":
    main()
