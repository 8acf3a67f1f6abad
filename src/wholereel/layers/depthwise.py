"""Depthwise 3-D convolution as a module: `nn.Conv3d` with the same parameters, by `ops.depthwise_conv3d`."""

from __future__ import annotations

from torch import Tensor, nn

from wholereel.ops.depthwise_conv3d import Implementation, Triple, depthwise_conv3d

__all__ = ["DepthwiseConv3d"]


class DepthwiseConv3d(nn.Conv3d):
    """`nn.Conv3d(channels, channels, kernel, stride, padding, groups=channels)`; weights of either load into the other.

    With a dilation it is PyTorch's.

    Args:
        channels: C of input and output.
        kernel, stride, padding: numbers or (time, height, width).
        bias: a number for each channel is added.
        implementation: see `ops.depthwise_conv3d`.
    """

    def __init__(
        self,
        channels: int,
        kernel: int | Triple,
        stride: int | Triple = 1,
        padding: int | Triple = 0,
        *,
        bias: bool = False,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=bias)
        self.implementation = implementation

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.dilation != (1, 1, 1):
            if self.implementation not in ("auto", "native"):
                raise ValueError(f"implementation={self.implementation!r} has no dilation, got {self.dilation}")
            return super().forward(x_BCTHW)
        stride: Triple = self.stride  # type: ignore[assignment]
        padding: Triple = self.padding  # type: ignore[assignment]
        y_BCTHW = depthwise_conv3d(x_BCTHW, self.weight, stride, padding, self.implementation)
        return y_BCTHW if self.bias is None else y_BCTHW + self.bias[:, None, None, None].to(y_BCTHW.dtype)
