"""Collaborative memory block: clips of one video push, then each pops what concerns it and is infused with it.

Source: arXiv 2104.01198 (poster formulas, Figure 2). Extra axes: S positions of a clip (T*H*W), P key width, V value
width.
From the paper: the associative memory with the tied value projection, a sum over positions and a mean over clips
(`assoc`, `tied`, `sum`), pooled pop, the sigmoid gate and the residual sum. Everything else is our choice: widths,
`separate` values, position norms `mean` and `ref`, the interactions `avg`, `max`, `nl_dot`, `nl_softmax`, the infusion
`residual`, `clip_pos`, the initialisation. Non-local attention with `residual` and `norm="batch"` is the block of arXiv
1711.07971 over the clips of a video, with keys of any width (there: half the channels).
Not here: the formulas (`functions.py`), the states (`state.py`), where blocks stand in a network
(`models/video_model.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.memory import functions
from wholereel.memory.state import CollaborativeState, MaxState, PlaceState, TokenState
from wholereel.ops.checks import check_all

__all__ = ["INFUSIONS", "INTERACTIONS", "NO_CLIP", "CollaborativeMemory"]

INTERACTIONS: dict[str, type[PlaceState]] = {
    "assoc": CollaborativeState,
    "avg": CollaborativeState,
    "max": MaxState,
    "nl_dot": TokenState,
    "nl_softmax": TokenState,
}
NO_CLIP = "a video without any valid clip: valid_BN needs at least one True per row"
INFUSIONS = ("gate", "residual")


class CollaborativeMemory(nn.Module):
    """The block, for feature maps `(B, N, D, T, H, W)`; all its arithmetic is float32 (float64 for float64), autocast
    or not.

    Args:
        dim: D, channels of the feature maps.
        mem_dim: width P of keys and queries; a quarter of `dim` where `None`.
        value_dim: width V of values; `mem_dim` where `None`. Other widths need a value projection of its own.
        interaction: `assoc`: K^T V matrices, summed. `avg`, `max`: the clips' mean or largest projected feature, read
            by all alike. `nl_dot`, `nl_softmax`: non-local attention over all positions of all clips.
        infusion: `gate`: X * (1 + sigmoid(Pool(M_n) W_o)); `residual`: X + M_n W_o.
        value: of `assoc`: `tied` uses W_q for the values, `separate` has W_v. The non-local interactions always have
            W_v.
        position_norm: of `assoc`: `sum`, `mean` or `ref`, see `functions.position_factor`.
        ref_positions: S of the training resolution, for `ref`.
        clip_pos: rows of a table of learned vectors added to clip n's features before W_k; later clips use the last
            row. 0 = none.
        init_std: of the projections; dim^-0.5 where `None`. W_o starts at zero, so a new block only scales (by 1.5,
            `gate`).
        detach: pushes are constants for the gradient: W_k and W_v (W_i) learn nothing.
        norm: `batch`: BatchNorm behind W_o, over positions and clips; its scale starts at zero instead of W_o. Of the
            non-local interactions with `residual` alone: other shortcuts to pooled features would not hold.
    Raises: ValueError: a combination without a meaning.
    """

    def __init__(
        self,
        dim: int,
        mem_dim: int | None = None,
        value_dim: int | None = None,
        *,
        interaction: str = "assoc",
        infusion: str = "gate",
        value: str = "tied",
        position_norm: str = "mean",
        ref_positions: int | None = None,
        clip_pos: int = 0,
        init_std: float | None = None,
        detach: bool = False,
        norm: str = "none",
    ) -> None:
        super().__init__()
        mem_dim = max(1, dim // 4) if mem_dim is None else mem_dim
        value_dim = mem_dim if value_dim is None else value_dim
        _check_choice("interaction", interaction, tuple(INTERACTIONS))
        _check_choice("infusion", infusion, INFUSIONS)
        _check_choice("value", value, ("tied", "separate"))
        _check_choice("norm", norm, ("none", "batch"))
        functions.position_factor(position_norm, 1, ref_positions)
        keyed = interaction not in ("avg", "max")
        self.tied = interaction == "assoc" and value == "tied"
        if self.tied and value_dim != mem_dim:
            raise ValueError(f"value='tied' needs value_dim == mem_dim, got {value_dim} and {mem_dim}; try 'separate'")
        if clip_pos and not keyed:
            raise ValueError(f"clip_pos is added before the keys, but interaction={interaction!r} has none")
        if norm == "batch" and not (interaction.startswith("nl_") and infusion == "residual"):
            raise ValueError(
                f"norm='batch' is for nl_dot and nl_softmax with 'residual', not {interaction}, {infusion}"
            )
        self.dim, self.mem_dim, self.value_dim = dim, mem_dim if keyed else 1, value_dim
        self.interaction, self.infusion = interaction, infusion
        self.position_norm, self.ref_positions, self.detach = position_norm, ref_positions, detach
        self.init_std = dim**-0.5 if init_std is None else init_std
        if keyed:
            self.w_k = nn.Linear(dim, mem_dim, bias=False)
            self.w_q = nn.Linear(dim, mem_dim, bias=False)
            if not self.tied:
                self.w_v = nn.Linear(dim, value_dim, bias=False)
        else:
            self.w_i = nn.Linear(dim, value_dim, bias=False)
        self.w_o = nn.Linear(value_dim, dim, bias=False)
        self.clip_pos = nn.Parameter(torch.empty(clip_pos, dim)) if clip_pos else None
        self.norm = nn.BatchNorm1d(dim) if norm == "batch" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Projections normal with `init_std`; W_o, or the scale of the norm behind it, and the clip positions zero."""
        zero = self.w_o if self.norm is None else self.norm
        for layer in self.children():
            if isinstance(layer, nn.Linear) and layer is not zero:
                nn.init.normal_(layer.weight, std=self.init_std)
        nn.init.zeros_(zero.weight)
        if self.clip_pos is not None:
            nn.init.zeros_(self.clip_pos)

    def extra_repr(self) -> str:
        choices = (self.interaction, self.infusion, self.position_norm)
        return f"{self.dim}, interaction={choices[0]!r}, infusion={choices[1]!r}, position_norm={choices[2]!r}"

    @property
    def dtype(self) -> torch.dtype:
        """Of states and arithmetic: float32, or float64 for a float64 module."""
        return torch.promote_types(self.w_o.weight.dtype, torch.float32)

    def init_state(
        self,
        batch_size: int,
        *,
        clips: int | None = None,
        positions: int | None = None,
        device: torch.device | str | None = None,
    ) -> PlaceState:
        """The memory of nothing, for B videos.

        Args:
            clips, positions: largest number of clips of a video, and S; only the non-local interactions need them.
            device: the module's where `None`.
        Raises: ValueError: a non-local interaction without `clips` and `positions`.
        """
        device = self.w_o.weight.device if device is None else device
        kind = INTERACTIONS[self.interaction]
        if kind is CollaborativeState:
            return CollaborativeState.init(batch_size, self.mem_dim, self.value_dim, dtype=self.dtype, device=device)
        if kind is MaxState:
            return MaxState.init(batch_size, self.value_dim, dtype=self.dtype, device=device)
        if clips is None or positions is None:
            raise ValueError(
                f"interaction={self.interaction!r} keeps all tokens: init_state needs the largest number of clips and "
                f"the positions of a clip, got clips={clips} and positions={positions}"
            )
        sizes = (batch_size, clips, positions, self.mem_dim, self.value_dim)
        return TokenState.init(*sizes, dtype=self.dtype, device=device)

    def push(self, x_BNCTHW: Tensor, valid_BN: Tensor | None = None, *, order_BN: Tensor | None = None) -> PlaceState:
        """What these N clips contribute, alone; merge it with earlier contributions.

        Args:
            x_BNCTHW: features, C = `dim`.
            valid_BN: bool; clips that are False contribute nothing.
            order_BN: int64 index of each clip in its video, for `clip_pos`; 0, 1, ... over the valid ones where `None`.
        """
        features_BNDS = self._features(x_BNCTHW)
        with _full_precision(x_BNCTHW):
            state = self._push(features_BNDS, valid_BN, order_BN)
        return state.detach() if self.detach else state

    def query(self, x_BNCTHW: Tensor) -> Tensor:
        """Pool(X_n) W_q, `(B, N, P)`; ones of width 1 for `avg` and `max`, which every clip reads alike."""
        features_BNDS = self._features(x_BNCTHW)
        with _full_precision(x_BNCTHW):
            return self._query(features_BNDS.mean(3))

    def query_pooled(self, pooled_BND: Tensor) -> Tensor:
        """The query of means that are known already."""
        with _full_precision(pooled_BND):
            return self._query(pooled_BND.to(self.dtype))

    def read(self, state: PlaceState, query_BNP: Tensor) -> Tensor:
        """Pool(M_n) for pooled queries, `(B, N, V)`.

        Raises: ValueError: `nl_softmax`, whose result is no function of the pooled query.
        """
        if isinstance(state, MaxState):
            return state.read()[:, None].expand(-1, query_BNP.shape[1], -1)
        with _full_precision(query_BNP):
            return functions.pop_pooled(self._matrix(state)[:, None], query_BNP)

    def pop(self, state: PlaceState, x_BNCTHW: Tensor) -> Tensor:
        """M_n at every position, `(B, N, S, V)`."""
        features_BNDS = self._features(x_BNCTHW)
        with _full_precision(x_BNCTHW):
            return self._pop(state, features_BNDS)

    def pop_pooled(self, state: PlaceState, x_BNCTHW: Tensor) -> Tensor:
        """Pool(M_n), `(B, N, V)`, without the S positions wherever that is possible."""
        if self.interaction == "nl_softmax":
            return self.pop(state, x_BNCTHW).mean(2)
        return self.read(state, self.query(x_BNCTHW))

    def popped_for_infusion(self, state: PlaceState, x_BNCTHW: Tensor) -> Tensor:
        """What `infuse` needs: M_n at every position only where positions get different values."""
        at_positions = self.infusion == "residual" and self.interaction not in ("avg", "max")
        return self.pop(state, x_BNCTHW) if at_positions else self.pop_pooled(state, x_BNCTHW)

    def infuse(
        self,
        popped: Tensor,
        x_BNCTHW: Tensor,
        valid_BN: Tensor | None = None,
        *,
        spread: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """X_hat from what was popped, in the dtype of `x_BNCTHW`.

        Args:
            popped: M_n `(B, N, S, V)`; or `(B, N, V)`: its mean over positions (`gate`), the same for all positions
                (`residual`).
            x_BNCTHW: features, C = `dim`.
            valid_BN: bool; clips that are False have no part in the batch statistics of `norm="batch"`.
            spread: changes `(B, N, dim, T, H, W)` to those of features that are more than the block sees.
        """
        with _full_precision(x_BNCTHW):
            w_o = self.w_o.weight.to(self.dtype)
            if self.infusion == "gate":
                pooled_BNV = popped if popped.ndim == 3 else popped.mean(2)
                gate = functions.gate(pooled_BNV, w_o)[..., None, None, None]
                gate = gate if spread is None else spread(gate)
                return x_BNCTHW * (1 + gate).to(x_BNCTHW.dtype)
            added = F.linear(popped, w_o)
            if self.norm is not None:
                added = _normed(self.norm, added, valid_BN)
            if popped.ndim == 3:
                added = added[..., None, None, None]
            else:
                added = added.transpose(2, 3).unflatten(3, x_BNCTHW.shape[3:])
            added = added if spread is None else spread(added)
            return x_BNCTHW + added.to(x_BNCTHW.dtype)

    def infuse_pooled(
        self, popped_BNV: Tensor, pooled_BND: Tensor, *, spread: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Pool(X_hat) from Pool(M_n) and Pool(X_n), `(B, N, D)`: in front of a pooling head X_hat itself is not
        needed.

        Args:
            spread: see `infuse`.
        Raises: ValueError: `norm="batch"`, whose statistics are those of positions.
        """
        if self.norm is not None:
            raise ValueError("a block with norm='batch' cannot be infused from means: use infused_mean")
        with _full_precision(pooled_BND):
            w_o = self.w_o.weight.to(self.dtype)
            gated = self.infusion == "gate"
            change_BND = functions.gate(popped_BNV, w_o) if gated else F.linear(popped_BNV, w_o)
            if spread is not None:
                change_BND = spread(change_BND[..., None, None, None])[..., 0, 0, 0]
            return pooled_BND * (1 + change_BND) if gated else pooled_BND + change_BND

    def infused_mean(self, state: PlaceState, x_BNCTHW: Tensor, valid_BN: Tensor | None = None) -> Tensor:
        """Pool(X_hat), `(B, N, D)` in float32 or wider, on the shortest way that gives it."""
        if self.norm is not None:  # statistics are those of positions, not of their means
            infused_BNCTHW = self.infuse(self.popped_for_infusion(state, x_BNCTHW), x_BNCTHW, valid_BN)
            return self._pooled(infused_BNCTHW)
        return self.infuse_pooled(self.pop_pooled(state, x_BNCTHW), self._pooled(x_BNCTHW))

    def pushed_into(
        self, state: PlaceState | None, x_BNCTHW: Tensor, valid_BN: Tensor | None, *, order_BN: Tensor | None = None
    ) -> PlaceState:
        """The memory after N clips have pushed, see `forward`."""
        if order_BN is None and self.clip_pos is not None and state is not None:
            order_BN = state.clips_B[:, None] + _own_order(x_BNCTHW, valid_BN)
        pushed = self.push(x_BNCTHW, valid_BN, order_BN=order_BN)
        merged = pushed if state is None else state.merge(pushed)  # type: ignore[arg-type]
        if valid_BN is not None:
            check_all(merged.clips_B > 0, NO_CLIP)
        return merged

    def forward(
        self,
        x_BNCTHW: Tensor,
        valid_BN: Tensor | None = None,
        state: PlaceState | None = None,
        *,
        order_BN: Tensor | None = None,
        pooled: bool = False,
    ) -> tuple[Tensor, PlaceState]:
        """Push all N clips, then let each of them pop and be infused.

        Args:
            x_BNCTHW: features, C = `dim`.
            valid_BN: bool; invalid clips do not push (their own output has no meaning).
            state: earlier clips of the same videos, which take part in the read.
            order_BN: see `push`; counted on from the state where `None`.
            pooled: return Pool(X_hat) instead, in float32 or wider.
        Returns: X_hat `(B, N, C, T, H, W)`, or `(B, N, C)` if pooled; and the state with the new clips.
        Raises: ValueError: a video without any clip (on accelerators a device-side assertion, see `ops.checks`).
        """
        merged = self.pushed_into(state, x_BNCTHW, valid_BN, order_BN=order_BN)
        if pooled:
            return self.infused_mean(merged, x_BNCTHW, valid_BN), merged
        return self.infuse(self.popped_for_infusion(merged, x_BNCTHW), x_BNCTHW, valid_BN), merged

    def _features(self, x_BNCTHW: Tensor) -> Tensor:
        if x_BNCTHW.ndim != 6 or x_BNCTHW.shape[2] != self.dim:
            raise ValueError(f"expected features (B, N, {self.dim}, T, H, W), got {tuple(x_BNCTHW.shape)}")
        return x_BNCTHW.flatten(3).to(self.dtype)

    def _pooled(self, x_BNCTHW: Tensor) -> Tensor:
        return self._features(x_BNCTHW).mean(3)

    def _query(self, pooled_BND: Tensor) -> Tensor:
        if self.interaction in ("avg", "max"):
            return torch.ones_like(pooled_BND[:, :, :1])
        return F.linear(pooled_BND, self.w_q.weight.to(self.dtype))

    def _matrix(self, state: PlaceState) -> Tensor:
        if isinstance(state, CollaborativeState):
            return state.mean()
        if isinstance(state, TokenState) and self.interaction == "nl_dot":
            return functions.token_memory(state)
        raise ValueError(f"interaction={self.interaction!r} cannot be read with a pooled query")

    def _push(self, features_BNDS: Tensor, valid_BN: Tensor | None, order_BN: Tensor | None) -> PlaceState:
        batch, clips, _, positions = features_BNDS.shape
        if self.interaction in ("avg", "max"):
            return self._push_features(features_BNDS, valid_BN)
        keys_BNPS = functions.project(features_BNDS, self.w_k.weight.to(self.dtype))
        if self.clip_pos is not None:
            order_BN = _own_order(features_BNDS, valid_BN) if order_BN is None else order_BN
            vectors_BND = self.clip_pos.to(self.dtype)[order_BN.clamp(max=len(self.clip_pos) - 1)]
            keys_BNPS = keys_BNPS + F.linear(vectors_BND, self.w_k.weight.to(self.dtype))[..., None]
        w_v = self.w_q.weight if self.tied else self.w_v.weight
        values_BNVS = functions.project(features_BNDS, w_v.to(self.dtype))
        if INTERACTIONS[self.interaction] is TokenState:
            if valid_BN is None:
                valid_BN = torch.ones(batch, clips, dtype=torch.bool, device=keys_BNPS.device)
            return TokenState.packed(keys_BNPS.transpose(2, 3), values_BNVS.transpose(2, 3), valid_BN)
        if valid_BN is not None:
            keys_BNPS = keys_BNPS.masked_fill(~valid_BN[:, :, None, None], 0.0)
        factor = functions.position_factor(self.position_norm, positions, self.ref_positions)
        return CollaborativeState(functions.outer_sum(keys_BNPS, values_BNVS) * factor, _count(features_BNDS, valid_BN))

    def _push_features(self, features_BNDS: Tensor, valid_BN: Tensor | None) -> PlaceState:
        w_i = self.w_i.weight.to(self.dtype)
        count_B = _count(features_BNDS, valid_BN)
        if self.interaction == "avg":
            values_BNV = F.linear(features_BNDS.mean(3), w_i)
            if valid_BN is not None:
                values_BNV = values_BNV.masked_fill(~valid_BN[..., None], 0.0)
            return CollaborativeState(values_BNV.sum(1, keepdim=True), count_B)
        largest_BNV = functions.project(features_BNDS, w_i).amax(3)
        if valid_BN is not None:
            largest_BNV = largest_BNV.masked_fill(~valid_BN[..., None], -torch.inf)
        return MaxState(largest_BNV.amax(1), count_B)

    def _pop(self, state: PlaceState, features_BNDS: Tensor) -> Tensor:
        if self.interaction in ("avg", "max"):
            same_BNV = self.read(state, self._query(features_BNDS[..., 0]))
            return same_BNV[:, :, None].expand(-1, -1, features_BNDS.shape[3], -1)
        queries_BNPS = functions.project(features_BNDS, self.w_q.weight.to(self.dtype))
        if isinstance(state, TokenState) and self.interaction == "nl_softmax":
            return functions.attend(queries_BNPS, state)
        return functions.pop_positions(self._matrix(state)[:, None], queries_BNPS)


def _normed(norm: nn.BatchNorm1d, added_BNSD: Tensor, valid_BN: Tensor | None) -> Tensor:
    """BatchNorm over positions and clips; while it makes statistics, over the valid ones, and zeros elsewhere."""
    if valid_BN is None or not norm.training:
        normed_BNSD: Tensor = norm(added_BNSD.flatten(0, -2)).view(added_BNSD.shape)
        return normed_BNSD
    zeros_BNSD = torch.zeros_like(added_BNSD)
    if not bool(valid_BN.any()):  # of one clip index of short videos: nothing to make statistics of
        return zeros_BNSD
    valid_RSD = added_BNSD[valid_BN]
    return zeros_BNSD.index_put((valid_BN,), norm(valid_RSD.flatten(0, 1)).view(valid_RSD.shape))


def _full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast inside the block: a product or running sum of clips in half precision loses the memory's small
    differences."""
    if tensor.is_meta:  # has no autocast that could be switched off
        return nullcontext()
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def _count(features: Tensor, valid_BN: Tensor | None) -> Tensor:
    if valid_BN is not None:
        return valid_BN.sum(1)
    return torch.full((features.shape[0],), features.shape[1], dtype=torch.int64, device=features.device)


def _own_order(features: Tensor, valid_BN: Tensor | None) -> Tensor:
    if valid_BN is not None:
        return valid_BN.cumsum(1) - valid_BN.to(torch.int64)
    return torch.arange(features.shape[1], device=features.device).expand(features.shape[0], -1)


def _check_choice(name: str, value: str, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise ValueError(f"{name} must be one of {', '.join(legal)}; got {value!r}")
