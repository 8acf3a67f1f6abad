"""Run by `test_triton_kernels.py` in a process of its own, because Triton decides at import whether it interprets.

Prints one line a case: its name and the largest relative error over values and gradients, against the plain twins in
float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.ops import depthwise_triton
from wholereel.ops.correlation import correlate
from wholereel.ops.depthwise_conv3d import depthwise_conv3d


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def largest_error(run, plain, dtype: torch.dtype, *tensors: Tensor) -> float:
    found = []
    for function, kind in ((run, dtype), (plain, torch.float64)):
        inputs = [tensor.to(dtype).to(kind).requires_grad_() for tensor in tensors]
        y = function(*inputs)
        error = drawn(*y.shape, seed=9).to(dtype).to(kind)
        found.append([y, *torch.autograd.grad(y, inputs, error)])
    return max(
        ((one.double() - other).abs().max() / other.abs().max().clamp(min=1e-30)).item()
        for one, other in zip(*found, strict=True)
    )


# Shape of features, kernel, stride, type. The second has a row longer than a tile, the third more channels than lanes,
# the fourth more frames than one program walks, the fifth a kernel of more taps than one program has sums for.
DEPTHWISE = [
    ((2, 3, 2, 2, 3), (3, 3, 3), (1, 1, 1), torch.float64),
    ((1, 2, 1, 1, 19), (1, 1, 3), (1, 1, 1), torch.float64),
    ((1, 70, 1, 1, 2), (1, 1, 3), (1, 1, 2), torch.float64),
    ((1, 2, 11, 1, 2), (3, 1, 3), (1, 1, 1), torch.float64),
    ((1, 2, 5, 2, 3), (4, 3, 3), (1, 2, 1), torch.float64),
    ((1, 3, 3, 3, 2), (3, 3, 3), (2, 2, 2), torch.float64),
    ((1, 2, 4, 2, 9), (2, 1, 3), (4, 1, 8), torch.float64),
    ((1, 3, 1, 2, 3), (1, 3, 3), (1, 1, 1), torch.bfloat16),
]
# Shape of features, K, groups, dilation, displaced frame, type. The reach of the third is larger than the map.
CORRELATION = [
    ((2, 4, 2, 3, 4), 3, 2, 1, "previous", torch.float64),
    ((1, 3, 2, 7, 11), 3, 1, 2, "previous", torch.float64),
    ((1, 2, 1, 1, 2), 5, 1, 3, "previous", torch.float64),
    ((1, 6, 2, 2, 3), 3, 2, 1, "current", torch.float64),
    ((1, 4, 1, 3, 4), 3, 2, 2, "previous", torch.float32),
    ((1, 4, 1, 2, 3), 3, 1, 1, "previous", torch.bfloat16),
]


def main() -> None:
    depthwise_triton.PROGRAMS = 2  # so that a part of the gradient of weights is of several rows
    for shape, kernel, stride, dtype in DEPTHWISE:
        padding = tuple(side // 2 for side in kernel)
        error = largest_error(
            lambda x, w, s=stride, p=padding: depthwise_conv3d(x, w, s, p, "triton"),
            lambda x, w, s=stride, p=padding: F.conv3d(x, w, None, s, p, 1, len(w)),
            dtype,
            drawn(*shape, seed=1),
            drawn(shape[1], 1, *kernel, seed=2),
        )
        print(f"depthwise {shape} {kernel} {stride} {dtype}: {error:.2e}".replace("torch.", ""), flush=True)
    for shape, kernel, groups, dilation, displaced, dtype in CORRELATION:
        settings = {"dilation": dilation, "groups": groups, "displaced": displaced}
        error = largest_error(
            lambda x, w, settings=settings: correlate(x, w, implementation="triton", **settings),
            lambda x, w, settings=settings: correlate(x, w, implementation="plain", **settings),
            dtype,
            drawn(*shape, seed=3),
            drawn(shape[2], shape[1], kernel, kernel, seed=4),
        )
        name = f"correlation {shape} K={kernel} G={groups} D={dilation} {displaced} {dtype}"
        print(f"{name}: {error:.2e}".replace("torch.", ""), flush=True)


if __name__ == "__main__":
    main()
