"""A model in training as a model package: in memory for validation, on disk as `best/` and `last/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wholereel.config import Train, Views
from wholereel.inference.views import repeatable
from wholereel.models.package import Package, save_package
from wholereel.tasks import AnyTask
from wholereel.tasks.stream_task import StreamTask

__all__ = ["as_package", "views_of", "write_package"]


def views_of(train: Train) -> Views:
    """How the trained model looks at a video: `train.views`, or the training clips undrawn and a centre crop."""
    if train.views is not None:
        return train.views
    augment = train.data.augment
    return Views(clips=repeatable(train.data.clips), short_side=augment.short_side[0], crop=augment.crop)


def as_package(
    task: AnyTask, train: Train, classes: tuple[str, ...], extra: Mapping[str, Any] | None = None
) -> Package:
    """The task's model (the same object, not a copy) with all that is needed to use it."""
    views, info = views_of(train), task.model.info
    return Package(
        model=task.model,
        spec=train.model,
        classes=classes,
        spaces=task.spaces if isinstance(task, StreamTask) else {},
        streams=train.data.streams,
        task=train.task,
        clips=views.clips,
        short_side=views.short_side,
        crop=views.crop,
        mean=info.mean,
        std=info.std,
        extra=dict(extra or {}),
    )


def write_package(
    directory: Path, task: AnyTask, train: Train, classes: tuple[str, ...], extra: Mapping[str, Any]
) -> None:
    """Save the task's present weights, in one step (see `models.package`)."""
    package = as_package(task, train, classes, extra)
    save_package(
        directory,
        package.model,
        spec=package.spec,
        num_classes=len(classes),
        classes=classes,
        task=package.task,
        input={name: getattr(package, name) for name in ("mean", "std", "short_side", "crop", "clips")},
        extra=package.extra,
        spaces=package.spaces,
        streams=package.streams,
    )
