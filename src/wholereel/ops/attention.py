"""Attention whose scores have a bias from relative positions, in a plain form and in two for fused kernels.

The bias of a query and a key is a sum of numbers of the query that the key chooses by its coordinates (MViTv2, arXiv
2112.01526). So it is a dot product: the query is extended by its numbers, the key by one-hot codes of its coordinates,
and any fused attention gives exactly softmax(scale * q k^T + bias) v without a bias tensor. What may not be attended to
is folded in the same way, as one more number.
Extra axes: A heads, Q queries, K keys, E extra numbers.
"""

from __future__ import annotations

import functools
import logging

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ATTENTION_ROUTES",
    "best_route",
    "biased_attention",
    "closed_score",
    "explicit_attention",
    "folded_attention",
    "masked_attention",
]

Grid = tuple[int, int, int]

log = logging.getLogger(__name__)


def closed_score(dtype: torch.dtype) -> float:
    """What is added to a score that shall count for nothing: its exponential is zero, and zero times it is zero."""
    return -3e4 if dtype == torch.float16 else -1e9


def explicit_attention(
    query_BAQD: Tensor,
    key_BAKD: Tensor,
    value_BAKD: Tensor,
    extra_BAQE: Tensor | None,
    codes_KE: Tensor | None,
    open_BK: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(scale * q k^T + extra codes^T) v with every tensor written out: the definition.

    Args:
        query_BAQD, key_BAKD, value_BAKD: heads in front of tokens.
        extra_BAQE: numbers of each query; `None` = no bias.
        codes_KE: which of them a key adds to its scores.
        open_BK: bool; keys that are False are not attended to.
        scale: factor of the dot product.
        dropout: probability of dropping an attention weight.
    """
    scores_BAQK = (query_BAQD * scale) @ key_BAKD.transpose(2, 3)
    if extra_BAQE is not None and codes_KE is not None:
        scores_BAQK = scores_BAQK + extra_BAQE @ codes_KE.T.to(extra_BAQE.dtype)
    if open_BK is not None:
        scores_BAQK = scores_BAQK.masked_fill(~open_BK[:, None, None], -torch.inf)
    weights_BAQK = scores_BAQK.softmax(3)
    return F.dropout(weights_BAQK, dropout, training=dropout > 0) @ value_BAKD


def folded_attention(
    query_BAQD: Tensor,
    key_BAKD: Tensor,
    value_BAKD: Tensor,
    extra_BAQE: Tensor | None,
    codes_KE: Tensor | None,
    open_BK: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """`explicit_attention` by `scaled_dot_product_attention` with extended queries and keys, without mask or bias."""
    if extra_BAQE is None and open_BK is None:
        return F.scaled_dot_product_attention(query_BAQD, key_BAKD, value_BAKD, dropout_p=dropout, scale=scale)
    width, dtype = value_BAKD.shape[3], query_BAQD.dtype
    batch, heads, keys = key_BAKD.shape[:3]
    queries, extended = [query_BAQD], [key_BAKD * scale]  # there are fewer keys than queries
    if extra_BAQE is not None and codes_KE is not None:
        queries.append(extra_BAQE)
        extended.append(codes_KE.to(dtype).expand(batch, heads, -1, -1))
    if open_BK is not None:
        queries.append(query_BAQD.new_ones(()).expand(*query_BAQD.shape[:3], 1))
        closed_BK = torch.where(open_BK, 0.0, closed_score(dtype)).to(dtype)
        extended.append(closed_BK[:, None, :, None].expand(batch, heads, keys, 1))
    # Fused kernels want one width for all three, a multiple of eight.
    padding = -sum(part.shape[3] for part in queries) % 8
    if padding:
        queries.append(query_BAQD.new_zeros(()).expand(*query_BAQD.shape[:3], padding))
        extended.append(query_BAQD.new_zeros(()).expand(batch, heads, keys, padding))
    query, key = torch.cat(queries, 3), torch.cat(extended, 3)
    value = F.pad(value_BAKD, (0, query.shape[3] - width))
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)[..., :width]


def masked_attention(
    query_BAQD: Tensor,
    key_BAKD: Tensor,
    value_BAKD: Tensor,
    extra_BAQE: Tensor | None,
    codes_KE: Tensor | None,
    open_BK: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """`explicit_attention` by `scaled_dot_product_attention` with the bias written out as an additive mask."""
    mask_BAQK = None
    if extra_BAQE is not None and codes_KE is not None:
        mask_BAQK = extra_BAQE @ codes_KE.T.to(extra_BAQE.dtype)
    if open_BK is not None:
        closed_B11K = torch.where(open_BK, 0.0, closed_score(query_BAQD.dtype)).to(query_BAQD.dtype)[:, None, None]
        mask_BAQK = closed_B11K if mask_BAQK is None else mask_BAQK + closed_B11K
    return F.scaled_dot_product_attention(
        query_BAQD, key_BAKD, value_BAKD, attn_mask=mask_BAQK, dropout_p=dropout, scale=scale
    )


ATTENTION_ROUTES = {"explicit": explicit_attention, "folded": folded_attention, "masked": masked_attention}


BEST_ROUTES = {"cpu": "folded"}  # as benchmarks/memvit.py measures it; others: not measured yet


def best_route(device: torch.device) -> str:
    """The route for a device, which is logged where it is first asked for."""
    route = BEST_ROUTES.get(device.type, "folded")
    if not torch.compiler.is_compiling():
        _say(device.type, route)
    return route


@functools.cache
def _say(device: str, route: str) -> None:
    log.info("attention with relative positions on %s: %s", device, route)


def biased_attention(
    query_BAQD: Tensor,
    key_BAKD: Tensor,
    value_BAKD: Tensor,
    extra_BAQE: Tensor | None,
    codes_KE: Tensor | None,
    open_BK: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
    route: str = "auto",
) -> Tensor:
    """Attention by a route of `ATTENTION_ROUTES`, or by the best one for the device; see `explicit_attention`.

    Raises: ValueError: an unknown route.
    """
    name = best_route(query_BAQD.device) if route == "auto" else route
    if name not in ATTENTION_ROUTES:
        raise ValueError(f"route must be 'auto' or one of {', '.join(ATTENTION_ROUTES)}, got {route!r}")
    attend = ATTENTION_ROUTES[name]
    return attend(query_BAQD, key_BAKD, value_BAKD, extra_BAQE, codes_KE, open_BK, scale=scale, dropout=dropout)
