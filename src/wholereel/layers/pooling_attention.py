"""Attention over a pooled clip: queries, keys and values are shrunk by depthwise convolutions, positions are relative.

Sources: MViTv1, arXiv 2104.11227 (pooling attention); MViTv2, arXiv 2112.01526 (decomposed relative positions, residual
pooling); MeMViT, arXiv 2201.08383 (pooling before the projections, keys of earlier clips, their compression). Parameter
names and order of operations are those of the public codes (facebookresearch/SlowFast, facebookresearch/MeMViT).
Tokens are `(B, L, D)`: the class token, where there is one, then a (T, H, W) grid in raster order.
Extra axes: A heads, M remembered clips, P tokens of one of them, E numbers of the bias.
Not here: which clips are remembered (`memory/cached.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.token_pooling import (
    MODES,
    NORM_EPS,
    UNPOOLED,
    Grid,
    depthwise,
    norm_heads,
    pool_tokens,
    pooled_grid,
    pooling,
    same_padding,
)
from wholereel.ops.attention import biased_attention, closed_score
from wholereel.ops.linear import linear
from wholereel.ops.relative_positions import centred_rows, memory_time_rows, position_codes, spatial_rows, time_rows

__all__ = ["COMPRESSORS", "Compression", "Pooled", "PoolingAttention"]

COMPRESSORS = ("conv", "max", "avg")

# Queries times rows of a table, by axis, in the order of a bias's numbers.
PRODUCTS = {1: "bathwd,hkd->bathwk", 2: "bathwd,wkd->bathwk", 0: "bathwd,tkd->bathwk"}


@dataclass(frozen=True)
class Compression:
    """How a remembered clip is shrunk, and how many are attended to.

    Args:
        reach: M.
        kernel, stride: of the pooling over (T, H, W); stride `None` = not compressed.
        kind: of the pooling: `conv`, a depthwise convolution; `max` or `avg`, without weights. A norm is behind each.
    """

    reach: int = 2
    kernel: Grid = (7, 3, 3)
    stride: Grid | None = (4, 2, 2)
    kind: str = "conv"


@dataclass(frozen=True)
class Pooled:
    """What attention needs of the present clip.

    Args:
        query_BLD, key_BLD, value_BLD: pooled; not projected yet where pooling comes first.
        query_grid, key_grid: their (T, H, W).
        frames: T before pooling.
    """

    query_BLD: Tensor
    key_BLD: Tensor
    value_BLD: Tensor
    query_grid: Grid
    key_grid: Grid
    frames: int


class PoolingAttention(nn.Module):
    """Multi-head attention of one block.

    Args:
        dim, dim_out: width of the input and of the output.
        heads: A.
        grid: (T, H, W) of the input in training, from which the tables get their sizes.
        kernel_q, stride_q, kernel_kv, stride_kv: pooling; kernel `None` = no pooling.
        mode: `conv`: weights shared by all heads; `conv_unshared`: every channel has its own (needs `pool_first`);
            `max`, `avg`: without weights.
        pool_first: pool in front of the linear maps (MeMViT) instead of behind them.
        separate_qkv: three linear maps instead of one; `pool_first` always has three.
        qkv_bias: of these maps.
        class_token: whether token 0 is a class token.
        rel_pos_spatial, rel_pos_temporal: relative positions.
        axes_rule: see `ops.relative_positions.spatial_rows` and `time_rows`.
        residual: 1 adds the queries to the result (class token excepted), 2 a depthwise convolution of them.
        causal: a frame attends to itself and earlier ones, and nothing to the present clip's class token.
        dropout, attention_dropout: probabilities.
        compression: for layers that remember; needs `pool_first`.
    Raises: ValueError: settings that do not go together.
    """

    rel_pos_h: Tensor
    rel_pos_w: Tensor
    rel_pos_mem_h: Tensor
    rel_pos_mem_w: Tensor

    def __init__(
        self,
        dim: int,
        dim_out: int,
        heads: int,
        *,
        grid: Grid,
        kernel_q: Grid | None = None,
        stride_q: Grid = UNPOOLED,
        kernel_kv: Grid | None = None,
        stride_kv: Grid = UNPOOLED,
        mode: str = "conv",
        pool_first: bool = False,
        separate_qkv: bool = False,
        qkv_bias: bool = True,
        class_token: bool = True,
        rel_pos_spatial: bool = False,
        rel_pos_temporal: bool = False,
        axes_rule: str = "apart",
        residual: int = 0,
        causal: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        compression: Compression | None = None,
        route: str = "auto",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
        if compression is not None and compression.kind not in COMPRESSORS:
            raise ValueError(f"the compression must be one of {COMPRESSORS}, got {compression.kind!r}")
        if not pool_first and (mode == "conv_unshared" or compression is not None):
            raise ValueError("mode='conv_unshared' and remembered clips need pool_first=True")
        if causal and (stride_q[0] != 1 or stride_kv[0] != 1 or mode in ("max", "avg")):
            raise ValueError(f"causal attention cannot pool frames, got strides {stride_q}, {stride_kv}, mode={mode!r}")
        self.dim_out, self.heads, self.class_token, self.pool_first = dim_out, heads, class_token, pool_first
        self.rel_pos_spatial, self.rel_pos_temporal = rel_pos_spatial, rel_pos_temporal
        self.axes_rule, self.causal, self.compression, self.route = axes_rule, causal, compression, route
        self.residual, self.attention_dropout = residual, attention_dropout
        self.pooling_heads = 1 if mode == "conv_unshared" else heads
        if pool_first or separate_qkv:
            self.q, self.k, self.v = (nn.Linear(dim, dim_out, bias=qkv_bias) for _ in range(3))
        else:
            self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)
        self.dropout = nn.Dropout(dropout)
        channels = (dim if pool_first else dim_out) // self.pooling_heads
        plans = {"q": (kernel_q, stride_q), "k": (kernel_kv, stride_kv), "v": (kernel_kv, stride_kv)}
        for name, (kernel, stride) in plans.items():
            pool, norm = pooling(mode, channels, kernel, stride)
            setattr(self, f"pool_{name}", pool)
            setattr(self, f"norm_{name}", norm)
        width = dim_out // heads
        self._add_tables(width, grid, stride_q, stride_kv)
        if compression is not None and compression.stride is not None:
            for name in ("k", "v"):
                sizes = dim, compression.kernel, compression.stride
                pool = depthwise(*sizes) if compression.kind == "conv" else pooling(compression.kind, *sizes)[0]
                setattr(self, f"compress_{name}", pool)
                setattr(self, f"norm_compress_{name}", nn.LayerNorm(dim, eps=NORM_EPS))
        self.conv_q_func: nn.Conv3d | None = None
        if residual > 1:
            kernel = kernel_kv or UNPOOLED
            self.conv_q_func = nn.Conv3d(width, width, kernel, padding=same_padding(kernel), groups=width)

    def _add_tables(self, width: int, grid: Grid, stride_q: Grid, stride_kv: Grid) -> None:
        def table(rows: int) -> nn.Parameter:
            return nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, width), std=0.02))

        shrink = self.compression.stride if self.compression and self.compression.stride else UNPOOLED
        if self.rel_pos_spatial:
            if grid[1] != grid[2]:
                raise ValueError(f"relative positions need a square training grid, got {grid}")
            queries, keys = grid[1] // stride_q[1], grid[1] // stride_kv[1]
            for axis in ("h", "w"):
                setattr(self, f"rel_pos_{axis}", table(2 * max(queries, keys) - 1))
                if self.compression:
                    setattr(self, f"rel_pos_mem_{axis}", table(2 * max(queries, keys // shrink[1]) - 1))
        if self.rel_pos_temporal:
            self.rel_pos_t = table(2 * grid[0] - 1)
            if self.compression:
                self.rel_pos_mem_t = table((self.compression.reach + 1) * grid[0] - 1)

    @property
    def memory_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that only remembered clips use, by name."""
        return {name: p for name, p in self.named_parameters() if "compress_" in name or "rel_pos_mem_" in name}

    def pool(self, x_BLD: Tensor, grid: Grid) -> Pooled:
        """Queries, keys and values of a clip, pooled."""
        if self.pool_first:
            parts = [x_BLD, x_BLD, x_BLD]
        elif hasattr(self, "qkv"):
            parts = list(linear(x_BLD, self.qkv).chunk(3, 2))
        else:
            parts = [linear(x_BLD, part) for part in (self.q, self.k, self.v)]
        pooled: list[Tensor] = []
        grids: list[Grid] = []
        for name, part in zip("qkv", parts, strict=True):
            tokens, size = pool_tokens(
                part,
                grid,
                getattr(self, f"pool_{name}"),
                class_token=self.class_token,
                heads=self.pooling_heads,
                causal=self.causal,
            )
            pooled.append(norm_heads(tokens, getattr(self, f"norm_{name}"), self.pooling_heads))
            grids.append(size)
        query_BLD, key_BLD, value_BLD = pooled
        return Pooled(query_BLD, key_BLD, value_BLD, grids[0], grids[1], grid[0])

    def compressed_grid(self, key_grid: Grid) -> Grid:
        """(T, H, W) of a remembered clip."""
        if self.compression is None or self.compression.stride is None:
            return key_grid
        return pooled_grid(key_grid, self.compression.kernel, self.compression.stride)

    def compress(self, key_BLD: Tensor, value_BLD: Tensor, key_grid: Grid) -> tuple[Tensor, Tensor]:
        """Keys and values of a clip as they are remembered, `(B, P, D)`."""
        if self.compression is None or self.compression.stride is None:
            return key_BLD, value_BLD
        compressed = []
        for name, tokens_BLD in (("k", key_BLD), ("v", value_BLD)):
            pool = getattr(self, f"compress_{name}")
            tokens_BPD, _ = pool_tokens(tokens_BLD, key_grid, pool, class_token=self.class_token)
            compressed.append(getattr(self, f"norm_compress_{name}")(tokens_BPD))
        return compressed[0], compressed[1]

    def attend(
        self,
        pooled: Pooled,
        past_key_BMPD: Tensor | None = None,
        past_value_BMPD: Tensor | None = None,
        valid_BM: Tensor | None = None,
    ) -> Tensor:
        """Attention of a pooled clip to itself and to remembered clips, `(B, L, D)`.

        Args:
            pooled: what `pool` returned.
            past_key_BMPD, past_value_BMPD: of remembered clips, compressed, oldest first.
            valid_BM: bool; those that are False are not attended to.
        """
        query_BLD, key_BLD, value_BLD = pooled.query_BLD, pooled.key_BLD, pooled.value_BLD
        open_BK, steps, memory_grid = None, 0, None
        if past_key_BMPD is not None and past_value_BMPD is not None:
            steps, memory_grid = past_key_BMPD.shape[1], self.compressed_grid(pooled.key_grid)
            present = key_BLD.shape[1]
            key_BLD = torch.cat([past_key_BMPD.flatten(1, 2).to(key_BLD.dtype), key_BLD], 1)
            value_BLD = torch.cat([past_value_BMPD.flatten(1, 2).to(value_BLD.dtype), value_BLD], 1)
            if valid_BM is not None:
                open_BK = F.pad(valid_BM.repeat_interleave(past_key_BMPD.shape[2], 1), (0, present), value=True)
        if self.causal and self.class_token:
            open_BK = self._without_class_key(open_BK, key_BLD, pooled.key_grid)
        if self.pool_first:
            query_BLD, key_BLD, value_BLD = (
                linear(query_BLD, self.q),
                linear(key_BLD, self.k),
                linear(value_BLD, self.v),
            )
        query, key, value = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query_BLD, key_BLD, value_BLD))
        result = biased_attention(
            query,
            key,
            value,
            self._bias_numbers(query, pooled, memory_grid, steps),
            self._codes(pooled.key_grid, memory_grid, steps, query.device),
            open_BK,
            scale=query.shape[3] ** -0.5,
            dropout=self.attention_dropout if self.training else 0.0,
            route=self.route,
        )
        result_BLAD = self._with_residual(result.transpose(1, 2), query.transpose(1, 2), pooled.query_grid)
        return self.dropout(linear(result_BLAD.flatten(2), self.proj))

    def forward(self, x_BLD: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Attention within one clip: the result and its (T, H, W)."""
        pooled = self.pool(x_BLD, grid)
        return self.attend(pooled), pooled.query_grid

    def _with_residual(self, result_BLAD: Tensor, query_BLAD: Tensor, grid: Grid) -> Tensor:
        """Queries, or a convolution of them, added for all tokens but the class token."""
        if not self.residual:
            return result_BLAD
        if self.conv_q_func is None:
            if not self.class_token:
                return result_BLAD + query_BLAD
            added_L11 = (torch.arange(query_BLAD.shape[1], device=query_BLAD.device) > 0).to(query_BLAD.dtype)
            return torch.addcmul(result_BLAD, query_BLAD, added_L11[:, None, None])
        tokens = query_BLAD[:, 1:] if self.class_token else query_BLAD
        maps = tokens.transpose(1, 2).flatten(0, 1).unflatten(1, grid).movedim(-1, 1)
        added = self.conv_q_func(maps).flatten(2).unflatten(0, (len(query_BLAD), -1)).permute(0, 3, 1, 2)
        return result_BLAD + (F.pad(added, (0, 0, 0, 0, 1, 0)) if self.class_token else added)

    def _without_class_key(self, open_BK: Tensor | None, key_BLD: Tensor, key_grid: Grid) -> Tensor:
        # The class token has seen the whole clip: reading it would show the future.
        batch, keys = key_BLD.shape[:2]
        place = keys - key_grid[0] * key_grid[1] * key_grid[2] - 1
        elsewhere_1K = (torch.arange(keys, device=key_BLD.device) != place)[None]
        return elsewhere_1K.expand(batch, -1) if open_BK is None else open_BK & elsewhere_1K

    def _bias_numbers(self, query_BALD: Tensor, pooled: Pooled, memory: Grid | None, steps: int) -> Tensor | None:
        """The numbers of each query that keys choose from, in the order of `_codes`; zero for the class token."""
        kinds = self._position_rows(pooled, memory, steps)  # rows of the present clip's keys and of remembered ones
        if not (self.rel_pos_spatial or self.rel_pos_temporal or self.causal):
            return None
        tokens = query_BALD[:, :, 1:] if self.class_token else query_BALD
        query = tokens.unflatten(2, pooled.query_grid)
        lasts = (0 if self.rel_pos_temporal or self.causal else 2, 0 if self.rel_pos_temporal else 2)
        numbers: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
        for axis, formula in PRODUCTS.items():
            found = [kind for kind in (0, 1) if axis in kinds[kind]]
            rows = [kinds[k][axis] if axis == lasts[k] else centred_rows(kinds[k][axis]) for k in found]
            if rows:
                product = torch.einsum(formula, query, torch.cat(rows, 1).to(query.dtype))
                parts = product.split([part.shape[1] for part in rows], 5)
                for kind, part in zip(found, parts, strict=True):
                    numbers[kind][axis] = part
        if self.causal:
            frames = (pooled.query_grid[0], pooled.key_grid[0])
            later_TK = torch.ones(frames, device=query.device, dtype=torch.bool).triu(1)
            closed_T11K = (later_TK.to(query.dtype) * closed_score(query.dtype))[:, None, None]
            times = numbers[0].get(0)
            numbers[0][0] = closed_T11K.expand(*query.shape[:5], -1) if times is None else times + closed_T11K
        for of_kind, last in zip(numbers, lasts, strict=True):
            for axis in [axis for axis in of_kind if axis != last]:
                shared, of_kind[axis] = of_kind[axis][..., :1], of_kind[axis][..., 1:]
                of_kind[last] = of_kind[last] + shared
        parts = [of_kind[axis] for axis in PRODUCTS for of_kind in numbers if axis in of_kind]
        all_numbers = torch.cat(parts, 5).flatten(2, 4)
        return F.pad(all_numbers, (0, 0, 1, 0)) if self.class_token else all_numbers

    def _position_rows(
        self, pooled: Pooled, memory: Grid | None, steps: int
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Rows of the tables for queries and keys `(Q, K, D)` by axis (0 time, 1 height, 2 width), of both kinds."""
        grid, key_grid = pooled.query_grid, pooled.key_grid
        present: dict[int, Tensor] = {}
        past: dict[int, Tensor] = {}
        if self.rel_pos_spatial:
            hw, rule = (grid[1], grid[2]), self.axes_rule
            present[1], present[2] = spatial_rows(self.rel_pos_h, self.rel_pos_w, hw, key_grid[1:], rule)
            if memory is not None:
                past[1], past[2] = spatial_rows(self.rel_pos_mem_h, self.rel_pos_mem_w, hw, memory[1:], rule)
        if self.rel_pos_temporal:
            present[0] = time_rows(self.rel_pos_t, grid[0], key_grid[0], pooled.frames, self.axes_rule)
            if memory is not None:
                stride = self.compression.stride[0] if self.compression and self.compression.stride else 1
                past[0] = memory_time_rows(self.rel_pos_mem_t, grid[0], steps * memory[0], stride)
        return present, past

    def _codes(self, key_grid: Grid, memory: Grid | None, steps: int, device: torch.device) -> Tensor | None:
        """`(K, E)`: which of a query's numbers each key adds to its score."""
        temporal = self.rel_pos_temporal or self.causal
        if not (self.rel_pos_spatial or temporal):
            return None
        return position_codes(
            key_grid,
            memory or (0, 0, 0),
            steps,
            spatial=self.rel_pos_spatial,
            temporal=temporal,
            past_temporal=self.rel_pos_temporal and memory is not None,
            class_token=self.class_token,
            device=device,
        )
