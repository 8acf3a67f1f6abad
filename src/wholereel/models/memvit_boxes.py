"""The box head of MeMViT: features of boxes in slots that attend to each other and to the slots of earlier clips.

Source: arXiv 2201.08383 (AVA) and facebookresearch/MeMViT. Boxes of a row fill its first slots; empty slots are zeros
and take part, as in the public code.
Extra axes: R boxes of all rows, S slots of a row.
Not here: the network in front (`memvit.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.mlp import DropPath, Mlp
from wholereel.layers.roi_pooling import pool_boxes
from wholereel.layers.token_pooling import NORM_EPS, Grid
from wholereel.memory.cached import CachedState, cache_step
from wholereel.models.memvit_state import MemoryConfig
from wholereel.models.mvit_config import MvitConfig
from wholereel.ops.attention import biased_attention
from wholereel.ops.checks import check_all

__all__ = ["BoxBlock", "BoxConfig", "BoxPlaces", "BoxPooling", "BoxSlots", "gathered", "scattered", "widened"]


@dataclass(frozen=True)
class BoxConfig:
    """The head for boxes.

    Args:
        depth: blocks over box features; 0 = the classifier reads the features of single boxes.
        slots: S, most boxes of a row.
        scale: pixels per token.
        resolution: bins of a box's side, of which the largest value is kept.
        aligned: whether pixel centres are at half numbers.
        margin: share of a box's width that is looked at on either side of it as well (our choice; published: none):
            what people hold or touch may lie beside them.
        places: frequencies by which a box's features are told where it is (our choice; published: 0 = not at all), so
            that a memory can find the same place again.
        drop_path, attention_dropout, qkv_dropout, dropout: probabilities, inside the blocks.
    """

    depth: int = 1
    slots: int = 100
    scale: int = 32
    resolution: int = 7
    aligned: bool = True
    margin: float = 0.0
    places: int = 0
    drop_path: float = 0.1
    attention_dropout: float = 0.5
    qkv_dropout: float = 0.3
    dropout: float = 0.3


@dataclass(frozen=True)
class BoxSlots:
    """Box features in slots, and where each box is: in slot `slot_R[r]` of row `row_R[r]`."""

    features_BSD: Tensor
    row_R: Tensor
    slot_R: Tensor


class BoxPooling(nn.Module):
    """The largest value inside a box of the features' mean over time."""

    def __init__(self, config: BoxConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, tokens_BLD: Tensor, grid: Grid, boxes_R5: Tensor) -> Tensor:
        """`(R, D)` from tokens without class token and boxes row, x1, y1, x2, y2 in pixels."""
        maps_BDTHW = tokens_BLD.unflatten(1, grid).movedim(-1, 1)
        config = self.config
        if config.margin:
            boxes_R5 = widened(boxes_R5, config.margin, grid[2] * config.scale)
        pooled_RD = pool_boxes(
            maps_BDTHW, boxes_R5, scale=1 / config.scale, resolution=config.resolution, aligned=config.aligned
        )
        return pooled_RD.to(tokens_BLD.dtype)


