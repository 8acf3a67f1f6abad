"""What a clip makes of a bank of features of its whole video: the feature bank operators of arXiv 1812.05038.

Entries that do not exist have no part in it: they are masked (the public code fills with zeros, which a softmax weighs
as well; our choice). A clip that finds no entry at all reads zeros.
Extra axes: M entries of a video's bank, E width of an entry, F inner width, Q of what a clip reads.
Not here: how a bank is made (`inference/extract.py`), which entries a clip may read (`datasets/bank_windows.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KINDS", "FeatureBankOperator", "pooled_bank"]

KINDS = ("avg", "max", "nl")


def pooled_bank(entries_BME: Tensor, inside_BNM: Tensor, kind: str) -> Tensor:
    """Mean or largest value of each clip's entries, `(B, N, E)`.

    Args:
        inside_BNM: bool, the entries that clip n may read.
        kind: `avg` or `max`.
    """
    if kind == "avg":
        weights_BNM = inside_BNM.to(entries_BME.dtype)
        return weights_BNM @ entries_BME / weights_BNM.sum(2, keepdim=True).clamp(min=1)
    masked_BNME = entries_BME[:, None].masked_fill(~inside_BNM[..., None], -torch.inf)
    return masked_BNME.amax(2).masked_fill(~inside_BNM.any(2, keepdim=True), 0.0)


class Layer(nn.Module):
    """`a + drop(out(relu(norm(attend(theta(a), phi(l), g(l))))))`, the last projection beginning at zero."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.theta, self.phi, self.g, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, a_BNF: Tensor, l_BMF: Tensor, inside_BNM: Tensor) -> Tensor:
        # A row without any entry would be a softmax of nothing: it reads entry 0, and the result is struck out.
        some_BN1 = inside_BNM.any(2, keepdim=True)
        first_M = torch.arange(inside_BNM.shape[2], device=inside_BNM.device) == 0
        read_BNF = F.scaled_dot_product_attention(
            self.theta(a_BNF), self.phi(l_BMF), self.g(l_BMF), attn_mask=inside_BNM | (~some_BN1 & first_M)
        )
        added = self.dropout(self.out(F.relu(self.norm(read_BNF.masked_fill(~some_BN1, 0.0)))))
        result: Tensor = a_BNF + added
        return result


class FeatureBankOperator(nn.Module):
    """FBO(S, L) of each clip.

    Args:
        kind: `avg`, `max`: of the entries as they are (Q = E). `nl`: attention (Q = `width`).
        dim: D, width of a clip's own features. bank_dim: E.
        width: F of `nl`. layers: of `nl`. dropout: of `nl`, on its inputs and in its layers.
    Raises: ValueError: an unknown kind, or sizes that cannot be.
    """

    def __init__(self, kind: str, dim: int, bank_dim: int, *, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        if min(dim, bank_dim, width, layers) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"widths and layers must be at least 1 and dropout in [0, 1), got {dim}, {bank_dim}, {width}, {layers} "
                f"and {dropout}"
            )
        self.kind, self.bank_dim, self.out_dim = kind, bank_dim, width if kind == "nl" else bank_dim
        if kind == "nl":
            self.reduce_own, self.reduce_bank = nn.Linear(dim, width), nn.Linear(bank_dim, width)
            self.dropout = nn.Dropout(dropout)
            self.layers = nn.ModuleList(Layer(width, dropout) for _ in range(layers))

    def forward(self, pooled_BND: Tensor, entries_BME: Tensor, inside_BNM: Tensor) -> Tensor:
        """`(B, N, Q)`. No gradient reaches the bank.

        Args:
            pooled_BND: S, the clips' own features. entries_BME: L. inside_BNM: bool, what clip n may read.
        Raises: ValueError: entries of another width.
        """
        if entries_BME.shape[2] != self.bank_dim:
            raise ValueError(f"the bank's entries have {entries_BME.shape[2]} numbers, the model reads {self.bank_dim}")
        entries_BME = entries_BME.detach().to(pooled_BND.dtype)
        if self.kind != "nl":
            return pooled_bank(entries_BME, inside_BNM, self.kind)
        a_BNF = self.dropout(self.reduce_own(pooled_BND))
        l_BMF = self.dropout(self.reduce_bank(entries_BME))
        for layer in self.layers:
            a_BNF = layer(a_BNF, l_BMF, inside_BNM)
        result: Tensor = a_BNF
        return result
