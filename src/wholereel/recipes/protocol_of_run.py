"""How a run's recipe tests a model that the run has made: what `wholereel evaluate` does where it is told nothing else.

Not here: published protocols by name (`evaluation/protocols.py`), how a package's own clips are read (`inference/`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wholereel.config import Evaluate, Views
from wholereel.errors import ConfigError
from wholereel.recipes.plain import from_plain

__all__ = ["RecipeViews", "views_of_recipe"]


@dataclass(frozen=True)
class RecipeViews:
    """Args: views: `None` = the recipe does not say. text: whose views these are, or why there are none."""

    views: Views | None
    text: str


def views_of_recipe(package: Path) -> RecipeViews:
    """The views of the evaluation stages that judge a stage's model.

    Args:
        package: a model package inside a run's directory, or anywhere.
    """
    stage = package.resolve().parent if package.name in ("best", "last") else package.resolve()
    file = stage.parent / "recipe.json"
    if not file.is_file():
        return RecipeViews(None, "no recipe beside this model")
    try:
        recipe = from_plain(json.loads(file.read_text(encoding="utf-8"))["recipe"])
    except (ConfigError, ValueError, KeyError) as error:
        return RecipeViews(None, f"{file} cannot be read by this version ({error})")
    found = {
        name: one.views
        for name, one in recipe.stages.items()
        if isinstance(one, Evaluate) and one.model == f"stage:{stage.name}"
    }
    if not found:
        return RecipeViews(None, f"recipe {recipe.name} does not test {stage.name}")
    views, names = next(iter(found.values())), ", ".join(found)
    if any(other != views for other in found.values()):
        return RecipeViews(None, f"recipe {recipe.name} tests {stage.name} in several ways ({names})")
    return RecipeViews(views, f"that of the recipe's {names}")
