"""The tables of tasks, and how a training's task is made from its settings and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from wholereel.config import Train
from wholereel.datasets.manifest import Manifest
from wholereel.datasets.stream_labels import RULES
from wholereel.errors import ConfigError
from wholereel.models.package import build_model
from wholereel.models.video_model import VideoModel
from wholereel.tasks.classification import ClassificationTask
from wholereel.tasks.detection import DetectionTask
from wholereel.tasks.stream_classification import StreamClassification
from wholereel.tasks.stream_detection import StreamDetection
from wholereel.tasks.stream_task import StreamTask
from wholereel.tasks.task import Task

__all__ = ["STREAM_TASKS", "TASKS", "AnyTask", "create_task"]

AnyTask = Task | StreamTask

TASKS: dict[str, type[ClassificationTask] | type[DetectionTask]] = {
    "classify": ClassificationTask,
    "detect": DetectionTask,
}
STREAM_TASKS: dict[str, type[StreamClassification] | type[StreamDetection]] = {
    "stream": StreamClassification,
    "stream_detect": StreamDetection,
}


def create_task(train: Train, manifest: Manifest) -> tuple[AnyTask, tuple[str, ...]]:
    """The task, on the CPU, and the names of its classes in the order of the logits.

    Raises: ConfigError: settings that do not fit the data or each other.
    """
    if train.task.kind not in (*TASKS, *STREAM_TASKS):
        raise ConfigError(f"there is no task {train.task.kind!r}. Tasks: {', '.join((*TASKS, *STREAM_TASKS))}.")
    if (train.task.kind in STREAM_TASKS) != (train.data.streams is not None):
        wanted = STREAM_TASKS if train.data.streams is not None else TASKS
        raise ConfigError(
            f"task.kind={train.task.kind!r} does not fit data.streams={train.data.streams}. Use "
            f"{' or '.join(map(repr, wanted))}, or {'no streams' if train.data.streams else 'streams'}."
        )
    drop, below = train.task.tail_drop, train.task.tail_below
    if bool(drop) != (below is not None) or (drop and train.task.kind != "stream"):
        raise ConfigError(
            f"task.tail_drop={drop} and task.tail_below={below} belong together, and to task.kind='stream', got "
            f"{train.task.kind!r}."
        )
    return _stream_task(train, manifest) if train.task.kind in STREAM_TASKS else _video_task(train, manifest)


def _video_task(train: Train, manifest: Manifest) -> tuple[Task, tuple[str, ...]]:
    """Of the first label space."""
    label = train.data.labels[0]
    if len(train.data.labels) != 1 or label not in manifest.classes:
        raise ConfigError(
            f"training needs exactly one label space of {sorted(manifest.classes)}, got {list(train.data.labels)}"
        )
    if manifest.multi_label != train.task.multi_label:
        raise ConfigError(
            f"the data set has {'several labels' if manifest.multi_label else 'one label'} a video, "
            f"but task.multi_label={train.task.multi_label}. Set task.multi_label={manifest.multi_label}."
        )
    classes = manifest.classes[label]
    model = build_model(train.model, len(classes))
    if not isinstance(model, VideoModel):
        raise ConfigError(
            f"model {train.model.name!r} reads videos clip by clip, task {train.task.kind!r} judges several clips of a "
            "video together. Use task.kind='stream' with data.streams, or a clip model."
        )
    return TASKS[train.task.kind](model, train.task, len(classes), label=label), classes


def _stream_task(train: Train, manifest: Manifest) -> tuple[StreamTask, tuple[str, ...]]:
    """Of all label spaces."""
    missing = [label for label in train.data.labels if not manifest.classes.get(label)]
    if missing or not train.data.labels:
        raise ConfigError(
            f"training needs label spaces of {sorted(manifest.classes)} with known classes, got "
            f"{list(train.data.labels)}"
        )
    spaces = {label: manifest.classes[label] for label in train.data.labels}
    sizes = tuple(map(len, spaces.values()))
    model = build_model(train.model, sizes if len(sizes) > 1 else sizes[0])
    kind = STREAM_TASKS[train.task.kind]
    tails: dict[str, Any] = {"tails": _rare_classes(train, manifest, spaces)} if train.task.tail_drop else {}
    task = kind(model, train.task, spaces, **tails)
    return cast(StreamTask, task), tuple(name for names in spaces.values() for name in names)


def _rare_classes(train: Train, manifest: Manifest, spaces: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Of each label space, bool: which classes have fewer than `tail_below` labels in the training split."""
    counts = {name: torch.zeros(len(names), dtype=torch.int64) for name, names in spaces.items()}
    streams = train.data.streams
    timed = streams is not None and streams.steps != "samples" and streams.label in RULES
    for sample in manifest.samples:
        if sample.split not in (train.data.split, None):
            continue
        for name, count_K in counts.items():
            found = sample.labels.get(name, ())
            labels = [event.label for event in sample.events] if timed else [found] if isinstance(found, int) else found
            count_K += torch.bincount(
                torch.tensor([label for label in labels if label >= 0], dtype=torch.int64), minlength=len(count_K)
            )
    return {name: count_K < (train.task.tail_below or 0) for name, count_K in counts.items()}
