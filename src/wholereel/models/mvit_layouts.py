"""What the public code bases call the parameters of MViT and MeMViT; our names are those of PySlowFast and MeMViT.

torchvision (`mvit_v1_b`, `mvit_v2_s`) also leaves out axes of one, pytorchvideo (`mvit_base_*`) has three layers for q,
k and v.
"""

from __future__ import annotations

from wholereel.models.layouts import Layout, renaming

__all__ = ["LAYOUTS", "MEMVIT", "PYSLOWFAST", "PYTORCHVIDEO", "TORCHVISION"]

PYSLOWFAST, MEMVIT = Layout("pyslowfast", lambda key: key), Layout("memvit", lambda key: key)
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
)
PYTORCHVIDEO = Layout(
    "pytorchvideo",
    renaming(
        (r"^patch_embed\.proj\.", "patch_embed.patch_model."),
        (r"^(cls_token|pos_embed.*)$", r"cls_positional_encoding.\1"),
        (r"^norm\.", "norm_embed."),
        (r"^head\.projection\.", "head.proj."),
    ),
)
LAYOUTS = {layout.name: layout for layout in (PYSLOWFAST, MEMVIT, TORCHVISION, PYTORCHVIDEO)}
