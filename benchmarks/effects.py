"""Train a recipe for several seeds and keep what its evaluations found: the proof of an effect, as a file.

    python benchmarks/effects.py memory_worlds --seeds 0 1 2 --out runs/effects
    python benchmarks/effects.py weizmann --data WEIZMANN --seeds 0 1 2 3 4 --out runs/effects

With `--share`, worlds and pre-trained networks are made by the first seed alone, and the result says so. A killed
command goes on where it was. The result file holds every seed's numbers, mean, sample standard deviation and
the number of test videos; nothing is left out.
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
from pathlib import Path
from typing import Any

import torch
from shared_stages import without_shared

from wholereel.recipes import load_recipe
from wholereel.recipes.overrides import apply_overrides
from wholereel.recipes.runner import run_recipe
from wholereel.report.run_files import read_results

METRICS = (
    "video_top1",
    "clip_top1_shared",
    "clip_top1_alone",
    "map",
    "map_activitynet",
    "box_top1",
    "clip_recall5",
    "clip_top1",
)


def measure(
    name: str, seed: int, out: Path, data: Path | None, changes: list[str], shared: list[str], home: Path
) -> dict[str, dict[str, float]]:
    """Run one seed. Returns: metrics and number of samples (videos, or key frames) by evaluation stage.

    Args:
        shared, home: stages that are read from the run `home`, where that is another seed's.
    """
    recipe = apply_overrides(load_recipe(name, seed=seed), changes)
    run = out / f"{name}_seed{seed}"
    if shared and run != home:
        recipe = without_shared(recipe, shared, home.resolve())
        run.mkdir(parents=True, exist_ok=True)
        if not (run / "cache").exists():
            (run / "cache").symlink_to(home.resolve() / "cache")  # frames of the same videos
    done = run_recipe(recipe, run, data=data, resume=True, devices="cpu")
    evaluated = [stage for stage, result in done.items() if "evaluated" in result]
    return {stage: {**read_results(run / stage)["metrics"], "videos": done[stage]["evaluated"]} for stage in evaluated}


def row(stage: str, seeds: dict[int, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """All seeds of one evaluation stage."""
    found: dict[str, Any] = {"name": stage, "n": len(seeds)}
    measured = next(iter(seeds.values()))[stage]
    for metric in METRICS:
        if metric not in measured:
            continue
        values = [numbers[stage][metric] for numbers in seeds.values()]
        found[metric] = {"mean": round(statistics.mean(values), 4), "seeds": [round(value, 4) for value in values]}
        if len(values) > 1:
            found[metric]["std"] = round(statistics.stdev(values), 4)
    return {**found, "key_frames" if "map" in found else "videos": measured["videos"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--data", type=Path, help="for recipes that do not bring their own")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a setting")
    parser.add_argument(
        "--share", nargs="+", default=[], metavar="STAGE", help="stages that all seeds read from the first one's run"
    )
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    # Before the work: the code that runs is the one that stands here now, and a missing git is found at once.
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    home = given.out / f"{given.recipe}_seed{given.seeds[0]}"
    seeds = {
        seed: measure(given.recipe, seed, given.out, given.data, given.set, given.share, home) for seed in given.seeds
    }
    today = datetime.date.today().isoformat()
    words = [
        "python",
        "benchmarks/effects.py",
        given.recipe,
        "--seeds",
        *map(str, given.seeds),
        "--out",
        given.out.name,
    ]
    words += ["--data", given.data.name] if given.data else []
    words += ["--share", *given.share] if given.share else []
    words += [word for change in given.set for word in ("--set", change)]
    same = f"; all seeds share {', '.join(given.share)} of the first" if given.share else ""
    result = {
        "what": f"recipe {given.recipe}: every evaluation of every seed{same}",
        "command": " ".join(words),
        "commit": commit.stdout.strip(),
        "date": today,
        "machine": f"{os.cpu_count()} {platform.machine()} cores, CPU only, torch {torch.__version__}",
        "seeds": given.seeds,
        "rows": [row(stage, seeds) for stage in next(iter(seeds.values()))],
    }
    default = Path(__file__).parent / "results" / f"effects_{given.recipe}_{os.cpu_count()}core_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")
    for one in result["rows"]:
        metric = next(name for name in METRICS if name in one)
        values = one[metric]
        print(f"{one['name']:<36} {metric} {values['mean']:.3f} +- {values.get('std', 0.0):.3f}  {values['seeds']}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
