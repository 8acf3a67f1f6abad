"""The official numbers at the size of their data sets: CPU-seconds and memory, generated truth and scores.

Each step runs in a process of its own:
  ava_files   64 films' key frames (AVA's validation) as CSV files, 30 classes a box: reading, both protocols
  ava_430     430 films' key frames in memory, 15 classes a box: both protocols
  charades    1,863 videos x 157 classes: mAP, weighted and official
  epic        9,668 segments x 97 verbs and 300 nouns: top-1 and top-5 of actions, and class-mean recall
Before anything is timed, frame-mAP of two films is compared with a literal evaluation, box after box.

    python benchmarks/official_metrics.py --out benchmarks/results/official_metrics.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from wholereel.evaluation.files.ava import read_box_rows
from wholereel.metrics.class_recall import Anticipation
from wholereel.metrics.frame_map import PROTOCOLS, BoxRows, FrameMap
from wholereel.metrics.verb_noun import VerbNoun, VerbNounSplits
from wholereel.metrics.video_scores import MultiLabelVideos

SECONDS = range(902, 1799)
CLASSES = tuple(range(1, 61))
PEOPLE = 2.6  # boxes of a key frame, about AVA's
LABELS = 2.4  # of a box


def films(count: int, rows_of_box: int, seed: int = 0) -> tuple[BoxRows, BoxRows]:
    """Truth and detections of so many films; detections are the truth's boxes, moved, each with some classes."""
    generator = np.random.default_rng(seed)
    frames = tuple(f"film{film:03d},{second:04d}" for film in range(count) for second in SECONDS)
    people_F = np.minimum(generator.poisson(PEOPLE, len(frames)), 8)
    frame_B = np.repeat(np.arange(len(frames)), people_F)
    corner_B2 = generator.uniform(0, 0.6, (len(frame_B), 2))
    box_B4 = np.concatenate([corner_B2, corner_B2 + generator.uniform(0.1, 0.4, (len(frame_B), 2))], axis=1)
    labels_B = 1 + np.minimum(generator.poisson(LABELS - 1, len(frame_B)), 5)
    owner_G = np.repeat(np.arange(len(frame_B)), labels_B)
    # Frequencies fall like 1 / rank, as AVA's roughly do.
    share_K = 1 / np.arange(1, len(CLASSES) + 1)
    class_G = generator.choice(np.array(CLASSES), len(owner_G), p=share_K / share_K.sum())
    truth = BoxRows(frame_B[owner_G], box_B4[owner_G], class_G, np.ones(len(owner_G)), frames)
    moved_B4 = (box_B4 + generator.normal(0, 0.03, box_B4.shape)).round(4)
    order_BK = generator.random((len(frame_B), len(CLASSES)), dtype=np.float32).argsort(1)[:, :rows_of_box]
    owner_D = np.repeat(np.arange(len(frame_B)), rows_of_box)
    class_D = np.array(CLASSES)[order_BK.reshape(-1)]
    score_D = generator.random(len(owner_D)).round(4)  # as files write them: many ties
    return truth, BoxRows(frame_B[owner_D], moved_B4[owner_D], class_D, score_D, frames)


