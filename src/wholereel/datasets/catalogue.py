"""The data sets that are read in their official form, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from wholereel.datasets.formats.action_boxes import read_action_boxes
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.ava import read_ava
from wholereel.datasets.formats.charades import read_charades
from wholereel.datasets.formats.dcase_scenes import read_dcase_scenes
from wholereel.datasets.formats.diving48 import read_diving48
from wholereel.datasets.formats.epic_kitchens import read_epic_kitchens
from wholereel.datasets.formats.esc50 import read_esc50
from wholereel.datasets.formats.frame_lists import read_frame_lists
from wholereel.datasets.formats.hmdb51 import read_hmdb51
from wholereel.datasets.formats.imagenet import read_imagenet
from wholereel.datasets.formats.kinetics import read_kinetics
from wholereel.datasets.formats.posetrack import read_posetrack
from wholereel.datasets.formats.something_something import read_something_something_v1, read_something_something_v2
from wholereel.datasets.formats.sports1m import read_sports1m
from wholereel.datasets.formats.timed_actions import read_activitynet, read_timed_actions
from wholereel.datasets.formats.ucf101 import read_ucf101
from wholereel.errors import ConfigError, DataError, closest

__all__ = ["DATASETS", "DataSet", "read_dataset"]


@dataclass(frozen=True)
class DataSet:
    """A data set that others publish.

    Args:
        read: folder, and options by keyword, to annotations.
        what: one line.
        published: samples of each split as published, with the default options; where a count is known.
    """

    read: Callable[..., Annotations]
    what: str
    published: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def options(self) -> dict[str, Any]:
        """Options and their defaults; those that the name stands for are none."""
        parameters = inspect.signature(self.read).parameters.values()
        fixed = self.read.keywords if isinstance(self.read, partial) else {}
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed}


DATASETS: dict[str, DataSet] = {
    "kinetics400": DataSet(read_kinetics, "Kinetics-400", {"train": 246_534, "val": 19_906, "test": 39_805}),
    "kinetics600": DataSet(read_kinetics, "Kinetics-600", {"val": 30_000, "test": 72_924}),
    "kinetics700": DataSet(read_kinetics, "Kinetics-700 and 700-2020"),
    "something_something_v1": DataSet(
        read_something_something_v1,
        "Something-Something V1",
        {"train": 86_017, "val": 11_522, "test": 10_960},
    ),
    "something_something_v2": DataSet(
        read_something_something_v2, "Something-Something V2", {"train": 168_913, "val": 24_777, "test": 27_157}
    ),
    "charades": DataSet(read_charades, "Charades v1, multi-label with times", {"train": 7_985, "val": 1_863}),
    "frame_lists": DataSet(read_frame_lists, "lists of pictures with their labels, as SlowFast reads them"),
    "ava_v2.1": DataSet(partial(read_ava, version="v2.1"), "AVA actions 2.1, boxes at key frames"),
    "ava_v2.2": DataSet(partial(read_ava, version="v2.2"), "AVA actions 2.2, boxes at key frames"),
    "action_boxes": DataSet(read_action_boxes, "your own videos with boxes and actions in AVA's columns"),
    "timed_actions": DataSet(read_timed_actions, "your own untrimmed videos with a table of timed actions"),
    "activitynet": DataSet(
        read_activitynet,
        "ActivityNet v1.3, timed actions, and sets in its form",
        {"train": 10_024, "val": 4_926, "test": 5_044},
    ),
    "epic_kitchens_100": DataSet(
        partial(read_epic_kitchens, anticipation=False),
        "EPIC-KITCHENS-100, verbs and nouns",
        {"train": 67_217, "val": 9_668, "test": 13_092},
    ),
    "epic_kitchens_100_anticipation": DataSet(
        partial(read_epic_kitchens, anticipation=True),
        "the same, seen until one second before the action",
        {"train": 67_217, "val": 9_668, "test": 13_092},
    ),
    "ucf101": DataSet(read_ucf101, "UCF101, one of three folds", {"train": 9_537, "test": 3_783}),
    "hmdb51": DataSet(read_hmdb51, "HMDB51, one of three folds", {"train": 3_570, "test": 1_530}),
    "diving48": DataSet(read_diving48, "Diving48, labels V1 or V2", {"train": 15_027, "test": 1_970}),
    "sports1m": DataSet(read_sports1m, "Sports-1M, multi-label"),
    "esc50": DataSet(read_esc50, "ESC-50 and ESC-10, sounds, one of five folds", {"train": 1_600, "test": 400}),
    "dcase_scenes": DataSet(read_dcase_scenes, "DCASE acoustic scenes, sounds"),
    "posetrack": DataSet(read_posetrack, "PoseTrack 2017 and 2018, joints of people"),
    "imagenet": DataSet(read_imagenet, "ImageNet-1k, or any folders of pictures", {"train": 1_281_167, "val": 50_000}),
}


def read_dataset(name: str, root: Path, options: Sequence[str] = ()) -> tuple[Annotations, dict[str, Any]]:
    """Read a data set by name.

    Args:
        name: key of `DATASETS`.
        root: its folder.
        options: "name=value" texts.
    Returns: annotations, and the options as they were used, defaults included.
    Raises: ConfigError: no such data set or option, or a value of another type. DataError: see the readers.
    """
    if name not in DATASETS:
        raise ConfigError(f"no data set {name!r}.{closest(name, DATASETS)} There are: {', '.join(DATASETS)}.")
    if not root.is_dir():
        raise DataError(root, "no such folder", "the folder of the data set")
    read = DATASETS[name].read
    known = DATASETS[name].options()
    hints = get_type_hints(read.func if isinstance(read, partial) else read)
    given = {}
    for text in options:
        key, equals, value = text.partition("=")
        if key not in known or not equals:
            legal = ", ".join(f"{option}={default}" for option, default in known.items()) or "none"
            raise ConfigError(f"data set {name!r} has no option {text!r}. Options (and defaults): {legal}.")
        given[key] = _value(key, value, hints[key])
    return read(root, **given), {**known, **given}


def _value(name: str, text: str, kind: Any) -> Any:
    """A text as the type of an option: a choice, a number, a yes or no, or text."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ConfigError(f"option {name}={text} is unknown; legal are {', '.join(get_args(kind))}")
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise ConfigError(f"option {name}={text}: legal are true and false")
        return text == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"option {name}={text} is no {'whole ' if kind is int else ''}number") from None
    return text
