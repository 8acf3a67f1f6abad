"""`wholereel train` and `wholereel demo`: a recipe with some settings changed, handed to the runner."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from wholereel.cli.launch import device_kind, first_process, launched, process_count, relaunch
from wholereel.config import Recipe

__all__ = ["demo", "train"]

Number = Annotated[int | None, arg(metavar="N")]
Out = Annotated[Path, arg(metavar="DIR")]
Devices = Annotated[str, arg(metavar="auto|cpu|cuda|N")]
Settings = Annotated[tuple[str, ...], UseAppendAction, arg(name="set", metavar="PATH=VALUE")]


def train(
    recipe: Annotated[str, arg(metavar="RECIPE")],
    /,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    data: Annotated[Path | None, arg(metavar="PATH")] = None,
    seed: Number = None,
    devices: Devices = "auto",
    precision: Annotated[Literal["fp32", "bf16"] | None, arg(metavar="fp32|bf16")] = None,
    batch: Number = None,
    epochs: Number = None,
    resume: bool = False,
    tensorboard: bool = False,
    settings: Settings = (),
    show: bool = False,
) -> int:
    """Run a recipe.

    Args:
        recipe: Name from `wholereel list`, or your own function as module:function.
        out: Run directory; runs/RECIPE where not given.
        data: Folder of classes or list of videos, for recipes that do not bring their own.
        seed: Seed of the recipe.
        devices: auto, cpu, cuda, cuda:N, or the number of processes on this machine (one for each GPU).
        precision: Of all training and evaluation stages.
        batch: Videos per step and process, in all training stages.
        epochs: Of all training stages.
        resume: Continue the run in this directory.
        tensorboard: Write event files beside metrics.jsonl.
        settings: Change one setting, e.g. --set stages.video_level.optim.lr=0.02; may be repeated.
        show: Print the resolved settings and what was changed, and stop.
    """
    chosen = _resolve(recipe, seed=seed, precision=precision, batch=batch, epochs=epochs, settings=settings)
    if show:
        _print_settings(chosen, _load(recipe, seed))
        return 0
    return _run(chosen, out or Path("runs") / chosen.name, devices, data=data, resume=resume, tensorboard=tensorboard)


def demo(
    out: Out = Path("runs/demo"),
    seed: Number = None,
    devices: Devices = "auto",
    resume: bool = False,
    settings: Settings = (),
) -> int:
    """Make videos, train with and without memory, evaluate, predict on one video, write OUT/report.html.

    Args:
        out: Run directory.
        seed: Of the data and of all trainings.
        devices: auto, cpu, cuda, cuda:N, or the number of processes on this machine (one for each GPU).
        resume: Continue the run in this directory.
        settings: Change one setting, see `wholereel train --help`.
    """
    _run(_resolve("demo", seed=seed, settings=settings), out, devices, resume=resume)
    if first_process():
        from wholereel.recipes.demo_report import write_demo_report

        results = write_demo_report(out, command=shlex.join(["wholereel", *sys.argv[1:]]))
        for name in ("late_average", "collaborative_memory"):
            print(f"{name:<22}{results[name]['video_top1']:.3f}  of {results[name]['videos']} test videos")
        print(f"ceiling of averaging  {results['ceilings']['sum']:.3f}\n{out / 'report.html'}")
    return 0


def _load(name: str, seed: int | None) -> Recipe:
    from wholereel.recipes import load_recipe

    if "" not in sys.path:
        sys.path.insert(0, "")  # module:function is looked for in the current directory, as `python -m` would
    return load_recipe(name, seed=seed)


def _resolve(name: str, *, seed: int | None = None, settings: tuple[str, ...] = (), **fields: object) -> Recipe:
    from wholereel.recipes.overrides import apply_overrides, stage_overrides

    recipe = _load(name, seed)
    return apply_overrides(recipe, [*stage_overrides(recipe, **fields), *settings])


def _print_settings(recipe: Recipe, named: Recipe) -> None:
    import yaml

    from wholereel.recipes.overrides import diff, to_plain

    print(yaml.safe_dump(to_plain(recipe), sort_keys=False, allow_unicode=True).rstrip())
    for path, (before, after) in diff(named, recipe).items():
        print(f"# changed: {path}: {before} -> {after}")


def _run(
    recipe: Recipe,
    out: Path,
    devices: str,
    *,
    data: Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
) -> int:
    processes = process_count(devices)
    if processes > 1 and not launched():
        relaunch(processes, sys.argv[1:])
    from wholereel.recipes.runner import run_recipe

    run_recipe(recipe, out, data=data, resume=resume, devices=device_kind(devices), tensorboard=tensorboard)
    return 0
