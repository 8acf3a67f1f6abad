"""Does what MViT is trained with help a small network on few real videos? The Weizmann actions, split by person.

The clip-level stage of recipe `weizmann` (60 training videos of six people; 30 of three others are judged), with its
own augmentation (crop, flip, colour jitter) and with parts of what the published MViTs are trained with, at the
published strengths, for equally many steps. Nothing was tuned; the judged videos are read once, at the end.

    python benchmarks/augmentation_effect.py --data WEIZMANN --seeds 0 1 2 --out runs/augmentation
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

import torch

from wholereel.config import Augment, Erasing, Evaluate, Mixing, RandAugment, Recipe, Train
from wholereel.recipes.runner import run_recipe
from wholereel.recipes.weizmann import AUGMENT, weizmann

ARMS: dict[str, Augment] = {
    "crop, flip, colours": AUGMENT,
    "and erasing": replace(AUGMENT, erasing=Erasing()),
    "and mixing": replace(AUGMENT, mixing=Mixing()),
    "and RandAugment": replace(AUGMENT, rand_augment=RandAugment()),
    "all of these": replace(AUGMENT, erasing=Erasing(), mixing=Mixing(), rand_augment=RandAugment()),
}


def recipe(augment: Augment, seed: int, epochs: int) -> Recipe:
    """One training and its test."""
    whole = weizmann(seed)
    train, test = whole.stages["pretrain"], whole.stages["test_clip_level"]
    assert isinstance(train, Train)
    assert isinstance(test, Evaluate)
    stages = {
        "train": replace(train, data=replace(train.data, augment=augment, workers=0), epochs=epochs),
        "test": replace(test, model="stage:train", data=replace(test.data, workers=0)),
    }
    return Recipe("augmentation_effect", stages, "Weizmann, one augmentation", main="train")


def run(augment: Augment, seed: int, epochs: int, data: Path, out: Path) -> tuple[float, float]:
    """Accuracy of the judged videos, and the loss of the last epoch's steps in training."""
    run_recipe(recipe(augment, seed, epochs), out, data=data, devices="cpu", stream=None, resume=True)
    found = json.loads((out / "test" / "results.json").read_text())
    events = [json.loads(line) for line in (out / "train" / "metrics.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if "loss" in event]
    return found["metrics"]["video_top1"], statistics.mean(losses[-5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--result", type=Path)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in given.seeds:
        for number, name in enumerate(ARMS):
            if name not in given.arms:
                continue
            begin = time.process_time()
            out = given.out / f"{number}_{seed}"
            accuracy, loss = run(ARMS[name], seed, given.epochs, given.data, out)
            rows.append({"name": name, "seed": seed, "video_top1": accuracy, "last_loss": round(loss, 4),
                         "cpu_s": round(time.process_time() - begin, 1)})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
            if given.result:
                write(given, rows)


def write(given: argparse.Namespace, rows: list[dict[str, object]]) -> None:
    """All rows so far."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    result = {
        "what": "accuracy on the Weizmann actions by augmentation",
        "command": " ".join(["python", *sys.argv]),
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} x86-64 cores, {platform.system()}, torch {torch.__version__}, one thread",
        "note": given.note,
        "rows": rows,
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
