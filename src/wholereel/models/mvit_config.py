"""Sizes and options of MViT and MeMViT, and the blocks that they describe.

Sources: arXiv 2104.11227, 2112.01526 and 2201.08383; options and published sizes as in the public codes
(facebookresearch/SlowFast, facebookresearch/MeMViT).
Not here: the networks (`mvit.py`, `memvit.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from wholereel.layers.token_pooling import Grid

__all__ = [
    "SIZES",
    "BlockPlan",
    "MvitConfig",
    "block_plans",
    "every_block",
    "skip_kernel",
    "tiny_config",
    "v1_config",
    "v2_config",
]


@dataclass(frozen=True)
class MvitConfig:
    """What shapes the network; the options of the public codes under names of ours.

    Args:
        frames, crop: T and side of the training clip.
        patch_kernel, patch_stride, patch_padding: of the stem, over (T, H, W).
        patch_2d: the stem has no time axis: for images, that is clips of one frame.
        causal_stem: the stem pads frames in front alone, so that it sees none to come (our choice; the public codes'
            causal mode does not). With memory the last frames of the clip before stand there instead of zeros.
        embed_dim, heads, depth: of the first block; number of blocks.
        widen: (block, factor): width and heads are multiplied from this block on.
        widen_in_attention: by the block's attention (v2) instead of the MLP of the block before (v1).
        q_strides: (block, t, h, w); only listed blocks pool their queries.
        kv_stride: of block 0 before its own query stride; divided by every query stride met.
        kv_strides: (block, t, h, w) instead of `kv_stride`.
        kernel: of all pooling; `None`: stride + 1 where the stride is above 1, else 1.
        mode, pool_first, separate_qkv, qkv_bias, residual, causal, axes_rule, rel_pos_spatial, rel_pos_temporal,
            attention_dropout: see `PoolingAttention`.
        class_token: whether there is one; without it the head reads the mean of all tokens.
        mean_first: without effect with a class token; average before the last norm instead of after it.
        absolute: position table: `none`, `joint`, `separable` (space + time + class) or `sincos` (fixed; SlowFast's
            classifier adds this one twice, which no published setting asks for; here it is added once).
        norm_stem: a norm behind the stem.
        drop_path: of the last block; grows linearly from zero.
        dropout, head_dropout: probabilities, of tokens and in front of the classifier.
        layer_scale: where above zero, learned factors per channel on both branches of a block begin with it (SlowFast
            has them in its blocks, and hands the setting to none).
        init: which public code's initialisation.
        rel_pos_zero_init: tables of relative positions begin with zeros.
        head_init_scale: factor on the classifier's first weights.
        frame_level: logits of every frame, from its mean over space.
    """

    frames: int = 16
    crop: int = 224
    patch_kernel: Grid = (3, 7, 7)
    patch_stride: Grid = (2, 4, 4)
    patch_padding: Grid = (1, 3, 3)
    patch_2d: bool = False
    causal_stem: bool = False
    embed_dim: int = 96
    heads: int = 1
    depth: int = 16
    widen: tuple[tuple[int, float], ...] = ((1, 2.0), (3, 2.0), (14, 2.0))
    widen_heads: tuple[tuple[int, float], ...] | None = None
    widen_in_attention: bool = True
    q_strides: tuple[tuple[int, int, int, int], ...] = ()
    kv_stride: Grid | None = (1, 8, 8)
    kv_strides: tuple[tuple[int, int, int, int], ...] = ()
    kernel: Grid | None = (3, 3, 3)
    mode: str = "conv"
    pool_first: bool = False
    separate_qkv: bool = False
    qkv_bias: bool = True
    mlp_ratio: float = 4.0
    class_token: bool = True
    mean_first: bool = False
    absolute: Literal["none", "joint", "separable", "sincos"] = "none"
    rel_pos_spatial: bool = True
    rel_pos_temporal: bool = True
    axes_rule: str = "apart"
    residual: int = 1
    causal: bool = False
    norm_stem: bool = False
    drop_path: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    head_dropout: float = 0.0
    layer_scale: float = 0.0
    init: Literal["slowfast", "memvit"] = "slowfast"
    rel_pos_zero_init: bool = False
    head_init_scale: float = 1.0
    frame_level: bool = False
    route: str = "auto"

    @property
    def grid(self) -> Grid:
        """(T, H, W) of the tokens of a training clip."""
        return (
            self.frames // self.patch_stride[0],
            self.crop // self.patch_stride[1],
            self.crop // self.patch_stride[2],
        )


@dataclass(frozen=True)
class BlockPlan:
    """Sizes of one block: widths, heads, training grid of its input, pooling (kernel `None` = none)."""

    dim: int
    dim_out: int
    heads: int
    grid: Grid
    kernel_q: Grid | None
    stride_q: Grid
    kernel_kv: Grid | None
    stride_kv: Grid


def block_plans(config: MvitConfig) -> list[BlockPlan]:
    """The blocks that a configuration describes."""
    widths = dict(config.widen)
    head_factors = widths if config.widen_heads is None else dict(config.widen_heads)
    q_strides: dict[int, Grid] = {row[0]: row[1:] for row in config.q_strides}
    kv_strides: dict[int, Grid] = {row[0]: row[1:] for row in config.kv_strides}
    running, grid, dim, heads, plans = config.kv_stride, config.grid, config.embed_dim, config.heads, []
    for index in range(config.depth):
        heads = _rounded(heads, head_factors.get(index, 1.0))
        ahead = index if config.widen_in_attention else index + 1
        dim_out = _rounded(dim, widths.get(ahead, 1.0), _rounded(heads, head_factors.get(ahead, 1.0)))
        q_stride = q_strides.get(index)
        if running is not None:
            if q_stride is not None:
                running = _divided(running, q_stride)
            kv_strides[index] = running
        kv_stride = kv_strides.get(index)
        plans.append(
            BlockPlan(
                dim,
                dim_out,
                heads,
                grid,
                _kernel(config, q_stride),
                q_stride or (1, 1, 1),
                _kernel(config, kv_stride),
                kv_stride or (1, 1, 1),
            )
        )
        if q_stride is not None:
            grid = (grid[0] // q_stride[0], grid[1] // q_stride[1], grid[2] // q_stride[2])
        dim = dim_out
    return plans


def _kernel(config: MvitConfig, stride: Grid | None) -> Grid | None:
    if stride is None:
        return None
    return config.kernel or skip_kernel(stride)


def skip_kernel(stride: Grid) -> Grid:
    """Kernel of the skip path's pooling, and of all pooling where none is given."""
    t, h, w = (s + 1 if s > 1 else 1 for s in stride)
    return t, h, w


