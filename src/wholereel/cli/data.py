"""`wholereel data ...`: what a data set holds and what is wrong with it, before a training finds out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from wholereel.cli.text import table
from wholereel.errors import counted

if TYPE_CHECKING:
    from wholereel.datasets.manifest import Manifest

__all__ = ["check", "formats", "list_datasets", "lists", "prepare"]

FORMATS = (
    ("folder of classes", "ROOT/juggling/a.mp4, or with splits ROOT/train/juggling/a.mp4"),
    ("table", ".csv or .tsv with a header, .jsonl, .parquet: columns path, label, and if needed split, start, end, id"),
    ("Kinetics", ".csv with label, youtube_id, time_start, time_end, split; videos anywhere below its folder"),
    ("PySlowFast list", ".csv, .txt or .list without a header: path and class index on each line"),
    ("published data sets", "see `wholereel data list` and `wholereel data prepare`"),
    ("folder with one of these", "named annotations.csv, manifest.jsonl, ..., or train.csv, val.csv, test.csv"),
)


def formats() -> int:
    """The layouts and lists that are read as a data set."""
    print(table(FORMATS))
    return 0


def list_datasets() -> int:
    """The data sets that `wholereel data prepare` reads in their official form, with their options."""
    from wholereel.datasets.catalogue import DATASETS

    rows = []
    for name, dataset in DATASETS.items():
        options = " ".join(f"{option}={_text(value)}" for option, value in dataset.options().items())
        rows.append((name, dataset.what, options))
    print(table(rows, head=("name", "what", "options and their defaults")))
    return 0


def prepare(
    name: Annotated[str, arg(metavar="NAME")],
    /,
    root: Annotated[Path, arg(metavar="DIR")],
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    option: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = (),
) -> int:
    """Read the official files of a data set and write a manifest of what is there.

    Args:
        name: Which one, see `wholereel data list`.
        root: Its folder: official files there or one folder below, videos anywhere below.
        out: Where manifest.jsonl and its companions go; the data set's own folder by default.
        option: Options of the data set.
    """
    from wholereel.datasets.catalogue import DATASETS, read_dataset
    from wholereel.datasets.prepare import prepare as leave_out_missing
    from wholereel.datasets.prepare import write_prepared

    annotations, options = read_dataset(name, root, option)
    prepared = leave_out_missing(annotations)
    path = write_prepared(prepared, name, options, root if out is None else out)
    published = DATASETS[name].published if not option else {}
    rows = [
        (split, str(counts.expected), str(counts.found), str(counts.dropped), str(published.get(split, "-")))
        for split, counts in prepared.counts.items()
    ]
    print(table(rows, head=("split", "expected", "found", "dropped", "published")))
    for column, names in prepared.manifest.classes.items():
        print(f"{column}: {counted(len(names), 'class', 'classes')}")
    if prepared.manifest.dropped:
        dropped = prepared.manifest.dropped
        print(f"{len(dropped)} files are listed but not there, see {path.with_name('missing_files.txt')}")
    print(f"written: {path}")
    return 0


def lists(
    path: Annotated[Path, arg(metavar="PATH")],
    /,
    out: Annotated[Path, arg(metavar="DIR")],
    separator: Annotated[str, arg(metavar="TEXT")] = " ",
    pictures: bool = False,
) -> int:
    """Write a data set as lists for PySlowFast: train.csv, val.csv, test.csv with a path and a class index a line.

    Args:
        path: Folder of classes or list of videos, see `wholereel data formats`.
        out: Where the lists go.
        separator: Between path and class index (SlowFast: DATA.PATH_LABEL_SEPARATOR).
        pictures: List every picture with its own labels instead; of a multi-label set of folders of pictures.
    """
    from wholereel.datasets.formats.frame_lists import write_frame_lists
    from wholereel.datasets.formats.pyslowfast import write_lists
    from wholereel.datasets.manifest import read_manifest
    from wholereel.errors import DataError

    manifest = read_manifest(path)
    out.mkdir(parents=True, exist_ok=True)
    try:
        written = write_frame_lists(manifest, out) if pictures else write_lists(manifest, out, separator=separator)
    except ValueError as error:
        raise DataError(path, str(error)) from error
    print("\n".join(f"written: {file}" for file in written))
    return 0


def check(
    path: Annotated[Path, arg(metavar="PATH")],
    /,
    labels: Annotated[tuple[str, ...] | None, arg(metavar="COLUMN")] = None,
    workers: Annotated[int, arg(metavar="N")] = 2,
    out: Annotated[Path, arg(metavar="FILE")] = Path("bad_files.tsv"),
) -> int:
    """Open every file of a data set and list every problem; exit code 1 where there are any.

    Args:
        path: Folder of classes or list of videos, see `wholereel data formats`.
        labels: Label columns; those of classes.json by default, or the column label.
        workers: Files that are opened at the same time.
        out: Where the list goes, if there is anything to list.
    """
    from wholereel.datasets.check import check_data, write_problems
    from wholereel.datasets.manifest import label_columns, read_manifest

    manifest = read_manifest(path, labels=label_columns(path) if labels is None else labels)
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


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _contents(manifest: Manifest) -> str:
    splits = Counter(sample.split or "no split" for sample in manifest.samples)
    lines = [f"{len(manifest)} samples: {', '.join(f'{count} {split}' for split, count in splits.items())}"]
    lines += [f"{column}: {counted(len(names), 'class', 'classes')}" for column, names in manifest.classes.items()]
    if manifest.dropped:
        lines.append(f"{len(manifest.dropped)} files are listed but not there, e.g. {manifest.dropped[0]}")
    return "\n".join(lines)
