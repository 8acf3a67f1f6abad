"""Published layouts of MViT and MeMViT weights, both directions, and tables for other sizes.

Our names are those of facebookresearch/SlowFast and facebookresearch/MeMViT. torchvision (`mvit_v1_b`, `mvit_v2_s`) and
facebookresearch/pytorchvideo (`mvit_base_*`) call the same tensors otherwise.
Extra axis: R rows of a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.models.layouts import rename
from wholereel.models.mvit import MViT
from wholereel.models.mvit_layouts import LAYOUTS, fused_qkv, split_qkv
from wholereel.ops.relative_positions import resized_table

__all__ = [
    "convert_keys",
    "detect_layout",
    "export_keys",
    "fit_tensors",
    "fused_qkv",
    "grown_table",
    "published_options",
    "split_qkv",
]


def detect_layout(tensors: Mapping[str, Tensor]) -> str:
    """Which of `LAYOUTS` a file has."""
    if any(key.startswith("conv_proj.") for key in tensors):
        return "torchvision"
    if any(key.startswith("patch_embed.patch_model.") for key in tensors):
        return "pytorchvideo"
    return "memvit" if any(".attn.rel_pos_mem_" in key or ".attn.compress_" in key for key in tensors) else "pyslowfast"


def convert_keys(model: MViT, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of any of `LAYOUTS` under our names; q, k, v fused or separate as the model has them.

    Keys that the layout does not know keep their names, so that a strict loader names them.
    """
    layout = LAYOUTS[detect_layout(tensors)]
    # pytorchvideo's modules list their poolings twice; files of older versions hold the plain names alone.
    source = {key: value for key, value in tensors.items() if "_attention_pool" not in key}
    own = {*model.state_dict(), *split_qkv(model.state_dict())}
    names = rename(sorted(own), layout)
    ours = {names.get(key, key): value for key, value in source.items()}
    for key in ("cls_token", "pos_embed_class", "pos_embed_spatial", "pos_embed_temporal"):
        if key in ours:  # torchvision leaves out axes of one
            ours[key] = ours[key].reshape(1, -1, ours[key].shape[-1])
    return split_qkv(ours) if model.config.pool_first or model.config.separate_qkv else fused_qkv(ours)


