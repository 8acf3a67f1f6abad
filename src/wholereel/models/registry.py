"""The table of models, and how one is made from its name.

Not here: architectures (one a file), weight files (`weights.py`), memory (`video_model.py`).
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wholereel.errors import ConfigError, closest
from wholereel.models import corrnet, csn, memvit, mvit, slow, slowfast, tiny, video_resnet
from wholereel.models.clip_model import ClipModel
from wholereel.models.weights import load_clip_weights

__all__ = ["MODELS", "ModelEntry", "create_model", "list_models"]


@dataclass(frozen=True)
class ModelEntry:
    """A row of the table: the builder, and what kind of model it makes."""

    build: Callable[..., ClipModel]
    kind: str = "clip"


FAMILIES: tuple[Any, ...] = (video_resnet, csn, corrnet, slow, slowfast)
MODELS: dict[str, ModelEntry] = {
    "memvit_16": ModelEntry(memvit.memvit_16, "memory"),
    "memvit_24": ModelEntry(memvit.memvit_24, "memory"),
    "memvit_tiny": ModelEntry(memvit.memvit_tiny, "memory"),
    "mvit_tiny": ModelEntry(mvit.mvit_tiny, "tokens"),
    "mvitv1_b": ModelEntry(mvit.mvitv1_b, "tokens"),
    "mvitv2_b": ModelEntry(mvit.mvitv2_b, "tokens"),
    "mvitv2_l": ModelEntry(mvit.mvitv2_l, "tokens"),
    "mvitv2_s": ModelEntry(mvit.mvitv2_s, "tokens"),
    "tiny2d": ModelEntry(tiny.tiny2d),
    "tiny2d_peak": ModelEntry(tiny.tiny2d_peak),
    "tiny_corrnet": ModelEntry(tiny.tiny_corrnet),
    "tiny_r2d": ModelEntry(tiny.tiny_r2d),
    "tiny_r2plus1d": ModelEntry(tiny.tiny_r2plus1d),
    "tiny_r3d": ModelEntry(tiny.tiny_r3d),
    **{name: ModelEntry(build) for family in FAMILIES for name, build in family.NETWORKS.items()},
}

# Options of every model: name -> what sets it.
GENERAL: dict[str, Callable[[ClipModel, Any], None]] = {
    "stochastic_depth": ClipModel.set_stochastic_depth,
    "checkpointed": ClipModel.checkpoint_stages,
    "init": ClipModel.begin_as,
}


def list_models(pattern: str = "*", kind: str | None = None) -> list[str]:
    """Names in the table, sorted.

    Args:
        pattern: shell pattern, e.g. `"*_18"`.
        kind: only models of this kind.
    """
    return sorted(
        name for name, entry in MODELS.items() if fnmatch.fnmatch(name, pattern) and kind in (None, entry.kind)
    )


def create_model(
    name: str,
    *,
    num_classes: int | tuple[int, ...] = 400,
    weights: str | None = None,
    in_channels: int = 3,
    **options: Any,
) -> ClipModel:
    """Make a model, with fresh weights or with those of a file.

    Args:
        name: row of `MODELS`.
        num_classes: K; 0 = no classifier; several label spaces as a tuple, where the model's head serves them.
        weights: `"file:PATH"` or `"hub:NAME"`, see `weights.py`. A classifier for other classes is replaced by a fresh
            one.
        in_channels: C of the input.
        **options: further arguments of the model's builder; `stochastic_depth`, `checkpointed` and `init`, see
            `ClipModel.set_stochastic_depth`, `checkpoint_stages` and `begin_as`.
    Raises:
        ConfigError: an unknown name or option.
        CheckpointError: weights that do not fit.
    """
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}.{closest(name, MODELS)} Models: {', '.join(sorted(MODELS))}.")
    build = MODELS[name].build
    legal = [option for option in inspect.signature(build).parameters if option not in ("num_classes", "in_channels")]
    legal += [option for option in GENERAL if option not in legal]
    unknown = sorted(set(options) - set(legal))
    if unknown:
        raise ConfigError(f"model {name!r} has no option {', '.join(unknown)}; its options are {', '.join(legal)}.")
    general = {option: options.pop(option) for option in GENERAL if option in options}
    model = build(num_classes=num_classes, in_channels=in_channels, **options)
    for option, value in general.items():
        try:
            GENERAL[option](model, value)
        except ValueError as error:
            raise ConfigError(f"model {name!r}, option {option}: {error}.") from error
    if weights is not None:
        load_clip_weights(model, weights)
    return model
