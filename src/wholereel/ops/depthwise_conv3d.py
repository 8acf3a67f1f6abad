"""Depthwise 3-D convolution with a quicker backward than PyTorch's, as `benchmarks/backbones.py` measures on CPUs.

`split` computes the same sums otherwise, on channels-last tensors: the gradient of the input is a depthwise convolution
of the outgoing gradient with the mirrored kernel, that of the weight one 2-D depthwise gradient for each frame that the
kernel sees, with frames merged into the batch (our own; arXiv 1904.02811 only counts the arithmetic).
Extra axes: K1, K2, K3 frames, rows and columns of the kernel; strides and paddings are (time, height, width).
Not here: the kernel for accelerators (`depthwise_triton.py`), the module (`layers/depthwise.py`).
"""

from __future__ import annotations

import functools
import itertools
import logging
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.ops.kernel_files import kernels_run_on, load_kernels

__all__ = ["Implementation", "Triple", "best_implementation", "depthwise_conv3d"]

Implementation = Literal["auto", "native", "split", "triton"]
Triple = tuple[int, int, int]
Shape = tuple[int, ...]
CHANNELS_LAST = torch.channels_last_3d
# What `benchmarks/backbones.py` measured; others: not measured yet, PyTorch's own.
BEST: dict[tuple[str, torch.dtype], str] = {
    ("cpu", torch.float32): "split",
    ("cpu", torch.bfloat16): "split",
    ("cuda", torch.float32): "triton",
    ("cuda", torch.bfloat16): "triton",
    ("cuda", torch.float16): "triton",
}
SMALL = 8192
FEW = 2**23  # of contiguous features on CUDA devices, see `best_implementation`
PLAIN = (Tensor, torch.nn.Parameter)
KERNELS = "depthwise_triton"

log = logging.getLogger(__name__)


def depthwise_conv3d(
    x_BCTHW: Tensor,
    weight_C1KKK: Tensor,
    stride: Triple = (1, 1, 1),
    padding: Triple = (1, 1, 1),
    implementation: Implementation = "auto",
) -> Tensor:
    """`F.conv3d(x, weight, None, stride, padding, groups=C)`.

    Differentiable any number of times. Where no gradient is wanted, `split` is PyTorch's forward on channels-last
    memory. Under autocast the inputs are cast as PyTorch casts those of convolutions.
    Args:
        x_BCTHW: features.
        weight_C1KKK: one filter a channel, of any size.
        stride: of the kernel. padding: zeros on each side, fewer than the kernel is long.
        implementation: `native` = PyTorch, `split`, `triton` (accelerators), or `auto`, see `best_implementation`.
    Returns: `(B, C, T', H', W')`; with `split` in channels-last memory.
    Raises:
        ValueError: shapes or settings that do not fit.
        ConfigError: `triton` where it does not run.
    """
    channels, kernel = weight_C1KKK.shape[0], weight_C1KKK.shape[2:]
    if weight_C1KKK.ndim != 5 or x_BCTHW.ndim != 5 or tuple(weight_C1KKK.shape[:2]) != (x_BCTHW.shape[1], 1):
        raise ValueError(
            f"a depthwise filter (C, 1, K, K, K) of shape {tuple(weight_C1KKK.shape)} does not fit features "
            f"(B, C, T, H, W) of shape {tuple(x_BCTHW.shape)}"
        )
    if min(stride) < 1 or any(not 0 <= pad < side for pad, side in zip(padding, kernel, strict=True)):
        raise ValueError(
            f"needs strides >= 1 and paddings from 0 to the kernel's {tuple(kernel)} less one, got {stride}, {padding}"
        )
    if implementation not in ("auto", "native", "split", "triton"):
        raise ValueError(f"implementation must be 'auto', 'native', 'split' or 'triton', got {implementation!r}")
    device = x_BCTHW.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and x_BCTHW.dtype != torch.float64:
        x_BCTHW, weight_C1KKK = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (x_BCTHW, weight_C1KKK))
    if torch.compiler.is_exporting():  # not asked for the best: it goes by a size that an exported program leaves open
        implementation = "native"
    elif implementation == "auto":
        implementation = best_implementation(x_BCTHW)
    if implementation == "native":
        return F.conv3d(x_BCTHW, weight_C1KKK, None, stride, padding, 1, channels)
    x_BCTHW = x_BCTHW.contiguous(memory_format=CHANNELS_LAST)
    with_gradient = torch.is_grad_enabled() and (x_BCTHW.requires_grad or weight_C1KKK.requires_grad)
    if implementation == "split" and not with_gradient:
        return F.conv3d(x_BCTHW, weight_C1KKK, None, stride, padding, 1, channels)
    return _convolved(x_BCTHW, weight_C1KKK, list(stride), list(padding), implementation == "triton")


