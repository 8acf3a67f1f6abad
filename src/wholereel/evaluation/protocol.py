"""The protocol of an evaluation, in words and numbers, so that two results can be told apart without reading code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from wholereel.config import Model, Task, Views
from wholereel.ops.aggregate import RULES

__all__ = ["describe"]

COMBINE = {
    "softmax_mean": "scores of the views are softmax outputs, averaged",
    "sigmoid_max": "scores of the views are sigmoid outputs, of which the largest per class counts",
}
LOGITS = "logits of the views are averaged, then {function}"
AGGREGATE = {
    "logits": LOGITS,
    "prob": "scores of the views are {function} outputs, averaged",
    "max": "the largest logit of the views per class counts, then {function}",
}
PLANS = {
    "classic": "starting at n/N of the room, as in facebookresearch/SlowFast",
    "segments": "the middle frames of equal parts of the video",
    "offset": "starting at multiples of floor(room / (N - 1)), as in facebookresearch/SlowFast with use_offset",
    "uniform": "spread evenly from the first to the last frame",
    "contiguous": "one after another",
}
KEY_FRAMES = "around the key frame"
Parts = Literal["plain", "key_frames", "padded"]


def describe(
    views: Views,
    *,
    model: Model,
    task: Task,
    classes: int,
    samples: int,
    split: str | None,
    precision: str,
    parts: Parts = "plain",
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Content of `results.json` under "protocol".

    Args:
        views: how each video was looked at.
        model, task: settings of the package.
        classes, samples: their numbers; `samples` counts those that could not be read, too.
        split: of the manifest. precision: "fp32" or "bf16".
        parts: what samples are of their videos: key frames, observations (some of which begin before the video), or
            neither.
        source: name and options of a published data set, see `prepared_as`.
    """
    memory = None if model.memory is None else {**asdict(model.memory), "after": list(model.memory.after)}
    return {
        "text": _source_text(source) + _text(views, model, task, classes, samples, precision, parts),
        "data": None if source is None else dict(source),
        "model": model.name,
        "memory": memory,
        "views": asdict(views),
        "task": asdict(task),
        "classes": classes,
        "samples": samples,
        "split": split,
        "precision": precision,
    }


def _text(views: Views, model: Model, task: Task, classes: int, samples: int, precision: str, parts: Parts) -> str:
    clips = views.clips
    rate = "the video's own frames" if clips.frame_rate is None else f"{clips.frame_rate:g} frames per second"
    number = f"1 to {clips.count} clips by length" if clips.coverage else f"{clips.count} clips"
    if clips.plan == "contiguous":
        number = f"up to {clips.count} clips"
    place = KEY_FRAMES if parts == "key_frames" else PLANS[clips.plan]
    if clips.legacy_span:
        place += ", spanning ceil(stride * (T - 1)) frames"
    if parts == "padded":
        place += "; what would lie before a video is its first frame"
    crops = "1 centre crop" if views.crops == 1 else "3 crops along the longer side"
    if model.bank is not None:
        memory = "no memory: each view is judged with a bank of features of its video"
    elif model.memory is None:
        memory = "no memory: each view is judged alone"
    elif views.memory_over == "all":
        memory = "one memory holds all clips of all crops"
    else:
        memory = "one memory per spatial crop holds all its clips"
    return (
        f"{samples} videos, {classes} classes. {number} ({place}) of {clips.frames} frames "
        f"at stride {clips.stride} on {rate}; {crops} of {views.crop} x {views.crop} pixels "
        f"after scaling the short side to {views.short_side}; "
        f"{memory}; {_combine(views, task)}. {model.name}, {precision}."
    )


def _source_text(source: Mapping[str, Any] | None) -> str:
    """Which data set, with the options that choose labels or samples (a version, a fold)."""
    if source is None:
        return ""
    options = ", ".join(f"{name} {value}" for name, value in source["options"].items())
    return f"{source['name']}{f' ({options})' if options else ''}: "


def _combine(views: Views, task: Task) -> str:
    if views.combine in COMBINE:
        return COMBINE[views.combine]
    rule = LOGITS if views.combine == "logits_mean" else AGGREGATE[RULES[task.aggregate]]
    return rule.format(function="sigmoid" if task.multi_label else "softmax")
