"""Measure a detector that reads films in order: frame-mAP at key frames, each judged once, the memory carried.

The protocols, numbers and files are those of `key_frames.py`; here a key frame is one step of a stream.
R boxes, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from wholereel.batches import Fault, StreamBatch
from wholereel.config import Data, Views
from wholereel.datasets.clip_boxes import has_detections
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.datasets.prepare import evaluated_classes
from wholereel.datasets.stream_loader import stream_loader
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.class_places import class_places
from wholereel.evaluation.evaluate import eval_mode
from wholereel.evaluation.gather import gather
from wholereel.evaluation.key_frame_results import BoxRecord, DetectionResults, summarise, write_detections
from wholereel.evaluation.key_frames import truth_boxes
from wholereel.evaluation.streams import reading
from wholereel.inference.predictor import find_package, precision_context
from wholereel.models.package import Package, load_package
from wholereel.tasks.stream_detection import StreamDetection

__all__ = ["evaluate_stream_boxes"]


def evaluate_stream_boxes(
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
) -> DetectionResults:
    """Judge every key frame of the manifest; arguments as in `evaluate_streams`, results as of `evaluate_key_frames`.

    Boxes that a crop cuts away are judged at its border, so pictures should be whole (`views.crop=0`).
    Raises: ConfigError: a package of another kind. DataError: no key frame, or none that can be read, or classes that
        the model does not know.
    """
    data = data or Data(root=None, split=None)
    package = package if isinstance(package, Package) else load_package(find_package(package))
    streams = data.streams or package.streams
    if streams is None or streams.steps != "samples":
        raise ConfigError("key frames are the steps of their streams: this package needs streams.steps='samples'")
    label = next(iter(package.spaces))
    places = class_places(manifest, label, package.classes)
    samples = manifest.samples[: data.limit]
    if any(sample.key_seconds is None for sample in samples):
        raise DataError(manifest.root, "has samples without key frame", "key frames with boxes")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loader = stream_loader(
        manifest,
        reading(data, views, streams, package, workers, cache_dir is not None),
        train=False,
        seed=0,
        batch=batch,
        rank=rank,
        world_size=world_size,
        cache_dir=None if cache_dir is None else Path(cache_dir),
    )
    task = StreamDetection(package.model.to(device), package.task, package.spaces)
    index, detected = {sample.id: place for place, sample in enumerate(samples)}, has_detections(samples)
    records: list[BoxRecord] = []
    faults: list[Fault] = []
    state = None
    with eval_mode(task), precision_context(precision, device):
        for one in loader.epoch(0):
            faults.extend(fault for fault in one.faults if fault.kind == "unreadable")
            cut = {fault.id for fault in one.faults if fault.kind == "truncated"}
            one = one.to(device)
            state = task.begin(one) if state is None else state
            prediction, state = task.predict(one, state.reset(one.starts_B))
            for id, scores_RK in _by_row(one, prediction.scores[label].cpu()).items():
                records.append(_record(index[id], samples[index[id]], scores_RK, detected, truncated=id in cut))
    loader.close()
    records = sorted((record for part in gather(records) for record in part), key=lambda record: record.index)
    faults = sorted((fault for part in gather(faults) for fault in part), key=lambda fault: fault.id)
    if not records:
        reason = faults[0].reason if faults else "there are none"
        raise DataError(manifest.root, f"none of {len(samples)} key frames could be judged; the first: {reason}")
    truth = truth_boxes(records, samples, places)
    evaluated = sorted(places[index] for index in evaluated_classes(manifest.root, label, len(places)))
    protocol = _protocol(package, views, len(evaluated), detected, data.split, precision)
    results = summarise(records, faults, truth, classes=package.classes, evaluated=evaluated, protocol=protocol)
    if out is not None and rank == 0:
        write_detections(results, Path(out))
    return results


def _by_row(batch: StreamBatch, scores_RK: Tensor) -> dict[str, Tensor]:
    """Scores of each valid row's boxes, by the key frame's id."""
    boxes = batch.target.boxes
    row_R = torch.zeros(0, dtype=torch.int64) if boxes is None else boxes.video_R.cpu()
    rows = torch.nonzero(batch.valid_B.cpu()).flatten().tolist()
    return {batch.ids[row]: scores_RK[row_R == row] for row in rows}


def _record(index: int, sample: Sample, scores_RK: Tensor, detected: bool, *, truncated: bool) -> BoxRecord:
    boxes = tuple(box.xyxy for box in sample.boxes if not detected or box.score is not None)
    return BoxRecord(
        index=index,
        id=sample.id,
        video=str(sample.meta.get("video", sample.path.stem)),
        seconds=float(sample.meta.get("second", sample.key_seconds or 0.0)),
        boxes=boxes,
        scores=tuple(tuple(row) for row in scores_RK.tolist()),
        clips_read=1,
        clips_encoded=1,
        truncated=truncated,
    )


def _protocol(
    package: Package, views: Views, evaluated: int, detected: bool, split: str | None, precision: str
) -> dict[str, Any]:
    clips = views.clips
    whose = "boxes of a detector" if detected else "annotated boxes"
    size = f"short side {views.short_side}" + (f", crop {views.crop}" if views.crop else ", whole pictures")
    text = (
        f"key frames of films in order, {whose}: one clip of {clips.frames} frames at stride {clips.stride} around "
        f"each, the memory carried through each film; {size}; {evaluated} classes. {package.spec.name}, {precision}."
    )
    return {
        "text": text,
        "model": package.spec.name,
        "options": dict(package.spec.options),
        "clips": {"frames": clips.frames, "stride": clips.stride, "frame_rate": clips.frame_rate},
        "split": split,
        "precision": precision,
    }
