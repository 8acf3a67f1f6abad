"""Real footage: actions in untrimmed video, clip by clip, with and without memory, for several seeds.

    python benchmarks/dense_labels.py --data ceiling_long --seeds 0 1 2 --out runs/dense_labels

Data: a folder with `videos.csv` (path, split), `segments.csv` (path, label, start_s, end_s, visible_fraction) and the
videos. Segments in which a person can be seen less than half of the time are left out, as the data set asks; what is
outside of all segments has no label. A tiny MeMViT learns from scratch on the training videos; the two networks differ
in whether blocks remember, and in nothing else. Nothing is chosen on the test: the last epoch counts.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from wholereel.config import Augment, Clips, Data, Evaluate, Model, Optim, Recipe, Strategy, Streams, Task, Train, Views
from wholereel.recipes.runner import run_recipe
from wholereel.report.run_files import read_results

ROOT = Path(__file__).parents[1]
VISIBLE = 0.5
CLIPS = Clips(frames=4, stride=4, frame_rate=8.0)  # two seconds
AUGMENT = Augment(short_side=(44, 44), crop=40, flip=0.5, color_jitter=0.2)
MODELS: dict[str, dict[str, Any]] = {"memory": {"reach": 8}, "memory_free": {"remember": False}}


def write_manifest(data: Path, folder: Path) -> Path:
    """The data set as timed events; its dark video is a split of its own."""
    with (data / "segments.csv").open(encoding="utf-8") as file:
        segments = list(csv.DictReader(file))
    with (data / "videos.csv").open(encoding="utf-8") as file:
        videos = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in segments})
    lines = []
    for video in videos:
        dark = video["split"] == "val_dark"  # how much can be seen could not be measured there
        events = [
            [classes.index(row["label"]), float(row["start_s"]), float(row["end_s"])]
            for row in segments
            if row["path"] == video["path"] and (dark or float(row["visible_fraction"] or 0) >= VISIBLE)
        ]
        path = str((data / video["path"]).resolve())
        split = {"train": "train", "val": "val", "val_dark": "test"}[video["split"]]
        lines.append({"id": Path(path).stem, "path": path, "split": split, "events": events})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "classes.json").write_text(json.dumps({"label": classes}) + "\n")
    return folder


def recipe(root: Path, seed: int, epochs: int) -> Recipe:
    data = Data(root=str(root), clips=CLIPS, augment=AUGMENT, cache=True, workers=0, streams=Streams())
    views = Views(clips=CLIPS, short_side=AUGMENT.short_side[0], crop=AUGMENT.crop)
    stages: dict[str, Any] = {}
    for name, memory in MODELS.items():
        stages[name] = Train(
            model=Model("memvit_tiny", options={"frames": 4, "crop": AUGMENT.crop, **memory}),
            data=data,
            task=Task("stream", label_smoothing=0.1),
            strategy=Strategy("sequential"),
            optim=Optim("adamw", lr=1e-3, weight_decay=0.05, warmup=1.0, clip_norm=1.0),
            epochs=epochs,
            batch=3,
            seed=seed,
            views=views,
        )
        for split, where in (("val", "val"), ("dark", "test")):
            stages[f"{split}_{name}"] = Evaluate(f"stage:{name}", replace(data, split=where), views=views, batch=3)
    return Recipe("dense_labels", stages, "dense labels of untrimmed video, with and without memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    root = write_manifest(given.data, given.out / "manifest").resolve()
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        run = given.out / f"seed{seed}"
        done = run_recipe(recipe(root, seed, given.epochs), run, resume=True, devices="cpu")
        for stage in [name for name, result in done.items() if "evaluated" in result]:
            found.setdefault(stage, []).append(dict(read_results(run / stage)["metrics"]))
    rows = []
    for stage, metrics in found.items():
        row: dict[str, Any] = {"name": stage}
        for metric in ("clip_top1", "clip_mean_class"):
            values = [round(one[metric], 4) for one in metrics]
            row[metric] = {"mean": round(statistics.mean(values), 4), "seeds": values}
            if len(values) > 1:
                row[metric]["std"] = round(statistics.stdev(values), 4)
        rows.append(row)
        print(row)
    today = datetime.date.today().isoformat()
    result = {
        "what": "actions in untrimmed video of a ceiling camera, two-second clips in order, tiny MeMViT from scratch",
        "command": f"python benchmarks/dense_labels.py --data {given.data.name} --seeds "
        f"{' '.join(map(str, given.seeds))} --epochs {given.epochs} --out {given.out.name}",
        "commit": commit.stdout.strip(),
        "date": today,
        "machine": f"{os.cpu_count()} {platform.machine()} cores, CPU only, torch {torch.__version__}",
        "epochs": given.epochs,
        "rows": rows,
    }
    default = ROOT / "benchmarks" / "results" / f"dense_labels_{os.cpu_count()}core_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
