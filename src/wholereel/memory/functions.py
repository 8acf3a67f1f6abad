"""The formulas of collaborative memory as pure functions (arXiv 2104.01198: poster formulas and Figure 2).

Extra axes: S positions of a clip (T*H*W, in that order), P key width, V value width.
Features are `BNDS`, i.e. channels before positions, as backbones make them; weights are those of bias-free linear
layers, `(out, in)`. Which of several readings of the paper a choice is, stands in `collaborative.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.memory.state import TokenState

__all__ = [
    "attend",
    "gate",
    "outer_each",
    "outer_sum",
    "pop_pooled",
    "pop_positions",
    "position_factor",
    "prefix_means",
    "project",
    "token_memory",
]


def position_factor(position_norm: str, positions: int, ref_positions: int | None) -> float:
    """Factor s on a clip's contribution: 1 for `sum` (the poster's formula), 1/S for `mean`, S_ref/S for `ref`."""
    if position_norm == "sum":
        return 1.0
    if position_norm == "mean":
        return 1.0 / positions
    if position_norm == "ref" and ref_positions is not None:
        return ref_positions / positions
    raise ValueError(f"position_norm must be 'sum', 'mean' or 'ref' (with ref_positions), got {position_norm!r}")


def project(features_BNDS: Tensor, weight: Tensor) -> Tensor:
    """A bias-free linear layer along the channel axis, without moving it: `(B, N, out, S)`."""
    return torch.matmul(weight, features_BNDS)


def outer_each(keys_BNPS: Tensor, values_BNVS: Tensor) -> Tensor:
    """P_n = K_n^T V_n of every clip, `(B, N, P, V)`."""
    return torch.matmul(keys_BNPS, values_BNVS.transpose(2, 3))


def outer_sum(keys_BNPS: Tensor, values_BNVS: Tensor) -> Tensor:
    """Sum of all clips' P_n, `(B, P, V)`, as one product over all positions of all clips."""
    keys_BPL = keys_BNPS.transpose(1, 2).flatten(2)
    values_BVL = values_BNVS.transpose(1, 2).flatten(2)
    return torch.matmul(keys_BPL, values_BVL.transpose(1, 2))


def prefix_means(contributions_BNPV: Tensor, valid_BN: Tensor) -> Tensor:
    """What a causal reader sees: after clip n the mean of the valid ones among clips 0..n, zero while there is none.

    Args:
        contributions_BNPV: P_n with the position factor applied.
        valid_BN: bool.
    """
    weights_BN = valid_BN.to(contributions_BNPV.dtype)
    total_BNPV = (contributions_BNPV * weights_BN[:, :, None, None]).cumsum(1)
    count_BN = weights_BN.cumsum(1).clamp(min=1)
    return total_BNPV / count_BN[:, :, None, None]


def pop_positions(memory_BNPV: Tensor, queries_BNPS: Tensor) -> Tensor:
    """M_n = Q_n M at every position, `(B, N, S, V)`; N of the memory may be 1 (all clips read the same)."""
    return torch.matmul(queries_BNPS.transpose(2, 3), memory_BNPV)


def pop_pooled(memory_BNPV: Tensor, query_BNP: Tensor) -> Tensor:
    """Pool(M_n) from the pooled query, `(B, N, V)`: the product with S positions is not needed, since pooling is
    linear."""
    return torch.matmul(query_BNP[:, :, None], memory_BNPV)[:, :, 0]


def gate(pooled_BNV: Tensor, w_o: Tensor) -> Tensor:
    """sigmoid(Pool(M_n) W_o), one value in (0, 1) per channel: `(B, N, D)`."""
    return torch.sigmoid(F.linear(pooled_BNV, w_o))


def token_memory(state: TokenState) -> Tensor:
    """Dot-product attention over all N*S tokens, re-bracketed: K^T V / (N*S), `(B, P, V)`, reads like an associative
    memory.

    Q (K^T V) = (Q K^T) V, so the affinity matrix between all positions of all clips is never formed.
    """
    keys_BLP, values_BLV = state.keys_BMSP.flatten(1, 2), state.values_BMSV.flatten(1, 2)
    count_B = (state.clips_B.clamp(min=1) * state.keys_BMSP.shape[2]).to(keys_BLP.dtype)
    return torch.matmul(keys_BLP.transpose(1, 2), values_BLV) / count_B[:, None, None]


def attend(queries_BNPS: Tensor, state: TokenState) -> Tensor:
    """Softmax attention of every position over all positions of all clips, scale P^-0.5: `(B, N, S, V)`."""
    clips, positions = queries_BNPS.shape[1], queries_BNPS.shape[3]
    queries_BLP = queries_BNPS.transpose(2, 3).flatten(1, 2)
    mask_BL = state.filled().repeat_interleave(state.keys_BMSP.shape[2], dim=1)
    popped_BLV = F.scaled_dot_product_attention(
        queries_BLP[:, None],
        state.keys_BMSP.flatten(1, 2)[:, None],
        state.values_BMSV.flatten(1, 2)[:, None],
        attn_mask=mask_BL[:, None, None],
    )[:, 0]
    return popped_BLV.unflatten(1, (clips, positions))