def literal_map(truth: BoxRows, found: BoxRows, protocol: str) -> float:
    """Frame-mAP by the rules as they are written: one detection after the other."""
    free: dict[tuple[int, int], list[list[Any]]] = {}
    for frame, box, kind in zip(truth.frame_R.tolist(), truth.box_R4.tolist(), truth.class_R.tolist(), strict=True):
        free.setdefault((frame, kind), []).append([box, True])
    known = set(truth.frame_R.tolist())
    by_frame: dict[int, list[int]] = {}
    for row, frame in enumerate(found.frame_R.tolist()):
        by_frame.setdefault(frame, []).append(row)
    results: dict[int, list[tuple[float, bool]]] = {kind: [] for kind in CLASSES}
    for frame, rows in by_frame.items():
        if protocol == "activitynet_official":
            if frame not in known:
                continue
            rows = sorted(rows, key=lambda row: -found.score_R[row])[:50]
        for row in rows:
            box, kind = found.box_R4[row].tolist(), int(found.class_R[row])
            if box[2] <= box[0] or box[3] <= box[1]:
                continue
            rivals = free.get((frame, kind), [])
            overlaps = [overlap(box, rival[0]) for rival in rivals]
            best = max(range(len(rivals)), key=overlaps.__getitem__, default=None)
            hit = best is not None and overlaps[best] >= 0.5 and rivals[best][1]
            if hit and best is not None:
                rivals[best][1] = False
            results[kind].append((float(found.score_R[row]), hit))
    values = []
    for kind in CLASSES:
        positives = int((truth.class_R == kind).sum())
        if positives:
            hits = [hit for _, hit in sorted(results[kind], key=lambda one: -one[0])]
            right, best, area = sum(hits), 0.0, 0.0
            for place in range(len(hits), 0, -1):  # precision, made monotone from the right
                best = max(best, right / place)
                area += best * hits[place - 1]
                right -= hits[place - 1]
            values.append(area / positives)
    return float(np.mean(values))


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union."""
    shared = max(0.0, min(a[3], b[3]) - max(a[1], b[1])) * max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def check_small() -> None:
    """Two films, both protocols, against the literal evaluation."""
    truth, found = films(2, 30, seed=1)
    for protocol in PROTOCOLS:
        ours = FrameMap(CLASSES, truth=(truth,), detections=(found,)).compute(protocol, input_order=True).mean()
        assert abs(ours - literal_map(truth, found, protocol)) < 1e-12, (protocol, ours)


def judged(truth: BoxRows, found: BoxRows) -> dict[str, Any]:
    """Both protocols, timed."""
    figures: dict[str, Any] = {
        "key_frames": len(truth.frames),
        "rows_truth": len(truth),
        "rows_detected": len(found),
        "arrays_mb": round(sum(part.nbytes for rows in (truth, found) for part in
                               (rows.frame_R, rows.box_R4, rows.class_R, rows.score_R)) / 2**20),
    }  # fmt: skip
    for protocol in PROTOCOLS:
        begin = time.process_time()
        value = FrameMap(CLASSES, truth=(truth,), detections=(found,)).compute(protocol, input_order=True).mean()
        figures |= {f"{protocol}_cpu_s": round(time.process_time() - begin, 1), f"{protocol}_map": round(value, 6)}
    return figures


def step_ava_files() -> dict[str, Any]:
    truth, found = films(64, 30)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("truth.csv", "found.csv")]
        for path, rows, last in zip(paths, (truth, found), (None, found.score_R), strict=True):
            with path.open("w") as file:
                for row, frame in enumerate(rows.frame_R.tolist()):
                    box = ",".join(f"{value:.4f}" for value in rows.box_R4[row].tolist())
                    end = 0 if last is None else last[row]
                    file.write(f"{rows.frames[frame]},{box},{rows.class_R[row]},{end}\n")
        size = sum(path.stat().st_size for path in paths)
        del truth, found
        begin = time.process_time()
        (truth, _), (found, _) = (read_box_rows(path, truth=path == paths[0]) for path in paths)
        figures = {"files_mb": round(size / 2**20), "read_cpu_s": round(time.process_time() - begin, 1)}
    return figures | judged(truth, found)


def step_ava_430() -> dict[str, Any]:
    return judged(*films(430, 15))


def step_charades() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(1863, 157, generator=generator)
    target = (torch.rand(1863, 157, generator=generator) < 6.8 / 157).float()
    begin = time.process_time()
    values = MultiLabelVideos().update([f"v{n}" for n in range(1863)], scores, target).compute()
    return {"videos": 1863, "compute_cpu_s": round(time.process_time() - begin, 2), "map": round(values["map"], 6)}


def step_epic() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    count = 9668
    verb, noun = generator.normal(size=(count, 97)), generator.normal(size=(count, 300))
    true = {"verb": generator.integers(0, 97, count), "noun": generator.integers(0, 300, count)}
    people = [f"P{n:02d}" for n in generator.integers(1, 38, count)]
    splits = VerbNounSplits(frozenset({"P18", "P32"}), frozenset(range(11, 97)), frozenset(range(72, 300)))
    ids = [f"s{n}" for n in range(count)]
    begin = time.process_time()
    values = VerbNoun(splits).update(ids, verb, noun, true["verb"], true["noun"], people).compute()
    middle = time.process_time()
    Anticipation(splits).update(ids, {"verb": verb, "noun": noun}, true, people).compute()
    return {
        "segments": count,
        "recognition_cpu_s": round(middle - begin, 1),
        "anticipation_cpu_s": round(time.process_time() - middle, 1),
        "all_action_accuracy_at_5": round(values["all_action_accuracy_at_5"], 6),
    }


STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "ava_files": step_ava_files,
    "ava_430": step_ava_430,
    "charades": step_charades,
    "epic": step_epic,
}


def report_step(name: str) -> None:
    """Run a step here and print its figures."""
    base = psutil.Process().memory_info().rss
    figures = STEPS[name]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures | {"peak_mb": round(peak), "imports_mb": round(base / 2**20)}))


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="benchmarks/results/official_metrics.json")
    parser.add_argument("--step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.step:
        report_step(arguments.step)
        return
    check_small()
    rows: list[dict[str, Any]] = []
    for name in STEPS:
        done = subprocess.run([sys.executable, __file__, "--step", name], check=True, capture_output=True, text=True)
        rows.append({"name": name, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    result = {
        "what": "official metrics at the size of their data sets, generated truth and scores",
        "command": "python benchmarks/official_metrics.py",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores (load {os.getloadavg()[1]:.1f}, other jobs included), "
        f"no GPU, Python {platform.python_version()}, torch {torch.__version__}",
        "rows": rows,
    }
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
