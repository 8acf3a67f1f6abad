"""Settings of a training that cannot be used, found before anything is read or built.

Not here: what only the data or the model can tell (`fit.py`), clips and geometry (`media/`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wholereel.config import Train
from wholereel.errors import ConfigError
from wholereel.inference.views import check_views
from wholereel.media.augment import check_augment
from wholereel.media.clip_plans import check_clips

__all__ = ["check_select", "check_train", "select_of"]

Rule = tuple[Callable[[Any], bool], str]
# Written so that NaN is never legal.
COUNT: Rule = (lambda value: value >= 1, "at least 1")
NOT_NEGATIVE: Rule = (lambda value: value >= 0, "at least 0")
POSITIVE: Rule = (lambda value: value > 0, "above 0")
SHARE: Rule = (lambda value: 0 <= value <= 1, "from 0 to 1")
BELOW_ONE: Rule = (lambda value: 0 <= value < 1, "at least 0 and below 1")

RULES: dict[str, Rule] = {
    "epochs": COUNT,
    "batch": COUNT,
    "accumulate": COUNT,
    "clip_parallel": COUNT,
    "strategy.resident": COUNT,
    "validate_every": COUNT,
    "checkpoint_minutes": NOT_NEGATIVE,
    "task.mix": SHARE,
    "task.label_smoothing": BELOW_ONE,
    "task.dropout": BELOW_ONE,
    "task.tail_drop": SHARE,
    "task.tail_below": COUNT,
    "optim.lr": POSITIVE,
    "optim.lr_batch": COUNT,
    "optim.momentum": BELOW_ONE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.memory_lr": NOT_NEGATIVE,
    "optim.head_lr": NOT_NEGATIVE,
    "optim.warmup": NOT_NEGATIVE,
    "optim.warmup_start": SHARE,
    "optim.final": SHARE,
    "optim.clip_norm": POSITIVE,
    "optim.ema": BELOW_ONE,
    "optim.precise_norm": NOT_NEGATIVE,
    "data.limit": COUNT,
    "data.workers": NOT_NEGATIVE,
    "data.max_bad": SHARE,
    "val.limit": COUNT,
    "val.workers": NOT_NEGATIVE,
    "data.streams.hop": POSITIVE,
    "data.streams.count": COUNT,
    "data.streams.gap": NOT_NEGATIVE,
    "data.streams.frames": NOT_NEGATIVE,
    "model.memory.dim": COUNT,
    "model.memory.value_dim": COUNT,
    "model.memory.ref_positions": COUNT,
    "model.memory.clip_pos": NOT_NEGATIVE,
}

# By kind of task and `task.multi_label`: what evaluation measures, each with the smallest number of classes; the first
# is the default.
METRICS: dict[str, dict[bool, dict[str, int]]] = {
    "classify": {
        False: {"video_top1": 2, "video_top5": 6, "video_mean_class": 1, "clip_top1_shared": 1, "clip_top1_alone": 1},
        True: {"video_map": 1, "video_map_weighted": 1, "video_hit1": 2, "video_hit5": 6},
    },
    "detect": {True: {"map": 1, "map_activitynet": 1}},
    # Clips are judged one by one; of several label spaces each has its own names in place of `clip`.
    "stream": {
        False: {"clip_top1": 2, "clip_top5": 6, "clip_mean_class": 1, "clip_recall5": 6},
        True: {"clip_map": 1, "clip_map_weighted": 1},
    },
    "stream_detect": {True: {"map": 1, "map_activitynet": 1}},
}
# By `task.multi_label`: the rule of the views that belongs to the other kind of labels.
FOREIGN_COMBINE: dict[bool, str] = {False: "sigmoid_max", True: "softmax_mean"}


def check_train(train: Train) -> None:
    """Refuse values outside of their range, and settings that contradict each other.

    Raises: ConfigError: naming field, value and what is legal.
    """
    for path, (legal, text) in RULES.items():
        value = _value(train, path)
        if value is not None and not legal(value):
            raise ConfigError(f"{path} must be {text}, got {value!r}.")
    if not all(BELOW_ONE[0](beta) for beta in train.optim.betas):
        raise ConfigError(f"optim.betas must both be {BELOW_ONE[1]}, got {train.optim.betas}.")
    if train.optim.name == "sgd" and train.optim.nesterov and train.optim.momentum == 0:
        raise ConfigError("optim.nesterov needs optim.momentum above 0, got 0.")
    if (train.optim.schedule == "steps") != bool(train.optim.steps):
        raise ConfigError(
            f"optim.schedule={train.optim.schedule!r} with optim.steps={train.optim.steps}: epochs of steps go with "
            "schedule='steps', and with no other."
        )
    check_augment(train.data.augment)
    _check_mixing(train)
    _check_streams(train)
    if train.data.streams is not None:
        return
    check_clips(train.data.clips)
    _check_kind(train)
    _check_bank(train)
    fewest = train.data.clips.least or train.data.clips.count
    if train.clip_parallel > fewest:
        raise ConfigError(
            f"clip_parallel={train.clip_parallel} processes cannot share {fewest} clips of a video: each needs one. "
            f"Use at most {fewest}, or more clips."
        )
    if train.views is None or train.task.kind == "detect":
        return
    check_views(train.views)
    if train.views.combine == FOREIGN_COMBINE[train.task.multi_label]:
        raise ConfigError(
            f"views.combine={train.views.combine!r} does not fit task.multi_label={train.task.multi_label}; "
            f"use 'task' or {FOREIGN_COMBINE[not train.task.multi_label]!r}."
        )


def _check_mixing(train: Train) -> None:
    """Only pictures and labels of whole clips can be blended."""
    if train.data.augment.mixing is None:
        return
    others = {
        f"task.kind={train.task.kind!r}": train.task.kind not in ("classify", "stream"),
        f"task.tail_drop={train.task.tail_drop}": bool(train.task.tail_drop),
        "data.audio": train.data.audio is not None,
        "data.bank": train.data.bank is not None,
    }
    for name, found in others.items():
        if found:
            raise ConfigError(
                f"data.augment.mixing blends clips and their labels, which {name} does not allow: boxes, sound, banks "
                "and left-out classes belong to one video. Set data.augment.mixing=null, or leave that out."
            )


def _check_bank(train: Train) -> None:
    """A model that reads a bank is given one, and by a strategy that hands it on."""
    for name, data in {"data": train.data, "val": train.val}.items():
        if data is not None and (data.bank is None) != (train.model.bank is None):
            raise ConfigError(
                f"model.bank is {'null' if train.model.bank is None else 'set'} and {name}.bank is "
                f"{'null' if data.bank is None else 'set'}: a model that reads a bank needs one, others need none."
            )
    if train.model.bank is not None and train.strategy.name == "multi_iteration":
        raise ConfigError(
            "strategy 'multi_iteration' cuts gradients between clips, and with model.bank clips exchange nothing. Use "
            "'full', 'exact' or 'batch_reduction'."
        )


def _check_streams(train: Train) -> None:
    streams, sequential = train.data.streams is not None, train.strategy.name == "sequential"
    if streams != sequential:
        raise ConfigError(
            f"data.streams is {'set' if streams else 'null'}, but strategy.name={train.strategy.name!r}. Streams are "
            "trained by strategy 'sequential', and nothing else is: set both or neither."
        )
    if not streams and train.val is not None and train.val.streams is not None:
        raise ConfigError("val.streams is set, data.streams is null: whole videos are learned. Set both or neither.")
    for name, bank in {"model": train.model.bank, "data": train.data.bank, "val": train.val and train.val.bank}.items():
        if streams and bank is not None:
            raise ConfigError(f"{name}.bank is set, and data.streams reads clip by clip: streams read no bank.")
    if streams and train.model.boxes is not None:
        raise ConfigError(
            "model.boxes is a head for windows of clips, and data.streams reads clip by clip. For boxes in streams use "
            "a MeMViT with its option boxes=True and task.kind='stream_detect'; model.boxes must be null."
        )
    memory = train.model.memory
    if streams and memory is not None and memory.interaction.startswith("nl_"):
        raise ConfigError(
            f"model.memory.interaction={memory.interaction!r} keeps all tokens of all clips; streams need a memory of "
            "fixed size, such as 'assoc'."
        )
    if streams and train.val is not None and train.val.streams is None:
        raise ConfigError("data.streams is set, val.streams is null. Validate on streams, too.")


def select_of(train: Train) -> str:
    """The metric that chooses the best model: `train.select`, or the usual one of the kind of labels."""
    return train.select or next(iter(_metrics(train)))


def check_select(train: Train, classes: int) -> None:
    """Refuse a metric that `evaluation` does not measure for this kind of labels and this number of classes.

    Raises: ConfigError: naming those that it does.
    """
    measured = [name for name, least in _metrics(train).items() if classes >= least]
    if select_of(train) not in measured:
        raise ConfigError(
            f"select={select_of(train)!r} is not measured with task.multi_label={train.task.multi_label} and {classes} "
            f"classes. Measured: {', '.join(measured)}."
        )


def _check_kind(train: Train) -> None:
    """Boxes are judged by tasks of one kind alone."""
    detects = train.task.kind == "detect"
    if detects != (train.model.boxes is not None):
        raise ConfigError(
            f"task.kind={train.task.kind!r} and model.boxes={train.model.boxes} do not fit: a head for boxes goes with "
            "task.kind='detect', and the other way round."
        )
    if detects and not train.task.multi_label:
        raise ConfigError("task.kind='detect' judges each class by itself: set task.multi_label=True.")
    if train.data.augment.crop == 0 and not detects:
        raise ConfigError("data.augment.crop=0 (whole pictures) is for task.kind='detect'; give a size in pixels.")


def _metrics(train: Train) -> dict[str, int]:
    """What evaluation measures of this task; of a kind that is not in the table, what it measures of a classifier."""
    task, labels = train.task, train.data.labels
    table = METRICS.get(task.kind, METRICS["classify"])[task.multi_label]
    if task.kind != "stream" or len(labels) == 1:
        return table
    return {f"{name}_{metric.removeprefix('clip_')}": least for metric, least in table.items() for name in labels}


def _value(settings: Any, path: str) -> Any:
    """The field at a dotted path; `None` where a part on the way is `None`."""
    for name in path.split("."):
        settings = None if settings is None else getattr(settings, name)
    return settings
