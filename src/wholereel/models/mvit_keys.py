"""Published layouts of MViT and MeMViT weights, both directions, and tables for other sizes.

Our names are those of facebookresearch/SlowFast and facebookresearch/MeMViT. torchvision (`mvit_v1_b`, `mvit_v2_s`) and
facebookresearch/pytorchvideo (`mvit_base_*`) call the same tensors otherwise.
Extra axis: R rows of a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wholereel.models.layouts import rename
from wholereel.models.mvit import MViT
from wholereel.models.mvit_layouts import LAYOUTS
from wholereel.ops.relative_positions import resized_table

__all__ = [
    "convert_keys",
    "detect_layout",
    "export_keys",
    "fit_tensors",
    "fused_qkv",
    "grown_table",
    "split_qkv",
]


def detect_layout(tensors: Mapping[str, Tensor]) -> str:
    """Which of `LAYOUTS` a file has."""
    if any(key.startswith("conv_proj.") for key in tensors):
        return "torchvision"
    if any(key.startswith("patch_embed.patch_model.") for key in tensors):
        return "pytorchvideo"
    return "memvit" if any(".attn.rel_pos_mem_" in key or ".attn.compress_" in key for key in tensors) else "pyslowfast"


def fused_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Three linear maps of each attention as one, in the order q, k, v."""
    fused = dict(tensors)
    for key in tensors:
        match = re.match(r"(blocks\.\d+\.attn\.)q\.(weight|bias)$", key)
        if match:
            parts = [fused.pop(f"{match[1]}{name}.{match[2]}") for name in "qkv"]
            fused[f"{match[1]}qkv.{match[2]}"] = torch.cat(parts)
    return fused


def split_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `fused_qkv`."""
    split = {}
    for key, value in tensors.items():
        match = re.match(r"(blocks\.\d+\.attn\.)qkv\.(weight|bias)$", key)
        if match:
            split.update({f"{match[1]}{n}.{match[2]}": part for n, part in zip("qkv", value.chunk(3), strict=True)})
        else:
            split[key] = value
    return split


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
    tensors = dict(model.state_dict())
    if layout == "pytorchvideo":
        tensors = split_qkv(tensors)
    if layout == "torchvision":
        for key in tensors:
            if key.startswith(("cls_token", "pos_embed")):
                axes = (0, 1) if key in ("cls_token", "pos_embed_class") else (0,)
                tensors[key] = tensors[key].squeeze(axes)
    return {LAYOUTS[layout].key(key): value for key, value in tensors.items()}


def grown_table(table_RD: Tensor, rows: int) -> Tensor:
    """A table over time with more rows: the last one repeated (further back is like furthest), or cut to fewer."""
    if rows <= table_RD.shape[0]:
        return table_RD[:rows]
    return torch.cat([table_RD, table_RD[-1:].expand(rows - table_RD.shape[0], -1)])


@dataclass(frozen=True)
class FitReport:
    """What `fit_tensors` did, by key."""

    resized: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


def fit_tensors(model: MViT, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], FitReport]:
    """Weights of another size or kind of this network, made to fit; shapes that still differ are left for the loader.

    Tables of relative positions are interpolated (space, time) or grown (memory's time axis). q, k, v are fused or
    split as the model has them: from a network that pools last to one that pools first this is only a start, as the
    function differs. Memory of the source is dropped where the model has none, and stays fresh where the source has
    none.

    Args:
        tensors: of any of `LAYOUTS`.
    Returns: tensors under our names, and what was done.
    """
    own = model.state_dict()
    source = convert_keys(model, tensors)
    fitted, resized, dropped = {}, [], []
    for key, value in source.items():
        if key not in own and (".rel_pos_mem_" in key or "compress_" in key):
            dropped.append(key)
            continue
        rows = own[key].shape[0] if key in own and ".rel_pos_" in key else value.shape[0]
        if rows != value.shape[0]:
            value = grown_table(value, rows) if key.endswith("rel_pos_mem_t") else resized_table(value, rows)
            resized.append(key)
        fitted[key] = value
    fresh = [k for k in own if k not in fitted and (".rel_pos_mem_" in k or "compress_" in k or "box_blocks." in k)]
    fitted.update({key: own[key] for key in fresh})
    return fitted, FitReport(tuple(resized), tuple(dropped), tuple(fresh))
