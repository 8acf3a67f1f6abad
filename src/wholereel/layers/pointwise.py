"""1 x 1 x 1 convolution as a product of matrices where the memory format allows it.

With one thread and small batches PyTorch sends these convolutions to a slow path on CPU. On channels-last memory the
positions of a clip are the rows of a matrix, so that `F.linear` computes the same sums without a copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PointwiseConv3d"]


class PointwiseConv3d(nn.Conv3d):
    """`nn.Conv3d(in_channels, out_channels, 1, stride)`; weights of either load into the other.

    Args:
        in_channels, out_channels, stride, bias: as in `nn.Conv3d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int | tuple[int, int, int] = 1, *, bias: bool = False
    ) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if not is_product(x_BCTHW):
            return super().forward(x_BCTHW)
        time, height, width = self.stride
        x_BTHWC = x_BCTHW[:, :, ::time, ::height, ::width].permute(0, 2, 3, 4, 1)
        return F.linear(x_BTHWC, self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


def is_product(x_BCTHW: Tensor) -> bool:
    """Whether PyTorch would take its slow path, and the matrix is there without a copy."""
    return (
        x_BCTHW.device.type == "cpu"
        and x_BCTHW.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and torch.get_num_threads() == 1
        and x_BCTHW.is_contiguous(memory_format=torch.channels_last_3d)
    )
