"""Measure a detector at the key frames of films: frame-mAP in both public protocols, and AVA's file of detections.

Source: facebookresearch/SlowFast and activitynet/ActivityNet for the protocols (`metrics/frame_map.py`). Judged are the
boxes that a detector found, if there are any in the data set (then also on key frames where nothing is annotated), else
the annotated ones. Each key frame is judged once; what cannot be read is listed and left out. Runs in one process or in
all processes of a process group: each takes whole films.
R boxes, K classes; class ids are indices + 1.
Not here: how boxes are judged (`inference/key_frames.py`), the numbers and files (`key_frame_results.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from wholereel.batches import Fault
from wholereel.config import Data, Views
from wholereel.datasets.clip_boxes import has_detections
from wholereel.datasets.frame_cache import FrameCache
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.datasets.prepare import evaluated_classes
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.class_places import class_places
from wholereel.evaluation.evaluate import eval_mode
from wholereel.evaluation.gather import gather
from wholereel.evaluation.key_frame_results import BoxRecord, DetectionResults, TruthBox, summarise, write_detections
from wholereel.evaluation.loading import shard
from wholereel.inference.key_frames import Film, KeyFrame, Unread, judge_films, shares_clips
from wholereel.inference.predictor import find_package
from wholereel.media.key_clips import key_clip
from wholereel.models.detector import Detector
from wholereel.models.package import Package, load_package

__all__ = ["evaluate_key_frames", "films_of", "predict_key_frames", "truth_boxes"]


def evaluate_key_frames(
    package: Package | str | Path,
    manifest: Manifest,
    views: Views,
    *,
    data: Data | None = None,
    batch: int = 8,
    workers: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: torch.device | str | None = None,
    cache_dir: str | Path | None = None,
    out: str | Path | None = None,
    share: bool | None = None,
) -> DetectionResults:
    """Judge every key frame of the manifest.

    Args:
        package: of a detector; loaded, or the folder of a model package or run.
        manifest: key frames with boxes; classes that are evaluated are those of `prepared.json` beside it, if it names
            them (60 of 80 in AVA), else all.
        views: windows (`clips`) and short side; pictures are not cropped.
        data, workers, precision, device, cache_dir: as in `evaluate`. batch: has no say.
        out: folder for `results.json`, `detections.csv` and `per_class.csv`; `None` = no files.
        share: see `judge_films`.
    Returns: the same on every rank.
    Raises: ConfigError: a model or windows that do not fit. DataError: no key frame, classes that the model does not
        know, or no film that can be read.
    """
    data = data or Data(root=None, split=None)
    package = package if isinstance(package, Package) else load_package(find_package(package))
    label = data.labels[0]
    places = class_places(manifest, label, package.classes)
    samples = manifest.samples[: data.limit]
    records, faults = predict_key_frames(
        package,
        samples,
        views,
        detected=has_detections(samples),
        workers=data.workers if workers is None else workers,
        precision=precision,
        device=device,
        cache_dir=cache_dir if data.cache else None,
        share=share,
    )
    if not records:
        reason = faults[0].reason if faults else "there are none"
        raise DataError(manifest.root, f"none of {len(samples)} key frames could be judged; the first: {reason}")
    evaluated = sorted(places[index] for index in evaluated_classes(manifest.root, label, len(places)))
    results = summarise(
        records,
        faults,
        truth_boxes(records, samples, places),
        classes=package.classes,
        evaluated=evaluated,
        protocol=_protocol(package, views, len(evaluated), has_detections(samples), data.split, precision, share),
    )
    if out is not None and not (dist.is_initialized() and dist.get_rank()):
        write_detections(results, Path(out))
    return results


def predict_key_frames(
    package: Package,
    samples: Sequence[Sample],
    views: Views,
    *,
    detected: bool,
    workers: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: torch.device | str | None = None,
    cache_dir: str | Path | None = None,
    share: bool | None = None,
) -> tuple[list[BoxRecord], list[Fault]]:
    """Scores of all boxes of all key frames, and those that could not be judged; the same on every rank.

    Args:
        detected: judge only boxes that a detector found.
        samples, views and others: see `evaluate_key_frames`.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    films, places = films_of(samples, detected=detected)
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    mine = shard(len(films), rank, world_size)
    cache = None if cache_dir is None else FrameCache(Path(cache_dir), views.short_side)
    records, faults = [], []
    with eval_mode(package.model.to(device)):
        for one in judge_films(
            package,
            [films[number] for number in mine],
            views.clips,
            device=device,
            short_side=views.short_side,
            precision=precision,
            workers=workers,
            cache=cache,
            share=share,
        ):
            index = places[mine[one.film]][one.key]
            sample = samples[index]
            if isinstance(one, Unread):
                faults.append(Fault(sample.id, str(sample.path), one.reason))
                continue
            boxes = films[mine[one.film]].keys[one.key].boxes
            video, seconds = (
                str(sample.meta.get("video", sample.path.stem)),
                float(sample.meta.get("second", _key(sample))),
            )
            scores = tuple(tuple(row) for row in one.scores_RK.tolist())
            records.append(
                BoxRecord(
                    index, sample.id, video, seconds, boxes, scores, one.clips_read, one.clips_encoded, one.truncated
                )
            )
    records = sorted((record for part in gather(records) for record in part), key=lambda record: record.index)
    faults = sorted((fault for part in gather(faults) for fault in part), key=lambda fault: fault.id)
    return records, faults