def best_implementation(x_BCTHW: Tensor) -> Implementation:
    """The implementation for features of this device, type and size, which is logged where it is first asked for.

    Below `SMALL` numbers the calls cost more than the sums. Without Triton, PyTorch's own. On CUDA devices PyTorch's
    own takes contiguous features of fewer than `FEW` numbers: there it needs one kernel a call, and the host decides.
    Features in channels-last memory never: its backward took 8 to 170 ms there in bfloat16, where the kernels took 0.8
    to 2.0 ms (`benchmarks/results/backbones_gpu_h100_2026-11-26.json`, part `depthwise`, commit 8f9bc44).
    """
    device = x_BCTHW.device.type
    found: Any = BEST.get((device, x_BCTHW.dtype), "native")
    few = x_BCTHW.numel() < FEW and x_BCTHW.is_contiguous()
    if found == "triton" and (few or not kernels_run_on(device)):
        found = "native"
    if not torch.compiler.is_compiling():
        _say(device, x_BCTHW.dtype, found)
    chosen: Implementation = "native" if x_BCTHW.numel() < SMALL else found
    return chosen


@functools.cache
def _say(device: str, dtype: torch.dtype, implementation: str) -> None:
    log.info("depthwise 3-D convolutions in %s on %s: %s", str(dtype).removeprefix("torch."), device, implementation)


# ------------------------------------------------------------------------------------------- operators, their gradients
# Each is linear in both of its tensors, and each one's derivatives are the other two. Each exists as an operator of
# PyTorch, for compiled code, and as a function of autograd: an operator's way through PyTorch costs the host 60 us a
# call, more than the kernels take on small maps.


def _compute(x_BCTHW: Tensor, weight_C1KKK: Tensor, stride: list[int], padding: list[int], triton: bool) -> Tensor:
    x_BCTHW = x_BCTHW.contiguous(memory_format=CHANNELS_LAST)
    if triton:
        y_BCTHW: Tensor = load_kernels(KERNELS, x_BCTHW).convolve(x_BCTHW, weight_C1KKK, stride, padding)
        return y_BCTHW
    y_BCTHW = F.conv3d(x_BCTHW, weight_C1KKK, None, stride, padding, 1, len(weight_C1KKK))
    return y_BCTHW.contiguous(memory_format=CHANNELS_LAST)


def _compute_to_input(
    error_BCTHW: Tensor, weight_C1KKK: Tensor, size: list[int], stride: list[int], padding: list[int], triton: bool
) -> Tensor:
    error_BCTHW = error_BCTHW.contiguous(memory_format=CHANNELS_LAST)
    if triton:
        kernels = load_kernels(KERNELS, error_BCTHW)
        to_x_BCTHW: Tensor = kernels.input_gradient(error_BCTHW, weight_C1KKK, size, stride, padding)
        return to_x_BCTHW
    to_x_BCTHW = input_gradient(error_BCTHW, weight_C1KKK, size, stride, padding)
    return to_x_BCTHW.contiguous(memory_format=CHANNELS_LAST)


def _compute_to_weight(
    error_BCTHW: Tensor, x_BCTHW: Tensor, kernel: list[int], stride: list[int], padding: list[int], triton: bool
) -> Tensor:
    error_BCTHW = error_BCTHW.contiguous(memory_format=CHANNELS_LAST)
    x_BCTHW = x_BCTHW.contiguous(memory_format=CHANNELS_LAST)
    if triton:
        kernels = load_kernels(KERNELS, x_BCTHW)
        to_weight_C1KKK: Tensor = kernels.weight_gradient(error_BCTHW, x_BCTHW, kernel, stride, padding)
        return to_weight_C1KKK
    return weight_gradient(error_BCTHW, x_BCTHW, kernel, stride, padding)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    first, second, *ctx.settings = inputs
    ctx.save_for_backward(first, second)


def _from_forward(ctx: Any, error_BCTHW: Tensor) -> Any:
    (x_BCTHW, weight_C1KKK), (stride, padding, triton) = ctx.saved_tensors, ctx.settings
    size, kernel = x_BCTHW.shape[2:], weight_C1KKK.shape[2:]
    of_x, of_weight = ctx.needs_input_grad[:2]
    to_x = _to_input(error_BCTHW, weight_C1KKK, size, stride, padding, triton) if of_x else None
    to_weight = _to_weight(error_BCTHW, x_BCTHW, kernel, stride, padding, triton) if of_weight else None
    return to_x, to_weight, None, None, None


