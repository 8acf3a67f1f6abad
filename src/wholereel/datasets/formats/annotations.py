"""What the official files of a data set say, whether or not the videos are there.

Not here: leaving out what is missing and writing the manifest (`datasets/prepare.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholereel.datasets.mirror import Mirror
from wholereel.datasets.sample import Sample

__all__ = ["Annotations"]


@dataclass(frozen=True)
class Annotations:
    """All samples that a data set lists.

    Args:
        samples: in the order of the files; a sample whose video was not found has the path where it was expected. A
            `SampleTable` where there may be a million.
        classes: names by index, by label column.
        root: the folder of the data set.
        sources: the files that were read, in that order.
        multi_label: labels are tuples of class indices.
        facts: what evaluation has to know and samples do not say, ready for JSON (which classes are judged).
        mirror: what flips from left to right do to labels and joints.
    """

    samples: Sequence[Sample]
    classes: Mapping[str, tuple[str, ...]]
    root: Path
    sources: tuple[Path, ...]
    multi_label: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    mirror: Mirror = field(default_factory=Mirror)
