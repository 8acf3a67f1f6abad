"""MViTv1 and MViTv2: vision transformers whose attention pools the clip, stage by stage.

Sources: arXiv 2104.11227 and 2112.01526; parameter names, order of operations and initialisation as in
facebookresearch/SlowFast (Apache-2.0) and, with pooling before the projections, facebookresearch/MeMViT.
Tokens are `(B, L, D)`: the class token, where there is one, then the (T, H, W) grid in raster order. Extra axis: K
classes.
Not here: sizes (`mvit_config.py`), memory (`memvit.py`), published layouts with other names (`mvit_keys.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.convolution import Conv3d
from wholereel.layers.mlp import DropPath, Mlp
from wholereel.layers.pooling_attention import Compression, PoolingAttention
from wholereel.layers.token_pooling import NORM_EPS, Grid, pool_tokens
from wholereel.models.clip_model import ClipModel, MemoryView, ModelInfo
from wholereel.models.layouts import Layout
from wholereel.models.mvit_config import (
    BlockPlan,
    MvitConfig,
    block_plans,
    skip_kernel,
    tiny_config,
    v1_config,
    v2_config,
)
from wholereel.models.mvit_layouts import MEMVIT, PYSLOWFAST, PYTORCHVIDEO, TORCHVISION, fused_qkv, split_qkv
from wholereel.ops.linear import linear

__all__ = ["Block", "MViT", "mvit_tiny", "mvitv1_b", "mvitv2_b", "mvitv2_l", "mvitv2_s"]

MEAN, STD = (0.45,) * 3, (0.225,) * 3


class Block(nn.Module):
    """Pooling attention and an MLP, each added to what it read; the skip path is pooled like the queries."""

    def __init__(
        self, plan: BlockPlan, config: MvitConfig, drop_path: float, compression: Compression | None = None
    ) -> None:
        super().__init__()
        self.widen_in_attention, self.class_token = config.widen_in_attention, config.class_token
        width = plan.dim_out if config.widen_in_attention else plan.dim
        self.norm1 = nn.LayerNorm(plan.dim, eps=NORM_EPS)
        self.attn = PoolingAttention(
            plan.dim,
            width,
            plan.heads,
            grid=plan.grid,
            kernel_q=plan.kernel_q,
            stride_q=plan.stride_q,
            kernel_kv=plan.kernel_kv,
            stride_kv=plan.stride_kv,
            mode=config.mode,
            pool_first=config.pool_first,
            separate_qkv=config.separate_qkv,
            qkv_bias=config.qkv_bias,
            class_token=config.class_token,
            rel_pos_spatial=config.rel_pos_spatial,
            rel_pos_temporal=config.rel_pos_temporal,
            axes_rule=config.axes_rule,
            residual=config.residual,
            causal=config.causal,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            compression=compression,
            route=config.route,
        )
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), plan.dim_out, config.dropout)
        self.proj = nn.Linear(plan.dim, plan.dim_out) if plan.dim != plan.dim_out else None
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = self.gamma_2 = None
        if config.layer_scale > 0:
            self.gamma_1 = nn.Parameter(torch.full((width,), config.layer_scale))
            self.gamma_2 = nn.Parameter(torch.full((plan.dim_out,), config.layer_scale))
        kernel = skip_kernel(plan.stride_q)
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        strided = plan.stride_q != (1, 1, 1)
        self.pool_skip = nn.MaxPool3d(kernel, plan.stride_q, padding) if strided else None

    def forward(self, x_BLD: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Tokens and their (T, H, W), in and out."""
        normed_BLD = self.norm1(x_BLD)
        pooled = self.attn.pool(normed_BLD, grid)
        return self.finish(x_BLD, normed_BLD, self.attn.attend(pooled), grid), pooled.query_grid

    def finish(self, x_BLD: Tensor, normed_BLD: Tensor, attended_BLD: Tensor, grid: Grid) -> Tensor:
        """All that follows attention."""
        if self.proj is not None and self.widen_in_attention:
            x_BLD = linear(normed_BLD, self.proj)
        skip_BLD, _ = pool_tokens(x_BLD, grid, self.pool_skip, class_token=self.class_token)
        attended_BLD = attended_BLD if self.gamma_1 is None else self.gamma_1 * attended_BLD
        x_BLD = skip_BLD + self.drop_path(attended_BLD)
        normed_BLD = self.norm2(x_BLD)
        added_BLD = self.mlp(normed_BLD)
        added_BLD = added_BLD if self.gamma_2 is None else self.gamma_2 * added_BLD
        if self.proj is not None and not self.widen_in_attention:
            x_BLD = linear(normed_BLD, self.proj)
        return x_BLD + self.drop_path(added_BLD)


