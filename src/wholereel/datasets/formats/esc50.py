"""ESC-50: `meta/esc50.csv` (`filename,fold,target,category,esc10,src_file,take`) and the sounds in `audio`.

The five folds are the only official split: each is the test part once, and the mean of the five accuracies counts.
"""

from __future__ import annotations

from pathlib import Path

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import csv_rows, find_file
from wholereel.datasets.sample import Sample
from wholereel.errors import ConfigError, DataError

__all__ = ["read_esc50"]

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")


def read_esc50(root: Path, *, fold: int = 1, esc10: bool = False) -> Annotations:
    """Read the table; one fold is called test, the others train.

    Args:
        root: folder with `meta` and `audio`.
        fold: 1 to 5.
        esc10: only the ten classes of ESC-10, which may be used more freely; they keep the sounds' own order.
    """
    if fold not in (1, 2, 3, 4, 5):
        raise ConfigError(f"ESC-50 has the folds 1 to 5, not {fold}")
    file = find_file(root, "meta/esc50.csv", "esc50.csv")
    folder = file.parent.parent if file.parent.name == "meta" else file.parent
    rows = []
    for place, cells in csv_rows(file, COLUMNS, header=True):
        try:
            rows.append((cells, int(cells["fold"]), int(cells["target"])))
        except ValueError as error:
            raise DataError(file, f"{place} cannot be read ({error})", ",".join(COLUMNS)) from error
    if esc10:
        rows = [row for row in rows if row[0]["esc10"].lower() == "true"]
    targets = sorted({target for _, _, target in rows})
    names = {target: cells["category"] for cells, _, target in rows}
    places = {target: index for index, target in enumerate(targets)} if esc10 else {t: t for t in targets}
    classes = tuple(names.get(target, f"class {target}") for target in (targets if esc10 else range(max(names) + 1)))
    samples = tuple(
        Sample(
            id=Path(cells["filename"]).stem,
            path=folder / "audio" / cells["filename"],
            start=None,
            end=None,
            split="test" if of_fold == fold else "train",
            labels={"label": places[target]},
            meta={"fold": of_fold, "source": cells["src_file"]},
        )
        for cells, of_fold, target in rows
    )
    return Annotations(samples, {"label": classes}, root, (file,), facts={"fold": fold})
