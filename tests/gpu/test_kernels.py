"""Triton kernels on a CUDA device against their plain twins there: values, gradients, memory, and who is chosen.

In Triton's interpreter, without a device: `tests/ops/test_triton_kernels.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.models import create_model
from wholereel.ops import correlation, depthwise_conv3d

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TYPES = (torch.float64, torch.float32, torch.bfloat16)
DEPTHWISE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}
CORRELATION_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 1e-2}
# Shape of features, kernel, stride: odd sizes, rows longer than a tile, channels that are no power of two, one frame.
DEPTHWISE = [
    ((2, 64, 9, 14, 14), (3, 3, 3), (1, 1, 1)),
    ((1, 70, 11, 7, 57), (3, 3, 3), (1, 1, 1)),
    ((2, 37, 1, 5, 19), (3, 3, 3), (1, 1, 1)),
    ((1, 96, 8, 13, 15), (3, 3, 3), (1, 2, 2)),
    ((2, 66, 9, 15, 17), (3, 3, 3), (2, 2, 2)),
    ((1, 5, 4, 3, 33), (1, 3, 3), (1, 1, 1)),
    ((1, 3, 7, 6, 5), (4, 3, 3), (1, 2, 1)),
]
# Shape of features, K, groups, dilation, one filter for all frames.
CORRELATION = [
    ((2, 64, 4, 14, 14), 7, 2, 2, False),
    ((1, 24, 3, 9, 13), 3, 2, 1, False),
    ((1, 20, 5, 7, 11), 5, 1, 2, True),
    ((2, 6, 2, 5, 3), 7, 2, 1, False),
    ((1, 3, 1, 1, 2), 5, 1, 2, True),
]


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def values_and_gradients(run: Callable[..., Tensor], dtype: torch.dtype, inputs: list[Tensor]) -> list[Tensor]:
    inputs = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    y = run(*inputs)
    error = drawn(*y.shape, seed=9).to(dtype)
    return [y.detach(), *torch.autograd.grad(y, inputs, error)]


def check(run: Callable[..., Tensor], plain: Callable[..., Tensor], dtype: torch.dtype, tolerance: float, *inputs: Any):
    """Against the plain twin in float64, of inputs that are rounded alike; so is the gradient that comes in."""
    rounded = [tensor.to(dtype).double() for tensor in inputs]
    ours = values_and_gradients(run, dtype, rounded)
    twins = [tensor.requires_grad_() for tensor in rounded]
    y = plain(*twins)
    error = drawn(*y.shape, seed=9).to(dtype).double()
    for name, one, other in zip(
        ("values", "first gradient", "second gradient"),
        ours,
        [y, *torch.autograd.grad(y, twins, error)],
        strict=True,
    ):
        off = ((one.double() - other).abs().max() / other.abs().max().clamp(min=1e-30)).item()
        assert off <= tolerance, f"{name}: {off:.1e}"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("shape", "kernel", "stride"), DEPTHWISE, ids=str)
def test_depthwise_is_its_plain_twin(shape: tuple, kernel: tuple, stride: tuple, dtype: torch.dtype) -> None:
    padding = tuple(side // 2 for side in kernel)
    check(
        lambda x, w: depthwise_conv3d.depthwise_conv3d(x, w, stride, padding, "triton"),
        lambda x, w: F.conv3d(x, w, None, stride, padding, 1, len(w)),
        dtype,
        DEPTHWISE_TOLERANCE[dtype],
        drawn(*shape, seed=1),
        drawn(shape[1], 1, *kernel, seed=2),
    )


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("shape", "kernel", "groups", "dilation", "shared"), CORRELATION, ids=str)
def test_correlation_is_its_plain_twin(
    shape: tuple, kernel: int, groups: int, dilation: int, shared: bool, dtype: torch.dtype
) -> None:
    def run(implementation: Any, x: Tensor, w: Tensor) -> Tensor:
        w = correlation.filters_for_length(w, shape[2])
        return correlation.correlate(x, w, dilation=dilation, groups=groups, implementation=implementation)

    check(
        lambda x, w: run("triton", x, w),
        lambda x, w: run("plain", x, w),
        dtype,
        CORRELATION_TOLERANCE[dtype],
        drawn(*shape, seed=3),
        drawn(1 if shared else shape[2], shape[1], kernel, kernel, seed=4),
    )


def test_kernels_are_deterministic() -> None:
    x, w = drawn(2, 48, 9, 14, 15, seed=1), drawn(48, 1, 3, 3, 3, seed=2)
    f = drawn(9, 48, 7, 7, seed=3)
    for run, inputs in (
        (lambda x, w: depthwise_conv3d.depthwise_conv3d(x, w, implementation="triton"), [x, w]),
        (lambda x, f: correlation.correlate(x, f, dilation=2, groups=2, implementation="triton"), [x, f]),
    ):
        once, again = (values_and_gradients(run, torch.float32, inputs) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_second_derivatives() -> None:
    x, w, f = drawn(1, 2, 3, 3, 3, seed=1), drawn(2, 1, 3, 3, 3, seed=2), drawn(3, 2, 3, 3, seed=3)
    inputs = [tensor.requires_grad_() for tensor in (x, w, f)]
    assert torch.autograd.gradgradcheck(
        lambda x, w: depthwise_conv3d.depthwise_conv3d(x, w, implementation="triton"), inputs[:2]
    )
    assert torch.autograd.gradgradcheck(lambda x, f: correlation.correlate(x, f, implementation="triton"), inputs[::2])


@pytest.mark.parametrize("module", [depthwise_conv3d, correlation], ids=["depthwise", "correlation"])
def test_auto_takes_the_kernels_and_says_so(module: Any, caplog: pytest.LogCaptureFixture) -> None:
    module._say.cache_clear()
    x = torch.zeros(1, 16, 4, 16, 16, device=DEVICE).to(memory_format=torch.channels_last_3d)
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert module.best_implementation(x) == "triton"
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["triton"]


def test_correlation_needs_a_fifth_of_the_unfolded_memory() -> None:
    peaks = {}
    for implementation in ("triton", "plain"):
        x = torch.randn(1, 64, 8, 28, 28, device=DEVICE).requires_grad_()
        w = torch.rand(8, 64, 7, 7, device=DEVICE).requires_grad_()
        torch.cuda.reset_peak_memory_stats()
        began = torch.cuda.memory_allocated()
        correlation.correlate(x, w, dilation=2, groups=2, implementation=implementation).sum().backward()
        peaks[implementation] = torch.cuda.max_memory_allocated() - began
        x.grad = w.grad = None
    assert peaks["triton"] <= peaks["plain"] / 5, peaks


@pytest.mark.parametrize(
    ("name", "options"), [("ir_csn_26", {}), ("corrnet_26", {"frames": 8})], ids=["csn", "corrnet"]
)
def test_a_bfloat16_step_through_the_kernels(name: str, options: dict[str, Any]) -> None:
    """Losses and the direction of all gradients of a train step, with the kernels and without, under autocast."""
    found = {}
    plain = {"ir_csn_26": "native", "corrnet_26": "streaming"}[name]
    for implementation in ("triton", plain):
        torch.manual_seed(0)
        model = create_model(name, num_classes=5, dropout=0.0, implementation=implementation, **options)
        model.to(DEVICE, memory_format=torch.channels_last_3d).train()
        x = drawn(2, 3, 8, 64, 64, seed=5).float()
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = F.cross_entropy(model(x).float(), torch.tensor([1, 3], device=DEVICE))
        loss.backward()
        found[implementation] = loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])
    (ours, gradient), (theirs, other) = found["triton"], found[plain]
    assert ours == pytest.approx(theirs, rel=2e-2)
    assert F.cosine_similarity(gradient, other, 0).item() > 0.95
