"""`wholereel list` and `wholereel models`: what can be named elsewhere."""

from __future__ import annotations

from wholereel.cli.text import table
from wholereel.errors import ConfigError, closest

__all__ = ["list_recipes", "models"]


def list_recipes() -> int:
    """The recipes. Stages and settings of one: wholereel train RECIPE --show."""
    from wholereel.recipes import RECIPES, load_recipe

    print(table([(name, load_recipe(name).summary) for name in RECIPES]))
    return 0


def models(pattern: str = "*", /) -> int:
    """The models: parameters (400 classes), the clip each is meant for, stages behind which a memory can stand.

    Args:
        pattern: With wildcards, e.g. 'tiny*'.
    """
    from wholereel.models.registry import MODELS, list_models

    names = list_models(pattern)
    if not names:
        raise ConfigError(f"no model matches {pattern!r}.{closest(pattern, MODELS)} There are: {', '.join(MODELS)}.")
    print(table([_model_row(name) for name in names], head=("model", "parameters", "clip", "stages")))
    return 0


def _model_row(name: str) -> tuple[str, str, str, str]:
    import torch

    from wholereel.models.registry import create_model

    with torch.device("meta"):  # shapes without memory or random numbers
        model = create_model(name)
    info, parameters = model.info, sum(weight.numel() for weight in model.parameters())
    clip = f"{info.frames} x {info.crop} x {info.crop}, stride {info.stride} at {info.frame_rate:g}/s"
    return name, f"{parameters / 1e6:.2f} M", clip, " ".join(model.stages)