def _divided(stride: Grid, by: Grid) -> Grid:
    t, h, w = (max(a // b, 1) for a, b in zip(stride, by, strict=True))
    return t, h, w


def _rounded(width: int, factor: float, divisor: int = 1) -> int:
    target = width * factor
    rounded = max(divisor, int(target + divisor / 2) // divisor * divisor)
    return int(rounded + divisor if rounded < 0.9 * target else rounded)


def every_block(depth: int, strided: tuple[int, ...]) -> tuple[tuple[int, int, int, int], ...]:
    """Query strides: (1, 2, 2) at some blocks, and (1, 1, 1) at the others, which so have a pooling too."""
    return tuple((index, 1, 2, 2) if index in strided else (index, 1, 1, 1) for index in range(depth))


# Per published size: frames, depth, blocks that widen and stride, drop path.
SIZES: dict[str, tuple[int, int, tuple[int, ...], float]] = {
    "16x4": (16, 16, (1, 3, 14), 0.2),
    "32x3": (32, 24, (2, 5, 21), 0.3),
    "40x3": (40, 48, (2, 8, 44), 0.75),
}
WIDER: dict[str, dict[str, Any]] = {"40x3": {"crop": 312, "embed_dim": 144, "heads": 2}}  # the others: 224, 96 and 1


def v2_config(size: str) -> MvitConfig:
    """MViTv2-S (16x4), -B (32x3) and -L (40x3)."""
    frames, depth, places, drop_path = SIZES[size]
    widen = tuple((place, 2.0) for place in places)
    strides = every_block(depth, places)
    config = MvitConfig(frames=frames, depth=depth, widen=widen, q_strides=strides)
    return replace(config, drop_path=drop_path, head_dropout=0.5, **WIDER.get(size, {}))


def v1_config(size: str) -> MvitConfig:
    """MViTv1-B: only strided blocks pool their queries, absolute positions, the MLP widens."""
    frames, depth, places, drop_path = SIZES[size]
    return MvitConfig(
        frames=frames,
        depth=depth,
        widen=tuple((place, 2.0) for place in places),
        q_strides=tuple((place, 1, 2, 2) for place in places),
        kernel=(3, 3, 3) if size == "16x4" else None,  # the published files differ in this
        widen_in_attention=False,
        absolute="separable",
        rel_pos_spatial=False,
        rel_pos_temporal=False,
        residual=0,
        drop_path=drop_path,
        head_dropout=0.5,
    )


def tiny_config(frames: int = 8, crop: int = 32, width: int = 24) -> MvitConfig:
    """Four blocks for small videos, to be trained on processor cores."""
    return MvitConfig(
        frames=frames,
        crop=crop,
        patch_stride=(1 if frames < 8 else 2, 4, 4),
        embed_dim=width,
        depth=4,
        widen=((1, 2.0), (3, 2.0)),
        q_strides=every_block(4, (1, 3)),
        kv_stride=(1, 2, 2),
        mlp_ratio=2.0,
    )
