"""How many clips back a memory reaches: the recipe memvit_cue_probe for several seeds, its accuracy by gap, a picture.

    python benchmarks/staircase.py --seeds 0 1 2 --out runs/staircase

The first seed runs the recipe as it is. The others train on the same worlds, from the same network of trimmed clips,
with seeds of their own for initial weights, order of videos, crops and flips. A killed command goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shared_stages import without_shared

from wholereel.config import Recipe
from wholereel.datasets.worlds.cue_probe import GAPS, staircase
from wholereel.recipes.memvit_worlds import SUPPORTS, memvit_cue_probe
from wholereel.recipes.runner import run_recipe
from wholereel.report.charts import Mark, Series, line_chart

ROOT = Path(__file__).parents[1]
WORLD = "cue_probe"
SHARED = ("trimmed", "pretrain", "short", WORLD)


def of_seed(seed: int, first: int, home: Path) -> Recipe:
    """The recipe of a seed; all but the first read the first one's worlds and pre-trained network."""
    recipe = memvit_cue_probe(seed)
    if seed == first:
        return recipe
    return replace(without_shared(recipe, SHARED, home), name=f"staircase_seed{seed}")


def measure(seed: int, first: int, out: Path) -> dict[int, dict[str, Any]]:
    """Run a seed. Returns: by support, accuracy over all probes and by gap."""
    home, run = (out / f"seed{first}").resolve(), out / f"seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    if seed != first and not (run / "cache").exists():
        (run / "cache").symlink_to(home / "cache")  # frames of the same videos
    run_recipe(of_seed(seed, first, home), run, resume=True, devices="cpu")
    gaps = _gaps(home / WORLD / "manifest.jsonl")
    return {support: _by_gap(run / f"test_support_{support}" / "predictions.jsonl", gaps) for support in SUPPORTS}


def _gaps(manifest: Path) -> dict[str, int]:
    """The gap that each probe's clip asks about, by the clip's id."""
    found = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        video = json.loads(line)
        found |= {f"{video['id']}#{block['probe_clip']:04d}": block["gap"] for block in video["meta"]["blocks"]}
    return found


def _by_gap(predictions: Path, gaps: dict[str, int]) -> dict[str, Any]:
    right: dict[int, list[bool]] = defaultdict(list)
    for line in predictions.read_text(encoding="utf-8").splitlines():
        clip = json.loads(line)
        if clip["label"]["labels"] is not None:
            right[gaps[clip["id"]]].append(clip["label"]["predicted"] in clip["label"]["labels"])
    every = [one for gap in GAPS for one in right[gap]]
    by_gap = {gap: round(statistics.mean(right[gap]), 4) for gap in GAPS}
    return {"accuracy": round(statistics.mean(every), 4), "probes": len(every), "by_gap": by_gap}


def rows_of(seeds: dict[int, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for support in sorted(SUPPORTS):
        values = [found[support] for found in seeds.values()]
        accuracy, ceiling = [value["accuracy"] for value in values], float(staircase(support))
        rows.append(
            {
                "name": f"support {support}",
                "support": support,
                "expected": ceiling,
                "accuracy": {
                    "mean": round(statistics.mean(accuracy), 4),
                    **({"std": round(statistics.stdev(accuracy), 4)} if len(accuracy) > 1 else {}),
                    "seeds": accuracy,
                },
                "inside": [ceiling - 0.08 <= one <= ceiling + 0.03 for one in accuracy],
                "accuracy_by_gap": {gap: [value["by_gap"][gap] for value in values] for gap in GAPS},
                "probes": values[0]["probes"],
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Mean accuracy by gap over the seeds, a line for each support; the band is their range. Gaps are spread evenly."""
    series, places = [], range(len(GAPS))
    for row in rows:
        values = [row["accuracy_by_gap"][gap] for gap in GAPS]
        means, lows, highs = ([f(one) for one in values] for f in (statistics.mean, min, max))
        series.append(Series(row["name"], places, means, lows, highs))
    text = line_chart(
        series,
        title="Accuracy by how many clips ago the cue was shown",
        x_label="gap between cue and probe, clips",
        y_label="accuracy",
        marks=[Mark("guessing", 0.25)],
        y_range=(0.0, 1.0),
        x_names={place: str(gap) for place, gap in zip(places, GAPS, strict=True)},
    )
    file.write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    seeds = {seed: measure(seed, given.seeds[0], given.out) for seed in given.seeds}
    today, rows = datetime.date.today().isoformat(), rows_of(seeds)
    result = {
        "what": "memvit_cue_probe: accuracy by temporal support and by gap, every seed of the training on streams; one "
        f"world and one network of trimmed clips (seed {given.seeds[0]})",
        "command": f"python benchmarks/staircase.py --seeds {' '.join(map(str, given.seeds))} --out {given.out.name}",
        "commit": commit.stdout.strip(),
        "date": today,
        "machine": f"{os.cpu_count()} {platform.machine()} cores, CPU only, torch {torch.__version__}",
        "seeds": given.seeds,
        "rows": rows,
    }
    default = ROOT / "benchmarks" / "results" / f"staircase_{os.cpu_count()}core_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, ROOT / "docs" / "_static" / "memvit_staircase.svg")
    for row in rows:
        print(row["name"], "expected", row["expected"], row["accuracy"], row["accuracy_by_gap"])


if __name__ == "__main__":
    main()
