"""What the public code bases call the parameters of MViT and MeMViT; our names are those of PySlowFast and MeMViT.

torchvision (`mvit_v1_b`, `mvit_v2_s`) also leaves out axes of one; pytorchvideo (`mvit_base_*`) and some old files of
PySlowFast have three layers for q, k and v.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from wholereel.models.layouts import Layout, renaming

__all__ = ["LAYOUTS", "MEMVIT", "PYSLOWFAST", "PYTORCHVIDEO", "TORCHVISION", "fused_qkv", "split_qkv"]


def fused_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Three linear maps of each attention as one, in the order q, k, v."""
    fused = dict(tensors)
    for key in tensors:
        match = re.match(r"(blocks\.\d+\.attn\.)q\.(weight|bias)$", key)
        parts = [f"{match[1]}{name}.{match[2]}" for name in "qkv"] if match else []
        if match and all(part in fused for part in parts):
            fused[f"{match[1]}qkv.{match[2]}"] = torch.cat([fused.pop(part) for part in parts])
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


def without_single_axes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's form: one map for q, k, v; the class token a vector, tables of positions matrices."""
    squeezed = fused_qkv(tensors)
    for key in squeezed:
        if key.startswith(("cls_token", "pos_embed")):
            axes = (0, 1) if key in ("cls_token", "pos_embed_class") else (0,)
            squeezed[key] = squeezed[key].squeeze(axes)
    return squeezed


PYSLOWFAST = Layout("pyslowfast", lambda key: key, written=fused_qkv, licence="Apache-2.0 (SlowFast)")
MEMVIT = Layout("memvit", lambda key: key, licence="CC-BY-NC-4.0 (MeMViT)")
TORCHVISION = Layout(
    "torchvision",
    renaming(
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^cls_token$", "pos_encoding.class_token"),
        (r"^pos_embed_(spatial|temporal|class)$", r"pos_encoding.\1_pos"),
        (r"\.attn\.proj\.", ".attn.project.0."),
        (r"\.attn\.pool_([qkv])\.", r".attn.pool_\1.pool."),
        (r"\.attn\.norm_([qkv])\.", r".attn.pool_\1.norm_act.0."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
        (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
        (r"^head\.projection\.", "head.1."),
    ),
    written=without_single_axes,
    licence="BSD-3-Clause (torchvision)",
)
PYTORCHVIDEO = Layout(
    "pytorchvideo",
    renaming(
        (r"^patch_embed\.proj\.", "patch_embed.patch_model."),
        (r"^(cls_token|pos_embed.*)$", r"cls_positional_encoding.\1"),
        (r"^norm\.", "norm_embed."),
        (r"^head\.projection\.", "head.proj."),
    ),
    written=split_qkv,
    licence="Apache-2.0 (pytorchvideo)",
)
LAYOUTS = {layout.name: layout for layout in (PYSLOWFAST, MEMVIT, TORCHVISION, PYTORCHVIDEO)}
