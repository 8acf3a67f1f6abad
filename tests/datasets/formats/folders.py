"""Small folders in the official layout of a data set."""

from pathlib import Path

from wholereel.datasets.formats.annotations import Annotations


def folder(root: Path, texts: dict[str, str], *empty: str) -> Path:
    """Write annotation files, and empty files in place of videos."""
    for name, text in {**texts, **dict.fromkeys(empty, "")}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def rows(annotations: Annotations) -> list[tuple]:
    """Id, path below the folder, split and labels of each sample."""
    return [
        (sample.id, sample.path.relative_to(annotations.root).as_posix(), sample.split, dict(sample.labels))
        for sample in annotations.samples
    ]