class Patches(nn.Module):
    """The stem: overlapping patches to tokens `(B, L, D)`."""

    def __init__(self, config: MvitConfig, in_channels: int) -> None:
        super().__init__()
        kernel, stride, padding = config.patch_kernel, config.patch_stride, config.patch_padding
        if config.patch_2d and (kernel[0], stride[0], padding[0], config.frames) != (1, 1, 0, 1):
            found = f"{kernel}, {stride}, {padding} and {config.frames}"
            raise ValueError(f"patch_2d needs a kernel, stride, padding and clip of one frame, got {found}")
        self.seen_before = kernel[0] - 1 if config.causal_stem else 0  # frames in front of a clip
        if config.causal_stem:
            padding = (0, *padding[1:])
        if config.patch_2d:
            self.proj: nn.Module = nn.Conv2d(in_channels, config.embed_dim, kernel[1:], stride[1:], padding[1:])
        else:
            self.proj = Conv3d(in_channels, config.embed_dim, kernel, stride, padding)

    def forward(self, x_BCTHW: Tensor, before_BCTHW: Tensor | None = None) -> Tensor:
        """Tokens of a clip; a causal stem sees `before_BCTHW` in front of it, zeros where `None`."""
        if isinstance(self.proj, nn.Conv2d):
            return self.proj(x_BCTHW[:, :, 0]).flatten(2).transpose(1, 2)
        if before_BCTHW is not None:
            x_BCTHW = torch.cat([before_BCTHW.to(x_BCTHW.dtype), x_BCTHW], 2)
        elif self.seen_before:
            x_BCTHW = F.pad(x_BCTHW, (0, 0, 0, 0, self.seen_before, 0))
        return self.proj(x_BCTHW).flatten(2).transpose(1, 2)


class Head(nn.Module):
    """Dropout and one linear layer, or one for each of several label spaces."""

    def __init__(self, dim: int, num_classes: int | tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection: nn.Module
        if isinstance(num_classes, tuple):
            self.projection = nn.ModuleList(nn.Linear(dim, classes) for classes in num_classes)
        else:
            self.projection = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, x_BD: Tensor) -> Any:
        x_BD = self.dropout(x_BD)
        if isinstance(self.projection, nn.ModuleList):
            return tuple(linear(x_BD) for linear in self.projection)
        return self.projection(x_BD)


def pack_tokens(x_BLD: Tensor, grid: Grid, class_token: bool) -> Tensor:
    """Tokens as a map `(B, D, T, H, W)`; a class token is one more frame in front, the same at each of its positions.

    Between stages tokens travel like this, so that memories, strategies and streams see the grid and need no tuples.
    """
    x_BDTHW = x_BLD[:, int(class_token) :].transpose(1, 2).unflatten(2, grid)
    if not class_token:
        return x_BDTHW
    frame_BD1HW = x_BLD[:, 0, :, None, None, None].expand(-1, -1, 1, *grid[1:])
    return torch.cat((frame_BD1HW, x_BDTHW), 2)


def unpack_tokens(x_BDTHW: Tensor, class_token: bool) -> tuple[Tensor, Grid]:
    """The inverse of `pack_tokens`: tokens and their grid."""
    _, _, frames, height, width = x_BDTHW.shape
    if not class_token:
        return x_BDTHW.flatten(2).transpose(1, 2), (frames, height, width)
    tokens_BLD = x_BDTHW[:, :, 1:].flatten(2).transpose(1, 2)
    return torch.cat((x_BDTHW[:, :, 0, 0, 0][:, None], tokens_BLD), 1), (frames - 1, height, width)


