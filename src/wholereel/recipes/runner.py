"""Run a recipe: its stages one after the other, each in its own folder of the run, each resumable.

A run directory holds `recipe.json` (the resolved tree, what differs from the named recipe, and which samples `--data`
had) and one folder a stage.
A stage that is complete has a `done.json` with its settings and result; with `resume` such stages are passed over.
Not here: what a stage does (the rooms below do it), which recipes there are (`recipes/__init__.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import torch

from wholereel.config import Convert, Data, Evaluate, Extract, Model, Prepare, Recipe, Stage, Train, World
from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.catalogue import read_dataset
from wholereel.datasets.feature_shards import FeatureShards
from wholereel.datasets.manifest import Manifest, read_manifest
from wholereel.datasets.prepare import prepare, write_prepared
from wholereel.datasets.worlds import make_world
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.measure import measure
from wholereel.inference.extract import check_extract, extract
from wholereel.inference.views import check_views
from wholereel.models.conversion import to_clip_level, to_video_level
from wholereel.models.package import load_package, save_package
from wholereel.recipes import load_recipe
from wholereel.recipes.overrides import diff
from wholereel.recipes.plain import to_plain
from wholereel.tasks import AnyTask
from wholereel.training import distributed
from wholereel.training.checks import check_select, check_train
from wholereel.training.distributed import Ranks
from wholereel.training.fit import Validate, fit
from wholereel.training.packages import as_package, views_of
from wholereel.training.settings import flatten, with_new_settings

__all__ = ["run_recipe"]

STAGE_PREFIX = "stage:"
MODEL_MAKERS = (Train, Convert)
DATA_MAKERS = (World, Prepare)


@dataclass(frozen=True)
class _Context:
    """What all stages of a run share."""

    out: Path
    data: Path | None
    resume: bool
    ranks: Ranks
    device: torch.device
    workers: int
    tensorboard: bool
    stream: TextIO | None

    @property
    def cache(self) -> Path:
        """Decoded frames, for the data sets that want them kept."""
        return self.out / "cache"

    def say(self, text: str) -> None:
        if self.stream is not None and self.ranks.first:
            print(text, file=self.stream, flush=True)


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    data: str | Path | None = None,
    resume: bool = False,
    devices: str = "auto",
    workers: int | None = None,
    tensorboard: bool = False,
    stream: TextIO | None = sys.stderr,
) -> dict[str, Any]:
    """Run all stages; in one process, or in each of those that torchrun or srun started.

    Args:
        recipe: the resolved tree.
        out: run directory.
        data: what `root=None` stands for.
        resume: go on in a directory that holds this run.
        devices: `auto`, `cpu`, `cuda` or `cuda:1`.
        workers: processes that make worlds; `None` = as many as this process has cores.
        tensorboard: event files beside `metrics.jsonl` (extra `tensorboard`).
        stream: for progress; `None` = be silent.
    Returns: by stage, what its `done.json` holds under `"result"`.
    Raises: ConfigError: a run is there and `resume` is off, it is another recipe's or of other data, or a finished
        stage of it has other settings; a stage that refers to none before it; data needed and not given.
    """
    out = Path(out).resolve()  # resuming compares the paths that a training was given: one spelling
    data = None if data is None else Path(data)
    _check_recipe(recipe, data)
    launch = distributed.launch_from_environment(os.environ)
    device = distributed.choose_device(devices, launch.local_rank)
    with ExitStack() as stack:
        if device.type == "cuda":  # NCCL sends Python objects from the current GPU, in evaluations as in trainings
            stack.enter_context(torch.cuda.device(device))
        ranks = stack.enter_context(distributed.process_group(launch, device))
        workers = _cores() if workers is None else workers
        context = _Context(out, data, resume, ranks, device, workers, tensorboard, stream)
        _prepare(recipe, context)
        return {name: _run_stage(name, stage, context) for name, stage in recipe.stages.items()}


def _cores() -> int:
    """Cores that this process may use, where the system tells: in a container or batch job not all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_recipe(recipe: Recipe, data: Path | None) -> None:
    """Every reference leads to an earlier stage that makes such a thing, `--data` is there if needed: found now, not
    during the night."""
    if data is not None and not data.exists():
        raise ConfigError(f"--data {data}: there is no such file or folder.")
    if recipe.main and recipe.main not in recipe.stages:
        raise ConfigError(
            f"recipe {recipe.name!r} calls {recipe.main!r} its main stage. Stages: {', '.join(recipe.stages)}."
        )
    before: dict[str, Stage] = {}
    for name, stage in recipe.stages.items():
        if isinstance(stage, Convert) and (stage.to == "video") != (stage.memory is not None):
            raise ConfigError(f"stage {name!r}: a conversion to='video' needs `memory`, one to='clip' has none.")
        for reference, makers in _references(stage):
            if reference is None and data is None:
                raise ConfigError(
                    f"stage {name!r} of recipe {recipe.name!r} needs videos: give their folder or list with --data."
                )
            if reference is not None and reference.startswith(STAGE_PREFIX):
                _check_reference(name, reference, makers, before)
        if isinstance(stage, Train):
            check_train(stage)
        if isinstance(stage, Extract):
            check_extract(stage)
        before[name] = stage


