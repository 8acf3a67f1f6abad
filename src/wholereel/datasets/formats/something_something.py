"""Something-Something V1 (folders of pictures, CSV with `;` and no header) and V2 (WebM files, JSON).

Left and right are in the labels: a flip changes the class (`Annotations.mirror`), so there is none unless asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import find_file, json_content, text_lines
from wholereel.datasets.mirror import mirror_of_classes
from wholereel.datasets.sample import Sample
from wholereel.errors import DataError

__all__ = ["read_something_something_v1", "read_something_something_v2"]

PARTS = {"train": "train", "validation": "val", "test": "test"}


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
    mirror = mirror_of_classes({"label": classes})
    return Annotations(tuple(samples), {"label": classes}, root, tuple(sources), mirror=mirror)


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
    mirror = mirror_of_classes({"label": classes})
    return Annotations(tuple(samples), {"label": classes}, root, tuple(sources), mirror=mirror)


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
