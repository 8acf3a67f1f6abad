"""`wholereel list` and `wholereel models`: what can be named elsewhere."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from wholereel.cli.text import table
from wholereel.errors import ConfigError, closest

__all__ = ["clip_size", "list_recipes", "models"]


def list_recipes() -> int:
    """The recipes, and where it stands what we measured. Stages and settings of one: wholereel train RECIPE --show."""
    from wholereel.recipes import RECIPES, load_recipe

    recipes = {name: load_recipe(name) for name in RECIPES}
    rows = [(name, recipe.measured or "not run here", recipe.summary) for name, recipe in recipes.items()]
    print(table(rows, head=("recipe", "measured", "what it is")))
    return 0


def models(
    pattern: str = "*", /, cost: bool = False, clip: Annotated[tuple[str, ...], arg(metavar="TxSIZE")] = ()
) -> int:
    """The models: parameters (400 classes), the clip each is meant for, stages behind which a memory can stand.

    Args:
        pattern: With wildcards, e.g. 'tiny*'.
        cost: Multiply-adds and interactions of a clip instead, of those models that read clips.
        clip: Clips to count for, e.g. 8x224 32x256; else the one each is meant for.
    """
    from wholereel.models.registry import MODELS, list_models

    names = list_models(pattern, kind="clip" if cost else None)
    if not names:
        raise ConfigError(f"no model matches {pattern!r}.{closest(pattern, MODELS)} There are: {', '.join(MODELS)}.")
    if not cost:
        print(table([_model_row(name) for name in names], head=("model", "parameters", "clip", "stages")))
        return 0
    sizes = [clip_size(text) for text in clip]
    rows = [row for name in names for row in _cost_rows(name, sizes)]
    print(table(rows, head=("model", "clip", "parameters", "weights", "GMAC", "+ attention", "+ correlation", "pairs")))
    print(
        "\nweights: of convolutions and linear layers, without biases; GMAC: their multiply-adds in 10^9;\n"
        "pairs: input channels that meet in an output channel, in 10^9"
    )
    return 0


def clip_size(text: str) -> tuple[int, int]:
    """Frames and side in pixels of a text such as 8x224."""
    frames, _, size = text.partition("x")
    if not (frames.isdigit() and size.isdigit() and int(frames) and int(size)):
        raise ConfigError(f"--clip needs FRAMESxSIZE such as 8x224, got {text!r}.")
    return int(frames), int(size)


def _cost_rows(name: str, sizes: list[tuple[int, int]]) -> list[tuple[str, ...]]:
    import torch

    from wholereel.models.cost import count_cost
    from wholereel.models.registry import create_model

    with torch.device("meta"):
        model = create_model(name)
    rows = []
    for frames, size in sizes or [(model.info.frames, model.info.crop)]:
        cost = count_cost(model, (3, frames, size, size))
        billions = (cost.macs, cost.attention, cost.correlation, cost.interactions)
        millions = (f"{count / 1e6:.2f} M" for count in (cost.parameters, cost.weights))
        rows.append(
            (name, f"{frames} x {size}", *millions, *(f"{count / 1e9:.2f}" if count else "" for count in billions))
        )
    return rows


def _model_row(name: str) -> tuple[str, str, str, str]:
    import torch

    from wholereel.models.registry import create_model

    with torch.device("meta"):  # shapes without memory or random numbers
        model = create_model(name)
    info, parameters = model.info, sum(weight.numel() for weight in model.parameters())
    clip = f"{info.frames} x {info.crop} x {info.crop}, stride {info.stride} at {info.frame_rate:g}/s"
    return name, f"{parameters / 1e6:.2f} M", clip, " ".join(model.stages)