class TokenStage(nn.Module):
    """Consecutive blocks of a network as a function from map to map; the first one reads pixels.

    Holds no weights of its own: the blocks are those of the network, under whose names they are saved.
    """

    network: MViT

    def __init__(self, network: MViT, blocks: range) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(network.blocks[index] for index in blocks)
        self.first, self.last = blocks.start == 0, blocks.stop == len(network.blocks)
        self.class_token = network.config.class_token
        self.__dict__["network"] = network  # not a part: it would be one of itself

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BLD, grid = self.network.embed(x_BCTHW) if self.first else unpack_tokens(x_BCTHW, self.class_token)
        for block in self.blocks:
            x_BLD, grid = block(x_BLD, grid)
        return pack_tokens(self.network.last_norm(x_BLD) if self.last else x_BLD, grid, self.class_token)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of the blocks, and of what stands before the first and behind the last one."""
        yield from super().named_parameters(prefix, recurse, remove_duplicate)
        for name, parameter in self.network.named_parameters():
            begins = not name.startswith(("blocks.", "norm.", "head."))
            if (self.first and begins) or (
                self.last and name.startswith("norm.") and not self.network.config.mean_first
            ):
                yield f"{prefix}{'.' if prefix else ''}network.{name}", parameter


class MViT(ClipModel):
    """The network without memory.

    Its stages, named as in the papers, are the blocks of one size of map: `scale2` begins with the patches.

    Args:
        config: sizes and options.
        num_classes: K; several label spaces as a tuple; 0 = no classifier.
        in_channels: C of the input.
        info: how the model is meant to be used.
        compression: of blocks that remember, for `memvit.py`.
    """

    classifier: ClassVar[str] = "head.projection"
    feature_layout: ClassVar[str] = "BLD"

    def __init__(
        self,
        config: MvitConfig,
        *,
        num_classes: int | tuple[int, ...] = 400,
        in_channels: int = 3,
        info: ModelInfo | None = None,
        compression: Compression | None = None,
    ) -> None:
        super().__init__()
        self.config, self.plans = config, block_plans(config)
        self.info = info or model_info(config)
        self.num_features = self.plans[-1].dim_out
        self.num_classes = num_classes if isinstance(num_classes, int) else sum(num_classes)
        self.feature_info = _feature_info(config, self.plans)
        self.patch_embed = Patches(config, in_channels)
        dim, grid = config.embed_dim, config.grid
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.absolute in ("joint", "sincos"):
            length = grid[0] * grid[1] * grid[2] + int(config.class_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, length, dim), requires_grad=config.absolute == "joint")
        elif config.absolute == "separable":
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, grid[1] * grid[2], dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, grid[0], dim))
            if config.class_token:
                self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm_stem = nn.LayerNorm(dim, eps=NORM_EPS) if config.norm_stem else None
        self.pos_drop = nn.Dropout(config.dropout)
        last = max(config.depth - 1, 1)
        self.blocks = nn.ModuleList(
            self._block(plan, config.drop_path * index / last, compression) for index, plan in enumerate(self.plans)
        )
        self.norm = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head = Head(self.num_features, num_classes, config.head_dropout)
        self.apply(self._init)
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith(("cls_token", "pos_embed")):
                nn.init.trunc_normal_(parameter, std=0.02)
        if config.absolute == "sincos":
            table_LD = sine_positions(grid, dim)
            self.pos_embed.data[0, int(config.class_token) :] = table_LD
            self.pos_embed.data[0, : int(config.class_token)] = 0.0
        self.__dict__["_stages"] = self._divided(num_classes)

    def _divided(self, num_classes: int | tuple[int, ...]) -> dict[str, TokenStage]:
        """The stages; none where clips are not judged with one vector of logits each."""
        if self.config.frame_level or isinstance(num_classes, tuple):
            return {}
        begins = [0, *(n for n, plan in enumerate(self.plans) if n and plan.stride_q != (1, 1, 1))]
        ranges = [range(begin, end) for begin, end in pairwise([*begins, len(self.plans)])]
        return {f"scale{number}": TokenStage(self, blocks) for number, blocks in enumerate(ranges, 2)}

    @property
    def stages(self) -> Mapping[str, nn.Module]:
        stages: dict[str, nn.Module] = self.__dict__["_stages"]
        return stages

    @property
    def dropout(self) -> nn.Dropout:  # type: ignore[override]
        """In front of the classifier."""
        return self.head.dropout

    def _block(self, plan: BlockPlan, drop_path: float, compression: Compression | None) -> Block:
        return Block(plan, self.config, drop_path, compression)

    def _init(self, module: nn.Module) -> None:
        # SlowFast also draws convolutions and starts biases at 0.02; MeMViT keeps the framework's convolutions.
        slowfast = self.config.init == "slowfast"
        if isinstance(module, nn.Linear) or (slowfast and isinstance(module, (nn.Conv2d, nn.Conv3d))):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, (nn.Linear, nn.LayerNorm)) and module.bias is not None:
            nn.init.constant_(module.bias, 0.02 if slowfast else 0.0)
        if isinstance(module, Head) and self.config.head_init_scale != 1.0:  # its layers have been visited before it
            for parameter in module.parameters():
                parameter.data.mul_(self.config.head_init_scale)
        if isinstance(module, PoolingAttention) and self.config.rel_pos_zero_init:
            for name, parameter in module.named_parameters(recurse=False):
                if name.startswith("rel_pos"):
                    nn.init.zeros_(parameter)

    def reset_classifier(self, num_classes: int | tuple[int, ...], dropout: float = 0.0) -> None:
        """A new classifier with fresh weights; `num_classes=0` removes it, then `forward` returns pooled features.

        Raises: ValueError: negative classes or a probability outside [0, 1).
        """
        least = min(num_classes) if isinstance(num_classes, tuple) else num_classes
        if least < 0 or not 0.0 <= dropout < 1.0:
            raise ValueError(f"needs num_classes >= 0 and dropout in [0, 1), got {num_classes} and {dropout}")
        like = self.norm.weight
        self.num_classes = num_classes if isinstance(num_classes, int) else sum(num_classes)
        self.head = Head(self.num_features, num_classes, dropout).to(like)
        self.head.apply(self._init)
        self.__dict__["_stages"] = self._divided(num_classes)

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        # Behind other stages shortcuts read too; a norm in front of the classifier does not care.
        last = stage == list(self.stages)[-1] and not self.config.mean_first
        return (f"{self.classifier}.weight",) if last and self.num_classes else ()

    def ignores_scale(self, stage: str) -> bool:
        return self.config.mean_first and stage == list(self.stages)[-1]

    def memory_view(self, stage: str, pathway: str = "concat") -> MemoryView:
        return replace(super().memory_view(stage, pathway), class_token=self.config.class_token)

    def grid_map(self, x_BDTHW: Tensor) -> Tensor:
        """Packed tokens without the class token."""
        return x_BDTHW[:, :, int(self.config.class_token) :]

    def pool(self, x_BDTHW: Tensor) -> Tensor:
        """What the head reads of packed tokens: the class token, or the mean of all where there is none."""
        return x_BDTHW[:, :, 0, 0, 0] if self.config.class_token else x_BDTHW.mean((2, 3, 4))

    def classify(self, pooled_BD: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.norm(pooled_BD) if self.config.mean_first else pooled_BD)
        return logits_BK

    def layouts(self) -> tuple[Layout, ...]:
        """PySlowFast or MeMViT, whose names are ours, and for the first torchvision and pytorchvideo."""
        return (MEMVIT,) if self.config.pool_first else (PYSLOWFAST, TORCHVISION, PYTORCHVIDEO)

    def own_form(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One linear map for q, k and v, or three; without the second names that pytorchvideo has for poolings."""
        once = {key: value for key, value in tensors.items() if "_attention_pool" not in key}
        apart = self.config.pool_first or self.config.separate_qkv
        return split_qkv(once) if apart else fused_qkv(once)

    def no_weight_decay(self) -> set[str]:
        """Names of the position tables and the class token."""
        return {name for name, _ in self.named_parameters() if "rel_pos" in name or name.startswith(("cls_", "pos_"))}

    def embed(self, x_BCTHW: Tensor, before_BCTHW: Tensor | None = None) -> tuple[Tensor, Grid]:
        """Tokens of a normalised clip with their absolute positions, and their (T, H, W).

        Args:
            before_BCTHW: the last frames of the clip before, for a causal stem; zeros where `None`.
        """
        frames_seen = x_BCTHW.shape[2] + self.patch_embed.seen_before
        sizes = zip(
            (frames_seen, *x_BCTHW.shape[3:]),
            self.config.patch_kernel,
            self.config.patch_stride,
            (0 if self.config.causal_stem else self.config.patch_padding[0], *self.config.patch_padding[1:]),
            strict=True,
        )
        frames, rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        grid = (frames, rows, columns)
        x_BLD = self.patch_embed(x_BCTHW, before_BCTHW)
        if self.config.class_token:
            x_BLD = torch.cat([self.cls_token.expand(x_BLD.shape[0], -1, -1), x_BLD], 1)
        if self.config.absolute != "none":
            x_BLD = x_BLD + self._positions(grid)
        x_BLD = self.pos_drop(x_BLD)
        return (x_BLD if self.norm_stem is None else self.norm_stem(x_BLD)), grid

    def _positions(self, grid: Grid) -> Tensor:
        trained = self.config.grid
        if self.config.absolute == "separable":
            space_DHW = self.pos_embed_spatial[0].T.unflatten(1, trained[1:])
            time_DT = self.pos_embed_temporal[0].T
            table_DTHW = time_DT[:, :, None, None] + space_DHW[:, None]
            first = self.pos_embed_class[0] if self.config.class_token else None
        else:
            first = self.pos_embed[0, :1] if self.config.class_token else None
            rest = self.pos_embed[0, 1:] if self.config.class_token else self.pos_embed[0]
            table_DTHW = rest.T.unflatten(1, trained)
        if grid != trained:
            table_DTHW = F.interpolate(table_DTHW[None], size=grid, mode="trilinear")[0]
        table_LD = table_DTHW.flatten(1).T
        return table_LD if first is None else torch.cat([first, table_LD])

    def forward_features(self, x_BCTHW: Tensor) -> Tensor:
        """Tokens behind the last block, `(B, L, D)`: normalised, but with `mean_first` normalised by the head."""
        x_BLD, grid = self.embed(x_BCTHW)
        for block in self.blocks:
            x_BLD, grid = block(x_BLD, grid)
        return self.last_norm(x_BLD)

    def last_norm(self, x_BLD: Tensor) -> Tensor:
        """The norm behind the last block, where it stands in front of the mean over tokens."""
        return x_BLD if self.config.mean_first else self.norm(x_BLD)

    def forward_head(self, x_BLD: Tensor, pre_logits: bool = False) -> Any:
        """Logits `(B, K)` (a tuple of them for several label spaces); with `frame_level` `(B, T', K)`.

        What is classified: the class token; the mean of the tokens where there is none; every frame's mean.
        """
        if self.config.mean_first:
            tokens_BLD = x_BLD[:, 1:] if self.config.class_token else x_BLD
            pooled = self.norm(tokens_BLD.mean(1))
        elif self.config.frame_level:
            tokens_BLD = x_BLD[:, 1:] if self.config.class_token else x_BLD
            frames = self.config.grid[0]
            pooled = tokens_BLD.unflatten(1, (frames, -1)).mean(2)
        else:
            pooled = x_BLD[:, 0] if self.config.class_token else x_BLD.mean(1)
        return pooled if pre_logits else self.head(pooled)


