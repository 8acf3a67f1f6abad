"""A stage that keeps the size of its maps and looks twice as far: for detection, as in facebookresearch/SlowFast.

Weights stay what they are, so those of the network without fit.
"""

from __future__ import annotations

from torch import nn

__all__ = ["dilate"]


def dilate(stage: nn.Module) -> None:
    """Take the spatial stride of two out of a stage, and let its 3 x 3 kernels see every other position, in place.

    Temporal strides stay. Every kernel of the stage is dilated, also the one that had the stride, as in PySlowFast.
    """
    for module in stage.modules():
        if not isinstance(module, nn.Conv3d):
            continue
        time, height, width = module.stride
        module.stride = (time, 1 if height == 2 else height, 1 if width == 2 else width)
        if module.kernel_size[1:] == (3, 3):
            pad_t, pad_y, pad_x = (int(side) for side in module.padding)
            module.dilation = (module.dilation[0], 2, 2)
            module.padding = (pad_t, 2 * pad_y, 2 * pad_x)
