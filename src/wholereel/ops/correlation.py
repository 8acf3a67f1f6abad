"""Correlation of every frame with the one before it, weighted per channel and displacement (arXiv 1906.03349).

Extra axes: G groups of channels, K side of the neighbourhood; y has G * K * K channels, group-major, then row and
column of the displacement. With r = (K - 1) / 2, D the dilation and c over the C / G channels of group g:

    y[g, a, b, t, i, j] = mean_c w[t, c, a, b] x[c, t, i, j] x[c, max(t - 1, 0), i + (a - r) D, j + (b - r) D]

and positions outside the frame are 0. The order of channels is our choice; the paper writes G K K.
`correlate_plain` unfolds the neighbourhoods (K * K times the input in memory) and can be differentiated any number of
times; `correlate_streaming` goes through the displacements one by one and keeps its inputs alone for its backward;
`correlate_triton` is the same in kernels for accelerators (`correlation_triton.py`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.ops.kernel_files import kernels_run_on, load_kernels

__all__ = [
    "Displaced",
    "Implementation",
    "best_implementation",
    "correlate",
    "correlate_plain",
    "correlate_streaming",
    "correlate_triton",
    "filters_for_length",
]

Implementation = Literal["auto", "plain", "streaming", "triton"]
Displaced = Literal["previous", "current"]

log = logging.getLogger(__name__)


def correlate(
    x_BCTHW: Tensor,
    filter_TCKK: Tensor,
    *,
    dilation: int = 1,
    groups: int = 1,
    displaced: Displaced = "previous",
    implementation: Implementation = "auto",
) -> Tensor:
    """Correlation of the frames of a clip.

    Args:
        x_BCTHW: features.
        filter_TCKK: weight of every displacement for each frame and channel; ones for the plain correlation.
        dilation: D. groups: G.
        displaced: which of the two frames is looked at around a position; the paper's is the previous one.
        implementation: `plain`, `streaming` or `triton` (on accelerators); `auto`, see `best_implementation`.
    Returns: `(B, G * K * K, T, H, W)`.
    Raises:
        ValueError: shapes or settings that do not fit.
        ConfigError: `triton` where it does not run.
    """
    frames, channels, kernel = filter_TCKK.shape[:3]
    if filter_TCKK.shape[3] != kernel or kernel % 2 == 0:
        raise ValueError(f"the neighbourhood must be square and odd, got a filter of shape {tuple(filter_TCKK.shape)}")
    if x_BCTHW.ndim != 5 or (channels, frames) != tuple(x_BCTHW.shape[1:3]):
        raise ValueError(
            f"a filter (T, C, K, K) of shape {tuple(filter_TCKK.shape)} does not fit features (B, C, T, H, W) of shape "
            f"{tuple(x_BCTHW.shape)}"
        )
    if groups < 1 or channels % groups or dilation < 1:
        raise ValueError(f"needs groups that divide {channels} channels and dilation >= 1, got {groups} and {dilation}")
    if displaced not in ("previous", "current"):
        raise ValueError(f"displaced must be 'previous' or 'current', got {displaced!r}")
    previous_BCTHW = torch.cat((x_BCTHW[:, :, :1], x_BCTHW[:, :, :-1]), 2)
    fixed, moved = (x_BCTHW, previous_BCTHW) if displaced == "previous" else (previous_BCTHW, x_BCTHW)
    if implementation == "auto":
        implementation = best_implementation(x_BCTHW)
    if implementation == "plain":
        return correlate_plain(fixed, moved, filter_TCKK, dilation, groups)
    if implementation == "streaming":
        return correlate_streaming(fixed, moved, filter_TCKK, dilation, groups)
    if implementation == "triton":
        return correlate_triton(fixed, moved, filter_TCKK, dilation, groups)
    raise ValueError(f"implementation must be 'auto', 'plain', 'streaming' or 'triton', got {implementation!r}")


def best_implementation(x_BCTHW: Tensor) -> Implementation:
    """`triton` on CUDA devices where Triton is installed, else `streaming`; logged where it is first asked for.

    Compiled code streams, too: the compiler then sees ordinary operations.
    """
    if torch.compiler.is_compiling():
        return "streaming"
    device = x_BCTHW.device.type
    chosen: Implementation = "triton" if kernels_run_on(device) else "streaming"
    _say(device, chosen)
    return chosen


@functools.cache
def _say(device: str, implementation: str) -> None:
    log.info("correlations of frames on %s: %s", device, implementation)


def correlate_plain(
    fixed_BCTHW: Tensor, moved_BCTHW: Tensor, filter_TCKK: Tensor, dilation: int, groups: int
) -> Tensor:
    """`correlate` of two clips, frame by frame, from unfolded neighbourhoods."""
    kernel, (height, width) = filter_TCKK.shape[2], moved_BCTHW.shape[3:]
    reach = dilation * (kernel // 2)
    padded = F.pad(moved_BCTHW, (reach,) * 4)
    around_BCTKKHW = padded.unfold(3, height, dilation).unfold(4, width, dilation)
    grouped = [tensor.unflatten(1, (groups, -1)) for tensor in (fixed_BCTHW, around_BCTKKHW)]
    y_BGKKTHW = torch.einsum("bgcthw,bgctijhw,tgcij->bgijthw", *grouped, filter_TCKK.unflatten(1, (groups, -1)))
    return y_BGKKTHW.flatten(1, 3) / (fixed_BCTHW.shape[1] // groups)


def correlate_streaming(
    fixed_BCTHW: Tensor, moved_BCTHW: Tensor, filter_TCKK: Tensor, dilation: int, groups: int
) -> Tensor:
    """`correlate_plain`, one displacement after the other; its backward computes the products again."""
    y_BCTHW: Tensor = _Recomputed.apply(fixed_BCTHW, moved_BCTHW, filter_TCKK, dilation, groups, _one_by_one)
    return y_BCTHW


def correlate_triton(
    fixed_BCTHW: Tensor, moved_BCTHW: Tensor, filter_TCKK: Tensor, dilation: int, groups: int
) -> Tensor:
    """`correlate_streaming` by the kernels of `correlation_triton.py`.

    Raises: ConfigError: they do not run here.
    """
    kernels = load_kernels("correlation_triton", fixed_BCTHW)
    way = _Way(kernels.correlate_fused, kernels.fused_gradients)
    y_BCTHW: Tensor = _Recomputed.apply(fixed_BCTHW, moved_BCTHW, filter_TCKK, dilation, groups, way)
    return y_BCTHW


@dataclass(frozen=True)
class _Way:
    """How values and gradients are computed from the inputs alone."""

    values: Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
    gradients: Callable[[Tensor, Tensor, Tensor, Tensor, int, int], tuple[Tensor, Tensor, Tensor]]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, fixed_BCTHW: Tensor, moved_BCTHW: Tensor, filter_TCKK: Tensor, dilation: int, groups: int, way: _Way
    ) -> Tensor:
        ctx.save_for_backward(fixed_BCTHW, moved_BCTHW, filter_TCKK)
        ctx.settings, ctx.way = (dilation, groups), way
        return way.values(fixed_BCTHW, moved_BCTHW, filter_TCKK, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        dilation, groups = ctx.settings
        inputs = ctx.saved_tensors
        fixed_BCTHW, moved_BCTHW, filter_TCKK = inputs
        if not torch.is_grad_enabled():
            found = ctx.way.gradients(fixed_BCTHW, moved_BCTHW, filter_TCKK, gradients[0], dilation, groups)
            return *found, None, None, None
        # A second derivative is wanted. Both frames come from one clip: derivatives are asked at aliases, or that for
        # the fixed frame would hold the way through the moved one too.
        aliases = [tensor.view_as(tensor) for tensor in inputs]
        y = correlate_plain(aliases[0], aliases[1], aliases[2], dilation, groups)
        wanted = [alias for alias in aliases if alias.requires_grad]
        each = iter(torch.autograd.grad(y, wanted, gradients[0], create_graph=True))
        return *(next(each) if alias.requires_grad else None for alias in aliases), None, None, None


def _streaming_values(
    fixed_BCTHW: Tensor, moved_BCTHW: Tensor, filter_TCKK: Tensor, dilation: int, groups: int
) -> Tensor:
    batch, channels, frames, height, width = fixed_BCTHW.shape
    kernel = filter_TCKK.shape[2]
    y = fixed_BCTHW.new_zeros(batch, groups, kernel * kernel, frames, height, width)
    for index, here, there, weight_CT11 in _displacements(filter_TCKK, dilation, height, width):
        product = (fixed_BCTHW[here] * weight_CT11).mul_(moved_BCTHW[there])
        y[:, :, index][here] = product.unflatten(1, (groups, -1)).sum(2)
    return y.flatten(1, 2) / (channels // groups)


def _streaming_gradients(
    fixed_BCTHW: Tensor,
    moved_BCTHW: Tensor,
    filter_TCKK: Tensor,
    gradient_BCTHW: Tensor,
    dilation: int,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    height, width = fixed_BCTHW.shape[3:]
    kernel = filter_TCKK.shape[2]
    per_group = fixed_BCTHW.shape[1] // groups
    error_BGPTHW = gradient_BCTHW.unflatten(1, (groups, kernel * kernel)) / per_group
    to_fixed, to_moved = torch.zeros_like(fixed_BCTHW), torch.zeros_like(moved_BCTHW)
    to_filter = torch.zeros_like(filter_TCKK)
    for index, here, there, weight_CT11 in _displacements(filter_TCKK, dilation, height, width):
        error_BCTHW = error_BGPTHW[:, :, index][here].repeat_interleave(per_group, 1)
        fixed, moved = fixed_BCTHW[here], moved_BCTHW[there]
        error_moved = error_BCTHW * moved
        to_filter[:, :, index // kernel, index % kernel] = (error_moved * fixed).sum((0, 3, 4)).T
        to_fixed[here] += error_moved.mul_(weight_CT11)
        to_moved[there] += error_BCTHW.mul_(weight_CT11).mul_(fixed)
    return to_fixed, to_moved, to_filter


_one_by_one = _Way(_streaming_values, _streaming_gradients)


def _displacements(filter_TCKK: Tensor, dilation: int, height: int, width: int) -> Any:
    """Index, positions of the fixed frame, positions of the moved one, weights; without those outside the frame."""
    kernel = filter_TCKK.shape[2]
    for index in range(kernel * kernel):
        rows, columns = (dilation * (part - kernel // 2) for part in divmod(index, kernel))
        if abs(rows) < height and abs(columns) < width:
            here, there = zip(_overlap(rows, height), _overlap(columns, width), strict=True)
            weight_CT11 = filter_TCKK[:, :, index // kernel, index % kernel].T[..., None, None]
            yield index, (..., *here), (..., *there), weight_CT11


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    return slice(max(-shift, 0), size - max(shift, 0)), slice(max(shift, 0), size - max(-shift, 0))


def filters_for_length(filter_LCKK: Tensor, frames: int) -> Tensor:
    """Filters for clips of another length: slice 0, where a frame meets itself, stays; the others are interpolated.

    Args:
        filter_LCKK: L slices; a single one serves all frames.
        frames: T >= 1.
    Returns: filter_TCKK, linear in time between slices 1 to L - 1.
    """
    length = filter_LCKK.shape[0]
    if length == frames:
        return filter_LCKK
    if length == 1:
        return filter_LCKK.expand(frames, -1, -1, -1)
    if frames == 1:
        return filter_LCKK[:1]
    flat_1PL = filter_LCKK[1:].flatten(1).T[None]
    between_1PT = F.interpolate(flat_1PL, size=frames - 1, mode="linear", align_corners=True)
    return torch.cat((filter_LCKK[:1], between_1PT[0].T.unflatten(1, filter_LCKK.shape[1:])))
