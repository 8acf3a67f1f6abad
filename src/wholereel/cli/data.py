"""`wholereel data ...`: what a data set holds and what is wrong with it, before a training finds out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from wholereel.cli.text import table

if TYPE_CHECKING:
    from wholereel.datasets.manifest import Manifest

__all__ = ["check", "formats"]

FORMATS = (
    ("folder of classes", "ROOT/juggling/a.mp4, or with splits ROOT/train/juggling/a.mp4"),
    ("table", ".csv or .tsv with a header, .jsonl, .parquet: columns path, label, and if needed split, start, end, id"),
    ("Kinetics", ".csv with label, youtube_id, time_start, time_end, split; videos anywhere below its folder"),
    ("PySlowFast list", ".csv, .txt or .list without a header: path and class index on each line"),
    ("folder with one of these", "named annotations.csv, manifest.jsonl, ..., or train.csv, val.csv, test.csv"),
)


def formats() -> int:
    """The layouts and lists that are read as a data set."""
    print(table(FORMATS))
    return 0


def check(
    path: Annotated[Path, arg(metavar="PATH")],
    /,
    labels: Annotated[tuple[str, ...], arg(metavar="COLUMN")] = ("label",),
    workers: Annotated[int, arg(metavar="N")] = 2,
    out: Annotated[Path, arg(metavar="FILE")] = Path("bad_files.tsv"),
) -> int:
    """Open every file of a data set and list every problem; exit code 1 where there are any.

    Args:
        path: Folder of classes or list of videos, see `wholereel data formats`.
        labels: Label columns.
        workers: Files that are opened at the same time.
        out: Where the list goes, if there is anything to list.
    """
    from wholereel.datasets.check import check_data, write_problems
    from wholereel.datasets.manifest import read_manifest

    manifest = read_manifest(path, labels=labels)
    print(_contents(manifest))
    problems = check_data(manifest, workers=workers)
    for problem in problems:
        print(f"{problem.path}: {problem.reason}")
    if problems:
        write_problems(problems, out)
        print(f"\n{len(problems)} problems, also in {out}")
        return 1
    print("no problems")
    return 0


def _contents(manifest: Manifest) -> str:
    splits = Counter(sample.split or "no split" for sample in manifest.samples)
    lines = [f"{len(manifest)} videos: {', '.join(f'{count} {split}' for split, count in splits.items())}"]
    lines += [f"{column}: {len(names)} classes" for column, names in manifest.classes.items()]
    if manifest.dropped:
        lines.append(f"{len(manifest.dropped)} videos are listed but not there, e.g. {manifest.dropped[0]}")
    return "\n".join(lines)
