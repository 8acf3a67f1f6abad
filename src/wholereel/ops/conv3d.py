"""3-D convolution by oneDNN also where PyTorch passes it over: a single clip, and kernels along the time axis.

For float32 on the CPU PyTorch asks oneDNN for batches alone, and in one thread never for kernels of one row and one
column. The rest goes through `slow_conv3d`, which writes out the matrix of all windows: up to three times slower, and
the more so the larger the kernel (`benchmarks/batch_of_one.py`). But oneDNN has no need of a batch. `onednn` calls it
directly forwards; backwards PyTorch chooses anew, and always takes oneDNN for a tensor in its layout.
"""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.ops.onednn import REFUSED, onednn_serves

__all__ = ["CONV3D_ROUTES", "Window", "conv3d", "conv3d_route"]

Route = Literal["plain", "onednn"]
Triple = tuple[int, int, int]
CONV3D_ROUTES: tuple[Route, ...] = ("plain", "onednn")
# Below either the weights' change of layout costs more than the sums save; kernels of one tap are products of matrices.
SMALL = 3_000_000  # multiply-adds
FEW = 64  # positions of the output
SLOW_WAYS = ("Slow3d", "SlowDilated3d")  # as PyTorch names them

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """How a kernel moves: steps, zeros on each side, gaps (time, height, width), and groups of channels."""

    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    groups: int = 1


def conv3d(
    x_BCTHW: Tensor, weight: Tensor, bias_K: Tensor | None, window: Window, *, route: Route | None = None
) -> Tensor:
    """`F.conv3d` with the same sums, rounded otherwise. Second derivatives are PyTorch's.

    Args:
        x_BCTHW: features.
        weight: `(K, C / groups, frames, rows, columns)`.
        bias_K: added, or `None`.
        window: see `Window`.
        route: of `CONV3D_ROUTES`; `None`: see `conv3d_route`.
    Raises: ValueError: a route that does not serve these tensors.
    """
    if route is not None and route not in CONV3D_ROUTES:
        raise ValueError(f"route must be one of {CONV3D_ROUTES}, got {route!r}")
    if route == "onednn" and not _served(x_BCTHW, weight, bias_K):
        raise ValueError(f"{REFUSED}; got {x_BCTHW.dtype} on {x_BCTHW.device}")
    if (route or conv3d_route(x_BCTHW, weight, bias_K, window)) == "plain":
        if _overruns(x_BCTHW, weight, window):
            time, height, width = window.padding
            x_BCTHW = F.pad(x_BCTHW, (0, 0, 0, 0, time, time))
            window = replace(window, padding=(0, height, width))
        return F.conv3d(x_BCTHW, weight, bias_K, window.stride, window.padding, window.dilation, window.groups)
    learning = any(tensor is not None and tensor.requires_grad for tensor in (x_BCTHW, weight, bias_K))
    if torch.is_grad_enabled() and learning:
        y_BKTHW: Tensor = _Convolution.apply(x_BCTHW, weight, bias_K, window)
        return y_BKTHW
    return _convolve(x_BCTHW, weight, bias_K, window)


def conv3d_route(x_BCTHW: Tensor, weight: Tensor, bias_K: Tensor | None, window: Window) -> Route:
    """The route for these tensors, which is logged where `onednn` is first taken."""
    taps = math.prod(weight.shape[2:])
    if taps == 1 or not _served(x_BCTHW, weight, bias_K):
        return "plain"
    positions = len(x_BCTHW) * math.prod(_sizes(x_BCTHW, weight, window))
    if positions < FEW or positions * weight.numel() < SMALL or not _passed_over(x_BCTHW, weight, bias_K, window):
        return "plain"
    _say()
    return "onednn"


def _overruns(x_BCTHW: Tensor, weight: Tensor, window: Window) -> bool:
    """Whether PyTorch would write past the gradient of the weights, and leave parts of it as the memory was before.

    In bfloat16 on CPUs, where a clip has fewer frames than the kernel reaches over (R(2+1)D's last stage has two for 16
    that go in); seen in PyTorch 2.11 and 2.14. With the zeros written out the sums are the same.
    """
    if x_BCTHW.device.type != "cpu" or not weight.requires_grad or not torch.is_grad_enabled() or not window.padding[0]:
        return False
    cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_BCTHW.dtype
    return cast == torch.bfloat16 and x_BCTHW.shape[2] < window.dilation[0] * (weight.shape[2] - 1) + 1


def _served(x_BCTHW: Tensor, weight: Tensor, bias_K: Tensor | None) -> bool:
    return x_BCTHW.ndim == 5 and onednn_serves(x_BCTHW, weight, *(() if bias_K is None else (bias_K,)))


def _sizes(x_BCTHW: Tensor, weight: Tensor, window: Window) -> list[int]:
    """Of the output. Where nothing fits they are below one, and PyTorch says so."""
    axes = zip(x_BCTHW.shape[2:], weight.shape[2:], window.stride, window.padding, window.dilation, strict=True)
    return [(size + 2 * pad - gap * (side - 1) - 1) // step + 1 for size, side, step, pad, gap in axes]


def _passed_over(x_BCTHW: Tensor, weight: Tensor, bias_K: Tensor | None, window: Window) -> bool:
    """Whether PyTorch's own choice is its slow way; asked, not copied: it differs by version and number of threads."""
    chosen = torch._C._select_conv_backend(
        x_BCTHW,
        weight,
        bias_K,
        window.stride,
        window.padding,
        window.dilation,
        False,
        (0, 0, 0),
        window.groups,
    )
    return chosen.name in SLOW_WAYS


@functools.cache
def _say() -> None:
    log.info("3-D convolutions in float32 on cpu of single clips or along time: onednn")


def _convolve(x_BCTHW: Tensor, weight: Tensor, bias_K: Tensor | None, window: Window) -> Tensor:
    y_BKTHW: Tensor = torch.ops.aten.mkldnn_convolution(
        x_BCTHW, weight, bias_K, window.padding, window.stride, window.dilation, window.groups
    )
    return y_BKTHW


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(x_BCTHW: Tensor, weight: Tensor, bias_K: Tensor | None, window: Window) -> Tensor:
        return _convolve(x_BCTHW, weight, bias_K, window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_BCTHW, weight, _, ctx.window = inputs
        ctx.save_for_backward(x_BCTHW, weight)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor | None, ...]:
        (error_BKTHW,) = errors
        x_BCTHW, weight = ctx.saved_tensors
        window, wanted = ctx.window, ctx.needs_input_grad[:3]
        # Where a derivative of this one is wanted: PyTorch's choice, which has one.
        read = x_BCTHW if torch.is_grad_enabled() else x_BCTHW.to_mkldnn()
        to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
            error_BKTHW,
            read,
            weight,
            [len(weight)] if wanted[2] else None,
            window.stride,
            window.padding,
            window.dilation,
            False,
            (0, 0, 0),
            window.groups,
            wanted,
        )
        if to_x is not None and x_BCTHW.is_contiguous(memory_format=torch.channels_last_3d):
            to_x = to_x.contiguous(memory_format=torch.channels_last_3d)  # of what goes on through the network
        return to_x, to_weight, to_bias, None