def _from_to_input(ctx: Any, of_x_BCTHW: Tensor) -> Any:
    (error_BCTHW, weight_C1KKK), (_, stride, padding, triton) = ctx.saved_tensors, ctx.settings
    to_error = _convolved(of_x_BCTHW, weight_C1KKK, stride, padding, triton)
    to_weight = _to_weight(error_BCTHW, of_x_BCTHW, weight_C1KKK.shape[2:], stride, padding, triton)
    return to_error, to_weight, None, None, None, None


def _from_to_weight(ctx: Any, of_weight_C1KKK: Tensor) -> Any:
    (error_BCTHW, x_BCTHW), (_, stride, padding, triton) = ctx.saved_tensors, ctx.settings
    to_error = _convolved(x_BCTHW, of_weight_C1KKK, stride, padding, triton)
    to_x = _to_input(error_BCTHW, of_weight_C1KKK, x_BCTHW.shape[2:], stride, padding, triton)
    return to_error, to_x, None, None, None, None


class _Function(torch.autograd.Function):
    """Autograd without an operator. `compute`, and `derive`, which gives both derivatives, are those of a subclass."""

    compute: Any
    derive: Any

    @classmethod
    def forward(cls, ctx: Any, first: Tensor, second: Tensor, *settings: Any) -> Tensor:
        found: Tensor = cls.compute(first, second, *settings)
        _keep(ctx, (first, second, *settings), found)
        return found

    @classmethod
    def backward(cls, ctx: Any, error: Tensor) -> Any:
        return cls.derive(ctx, error)


class _Convolution(_Function):
    compute, derive = staticmethod(_compute), staticmethod(_from_forward)


class _InputGradient(_Function):
    compute, derive = staticmethod(_compute_to_input), staticmethod(_from_to_input)


class _WeightGradient(_Function):
    compute, derive = staticmethod(_compute_to_weight), staticmethod(_from_to_weight)


_convolution_op = torch.library.custom_op("wholereel::depthwise_conv3d", _compute, mutates_args=())
_input_op = torch.library.custom_op("wholereel::depthwise_conv3d_to_input", _compute_to_input, mutates_args=())
_weight_op = torch.library.custom_op("wholereel::depthwise_conv3d_to_weight", _compute_to_weight, mutates_args=())
_convolution_op.register_autograd(_from_forward, setup_context=_keep)
_input_op.register_autograd(_from_to_input, setup_context=_keep)
_weight_op.register_autograd(_from_to_weight, setup_context=_keep)


def _run(operator: Any, function: Any, first: Tensor, second: Tensor, *settings: Any) -> Tensor:
    """The operator where something watches (compiled code, subclasses of tensors), else a shorter way."""
    if torch.compiler.is_compiling() or type(first) not in PLAIN or type(second) not in PLAIN:
        found: Tensor = operator(first, second, *settings)
    elif torch.is_grad_enabled() and (first.requires_grad or second.requires_grad):
        found = function.apply(first, second, *settings)
    else:
        found = function.compute(first, second, *settings)
    return found


def _convolved(x_BCTHW: Tensor, weight_C1KKK: Tensor, *settings: Any) -> Tensor:
    return _run(_convolution_op, _Convolution, x_BCTHW, weight_C1KKK, *settings)


def _to_input(error_BCTHW: Tensor, weight_C1KKK: Tensor, *settings: Any) -> Tensor:
    return _run(_input_op, _InputGradient, error_BCTHW, weight_C1KKK, *settings)


def _to_weight(error_BCTHW: Tensor, x_BCTHW: Tensor, *settings: Any) -> Tensor:
    return _run(_weight_op, _WeightGradient, error_BCTHW, x_BCTHW, *settings)


@_convolution_op.register_fake
def _(x_BCTHW: Tensor, weight_C1KKK: Tensor, stride: list[int], padding: list[int], triton: bool) -> Tensor:
    size = [
        (length + 2 * pad - side) // step + 1
        for length, side, step, pad in zip(x_BCTHW.shape[2:], weight_C1KKK.shape[2:], stride, padding, strict=True)
    ]
    return x_BCTHW.new_empty(*x_BCTHW.shape[:2], *size).to(memory_format=CHANNELS_LAST)


@_input_op.register_fake
def _(
    error_BCTHW: Tensor, weight_C1KKK: Tensor, size: list[int], stride: list[int], padding: list[int], triton: bool
) -> Tensor:
    return error_BCTHW.new_empty(*error_BCTHW.shape[:2], *size).to(memory_format=CHANNELS_LAST)


