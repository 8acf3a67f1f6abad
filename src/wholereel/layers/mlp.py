"""What follows attention in a transformer block: the two-layer network, and branches that are dropped in training.

Tokens are `(B, L, D)`. Sources: arXiv 2010.11929 (block), 1603.09382 (stochastic depth).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wholereel.ops.linear import linear

__all__ = ["DropPath", "Mlp"]


class DropPath(nn.Module):
    """Drop a branch for whole samples (the first axis), and scale it up for those that keep it."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        kept = torch.empty(len(x), *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * kept / keep


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int, dim_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim_out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.dropout(linear(self.dropout(linear(x_BLD, self.fc1, gelu=True)), self.fc2))