def export_keys(model: MViT, layout: str) -> dict[str, Tensor]:
    """A model's weights in one of `LAYOUTS`.

    Raises: ValueError: an unknown layout, or one that has no place for this model.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if (layout == "memvit") != model.config.pool_first:
        raise ValueError(f"layout {layout!r} is not that of a network with pool_first={model.config.pool_first}")
    tensors = LAYOUTS[layout].written(model.state_dict())
    return {LAYOUTS[layout].key(key): value for key, value in tensors.items()}


def published_options(name: str, tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Options that files of a registered network differ in, most usual first; `[{}]` where they don't."""
    if name == "mvitv1_b":
        return [
            {"frames": n, "every_kernel_3": kernel} for n, kernel in ((16, True), (32, False), (32, True), (16, False))
        ]
    if name not in ("memvit_16", "memvit_24"):
        return [{}]
    options: dict[str, Any] = {"boxes": any(key.startswith("box_blocks.") for key in tensors)}
    present, past = (tensors.get(f"blocks.0.attn.rel_pos_{axis}") for axis in ("t", "mem_t"))
    if present is None or past is None:
        return [{**options, "reach": 0}]
    frames = (present.shape[0] + 1) // 2
    return [{**options, "reach": (past.shape[0] + 1) // frames - 1}]


def grown_table(table_RD: Tensor, rows: int) -> Tensor:
    """A table over time with more rows: the last one repeated (further back is like furthest), or cut to fewer."""
    if rows <= table_RD.shape[0]:
        return table_RD[:rows]
    return torch.cat([table_RD, table_RD[-1:].expand(rows - table_RD.shape[0], -1)])


@dataclass(frozen=True)
class FitReport:
    """What `fit_tensors` did, by key: of another size; not in the model; not in the file."""

    resized: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


ONLY_MEMORY = (".rel_pos_mem_", ".compress_", ".norm_compress_", "box_blocks.", "box_places.")
POOLING = re.compile(r"\.attn\.(pool|norm)_[qkv]\.")
ABSOLUTE = {"pos_embed_spatial": 2, "pos_embed_temporal": 1}


def fit_tensors(
    model: MViT, tensors: Mapping[str, Tensor], *, time: Literal["centred", "append"] = "centred"
) -> tuple[dict[str, Tensor], FitReport]:
    """Weights of another size or kind of this network, made to fit; shapes that still differ are left for the loader.

    - Tables of relative positions: interpolated over space; over time about their middle (`time="centred"`, our choice)
      or, as in the public code, with the last row repeated (`append`); memory's time axis always so.
    - Separate tables of absolute positions: interpolated.
    - From images: the stem and the poolings are repeated over time, not divided by the number of repetitions (as in the
      public code).
    - q, k, v are fused or split as the model has them: from a network that pools last to one that pools first this is
      only a start, as the function differs; the poolings of blocks that widen have other channels and stay fresh.
    - Memory and boxes of the source are dropped where the model has none, and stay fresh where the source has none.

    Args:
        tensors: of any of `LAYOUTS`.
        time: how tables over the frames of a clip are made longer.
    Returns: tensors under our names, and what was done.
    Raises: ValueError: an unknown `time`.
    """
    if time not in ("centred", "append"):
        raise ValueError(f"time must be 'centred' or 'append', got {time!r}")
    own = model.state_dict()
    fitted: dict[str, Tensor] = {}
    resized: list[str] = []
    dropped: list[str] = []
    own_start: list[str] = []
    for key, value in convert_keys(model, tensors).items():
        if key not in own and any(part in key for part in ONLY_MEMORY):
            dropped.append(key)
            continue
        if key in own and POOLING.search(key) and own[key].shape[0] != value.shape[0]:
            own_start.append(key)  # a block that widens pools half the channels before its maps, or all behind them
            continue
        fitted[key] = _fitted(key, value, own[key].shape, time) if key in own else value
        if fitted[key].shape != value.shape:
            resized.append(key)
    fresh = [key for key in own if key not in fitted and any(part in key for part in ONLY_MEMORY)] + own_start
    fitted.update({key: own[key] for key in fresh})
    return fitted, FitReport(tuple(resized), tuple(dropped), tuple(fresh))


def _fitted(key: str, value: Tensor, shape: torch.Size, time: str) -> Tensor:
    if ".rel_pos_" in key and value.shape[1:] == shape[1:]:
        grows = key.endswith("rel_pos_mem_t") or (key.endswith("rel_pos_t") and time == "append")
        return grown_table(value, shape[0]) if grows else resized_table(value, shape[0])
    if key in ABSOLUTE and value.shape[2] == shape[2]:
        return _resized_positions(value, shape[1], ABSOLUTE[key])
    if value.ndim == 4 and len(shape) == 5:  # a stem without time axis
        value = value[:, :, None]
    if value.ndim == 5 and value.shape[2] == 1 < shape[2] and value.shape[:2] == shape[:2]:
        return value.expand(-1, -1, shape[2], -1, -1)
    return value


def _resized_positions(table_1LD: Tensor, length: int, axes: int) -> Tensor:
    """A table over frames, or over a square of places, of another length."""
    if table_1LD.shape[1] == length:
        return table_1LD
    table_1DL = table_1LD.transpose(1, 2)
    if axes == 1:
        return F.interpolate(table_1DL, size=length, mode="linear").transpose(1, 2)
    sides = [round(count**0.5) for count in (table_1LD.shape[1], length)]
    square_1DHW = table_1DL.unflatten(2, (sides[0], sides[0]))
    return F.interpolate(square_1DHW, size=(sides[1], sides[1]), mode="bilinear").flatten(2).transpose(1, 2)
