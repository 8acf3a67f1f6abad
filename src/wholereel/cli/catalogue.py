"""`wholereel list` and `wholereel models`: what can be named elsewhere."""

from __future__ import annotations

from wholereel.cli.text import table
from wholereel.errors import ConfigError

__all__ = ["list_recipes", "models"]


def list_recipes() -> int:
    """The recipes. Stages and settings of one: wholereel train RECIPE --show."""
    from wholereel.recipes import RECIPES, load_recipe

    print(table([(name, load_recipe(name).summary) for name in RECIPES]))
    return 0


def models(pattern: str = "*", /) -> int:
    """The models.

    Args:
        pattern: With wildcards, e.g. 'tiny*'.
    """
    from wholereel.models.registry import MODELS, list_models
    from wholereel.recipes.plain import closest

    names = list_models(pattern)
    if not names:
        raise ConfigError(f"no model matches {pattern!r}.{closest(pattern, MODELS)} There are: {', '.join(MODELS)}.")
    for name in names:
        print(name)
    return 0
