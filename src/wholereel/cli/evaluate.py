"""`wholereel evaluate`: a trained model on a data set, under a protocol that is printed and stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from wholereel.cli.launch import torch_device
from wholereel.cli.train import Settings
from wholereel.config import Data, Evaluate
from wholereel.errors import ConfigError

if TYPE_CHECKING:
    from wholereel.datasets.manifest import Manifest

__all__ = ["evaluate"]


def evaluate(
    run: Annotated[Path, arg(metavar="RUN")],
    /,
    data: Annotated[Path, arg(metavar="PATH")],
    split: Annotated[str | None, arg(metavar="NAME")] = None,
    protocol: Annotated[str | None, arg(metavar="NAME")] = None,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    batch: Annotated[int, arg(metavar="N")] = 8,
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
    fold: bool = False,
    device: Annotated[str, arg(metavar="auto|cpu|cuda")] = "auto",
    settings: Settings = (),
) -> int:
    """Measure a trained model and write results.json, predictions.jsonl, per_class.csv and confusion.csv.

    A model that judges boxes is measured at the key frames of a data set that has some, and writes results.json,
    detections.csv (as AVA has them) and per_class.csv.

    The protocol is the one with which the run's recipe tests the model; where it has none, the clips of its training
    (one centre crop, no drawing). --protocol names one of the published ones instead, such as kinetics_10x3, or
    "training"; --set changes it: --set views.clips.count=10 --set views.crops=3. What was taken is printed.

    Args:
        run: Model package, or a stage of a run that holds one.
        data: Folder of classes or list of videos.
        split: "all", or one of the data set's; where not given: test, else val, else everything.
        protocol: training, kinetics_10x3, kinetics_5x1, kinetics_5x3, something_1x3, charades_10x3 or
            charades_10x3_offset.
        out: Where the files go; evaluation/ in RUN where not given.
        batch: Videos judged together.
        precision: bf16 computes the network under autocast; auto: on CPUs that multiply bfloat16 themselves. The
            protocol says which it was.
        fold: Fold BatchNorm into the convolutions in front of it: a little quicker, scores differ by rounding.
        device: Where the model runs.
        settings: Change the protocol (views...) or how data are read (data...).
    """
    import torch

    from wholereel.datasets.manifest import read_manifest
    from wholereel.evaluation.measure import measure
    from wholereel.evaluation.protocols import published_views
    from wholereel.inference.predictor import choose_precision, find_package, package_views
    from wholereel.models.package import load_package
    from wholereel.recipes.overrides import apply_overrides
    from wholereel.recipes.protocol_of_run import views_of_recipe

    place = torch_device(device)
    found = find_package(run)
    package = load_package(found)
    package = package.folded() if fold else package
    views, tested = package_views(package), views_of_recipe(found)
    if protocol is None:
        text = tested.text if tested.views is not None else f"that of training: {tested.text}"
        views = tested.views or views
    else:
        text = protocol
    if protocol not in (None, "training") and package.task.kind == "detect":
        raise ConfigError(
            "--protocol names views of whole videos; key frames have windows: --set views.clips.window=30"
        )
    if protocol not in (None, "training"):
        views = published_views(protocol, views, multi_label=package.task.multi_label)
    labels = tuple(package.spaces) or Data().labels
    named = Evaluate(
        str(run),
        Data(root=str(data), split=split, labels=labels),
        views,
        batch,
        choose_precision(precision, torch.device(place)),
    )
    stage = apply_overrides(named, settings)
    manifest = read_manifest(data, labels=stage.data.labels)
    chosen = stage.data.split or _default_split(manifest)
    if chosen != "all":
        manifest = read_manifest(data, split=chosen, labels=stage.data.labels)
    folder = out or run / "evaluation"
    results = measure(
        package,
        manifest,
        stage.views,
        data=replace(stage.data, split=None if chosen == "all" else chosen),
        batch=stage.batch,
        precision=stage.precision,
        device=place,
        out=folder,
    )
    print(f"{data}, split {chosen}\nprotocol: {text}\n{results}\n{folder / 'results.json'}")
    return 0


def _default_split(manifest: Manifest) -> str:
    found = {sample.split for sample in manifest.samples}
    return next((name for name in ("test", "val") if name in found), "all")
