"""Diving48: `Diving48_V2_train.json`, `Diving48_V2_test.json` (V1: without `V2_`) and `Diving48_vocab.json`.

Lists of `{"vid_name", "label", "start_frame", "end_frame"}`; the vocabulary has four attributes for each class. Files
are cut to the dive already, so the frame numbers are kept as facts about it and not cut again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, find_file, json_content
from wholereel.datasets.sample import Sample
from wholereel.errors import DataError

__all__ = ["read_diving48"]

VERSIONS = {"v2": "V2_", "v1": ""}


def read_diving48(root: Path, *, version: Literal["v1", "v2"] = "v2") -> Annotations:
    """Read the train and test lists of one version of the labels (those of V1 are known to be wrong in places).

    Args:
        root: folder with the lists (or a sub-folder with them) and the videos.
        version: state it beside every number.
    """
    vocabulary = find_file(root, "Diving48_vocab.json")
    words = json_content(vocabulary)
    if not isinstance(words, list):
        raise DataError(vocabulary, f"holds {type(words).__name__}", "a list of classes")
    classes = tuple("/".join(map(str, entry)) if isinstance(entry, list) else str(entry) for entry in words)
    videos = VideoIndex(root)
    sources, samples = [vocabulary], []
    for split in ("train", "test"):
        file = find_file(root, f"Diving48_{VERSIONS[version]}{split}.json")
        sources.append(file)
        for number, entry in enumerate(json_content(file), start=1):
            try:
                name, label = str(entry["vid_name"]), int(entry["label"])
                meta = {"start_frame": int(entry["start_frame"]), "end_frame": int(entry["end_frame"])}
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    file, f"entry {number} cannot be read", "vid_name, label, start_frame, end_frame"
                ) from error
            if not 0 <= label < len(classes):
                raise DataError(file, f"entry {number} has label {label}", f"0..{len(classes) - 1}, see {vocabulary}")
            path = videos.find(name) or root / f"{name}.mp4"
            samples.append(Sample(name, path, None, None, split, {"label": label}, meta=meta))
    return Annotations(tuple(samples), {"label": classes}, root, tuple(sources), facts={"labels": version})