def truth_boxes(
    records: Sequence[BoxRecord], samples: Sequence[Sample], places: Sequence[int]
) -> dict[int, tuple[TruthBox, ...]]:
    """The annotated boxes of each record's key frame, by its index.

    Args:
        samples: of the whole manifest.
        places: the model's class for each class of the data set.
    """
    return {
        record.index: tuple(
            TruthBox(box.xyxy, tuple(places[index] for index in box.labels))
            for box in samples[record.index].boxes
            if box.score is None
        )
        for record in records
    }


def films_of(samples: Sequence[Sample], *, detected: bool) -> tuple[list[Film], list[list[int]]]:
    """Key frames by film, in order of time, and where each of them stands among the samples.

    Raises: DataError: a sample without key frame.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        if sample.key_seconds is None:
            raise DataError(
                sample.path,
                "has no key frame with boxes",
                "samples of key frames",
                "Prepare the data set with `wholereel data prepare ava_v2.2` or `action_boxes`.",
            )
        groups.setdefault((str(sample.path), sample.start, sample.end, sample.frame_rate), []).append(index)
    films, places = [], []
    for indices in groups.values():
        indices.sort(key=lambda index: (_key(samples[index]), index))
        first = samples[indices[0]]
        keys = tuple(
            KeyFrame(
                _key(samples[index]),
                tuple(box.xyxy for box in samples[index].boxes if not detected or box.score is not None),
            )
            for index in indices
        )
        films.append(Film(first.path, keys, first.start, first.end, first.frame_rate))
        places.append(indices)
    return films, places


def _key(sample: Sample) -> float:
    return 0.0 if sample.key_seconds is None else sample.key_seconds


def _protocol(
    package: Package,
    views: Views,
    classes: int,
    detected: bool,
    split: str | None,
    precision: str,
    share: bool | None,
) -> dict[str, Any]:
    model, clips = package.model, views.clips
    if not isinstance(model, Detector):
        raise ConfigError("this model judges whole clips, not boxes: train one with task.kind='detect'")
    memory = None if model.memory is None else {**asdict(model.memory), "after": list(model.memory.after)}
    rate = "the film's own frames" if clips.frame_rate is None else f"{clips.frame_rate:g} frames per second"
    window = "no memory: the clip around the key frame is judged alone"
    if memory is not None:
        spread = "one after another" if clips.window is None else f"over {clips.window:g} s"
        side = "around" if key_clip(clips) == clips.count // 2 else "up to"
        window = f"{clips.count} clips {spread} {side} the key frame, those outside the film masked"
        shared = shares_clips(model) if share is None else share
        window += ", each clip of a film encoded once" if shared else ", each window by itself"
        window += f"; the memory is read by the {model.boxes.read}"
    whose = "boxes of a detector" if detected else "annotated boxes"
    text = (
        f"Frame-mAP at IoU 0.5 of {whose}, {classes} classes. Clips of {clips.frames} frames at stride {clips.stride} "
        f"on {rate}; whole pictures, short side {views.short_side}; {window}. {package.spec.name}, {precision}."
    )
    return {
        "text": text,
        "model": package.spec.name,
        "memory": memory,
        "boxes": asdict(model.boxes),
        "judged": "detected" if detected else "annotated",
        "views": asdict(views),
        "task": asdict(package.task),
        "classes": classes,
        "split": split,
        "precision": precision,
    }