def _check_reference(name: str, reference: str, makers: tuple[type, ...], before: Mapping[str, Stage]) -> None:
    wanted = reference.removeprefix(STAGE_PREFIX)
    if wanted not in before:
        known = ", ".join(before) or "none"
        raise ConfigError(f"stage {name!r} refers to {reference!r}, which is no stage before it. Before it: {known}.")
    if not isinstance(before[wanted], makers):
        kind, kinds = type(before[wanted]).__name__.lower(), " or ".join(maker.__name__.lower() for maker in makers)
        raise ConfigError(f"stage {name!r} refers to {reference!r}, a stage of kind {kind}, but needs one of {kinds}.")


def _references(stage: Stage) -> list[tuple[str | None, tuple[type, ...]]]:
    """What a stage reads, and the kinds of stage that make such a thing; `None` = the data of the command line."""
    references: list[tuple[str | None, tuple[type, ...]]] = [(part.root, DATA_MAKERS) for part in _data_of(stage)]
    references += [(part.bank.root, (Extract,)) for part in _data_of(stage) if part.bank is not None]
    if isinstance(stage, Prepare):
        return [(stage.root, (World,))]
    if isinstance(stage, Train):
        return [*references, (stage.model.weights, MODEL_MAKERS)] if stage.model.weights else references
    return references if isinstance(stage, World) else [*references, (stage.model, MODEL_MAKERS)]


def _data_of(stage: Stage) -> list[Data]:
    """The data sets that a stage reads."""
    if isinstance(stage, Train):
        return [part for part in (stage.data, stage.val) if part is not None]
    return [stage.data] if isinstance(stage, (Evaluate, Extract)) else []


def _prepare(recipe: Recipe, context: _Context) -> None:
    """Write `recipe.json`, or compare with the one that is there."""
    file = context.out / "recipe.json"
    content = {"recipe": to_plain(recipe), "changes": _changes(recipe), "data": _given_data(recipe, context.data)}
    if file.exists():
        if not context.resume:
            raise ConfigError(
                f"{context.out} holds a run already. Add --resume to go on with it, or choose another --out."
            )
        saved = json.loads(file.read_text(encoding="utf-8"))
        before = saved["recipe"]["name"]
        if before != recipe.name:
            raise ConfigError(
                f"{context.out} holds a run of recipe {before!r}, not of {recipe.name!r}. Choose another --out."
            )
        _check_same_data(saved.get("data"), content["data"], context.out)
        for name, stage in recipe.stages.items():
            _finished(name, stage, context)  # other settings are found now, before anything is written
    context.ranks.barrier()
    if context.ranks.first:
        context.out.mkdir(parents=True, exist_ok=True)
        _write_json(file, content)
    context.ranks.barrier()


def _given_data(recipe: Recipe, path: Path | None) -> dict[str, Any] | None:
    """Where `root=None` leads, and a digest of the ids of all samples there; `None` if no stage reads it."""
    parts = [part for stage in recipe.stages.values() for part in _data_of(stage) if part.root is None]
    if path is None or not parts:
        return None
    ids = sorted(sample.id for sample in read_manifest(path, labels=parts[0].labels).samples)
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    return {"path": str(path.resolve()), "samples": len(ids), "digest": digest}


