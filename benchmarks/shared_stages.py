"""Seeds that begin with the same worlds and pre-trained networks: what only the first one's run makes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from wholereel.config import Data, Evaluate, Recipe, Train


def without_shared(recipe: Recipe, shared: Collection[str], home: Path) -> Recipe:
    """A recipe without some of its first stages, which its other stages read from the finished run `home`.

    Raises: ValueError: the recipe has no such stage.
    """
    if missing := [name for name in shared if name not in recipe.stages]:
        raise ValueError(f"recipe {recipe.name} has no stage {', '.join(missing)}; it has {', '.join(recipe.stages)}")
    own = {name: stage for name, stage in recipe.stages.items() if name not in shared}
    return replace(recipe, stages={name: _reading(stage, shared, home) for name, stage in own.items()})


def _reading(stage: Any, shared: Collection[str], home: Path) -> Any:
    if isinstance(stage, Evaluate):
        return replace(stage, data=_data(stage.data, shared, home))
    if not isinstance(stage, Train):
        raise TypeError(f"only trainings and evaluations can read what another run made, got {stage}")
    return replace(
        stage,
        model=replace(stage.model, weights=_weights(stage.model.weights, shared, home)),
        data=_data(stage.data, shared, home),
        val=None if stage.val is None else _data(stage.val, shared, home),
    )


def _data(data: Data, shared: Collection[str], home: Path) -> Data:
    kind, _, name = str(data.root).partition("stage:")
    return replace(data, root=str(home / name)) if not kind and name in shared else data


def _weights(weights: str | None, shared: Collection[str], home: Path) -> Any:
    kind, _, name = str(weights).partition("stage:")
    return f"file:{home / name / 'best'}" if not kind and name in shared else weights
