"""What a data set means by left and right: which classes and joints are each other's mirror image.

The sidecar `mirror.json` beside a manifest holds pairs of class names by label column, pairs of joints, and classes
whose mirror image is no class (videos of these are never flipped); with `"never": true` nothing is flipped:
`{"labels": {"label": [["turn left", "turn right"]]}, "joints": [[0, 5]], "fixed": {"label": ["look right"]}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholereel.errors import DataError

__all__ = ["MIRROR_FILE", "Mirror", "mirror_of_classes", "mirror_of_joints", "mirror_text", "read_mirror"]

MIRROR_FILE = "mirror.json"
SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
SIDE_WORD = re.compile(r"(?<![A-Za-z])([Ll]eft|[Rr]ight)(?![A-Za-z])")
EXAMPLE = '{"labels": {"label": [["turn left", "turn right"]]}, "joints": [[0, 5]]}'


@dataclass(frozen=True)
class Mirror:
    """What a flip from left to right does to labels and joints.

    Args:
        labels: by label column the class of the mirrored video for each class, -1 where there is none.
        joints: pairs of joints that change places.
        never: pictures are not flipped at all (their colours tell sides, or writing is in them).
    """

    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    joints: tuple[tuple[int, int], ...] = ()
    never: bool = False

    @property
    def knows_sides(self) -> bool:
        """Whether some label changes when a video is flipped, or is lost; or nothing may be flipped."""
        return self.never or any(
            index != place for column in self.labels.values() for place, index in enumerate(column)
        )

    def flippable(self, labels: Mapping[str, int | tuple[int, ...]]) -> bool:
        """Whether the mirror image of a video with these labels has labels."""
        return not self.never and all(
            self.labels[name][index] >= 0
            for name, label in labels.items()
            if name in self.labels
            for index in (label if isinstance(label, tuple) else (label,))
        )

    def flipped(self, name: str, label: int | tuple[int, ...]) -> int | tuple[int, ...]:
        """Labels of the mirror image in a column."""
        table = self.labels.get(name)
        if table is None:
            return label
        return tuple(sorted(table[index] for index in label)) if isinstance(label, tuple) else table[label]


def mirror_of_classes(classes: Mapping[str, Sequence[str]]) -> Mirror:
    """Read from the names of the classes: the mirror image has the words left and right exchanged.

    A name without either word stays; one whose mirror image is no class has none. Columns without the words are left
    out.
    """
    labels = {}
    for column, names in classes.items():
        places = {name: index for index, name in enumerate(names)}
        swapped = [SIDE_WORD.sub(lambda word: SIDES[word[0]], name) for name in names]
        if list(names) != swapped:
            labels[column] = tuple(places.get(name, -1) for name in swapped)
    return Mirror(labels)


def mirror_of_joints(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs `left_x` and `right_x` of joints."""
    return tuple(
        (index, names.index("right" + name.removeprefix("left")))
        for index, name in enumerate(names)
        if name.startswith("left")
    )


def mirror_text(mirror: Mirror, classes: Mapping[str, Sequence[str]]) -> str:
    """The content of `mirror.json`."""
    content: dict[str, Any] = {"labels": {}}
    for column, table in mirror.labels.items():
        names = classes[column]
        content["labels"][column] = [[names[a], names[b]] for a, b in enumerate(table) if a < b]
        fixed = [names[a] for a, b in enumerate(table) if b < 0]
        if fixed:
            content.setdefault("fixed", {})[column] = fixed
    content["joints"] = [list(pair) for pair in mirror.joints]
    if mirror.never:
        content["never"] = True
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def read_mirror(folder: Path, classes: Mapping[str, Sequence[str]]) -> Mirror:
    """What `mirror.json` in a folder says of these label columns; nothing changes sides where there is none.

    Raises: DataError: it holds something else, or names a class that there is not.
    """
    file = folder / MIRROR_FILE
    if not file.is_file():
        return Mirror()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        pairs, fixed = content.get("labels", {}), content.get("fixed", {})
        labels = {
            column: _table(pairs.get(column, ()), fixed.get(column, ()), classes[column])
            for column in classes
            if column in pairs or column in fixed
        }
        joints = tuple((int(left), int(right)) for left, right in content.get("joints", ()))
        if len({joint for pair in joints for joint in pair}) != 2 * len(joints):
            raise ValueError("a joint stands in two pairs")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = f"{error.args[0]!r} is no class" if isinstance(error, KeyError) else str(error)
        raise DataError(file, f"cannot be read ({reason})", EXAMPLE) from error
    return Mirror(labels, joints, bool(content.get("never", False)))


def _table(pairs: Sequence[Sequence[str]], fixed: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    places = {name: index for index, name in enumerate(names)}
    table = list(range(len(names)))
    for left, right in pairs:
        table[places[left]], table[places[right]] = places[right], places[left]
    for name in fixed:
        table[places[name]] = -1
    if sorted(index for index in table if index >= 0) != sorted(a for a, b in enumerate(table) if b >= 0):
        raise ValueError("a class stands in two pairs")
    return tuple(table)
