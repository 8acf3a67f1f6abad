"""`wholereel extract`: a trained model over a data set, its features, logits or scores in shards on disk."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from wholereel.cli.launch import torch_device
from wholereel.cli.train import Settings
from wholereel.config import Data, Extract
from wholereel.errors import ConfigError

__all__ = ["extract"]


def extract(
    run: Annotated[Path, arg(metavar="RUN")],
    /,
    data: Annotated[Path, arg(metavar="PATH")],
    out: Annotated[Path, arg(metavar="DIR")],
    what: Annotated[tuple[str, ...], arg(metavar="features|logits|scores ...")] = ("features",),
    split: Annotated[str | None, arg(metavar="NAME")] = None,
    shards: Annotated[int, arg(metavar="N")] = 1,
    shard: Annotated[str | None, arg(metavar="I/N")] = None,
    device: Annotated[str, arg(metavar="auto|cpu|cuda")] = "auto",
    settings: Settings = (),
) -> int:
    """Run a trained model over all clips of a data set and keep what it finds.

    Clips lie one behind the other (--set views.clips.plan=uniform --set views.clips.count=10 for ten, --set
    views.clips.hop=0.5 for one each half second). Shards that are there already are kept, so a killed extraction is
    started again with the same words; with --shard several machines share the work.

    Args:
        run: Model package, or a stage of a run that holds one.
        data: Folder of classes or list of videos.
        out: Where the shards go.
        what: Of each clip features or logits, of each video scores.
        split: One of the data set's; everything where not given.
        shards: Number of files.
        shard: Make the I-th of N files, e.g. 3/16, counted from 1.
        device: Where the model runs.
        settings: Change how clips are read, e.g. --set views.clips.stride=2, or --set precision=bf16.
    """
    from wholereel.config import Clips, Views
    from wholereel.datasets.manifest import read_manifest
    from wholereel.inference.extract import extract as make
    from wholereel.inference.predictor import find_package, package_views
    from wholereel.models.package import load_package
    from wholereel.recipes.overrides import apply_overrides

    only, shards = (None, shards) if shard is None else _shard(shard)
    package = load_package(find_package(run))
    shown = package_views(package)
    clips: Clips = replace(shown.clips, plan="contiguous", count=EVERYTHING, coverage=False, least=None)
    views: Views = replace(shown, clips=clips, crops=1)
    named = Extract(str(run), Data(root=str(data), split=split), views, what=_what(what), shards=shards)
    stage = apply_overrides(named, settings)
    manifest = read_manifest(data, split=stage.data.split, labels=stage.data.labels)
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    done = make(stage, manifest, out, package=run, only=only, device=torch_device(device), say=say)
    kept = f", {len(done.kept)} shards were there" if done.kept else ""
    print(f"{out}: {done.videos} videos, {done.clips} clips in {len(done.made)} shards{kept}")
    if done.faults:
        print(f"{done.faults} videos could not be read; the shards list them", file=sys.stderr)
    return 1 if done.faults else 0


EVERYTHING = 1_000_000  # clips; the plan ends with the video


def _what(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise ConfigError("--what needs some of features, logits, scores.")
    return words


def _shard(text: str) -> tuple[tuple[int, ...], int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--shard {text}: expected I/N with I from 1 to N, such as 3/16.")
    return (int(number) - 1,), int(count)
