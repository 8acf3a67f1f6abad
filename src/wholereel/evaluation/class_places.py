"""Classes of a data set among those that a model knows: matched by name."""

from __future__ import annotations

from collections.abc import Sequence

from wholereel.datasets.manifest import Manifest
from wholereel.errors import DataError, counted

__all__ = ["class_places"]


def class_places(manifest: Manifest, label: str, classes: Sequence[str]) -> tuple[int, ...]:
    """For each class of a label column, its index among the model's `classes`.

    Raises: DataError: no such column, or classes that the model does not know.
    """
    if label not in manifest.classes:
        raise DataError(manifest.root, f"has no label column {label!r}", f"one of {sorted(manifest.classes)}")
    place = {name: index for index, name in enumerate(classes)}
    found = manifest.classes[label]
    unknown = [name for name in found if name not in place]
    if unknown:
        raise DataError(
            manifest.root,
            f"{counted(len(unknown), 'class', 'classes')} in column {label!r} that the model does not know: "
            + ", ".join(map(repr, unknown[:5])),
            f"among the model's {len(place)} classes, such as {', '.join(map(repr, classes[:5]))}",
            "Evaluate on the data set that the model was trained for, or train it on this one.",
        )
    return tuple(place[name] for name in found)
