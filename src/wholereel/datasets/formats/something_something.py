"""Something-Something V1 (folders of pictures, CSV with `;` and no header) and V2 (WebM files, JSON).

Left and right are in the labels: flipping a picture changes its class, see `mirrored_classes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import find_file, json_content, text_lines
from wholereel.datasets.sample import Sample
from wholereel.errors import DataError

__all__ = ["mirrored_classes", "read_something_something_v1", "read_something_something_v2"]

PARTS = {"train": "train", "validation": "val", "test": "test"}
SIDES = {"left": "right", "right": "left"}


def read_something_something_v1(
    root: Path, *, frames: str = "20bn-something-something-v1", frame_rate: float = 12.0
) -> Annotations:
    """Read `something-something-v1-{train,validation,test,labels}.csv`; a part that one does not have is left out.

    Args:
        root: folder with the lists (or a sub-folder with them) and with `frames`.
        frames: folder with a folder of pictures for each id.
        frame_rate: pictures per second.
    """
    labels_file = find_file(root, "something-something-v1-labels.csv")
    classes = tuple(line for _, line in text_lines(labels_file))
    places = {name: index for index, name in enumerate(classes)}
    sources, samples = [labels_file], []
    for file, split in _parts(root, "something-something-v1-{}.csv"):
        sources.append(file)
        for number, line in text_lines(file):
            id, _, text = line.partition(";")
            labels = _label(places, text.strip(), file, f"line {number}", split)
            samples.append(Sample(id, root / frames / id, None, None, split, labels, frame_rate=frame_rate))
    facts = {"mirrored": list(mirrored_classes(classes))}
    return Annotations(tuple(samples), {"label": classes}, root, tuple(sources), facts=facts)


def read_something_something_v2(root: Path, *, videos: str = "20bn-something-something-v2") -> Annotations:
    """Read `something-something-v2-{labels,train,validation,test}.json` (newer: `labels.json`, ...).

    Args:
        root: folder with the lists (or a sub-folder with them) and with `videos`.
        videos: folder with `<id>.webm`.
    """
    labels_file = find_file(root, "something-something-v2-labels.json", "labels.json")
    places = {str(text): int(index) for text, index in json_content(labels_file).items()}
    if sorted(places.values()) != list(range(len(places))):
        raise DataError(labels_file, "indices have gaps or repeat", f"0..{len(places) - 1}, each once")
    classes = tuple(sorted(places, key=places.__getitem__))
    prefix = "something-something-v2-" if labels_file.name.startswith("something") else ""
    sources, samples = [labels_file], []
    for file, split in _parts(labels_file.parent, prefix + "{}.json"):
        sources.append(file)
        for number, entry in enumerate(json_content(file), start=1):
            id, text = _entry(entry, file, number)
            labels = _label(places, text, file, f"entry {number}", split)
            samples.append(Sample(id, root / videos / f"{id}.webm", None, None, split, labels))
    facts = {"mirrored": list(mirrored_classes(classes))}
    return Annotations(tuple(samples), {"label": classes}, root, tuple(sources), facts=facts)


def mirrored_classes(classes: Sequence[str]) -> tuple[int, ...]:
    """The class that a mirrored video of each class shows: that of the label with left and right exchanged.

    A label without either word keeps its class, and so does one whose mirror image is no class of its own.
    Returns: one index a class; applied twice, every class comes back.
    """
    places = {name: index for index, name in enumerate(classes)}
    swapped = (re.sub(r"\b(left|right)\b", lambda word: SIDES[word[0]], name) for name in classes)
    return tuple(places.get(name, index) for index, name in enumerate(swapped))


def _parts(root: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    """The lists that there are; those for training at least."""
    first = find_file(root, pattern.format("train"))
    for name, split in PARTS.items():
        file = first.with_name(pattern.format(name))
        if file.is_file():
            yield file, split


def _entry(entry: Any, file: Path, number: int) -> tuple[str, str]:
    try:
        return str(entry["id"]), str(entry.get("template", "")).replace("[", "").replace("]", "")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(file, f"entry {number} has no id", '{"id", "label", "template", "placeholders"}') from error


def _label(places: dict[str, int], text: str, file: Path, place: str, split: str) -> dict[str, int]:
    if not text and split == "test":
        return {}
    if text not in places:
        raise DataError(file, f"{place} has the label {text[:80]!r}", "one of the list of labels")
    return {"label": places[text]}
