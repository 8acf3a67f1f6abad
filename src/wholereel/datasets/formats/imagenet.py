"""ImageNet-1k and anything laid out like it: `{train,val}/<synset>/<picture>`; a picture is a video of one frame.

Class index = place among the sorted names of the folders.
"""

from __future__ import annotations

from pathlib import Path

from wholereel.datasets.class_folders import rows_of_class_folders
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.sample import Sample
from wholereel.datasets.sample_table import SampleTable
from wholereel.errors import DataError
from wholereel.media.frame_folder import PICTURE_SUFFIXES

__all__ = ["read_imagenet"]


def read_imagenet(root: Path) -> Annotations:
    """Read folders of pictures.

    Raises: DataError: validation pictures lie in one folder, as the archive unpacks, and not in folders of classes.
    """
    flat = [
        folder
        for folder in (root / "train", root / "val")
        if folder.is_dir() and not any(path.is_dir() for path in folder.iterdir()) and any(folder.iterdir())
    ]
    if flat:
        raise DataError(
            flat[0],
            "holds pictures without folders of classes",
            "one folder for each synset",
            "Sort the validation pictures into folders by the ground truth of the development kit.",
        )
    rows = rows_of_class_folders(root, "label", PICTURE_SUFFIXES)
    classes = tuple(sorted({str(row.labels["label"]) for row in rows}))
    places = {name: index for index, name in enumerate(classes)}
    samples = (
        Sample(row.path, root / row.path, None, None, row.split, {"label": places[str(row.labels["label"])]})
        for row in rows
    )
    return Annotations(SampleTable.of(samples, root), {"label": classes}, root, ())
