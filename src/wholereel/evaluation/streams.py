"""Measure a model that reads streams: videos clip by clip, in order, with the memory carried; every clip judged once.

Extra axes: K classes, P labels of a clip (frame-level models), Q clips or parts of clips. Several videos are read in
parallel, in one process or in all of a process group; what is remembered of one never reaches another, so the numbers
do not depend on how many.
Not here: which clips there are (`datasets/stream_dataset.py`), the numbers and files (`stream_results.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from wholereel.batches import IGNORED, Fault, StreamBatch
from wholereel.config import Augment, Data, Streams, Views
from wholereel.datasets.manifest import Manifest
from wholereel.datasets.stream_loader import stream_loader
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.class_places import class_places
from wholereel.evaluation.evaluate import eval_mode
from wholereel.evaluation.gather import gather
from wholereel.evaluation.stream_results import ClipRecord, StreamResults, summarise_streams, write_stream_results
from wholereel.inference.predictor import find_package, precision_context
from wholereel.models.package import Package, load_package
from wholereel.tasks.stream_classification import StreamClassification

__all__ = ["evaluate_streams", "reading"]


def evaluate_streams(
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
) -> StreamResults:
    """Evaluate every clip of every video of the manifest; what cannot be read is listed and left out.

    Args:
        package: loaded, or the folder of a model package or run.
        manifest: the samples (of one split), with the label columns of the package's spaces.
        views: frames, stride and frame rate of the clips, short side and crop count, the rest does not.
        data: `streams` (as in training where `None`), `limit`, `workers`, `cache`, and `split` for the record.
        batch: videos read in parallel. workers: decoding processes; `None` = as in `data`.
        precision, device, cache_dir: as in `evaluate`.
        out: folder for `results.json` and `predictions.jsonl`; `None` = no files.
    Returns: the same on every rank.
    Raises: ConfigError: the package does not read streams, or not with these settings. DataError: labels or classes
        that do not fit the model, or nothing that can be read.
    """
    data = data or Data(root=None, split=None)
    package = package if isinstance(package, Package) else load_package(find_package(package))
    streams = data.streams or package.streams
    if streams is None or not package.spaces:
        raise ConfigError("this package judges whole videos, not streams; use `evaluate`.")
    places = {space: torch.tensor(class_places(manifest, space, names)) for space, names in package.spaces.items()}
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
    if loader.dataset.multi_hot != package.task.multi_label:
        several = "several labels" if loader.dataset.multi_hot else "one label"
        raise ConfigError(
            f"clips have {several} under streams.label={streams.label!r}, but the model was trained with "
            f"task.multi_label={package.task.multi_label}; use data.streams as in training (null)"
        )
    task = StreamClassification(package.model.to(device), package.task, package.spaces)
    records: list[ClipRecord] = []
    faults: list[Fault] = []
    state = None
    with eval_mode(task), precision_context(precision, device):
        for one in loader.epoch(0):
            faults.extend(one.faults)
            one = one.to(device)
            state = task.begin(one) if state is None else state
            prediction, state = task.predict(one, state.reset(one.starts_B))
            scores = prediction.scores
            if not streams.frames:  # one label a clip: what a model of frames says at the end of it
                scores = {space: part[:, -1] if part.ndim == 3 else part for space, part in scores.items()}
            records.extend(_records(one, scores, places, multi_label=package.task.multi_label))
    loader.close()
    records = [record for part in gather(records) for record in part]
    faults = [fault for part in gather(faults) for fault in part]
    if not records:
        raise DataError(manifest.root, f"no clip could be read; the first: {faults[0].reason if faults else 'none'}")
    protocol = _protocol(package, views, streams, data, precision)
    results = summarise_streams(
        records, faults, spaces=package.spaces, multi_label=package.task.multi_label, protocol=protocol
    )
    if out is not None and rank == 0:
        write_stream_results(results, Path(out))
    return results


def reading(data: Data, views: Views, streams: Streams, package: Package, workers: int | None, cached: bool) -> Data:
    """How clips are read: as the package says, undrawn; in the order that reads each once."""
    return replace(
        data,
        labels=tuple(package.spaces),
        clips=views.clips,
        augment=Augment(short_side=(views.short_side, views.short_side), crop=views.crop, flip=0.0),
        streams=replace(streams, order="balanced"),
        cache=data.cache and cached,
        workers=data.workers if workers is None else workers,
    )


def _records(
    batch: StreamBatch, scores: Mapping[str, Tensor], places: Mapping[str, Tensor], *, multi_label: bool
) -> list[ClipRecord]:
    """Of each valid row, of each of its parts."""
    scores = {space: one.float().cpu() for space, one in scores.items()}
    labels = {
        space: _model_labels(batch.target.labels[space].cpu(), places[space], one.shape[-1], multi_label)
        for space, one in scores.items()
    }
    seconds_B2, records = batch.seconds_B2.cpu(), []
    for row in torch.nonzero(batch.valid_B.cpu()).flatten().tolist():
        rows = {space: one[row] if one.ndim == 3 else one[row, None] for space, one in scores.items()}
        parts = len(next(iter(rows.values())))
        begin, end = seconds_B2[row].tolist()
        for part in range(parts):
            length = (end - begin) / parts
            records.append(
                ClipRecord(
                    id=batch.ids[row] if parts == 1 else f"{batch.ids[row]}/{part}",
                    begin=begin + part * length,
                    end=begin + (part + 1) * length,
                    targets={space: _target(one[row], part, multi_label) for space, one in labels.items()},
                    scores={space: tuple(one[part].tolist()) for space, one in rows.items()},
                )
            )
    return records


def _model_labels(labels: Tensor, places_K: Tensor, classes: int, multi_label: bool) -> Tensor:
    """The same labels in the model's order of classes."""
    if multi_label:
        own = torch.zeros(*labels.shape[:-1], classes).index_copy_(-1, places_K, labels)
        return own.masked_fill((labels == IGNORED).any(-1, keepdim=True), IGNORED)
    return torch.where(labels >= 0, places_K[labels.clamp(min=0)], labels)


def _target(label: Tensor, part: int, multi_label: bool) -> tuple[int, ...] | None:
    """Classes of one clip or part; `None` without a label."""
    own = label[part] if label.ndim == (2 if multi_label else 1) else label
    if bool((own == IGNORED).any()):
        return None
    return tuple(own.nonzero().flatten().tolist()) if multi_label else (int(own),)


def _protocol(package: Package, views: Views, streams: Streams, data: Data, precision: str) -> dict[str, Any]:
    clips = views.clips
    rate = "the video's own frames" if clips.frame_rate is None else f"{clips.frame_rate:g} frames per second"
    hop = "one after the other" if streams.hop is None else f"{streams.hop:g} s apart"
    which = f"clips {hop}" if streams.steps == "grid" else f"one clip for each sample ({streams.place}), in order"
    asked = (
        f"; what begins {streams.gap:g} s after the clip" if streams.label == "next" and streams.steps == "grid" else ""
    )
    text = (
        f"streams: {which}, {clips.frames} frames at stride {clips.stride} on {rate}, the memory carried through each "
        f"video{asked}; 1 centre crop of {views.crop} pixels after scaling the short side to {views.short_side}. "
        f"{package.spec.name}, {precision}."
    )
    return {
        "text": text,
        "model": package.spec.name,
        "options": dict(package.spec.options),
        "streams": vars(streams).copy(),
        "clips": {"frames": clips.frames, "stride": clips.stride, "frame_rate": clips.frame_rate},
        "split": data.split,
        "precision": precision,
    }