def _check_same_data(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, out: Path) -> None:
    """A data set may have moved, but its samples are the same ones."""
    if before is None or now is None or before["digest"] == now["digest"]:
        return
    raise ConfigError(
        f"{out} was begun with --data {before['path']} ({before['samples']} samples), but --data {now['path']} "
        f"({now['samples']} samples) has other ones. Give it back its data, or choose another --out."
    )


def _changes(recipe: Recipe) -> dict[str, Any]:
    """Difference to the recipe of this name; empty for a recipe that is not in the table."""
    try:
        named = load_recipe(recipe.name)
    except ConfigError:
        return {}
    return {path: {"named": to_plain(a), "here": to_plain(b)} for path, (a, b) in diff(named, recipe).items()}


def _finished(name: str, stage: Stage, context: _Context) -> dict[str, Any] | None:
    """Content of a finished stage's `done.json`; `None` for one that is not finished."""
    directory = context.out / name
    done = directory / "done.json"
    if not done.exists():
        return None
    content: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    now = flatten(to_plain(stage))
    if with_new_settings(flatten(content["settings"]), now, type(stage)) != now:
        raise ConfigError(
            f"{directory} was made with other settings. Give it back its settings, choose another --out, "
            f"or remove that folder (and what was made from it) to make it again."
        )
    return content


def _run_stage(name: str, stage: Stage, context: _Context) -> Any:
    directory = context.out / name
    finished = _finished(name, stage, context)
    if finished is not None:
        context.say(f"[{name}] done before")
        return finished["result"]
    context.say(f"[{name}] {type(stage).__name__.lower()}")
    begin = time.monotonic()
    result = STAGES[type(stage)](stage, directory, context)
    seconds = round(time.monotonic() - begin, 1)
    context.ranks.barrier()
    if context.ranks.first:
        _write_json(directory / "done.json", {"settings": to_plain(stage), "result": result, "seconds": seconds})
    context.ranks.barrier()
    context.say(f"[{name}] done in {seconds:.0f} s")
    return result


def _make_world(stage: World, directory: Path, context: _Context) -> dict[str, Any]:
    if context.ranks.first:
        make_world(
            stage.world,
            directory,
            profile=stage.profile,
            seed=stage.seed,
            sizes=stage.sizes,
            workers=context.workers,
            options=stage.options,
        )
    context.ranks.barrier()
    return {"world": stage.world}


def _prepare_data(stage: Prepare, directory: Path, context: _Context) -> dict[str, Any]:
    root = _root(stage.root, context)
    if context.ranks.first:
        given = tuple(f"{name}={value}" for name, value in stage.options.items())
        annotations, options = read_dataset(stage.dataset, root, given)
        prepared = prepare(annotations)
        write_prepared(prepared, stage.dataset, options, directory)
        for split, counts in prepared.counts.items():
            context.say(f"  {split}: {counts.found} of {counts.expected} samples have a file")
    context.ranks.barrier()
    return {"dataset": stage.dataset, "root": str(root)}


def _train(stage: Train, directory: Path, context: _Context) -> dict[str, Any]:
    train = replace(
        stage,
        model=replace(stage.model, weights=_weights(stage.model, context)),
        data=_data(stage.data, context),
        val=None if stage.val is None else _data(stage.val, context),
    )
    manifest = _manifest(train.data)
    fitted = fit(
        train,
        manifest,
        directory,
        validate=None if train.val is None else _validation(train, train.val, manifest, context),
        resume=True,  # a stage's folder without `done.json` is one that was interrupted, or empty
        device=str(context.device),
        cache_dir=context.cache,
        tensorboard=context.tensorboard,
        stream=context.stream,
    )
    return {"package": str(fitted.package.relative_to(context.out)), "metrics": dict(fitted.metrics)}


