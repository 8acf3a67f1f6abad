"""Preparing, reading, checking and loading a data set of a million rows: CPU-seconds and memory, generated rows.

Each step runs in a process of its own:
  prepare   a Kinetics-700 table and as many (empty) files -> manifest.jsonl, as `wholereel data prepare` does
  read      that manifest.jsonl -> samples
  check     a table of parts of 1,000 real videos -> `check_data`: decodes three frames of each, compares labels
  loader    one epoch over all samples in two worker processes, which make each sample and decode nothing; memory that a
            worker shares with nobody, early and late. "table" is what `read_manifest` gives, "tuple"
            the same samples as Python objects.
Before anything is measured, samples are compared with what was generated.

    python benchmarks/million_rows.py --out benchmarks/results/million_rows.json
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset

from wholereel.datasets.batch_samplers import EpochBatches
from wholereel.datasets.catalogue import read_dataset
from wholereel.datasets.check import check_data
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.prepare import prepare, write_prepared
from wholereel.media import write_video

CLASSES = 700
FILES = 1000  # real videos of the check
BATCH = 1000
MEASURED = 49  # batches from one look at a worker's memory to the next
WORKERS = 2
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def video_ids(rows: int) -> Iterator[str]:
    """Eleven characters, all different, some beginning with `-` as real ones do."""
    draw = random.Random(0)
    for number in range(rows):
        tail = "".join(LETTERS[number // 64**place % 64] for place in range(5))
        yield "".join(draw.choices(LETTERS, k=6)) + tail


def generate(folder: Path, rows: int) -> None:
    """The Kinetics table with its files, and the table of parts with its files."""
    (folder / "kinetics" / "videos").mkdir(parents=True)
    with (folder / "kinetics" / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
        for number, name in enumerate(video_ids(rows)):
            table.writerow([f"class {number % CLASSES:03d}", name, number % 300, number % 300 + 10, "train"])
            end = number % 300 + 10
            path = folder / "kinetics" / "videos" / f"{name}_{number % 300:06d}_{end:06d}.mp4"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    (folder / "parts").mkdir()
    pictures = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    write_video(folder / "parts" / "v0000.mp4", pictures, frame_rate=20, gop=10)
    for number in range(1, FILES):
        os.link(folder / "parts" / "v0000.mp4", folder / "parts" / f"v{number:04d}.mp4")
    with (folder / "parts" / "annotations.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "path", "label", "split", "start", "end"])
        for number in range(rows):
            begin = number // FILES * 1e-3 % 1.9
            table.writerow([f"p{number}", f"v{number % FILES:04d}.mp4", f"c{number % 50}", "train", begin, begin + 0.1])


def step_prepare(folder: Path, rows: int) -> dict[str, Any]:
    annotations, options = read_dataset("kinetics700", folder / "kinetics")
    prepared = prepare(annotations)
    assert (prepared.counts["train"].expected, prepared.counts["train"].found) == (rows, rows)
    write_prepared(prepared, "kinetics700", options, folder / "kinetics")
    return {}


def step_read(folder: Path, rows: int) -> dict[str, Any]:
    samples = read_manifest(folder / "kinetics" / "manifest.jsonl").samples
    assert len(samples) == rows
    for number, name in enumerate(video_ids(rows)):
        if number % 997 == 0:
            assert samples[number].path.name.startswith(name)
            assert samples[number].labels == {"label": number % CLASSES}
    return {"samples_mb": round(samples.nbytes / 2**20, 1)}


def step_check(folder: Path, rows: int) -> dict[str, Any]:
    manifest = read_manifest(folder / "parts")
    assert len(manifest) == rows
    assert check_data(manifest) == []
    return {}


class Touching(Dataset[tuple[int, int]]):
    """Makes a sample; gives back its label and its number."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return self.samples[key[1]].labels["label"], key[1]


class Collate:
    """Labels, numbers, and now and then what this process alone has in memory: looking at that takes a while."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, pairs: list[tuple[int, int]]) -> tuple[list[int], list[int], int, int]:
        labels, numbers = zip(*pairs, strict=True)
        unique = psutil.Process().memory_full_info().uss if self.batches % MEASURED == 0 else 0
        self.batches += 1
        return list(labels), list(numbers), os.getpid(), unique


def step_loader(folder: Path, rows: int, samples_are: str, start_method: str) -> dict[str, Any]:
    samples: Any = read_manifest(folder / "kinetics" / "manifest.jsonl").samples
    if samples_are == "tuple":
        samples = tuple(samples)
    # The last incomplete batch is left out, so that all report alike.
    batches = list(EpochBatches(rows, BATCH, seed=0).batches(0))
    loader = DataLoader(
        Touching(samples),
        batch_sampler=batches,
        num_workers=WORKERS,
        collate_fn=Collate(),
        multiprocessing_context=start_method,
    )
    begin, memory, seen = time.perf_counter(), {}, 0
    for labels, numbers, process, unique in loader:
        seen += len(labels)
        assert all(label == number % CLASSES for label, number in zip(labels, numbers, strict=True))
        if unique:
            memory.setdefault(process, []).append(unique / 2**20)
    assert seen == rows // BATCH * BATCH
    return {
        "epoch_wall_s": round(time.perf_counter() - begin, 1),
        "worker_mb_first": round(max(values[0] for values in memory.values()), 1),
        "worker_mb_last": round(max(values[-1] for values in memory.values()), 1),
    }


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": step_prepare,
    "read": step_read,
    "check": step_check,
    "loader": step_loader,
}


def run_step(folder: Path, rows: int, words: list[str]) -> dict[str, Any]:
    """A step in a process of its own."""
    command = [sys.executable, __file__, "--step", *words, "--rows", str(rows), "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row = {"name": " ".join(words), "rows": rows, **json.loads(done.stdout.splitlines()[-1])}
    print(row, flush=True)
    return row


def report_step(folder: Path, rows: int, words: list[str]) -> None:
    """Run a step here and print its figures."""
    base = psutil.Process().memory_info().rss
    begin, cpu = time.perf_counter(), time.process_time()
    figures = STEPS[words[0]](folder, rows, *words[1:])
    used = {
        "wall_s": round(time.perf_counter() - begin, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "imports_mb": round(base / 2**20),
    }
    print(json.dumps(used | figures))


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="benchmarks/results/million_rows.json")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.step:
        report_step(arguments.folder, arguments.rows, arguments.step)
        return
    rows: list[dict[str, Any]] = []
    for count in (arguments.rows // 100, arguments.rows):
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), count)
            steps = [["prepare"], ["read"], ["check"]]
            steps += [["loader", "table", "fork"], ["loader", "table", "spawn"], ["loader", "tuple", "fork"]]
            rows += [run_step(Path(folder), count, step) for step in steps]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    result = {
        "what": "a data set of generated rows: prepare, read, check, and one epoch in two workers without decoding",
        "command": f"python benchmarks/million_rows.py --rows {arguments.rows}",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores (load {os.getloadavg()[1]:.1f}, other jobs included), "
        f"no GPU, Python {platform.python_version()}, torch {torch.__version__}",
        "rows": rows,
    }
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