class BoxPlaces(nn.Module):
    """What is added to a box's features for the place of its middle: sines and cosines of x and y, mixed linearly.

    Args:
        frequencies: 1 .. n half periods over a picture.
        dim: width of the features.
    """

    INIT_STD = 0.1  # the features beside it are normalised; 0.02, as elsewhere, would be lost among them

    def __init__(self, frequencies: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(4 * frequencies, dim)
        nn.init.trunc_normal_(self.proj.weight, std=self.INIT_STD)
        nn.init.zeros_(self.proj.bias)

    def forward(self, boxes_R5: Tensor, size: tuple[int, int]) -> Tensor:
        """`(R, D)` from boxes row, x1, y1, x2, y2 in pixels of a picture of `size` = height, width."""
        height, width = size
        x_R = (boxes_R5[:, 1] + boxes_R5[:, 3]) / (2 * width)
        y_R = (boxes_R5[:, 2] + boxes_R5[:, 4]) / (2 * height)
        turns = self.proj.in_features // 4
        steps_F = math.pi * torch.arange(1, turns + 1, device=boxes_R5.device, dtype=boxes_R5.dtype)
        angles_RF = torch.stack([x_R, y_R], 1)[:, :, None] * steps_F
        waves_RF = torch.cat([angles_RF.sin(), angles_RF.cos()], 2).flatten(1)
        placed: Tensor = self.proj(waves_RF.to(self.proj.weight.dtype))
        return placed


def widened(boxes_R5: Tensor, margin: float, width: int) -> Tensor:
    """Boxes with a share of their width more on both sides, as far as a picture of `width` pixels goes."""
    row_R1, left, top, right, bottom = boxes_R5.split(1, 1)
    more = margin * (right - left)
    return torch.cat([row_R1, (left - more).clamp(min=0), top, (right + more).clamp(max=width), bottom], 1)


def scattered(features_RD: Tensor, boxes_R5: Tensor, rows: int, slots: int) -> BoxSlots:
    """Put each row's boxes into its first slots, in their order.

    Raises: ValueError: a row with more boxes than slots (on accelerators a device-side assertion).
    """
    row_R = boxes_R5[:, 0].long()
    of_row_RB = F.one_hot(row_R, rows)
    slot_R = (of_row_RB.cumsum(0) * of_row_RB).sum(1) - 1
    check_all(slot_R < slots, f"a clip has more boxes than there are slots ({slots})")
    empty_BSD = features_RD.new_zeros(rows, slots, features_RD.shape[1])
    return BoxSlots(empty_BSD.index_put((row_R, slot_R), features_RD), row_R, slot_R)


def gathered(x_BSD: Tensor, slots: BoxSlots) -> Tensor:
    """`(R, D)`: the slots that hold boxes, in the order of the boxes."""
    return x_BSD[slots.row_R, slots.slot_R]


class BoxAttention(nn.Module):
    """Attention of slots to slots and to earlier slots; queries are added to the result."""

    def __init__(self, dim: int, heads: int, config: MvitConfig, boxes: BoxConfig) -> None:
        super().__init__()
        self.heads, self.residual, self.attention_dropout = heads, config.residual, boxes.attention_dropout
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=config.qkv_bias) for _ in range(3))
        self.proj = nn.Linear(dim, dim)
        self.qkv_drop, self.proj_drop = nn.Dropout(boxes.qkv_dropout), nn.Dropout(boxes.dropout)

    def forward(
        self,
        x_BSD: Tensor,
        past_keys_BLD: Tensor | None = None,
        past_values_BLD: Tensor | None = None,
        open_BL: Tensor | None = None,
    ) -> Tensor:
        """Slots and, if there are, earlier ones with their mask."""
        key_BLD = value_BLD = x_BSD
        open_BK = None
        if past_keys_BLD is not None and past_values_BLD is not None and open_BL is not None:
            key_BLD = torch.cat([past_keys_BLD.to(x_BSD.dtype), x_BSD], 1)
            value_BLD = torch.cat([past_values_BLD.to(x_BSD.dtype), x_BSD], 1)
            open_BK = F.pad(open_BL, (0, x_BSD.shape[1]), value=True)
        parts = self.q(x_BSD), self.k(key_BLD), self.v(value_BLD)
        query, key, value = (self.qkv_drop(part.unflatten(2, (self.heads, -1)).transpose(1, 2)) for part in parts)
        dropout = self.attention_dropout if self.training else 0.0
        scale = query.shape[3] ** -0.5
        result = biased_attention(query, key, value, None, None, open_BK, scale=scale, dropout=dropout)
        result = result + query if self.residual else result
        return self.proj_drop(self.proj(result.transpose(1, 2).flatten(2)))


class BoxBlock(nn.Module):
    """A transformer block over slots, with a cache of its normalised input (uncompressed)."""

    def __init__(self, dim: int, heads: int, config: MvitConfig, boxes: BoxConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS), nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = BoxAttention(dim, heads, config, boxes)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), dim, boxes.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x_BSD: Tensor, cache: CachedState | None, memory: MemoryConfig
    ) -> tuple[Tensor, CachedState | None]:
        """One clip's slots, and the cache before and after them; `None` = no cache, no memory."""
        normed = self.norm1(x_BSD)
        past: tuple[Tensor, ...] = ()
        if cache is not None:
            entry, cache = cache_step(cache, normed, normed, gap=memory.gap, boundary=memory.boundary)
            past = entry.keys_BMLD.flatten(1, 2), entry.values_BMLD.flatten(1, 2), entry.mask()
        x_BSD = x_BSD + self.drop_path(self.attn(normed, *past))
        return x_BSD + self.drop_path(self.mlp(self.norm2(x_BSD))), cache
