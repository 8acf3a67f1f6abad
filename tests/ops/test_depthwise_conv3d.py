"""Depthwise 3-D convolution: every way against PyTorch's own, in float64."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from wholereel.layers.depthwise import DepthwiseConv3d
from wholereel.ops import depthwise_conv3d as module
from wholereel.ops.depthwise_conv3d import depthwise_conv3d


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def stock(x: Tensor, w: Tensor, stride, padding) -> Tensor:
    return F.conv3d(x, w, None, stride, padding, 1, len(w))


def with_gradients(run, x: Tensor, w: Tensor) -> list[Tensor]:
    inputs = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    y = run(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, drawn(*y.shape, seed=2).to(y.dtype))]


STRIDES = [(1, 1, 1), (2, 2, 2), (1, 2, 2), (4, 2, 2), (1, 8, 8), (1, 4, 4), (3, 1, 2)]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(3, 3, 3), (7, 3, 3), (1, 3, 3), (2, 3, 4), (1, 1, 1)]),
    st.sampled_from(STRIDES),
    st.data(),
)
def test_split_is_stock(shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], data) -> None:
    least = [max(0, -((size - side) // 2)) for size, side in zip(shape[2:], kernel, strict=True)]
    padding = tuple(data.draw(st.integers(low, max(low, side - 1))) for low, side in zip(least, kernel, strict=True))
    if any(pad >= side for pad, side in zip(padding, kernel, strict=True)):
        return
    x, w = drawn(*shape), drawn(shape[1], 1, *kernel, seed=1)
    theirs = with_gradients(lambda x, w: stock(x, w, stride, padding), x, w)
    ours = with_gradients(lambda x, w: depthwise_conv3d(x, w, stride, padding, "split"), x, w)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    error = drawn(*theirs[0].shape, seed=2)
    for way in (module._mirrored, module._by_frames, module._by_phases):  # whichever is chosen for these strides
        to_x = way(error, w, x.shape, list(stride), list(padding))
        torch.testing.assert_close(to_x, theirs[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("stride", STRIDES)
def test_split_in_training_types(stride, dtype: torch.dtype, tolerance: float) -> None:
    x, w = drawn(2, 16, 5, 12, 10), drawn(16, 1, 3, 3, 3, seed=1)
    exact = with_gradients(lambda x, w: stock(x, w, stride, (1, 1, 1)), x.to(dtype).double(), w.to(dtype).double())
    ours = with_gradients(lambda x, w: depthwise_conv3d(x, w, stride, (1, 1, 1), "split"), x.to(dtype), w.to(dtype))
    for one, other in zip(ours, exact, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * other.abs().max().item())


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 2)])
def test_derivatives_once_and_twice(stride) -> None:
    inputs = [drawn(1, 2, 3, 3, 4).requires_grad_(), drawn(2, 1, 3, 3, 3, seed=1).requires_grad_()]

    def run(x: Tensor, w: Tensor) -> Tensor:
        return depthwise_conv3d(x, w, stride, (1, 1, 1), "split")

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_only_what_is_wanted_is_differentiated() -> None:
    x, w = drawn(1, 2, 3, 4, 4), drawn(2, 1, 3, 3, 3, seed=1)
    for of_x, of_w in itertools.product((True, False), repeat=2):
        y = depthwise_conv3d(x.clone().requires_grad_(of_x), w.clone().requires_grad_(of_w), implementation="split")
        assert y.requires_grad == (of_x or of_w)
        if y.requires_grad:
            y.sum().backward()


def test_inputs_of_any_memory_format_and_output_in_channels_last() -> None:
    whole = drawn(2, 6, 8, 9, 11)
    x, w = whole[:, ::2, 1:6, ::2, 1::2], drawn(3, 1, 3, 3, 3, seed=1).transpose(3, 4)
    y = depthwise_conv3d(x.requires_grad_(), w, implementation="split")
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(y, stock(x, w, 1, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # what opcheck does
def test_operators_keep_their_contract() -> None:
    x, w = drawn(1, 2, 2, 5, 4).requires_grad_(), drawn(2, 1, 3, 3, 3, seed=1).requires_grad_()
    error = drawn(1, 2, 2, 3, 2, seed=2).requires_grad_()
    settings = ([1, 2, 2], [1, 1, 1], False)
    torch.library.opcheck(module._convolution_op, (x, w, *settings))
    quick = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(module._input_op, (error, w, [2, 5, 4], *settings), test_utils=quick)
    torch.library.opcheck(module._weight_op, (error, x, [3, 3, 3], *settings), test_utils=quick)


def test_compiled_and_checkpointed() -> None:
    x, w = drawn(1, 4, 3, 6, 6), drawn(4, 1, 3, 3, 3, seed=1)

    def run(x: Tensor, w: Tensor) -> Tensor:
        return depthwise_conv3d(x * 2, w, (1, 2, 2), (1, 1, 1), "split").relu()

    expected = with_gradients(run, x, w)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for other in (compiled, lambda x, w: checkpoint(run, x, w, use_reentrant=False)):
        for one, two in zip(with_gradients(other, x, w), expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_autocast_computes_as_pytorch_does() -> None:
    x, w = drawn(1, 4, 3, 20, 40, dtype=torch.float32), drawn(4, 1, 3, 3, 3, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv3d(x.requires_grad_(), w, implementation="split")
        expected = stock(x, w, 1, 1)
        with_bias = DepthwiseConv3d(4, 3, padding=1, bias=True)(x)  # as folded norms leave it
    assert y.dtype == expected.dtype == with_bias.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected)


def test_exported_programs_hold_pytorchs_convolution() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            return depthwise_conv3d(x, w, implementation="split")

    program = torch.export.export(Model(), (drawn(1, 2, 2, 3, 3), drawn(2, 1, 3, 3, 3)))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["aten.conv3d.default"] or called == ["aten.convolution.default"]


def test_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    module._say.cache_clear()
    large = torch.zeros(1, 64, 2, 8, 8)
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert module.best_implementation(large) == "split"
        assert module.best_implementation(large[:, :8]) == "native"
        assert module.best_implementation(large.double()) == "native"
    assert caplog.messages == [
        "depthwise 3-D convolutions in float32 on cpu: split",
        "depthwise 3-D convolutions in float64 on cpu: native",
    ]


def test_few_contiguous_features_on_cuda_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda:
        """Features of a device that is not here."""

        def __init__(self, x: Tensor) -> None:
            self.numel, self.is_contiguous, self.dtype = x.numel, x.is_contiguous, x.dtype
            self.device = torch.device("cuda")

    monkeypatch.setattr(module, "kernels_run_on", lambda device: device == "cuda")
    few = torch.empty(8, 256, 8, 14, 14, dtype=torch.bfloat16)
    many = torch.empty(8, 128, 16, 28, 28, dtype=torch.bfloat16)
    for x, expected in (
        (few, "native"),
        (few.to(memory_format=torch.channels_last_3d), "triton"),
        (many, "triton"),
        (many.to(memory_format=torch.channels_last_3d), "triton"),
        (many.double(), "native"),
    ):
        features: Any = OnCuda(x)
        assert module.best_implementation(features) == expected


def test_what_does_not_fit_is_refused() -> None:
    x, w = drawn(1, 4, 3, 3, 3), drawn(4, 1, 3, 3, 3)
    with pytest.raises(ValueError, match=r"filter \(C, 1, K, K, K\) of shape \(4, 1, 3, 3, 3\) does not fit features"):
        depthwise_conv3d(x[:, :2], w)
    with pytest.raises(ValueError, match=r"paddings from 0 to the kernel's \(3, 3, 3\) less one"):
        depthwise_conv3d(x, w, padding=(3, 1, 1))
    with pytest.raises(ValueError, match="strides >= 1"):
        depthwise_conv3d(x, w, stride=(0, 1, 1))
    with pytest.raises(ValueError, match="'auto', 'native', 'split' or 'triton'"):
        depthwise_conv3d(x, w, implementation="fast")
