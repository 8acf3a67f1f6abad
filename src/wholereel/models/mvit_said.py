"""What a file of MViT or MeMViT says of the network that was trained: the settings of the public codes, under `cfg`.

Names and shapes don't show which clips a layer remembers, which layers do, whether attention is causal, or whether
every frame is judged. Files of facebookresearch/SlowFast and facebookresearch/MeMViT carry their settings as YAML; they
are read as plain data.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from wholereel.models.memvit import MeMViT
from wholereel.models.mvit import MViT

__all__ = ["differing_settings", "read_said", "said_options"]

Said = Mapping[str, Any]

# Options of registered networks, and where the public code says them.
PLACES = {
    "gap": "MEMVIT.SAMPLER",
    "remember": "MEMVIT.EXCLUDE_LAYERS",
    "causal": "MVIT.CAUSAL",
    "frame_level": "MVIT.FRAME_LEVEL",
}


def read_said(path: Path) -> dict[str, Any]:
    """The settings in a file that PyTorch has written; empty where there are none."""
    if path.suffix in (".pkl", ".safetensors"):
        return {}
    mapped = zipfile.is_zipfile(path)  # files of old PyTorch are not
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    text = content.get("cfg") if isinstance(content, Mapping) else None
    try:
        said = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:
        return {}
    return said if isinstance(said, dict) else {}


def said_options(said: Said) -> dict[str, Any]:
    """Options of a registered MeMViT: those that its tensors don't show."""
    if not _get(said, "MEMVIT.ENABLE"):
        return {}
    options: dict[str, Any] = {"gap": _gap(_get(said, PLACES["gap"]))}
    options |= {name: True for name in ("causal", "frame_level") if _get(said, PLACES[name])}
    excluded, depth = _get(said, PLACES["remember"]), _get(said, "MVIT.DEPTH")
    if isinstance(excluded, list) and isinstance(depth, int):
        options["remember"] = [index for index in range(depth) if index not in excluded]
    return options


def differing_settings(model: MViT, said: Said, chosen: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings in which the file's network is another one than ours: place, theirs, ours.

    Args:
        chosen: options that somebody asked for, whatever the file says.
    """
    config = model.config
    own: dict[str, Any] = {
        "MVIT.MODE": config.mode,
        "MVIT.POOL_FIRST": config.pool_first,
        "MVIT.CONV_Q": config.residual,
        "MVIT.RESIDUAL_POOLING": bool(config.residual),
        "MVIT.USE_MEAN_POOLING": config.mean_first,
        "MVIT.CAUSAL": config.causal,
        "MVIT.FRAME_LEVEL": config.frame_level,
        "MVIT.PATCH_STRIDE": list(config.patch_stride),
        "MVIT.PATCH_PADDING": list(config.patch_padding),
    }
    if isinstance(model, MeMViT) and model.memory.reach and _get(said, "MEMVIT.ENABLE"):
        memory = model.memory
        own["MEMVIT.SAMPLER"] = memory.gap
        own["MEMVIT.EXCLUDE_LAYERS"] = sorted(memory.exclude)
        own["MEMVIT.COMPRESS.POOL_KERNEL"] = list(memory.kernel)
        own["MEMVIT.COMPRESS.POOL_STRIDE"] = list(memory.stride or ())
    if isinstance(model, MeMViT) and model.boxes is not None:
        own["DETECTION.SPATIAL_SCALE_FACTOR"] = model.boxes.scale
        own["DETECTION.ROI_XFORM_RESOLUTION"] = model.boxes.resolution
        own["DETECTION.ALIGNED"] = model.boxes.aligned
    asked = {PLACES[name] for name in chosen if name in PLACES}
    theirs = {place: _get(said, place) for place in own if place not in asked}
    if "MEMVIT.SAMPLER" in theirs:
        theirs["MEMVIT.SAMPLER"] = _gap(theirs["MEMVIT.SAMPLER"])
    if isinstance(theirs.get("MEMVIT.EXCLUDE_LAYERS"), list):
        named = theirs["MEMVIT.EXCLUDE_LAYERS"]  # also some that are not there, in the settings of MeMViT-24
        theirs["MEMVIT.EXCLUDE_LAYERS"] = sorted(index for index in named if index < config.depth)
    return [(place, value, own[place]) for place, value in theirs.items() if value not in (None, own[place])]


def _get(said: Said, place: str) -> Any:
    """A setting by its path; `None` where the file does not have it."""
    value: Any = said
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _gap(sampler: Any) -> int:
    """Steps between remembered clips: the number of `gap2`, 1 for `all`."""
    number = str(sampler).removeprefix("gap")
    return int(number) if number.isdigit() else 1