@_weight_op.register_fake
def _(
    error_BCTHW: Tensor, x_BCTHW: Tensor, kernel: list[int], stride: list[int], padding: list[int], triton: bool
) -> Tensor:
    return x_BCTHW.new_empty(x_BCTHW.shape[1], 1, *kernel)


# --------------------------------------------------------------------------------------------------- gradient of inputs


def input_gradient(
    error_BCTHW: Tensor, weight_C1KKK: Tensor, size: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient of an input of that size (T, H, W), by the way that was quickest for its strides.

    All ways give the same sums; measured by `benchmarks/backbones.py`.
    """
    shape = (*error_BCTHW.shape[:2], *size)
    if stride[1] * stride[2] > 9:
        return _by_phases(error_BCTHW, weight_C1KKK, shape, stride, padding)
    if stride[0] > 1 and error_BCTHW.dtype == torch.float32:
        return _by_frames(error_BCTHW, weight_C1KKK, shape, stride, padding)
    return _mirrored(error_BCTHW, weight_C1KKK, shape, stride, padding)


def _mirrored(error_BCTHW: Tensor, weight_C1KKK: Tensor, shape: Shape, stride: list[int], padding: list[int]) -> Tensor:
    """Zeros between the errors of a stride, then a convolution of stride 1 with the mirrored kernel."""
    kernel = weight_C1KKK.shape[2:]
    if max(stride) > 1:
        sizes = [size + 2 * pad - side + 1 for size, pad, side in zip(shape[2:], padding, kernel, strict=True)]
        spread_BCTHW = _zeros((*shape[:2], *sizes), error_BCTHW)
        spread_BCTHW[:, :, :: stride[0], :: stride[1], :: stride[2]] = error_BCTHW
        error_BCTHW = spread_BCTHW
    around = [side - 1 - pad for side, pad in zip(kernel, padding, strict=True)]
    return F.conv3d(error_BCTHW, weight_C1KKK.flip(2, 3, 4), None, 1, around, 1, shape[1])


def _by_frames(
    error_BCTHW: Tensor, weight_C1KKK: Tensor, shape: Shape, stride: list[int], padding: list[int]
) -> Tensor:
    """For each frame of the kernel the 2-D gradient, added to the frames that it looked at.

    Frames `phase + stride * m` are collected in a tensor of their own, so that sums and calls meet no gaps.
    """
    batch, channels, frames, height, width = shape
    error_MCHW = _merged(error_BCTHW)
    to_x_BCTHW = error_BCTHW.new_empty(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)
    for phase in range(min(stride[0], frames)):
        count, parts = len(range(phase, frames, stride[0])), []
        for tap in range(weight_C1KKK.shape[2]):
            out, seen = _frames_of(tap, frames, error_BCTHW.shape[2], stride[0], padding[0])
            if out.start >= out.stop or seen.start % stride[0] != phase:
                continue
            error = error_MCHW[out.start * batch : out.stop * batch]
            like = error.new_empty(len(error), height, width, channels).permute(0, 3, 1, 2)
            part, _, _ = _gradients_2d(error, like, weight_C1KKK[:, :, tap], stride, padding, (True, False))
            parts.append((seen.start // stride[0], part))
        if not parts:
            to_x_BCTHW[:, :, phase :: stride[0]] = 0
            continue
        parts.sort(key=lambda first_part: -len(first_part[1]))  # the longest takes the others, if it is whole
        (_, whole), *others = parts
        if len(whole) < count * batch:
            whole = error_MCHW.new_zeros(count * batch, height, width, channels).permute(0, 3, 1, 2)
            others = parts
        for first, part in others:
            whole[first * batch : first * batch + len(part)] += part
        to_x_BCTHW[:, :, phase :: stride[0]] = whole.unflatten(0, (count, batch)).permute(1, 2, 0, 3, 4)
    return to_x_BCTHW


def _by_phases(
    error_BCTHW: Tensor, weight_C1KKK: Tensor, shape: Shape, stride: list[int], padding: list[int]
) -> Tensor:
    """The inputs fall into stride^3 lattices; each is a convolution of stride 1 with the taps that meet it.

    For strides beyond the kernel most lattices are met by none.
    """
    to_x_BCTHW = _zeros(shape, error_BCTHW)
    kernel = weight_C1KKK.shape[2:]
    axes = [
        [
            _Lattice(phase, shape[2 + axis], error_BCTHW.shape[2 + axis], kernel[axis], stride[axis], padding[axis])
            for phase in range(stride[axis])
        ]
        for axis in range(3)
    ]
    for lattices in itertools.product(axes[0], axes[1], axes[2]):
        if not all(lattice.taps and lattice.count for lattice in lattices):
            continue
        first = lattices[0].taps[0], lattices[1].taps[0], lattices[2].taps[0]
        part_C1KKK = weight_C1KKK[:, :, first[0] :: stride[0], first[1] :: stride[1], first[2] :: stride[2]]
        time, height, width = lattices
        read_BCTHW = error_BCTHW[:, :, time.read, height.read, width.read]
        lacking = [side for lattice in reversed(lattices) for side in lattice.lacking]
        read_BCTHW = F.pad(read_BCTHW, lacking).contiguous(memory_format=CHANNELS_LAST)
        to_x_BCTHW[:, :, time.places, height.places, width.places] = F.conv3d(
            read_BCTHW, part_C1KKK.flip(2, 3, 4), groups=shape[1]
        )
    return to_x_BCTHW


class _Lattice:
    """Positions `phase + stride * m` of one axis: the taps that meet them, and the errors that these taps bring.

    `read` is the part of the errors that exists, `lacking` how many zeros stand before and behind it.
    """

    def __init__(self, phase: int, size: int, errors: int, side: int, stride: int, pad: int) -> None:
        self.taps = [tap for tap in range(side) if (phase + pad - tap) % stride == 0]
        self.places = slice(phase, None, stride)
        self.count = len(range(phase, size, stride))
        first, last = ((phase + pad - self.taps[index]) // stride for index in (-1, 0)) if self.taps else (0, -1)
        stop = last + self.count
        # A kernel's taps may all lie beyond the last error; then zeros alone are read.
        begin, end = min(max(first, 0), errors), max(min(stop, errors), 0)
        self.read = slice(begin, max(begin, end))
        before = min(max(-first, 0), stop - first)
        self.lacking = before, (stop - first) - before - (self.read.stop - self.read.start)


# -------------------------------------------------------------------------------------------------- gradient of weights


def weight_gradient(
    error_BCTHW: Tensor, x_BCTHW: Tensor, kernel: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """For each frame of the kernel the 2-D gradient over all frames that it looked at."""
    batch, frames = x_BCTHW.shape[0], x_BCTHW.shape[2]
    to_weight_C1KKK = x_BCTHW.new_zeros(x_BCTHW.shape[1], 1, *kernel)
    error_MCHW = _merged(error_BCTHW)
    phases = [_merged(x_BCTHW[:, :, phase :: stride[0]]) for phase in range(min(stride[0], frames))]
    for tap in range(kernel[0]):
        out, seen = _frames_of(tap, frames, error_BCTHW.shape[2], stride[0], padding[0])
        if out.start >= out.stop:
            continue
        first, phase = divmod(seen.start, stride[0])
        error = error_MCHW[out.start * batch : out.stop * batch]
        x = phases[phase][first * batch : first * batch + len(error)]
        _, part, _ = _gradients_2d(error, x, to_weight_C1KKK[:, :, tap], stride, padding, (False, True))
        to_weight_C1KKK[:, :, tap] = part
    return to_weight_C1KKK


def _frames_of(tap: int, frames: int, out_frames: int, stride: int, pad: int) -> tuple[slice, slice]:
    """Outgoing frames for which frame `tap` of the kernel lies inside the clip, and the frames that it sees then."""
    first = max(0, -((tap - pad) // stride))
    stop = min(out_frames, (frames - 1 + pad - tap) // stride + 1)
    seen = first * stride + tap - pad
    return slice(first, stop), slice(seen, seen + (stop - first - 1) * stride + 1, stride)


def _merged(x_BCTHW: Tensor) -> Tensor:
    """Frames in the batch axis, `(T * B, C, H, W)`, channels last: neighbours in time are a slice of it."""
    x_TBHWC = x_BCTHW.permute(2, 0, 3, 4, 1)
    return x_TBHWC.reshape(-1, *x_TBHWC.shape[2:]).contiguous().permute(0, 3, 1, 2)


def _gradients_2d(
    error: Tensor, x: Tensor, weight_C1KK: Tensor, stride: list[int], padding: list[int], wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    settings = stride[1:], padding[1:], (1, 1), False, (0, 0), len(weight_C1KK)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        error, x, weight_C1KK, None, *settings, (*wanted, False)
    )
    return found


def _zeros(shape: Any, like: Tensor) -> Tensor:
    batch, channels, *sizes = shape
    return like.new_zeros(batch, *sizes, channels).permute(0, 4, 1, 2, 3)