def sine_positions(grid: Grid, dim: int) -> Tensor:
    """Fixed positions `(L, D)`: a quarter of the channels for time, the others for width and height in halves.

    Raises: ValueError: a width that is no multiple of 16.
    """
    if dim % 16:
        raise ValueError(f"positions of sines need a width that is a multiple of 16, got {dim}")

    def waves(positions_L: Tensor, channels: int) -> Tensor:
        rates_D = 10000.0 ** -(torch.arange(channels // 2, dtype=torch.float64) / (channels // 2))
        angles_LD = positions_L.double()[:, None] * rates_D
        return torch.cat([angles_LD.sin(), angles_LD.cos()], 1).float()

    frames, rows, columns = (at.reshape(-1) for at in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    side = 3 * dim // 8
    return torch.cat([waves(frames, dim // 4), waves(columns, side), waves(rows, side)], 1)


def model_info(config: MvitConfig, stride: int = 4, licence: str = "Apache-2.0 (SlowFast)") -> ModelInfo:
    """How the published models of these papers are used."""
    version = "2112.01526" if config.rel_pos_spatial else "2104.11227"
    origin = f"arXiv {version}; facebookresearch/SlowFast"
    return ModelInfo(MEAN, STD, config.crop, config.frames, stride, 30.0, licence, origin)


def _feature_info(config: MvitConfig, plans: list[BlockPlan]) -> list[dict[str, Any]]:
    info: list[dict[str, Any]] = []
    reduction = config.patch_stride
    for index, plan in enumerate(plans):
        reduction = tuple(a * b for a, b in zip(reduction, plan.stride_q, strict=True))  # type: ignore[assignment]
        if index and plan.stride_q == (1, 1, 1):
            info.pop()  # the stage goes on
        info.append({"name": f"scale{len(info) + 2}", "channels": plan.dim_out, "reduction": reduction})
    return info


def _build(config: MvitConfig, num_classes: int, in_channels: int, stride: int) -> MViT:
    return MViT(config, num_classes=num_classes, in_channels=in_channels, info=model_info(config, stride))


def mvitv2_s(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.5) -> MViT:
    """MViTv2-S, 16 frames at stride 4; 34.5 M parameters, 64.5 G multiply-adds a clip."""
    return _build(replace(v2_config("16x4"), head_dropout=dropout), num_classes, in_channels, 4)


def mvitv2_b(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.5) -> MViT:
    """MViTv2-B, 32 frames at stride 3; 51.2 M parameters, 225 G multiply-adds a clip."""
    return _build(replace(v2_config("32x3"), head_dropout=dropout), num_classes, in_channels, 3)


def mvitv2_l(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.5) -> MViT:
    """MViTv2-L, 40 frames of 312 pixels at stride 3; 213 M parameters, 2.8 T multiply-adds a clip."""
    return _build(replace(v2_config("40x3"), head_dropout=dropout), num_classes, in_channels, 3)


def mvitv1_b(
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    frames: Literal[16, 32] = 16,
    separate_qkv: bool = False,
    every_kernel_3: bool | None = None,
) -> MViT:
    """MViTv1-B: 16 frames at stride 4 and 16 blocks (36.6 M parameters), or 32 at stride 3 and 24 blocks (53.1 M).

    Args:
        separate_qkv: three layers for q, k and v, as in pytorchvideo's files.
        every_kernel_3: all poolings have kernels of 3 x 3 x 3, also those that stride nowhere; or each of its stride
            plus 1, and none where it strides nowhere. `None`: the first for 16 frames, the second for 32; published
            files exist of both.
    Raises: ValueError: another number of frames.
    """
    sizes = {16: "16x4", 32: "32x3"}
    if frames not in sizes:
        raise ValueError(f"frames must be 16 or 32, got {frames}")
    size = sizes[frames]
    config = replace(v1_config(size), head_dropout=dropout, separate_qkv=separate_qkv)
    if every_kernel_3 is not None:
        config = replace(config, kernel=(3, 3, 3) if every_kernel_3 else None)
    return _build(config, num_classes, in_channels, int(size[-1]))


def mvit_tiny(
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.0,
    frames: int = 8,
    crop: int = 32,
    width: int = 24,
) -> MViT:
    """MViTv2 with four blocks for clips of 32 pixels (our own)."""
    config = replace(tiny_config(frames, crop, width), head_dropout=dropout)
    info = ModelInfo((0.5,) * 3, (0.25,) * 3, crop, frames, 1, 8.0, origin="wholereel's own")
    return MViT(config, num_classes=num_classes, in_channels=in_channels, info=info)
