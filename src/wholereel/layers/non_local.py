"""Non-local block: every position of a clip reads all positions (arXiv 1711.07971, as in the PySlowFast networks).

Extra axes: S positions that read (T*H*W), M positions that are read, P inner channels (C/2).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.batch_norm import BatchNorm3d

__all__ = ["Affinity", "NonLocal", "attend"]

Affinity = Literal["softmax", "dot_product"]


def attend(query_BSP: Tensor, key_BMP: Tensor, value_BMP: Tensor, affinity: Affinity) -> Tensor:
    """Values of all positions read by every position.

    `softmax` weighs with softmax(q k / sqrt(P)); `dot_product` with q k / M, computed as q (k v) / M: the same sum in
    another order, linear in the number of positions.
    Returns: `(B, S, P)`.
    """
    if affinity == "softmax":
        read_B1SP = F.scaled_dot_product_attention(query_BSP[:, None], key_BMP[:, None], value_BMP[:, None])
        return read_B1SP[:, 0]
    return query_BSP @ (key_BMP.transpose(1, 2) @ value_BMP / key_BMP.shape[1])


class NonLocal(nn.Module):
    """`x + norm(out(attend(theta(x), phi(pooled x), g(pooled x))))`; all convolutions are 1 x 1 x 1 with bias.

    Args:
        channels: C; the inner width is C // 2.
        affinity: see `attend`.
        pool: (time, height, width) of the max pool on the side that is read; cut to the size of small maps.
        bn_eps: of the norm.
    Raises: ValueError: an unknown affinity.
    """

    def __init__(
        self,
        channels: int,
        affinity: Affinity = "softmax",
        pool: tuple[int, int, int] = (1, 2, 2),
        *,
        bn_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if affinity not in ("softmax", "dot_product"):
            raise ValueError(f"affinity must be 'softmax' or 'dot_product', got {affinity!r}")
        self.affinity, self.pool = affinity, pool
        inner = channels // 2
        self.theta, self.phi, self.g = (nn.Conv3d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = BatchNorm3d(channels, eps=bn_eps)

    @property
    def last_norm(self) -> nn.BatchNorm3d:
        """The norm that the residual branch ends with."""
        return self.norm

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        size = [min(side, map_side) for side, map_side in zip(self.pool, x_BCTHW.shape[2:], strict=True)]
        read_BCTHW = F.max_pool3d(x_BCTHW, size) if max(size) > 1 else x_BCTHW
        query_BSP, key_BMP, value_BMP = (
            conv(source).flatten(2).transpose(1, 2)
            for conv, source in ((self.theta, x_BCTHW), (self.phi, read_BCTHW), (self.g, read_BCTHW))
        )
        y_BSP = attend(query_BSP, key_BMP, value_BMP, self.affinity)
        y_BPTHW = y_BSP.transpose(1, 2).unflatten(2, x_BCTHW.shape[2:])
        added: Tensor = x_BCTHW + self.norm(self.out(y_BPTHW))
        return added