def _validation(train: Train, val: Data, manifest: Manifest, context: _Context) -> Validate:
    """Evaluation of the model in training, as the loop wants it."""
    samples = _manifest(val)
    label = train.data.labels[0]
    check_select(train, len(manifest.classes[label]))
    if train.task.kind != "detect" and train.data.streams is None:  # those read other than views of clips
        check_views(views_of(train))
    unknown = sorted(set(samples.classes.get(label, ())) - set(manifest.classes[label]))
    if unknown:
        raise DataError(
            samples.root,
            f"{len(unknown)} classes of the validation set are not in the training set: {', '.join(unknown[:5])}",
            f"among {len(manifest.classes[label])} classes, such as {', '.join(manifest.classes[label][:5])}",
        )

    classes = tuple(name for space in train.data.labels for name in manifest.classes[space])

    def validate(task: AnyTask) -> Mapping[str, float]:
        package = as_package(task, train, classes)
        results = measure(
            package,
            samples,
            views_of(train),
            data=val,
            batch=train.batch,
            precision="fp32" if train.precision == "fp16" else train.precision,
            device=context.device,
            cache_dir=context.cache if val.cache else None,
        )
        return results.metrics

    return validate


def _evaluate(stage: Evaluate, directory: Path, context: _Context) -> dict[str, Any]:
    data = _data(stage.data, context)
    results = measure(
        _package(stage.model, context),
        _manifest(data),
        stage.views,
        data=data,
        batch=stage.batch,
        precision=stage.precision,
        device=context.device,
        cache_dir=context.cache if data.cache else None,
        out=directory,
    )
    context.say(str(results))
    return {"metrics": dict(results.metrics), "evaluated": results.evaluated, "samples": results.samples}


def _extract(stage: Extract, directory: Path, context: _Context) -> dict[str, Any]:
    data = _data(stage.data, context)
    manifest = _manifest(data)
    extract(
        replace(stage, data=data),
        manifest,
        directory,
        package=_package(stage.model, context),
        only=range(context.ranks.rank, stage.shards, context.ranks.world_size),
        device=context.device,
        say=lambda text: context.say(f"  {text}"),
    )
    context.ranks.barrier()
    shards = FeatureShards(directory)
    return {"videos": len(shards), "faults": len(shards.faults)}


def _convert(stage: Convert, directory: Path, context: _Context) -> dict[str, Any]:
    package = load_package(_package(stage.model, context))
    try:
        if stage.memory is not None:
            model, report = to_video_level(package.video_model, stage.memory)
        else:
            model, report = to_clip_level(package.video_model)
    except ValueError as error:
        raise ConfigError(f"{stage.model!r} cannot be converted to='{stage.to}': {error}.") from error
    if context.ranks.first:
        save_package(
            directory,
            model,
            spec=replace(package.spec, memory=stage.memory),
            num_classes=len(package.classes),
            classes=package.classes,
            task=package.task,
            input={field: getattr(package, field) for field in ("mean", "std", "short_side", "crop", "clips")},
            extra={**package.extra, "converted": str(report)},
        )
    return {"package": str(directory.relative_to(context.out)), "report": str(report)}


STAGES: dict[type, Callable[[Any, Path, _Context], dict[str, Any]]] = {
    World: _make_world,
    Prepare: _prepare_data,
    Train: _train,
    Evaluate: _evaluate,
    Extract: _extract,
    Convert: _convert,
}


def _data(data: Data, context: _Context) -> Data:
    """The same with a path for root."""
    bank = None if data.bank is None else replace(data.bank, root=str(_root(data.bank.root, context)))
    return replace(data, root=str(_root(data.root, context)), bank=bank)


def _root(root: str | None, context: _Context) -> Path:
    """Where data lie: the path of the command line, an earlier stage's folder, or a path."""
    if root is None:
        return Path(str(context.data))
    return context.out / root.removeprefix(STAGE_PREFIX) if root.startswith(STAGE_PREFIX) else Path(root)


def _manifest(data: Data) -> Manifest:
    return read_manifest(str(data.root), split=data.split, labels=data.labels)


def _weights(model: Model, context: _Context) -> str | None:
    if model.weights is not None and model.weights.startswith(STAGE_PREFIX):
        return f"file:{_package(model.weights, context)}"
    return model.weights


def _package(reference: str, context: _Context) -> Path:
    """Folder of a model package: an earlier stage's result, or a path."""
    if not reference.startswith(STAGE_PREFIX):
        return Path(reference)
    done = context.out / reference.removeprefix(STAGE_PREFIX) / "done.json"
    return context.out / str(json.loads(done.read_text(encoding="utf-8"))["result"]["package"])


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_file(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
