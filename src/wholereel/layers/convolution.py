"""3-D convolution as a module: `nn.Conv3d` with the same parameters, by `ops.conv3d`."""

from __future__ import annotations

from torch import Tensor, nn

from wholereel.ops.conv3d import Window, conv3d

__all__ = ["Conv3d"]


class Conv3d(nn.Conv3d):
    """`nn.Conv3d`, as quick for a single clip as for one of a batch; weights of either load into the other.

    With a padding of another kind than zeros, or one given by name, it is PyTorch's.
    """

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(x_BCTHW)
        window = Window(self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]
        return conv3d(x_BCTHW, self.weight, self.bias, window)
