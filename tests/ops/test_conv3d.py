"""3-D convolutions by oneDNN against PyTorch's: values, gradients of first and second order, who is not served."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wholereel.layers.convolution import Conv3d
from wholereel.ops.conv3d import FEW, SLOW_WAYS, SMALL, Window, _say, conv3d, conv3d_route

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")
CASES: dict[str, tuple[int, int, tuple[int, int, int], Window]] = {  # channels in and out, kernel
    "space": (4, 6, (1, 3, 3), Window(padding=(0, 1, 1))),
    "time": (4, 6, (3, 1, 1), Window(padding=(1, 0, 0))),
    "cube": (4, 6, (3, 3, 3), Window(padding=(1, 1, 1))),
    "one tap": (4, 6, (1, 1, 1), Window()),
    "even, no zeros": (4, 6, (2, 4, 2), Window()),
    "strides": (4, 6, (3, 3, 3), Window(stride=(2, 3, 2), padding=(1, 1, 1))),
    "stride beyond the kernel": (4, 6, (1, 1, 2), Window(stride=(3, 2, 4))),
    "more zeros than kernel": (4, 6, (3, 1, 2), Window(padding=(3, 2, 1))),
    "dilated": (4, 6, (3, 3, 3), Window(padding=(1, 2, 2), dilation=(1, 2, 2))),
    "groups": (4, 6, (3, 3, 3), Window(padding=(1, 1, 1), groups=2)),
    "depthwise": (4, 4, (3, 3, 3), Window(stride=(1, 2, 2), padding=(1, 1, 1), groups=4)),
}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tensors(name: str, batch: int, bias: bool) -> tuple[Tensor, Tensor, Tensor | None, Window]:
    planes, out, kernel, window = CASES[name]
    weight = numbers(out, planes // window.groups, *kernel, seed=1)
    return numbers(batch, planes, 5, 7, 6), weight, numbers(out, seed=2) if bias else None, window


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_both_routes_agree(name: str, batch: int, bias: bool, last: bool) -> None:
    x, weight, add, window = tensors(name, batch, bias)
    if last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    exact = conv3d(x.double(), weight.double(), None if add is None else add.double(), window)
    found: dict[str, list[Tensor]] = {}
    for route in ("plain", "onednn"):
        leaves = [one.clone().requires_grad_() for one in (x, weight, add) if one is not None]
        y = conv3d(leaves[0], leaves[1], leaves[2] if bias else None, window, route=route)
        torch.testing.assert_close(conv3d(x, weight, add, window, route=route), y.detach(), rtol=0, atol=0)
        found[route] = [y.detach(), *torch.autograd.grad(y, leaves, numbers(*y.shape, seed=3))]
    torch.testing.assert_close(found["onednn"][0].double(), exact, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found["onednn"], found["plain"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
    layout = torch.channels_last_3d if last else torch.contiguous_format
    assert all(one.is_contiguous(memory_format=layout) for one in found["onednn"][:2])


@pytest.mark.parametrize("name", ["cube", "strides", "groups"])
def test_second_derivatives_are_those_of_pytorch(name: str) -> None:
    x, weight, add, window = tensors(name, 1, True)
    found = []
    for route in ("plain", "onednn"):
        leaves = [one.clone().requires_grad_() for one in (x, weight, add) if one is not None]
        y = conv3d(leaves[0], leaves[1], leaves[2], window, route=route)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(one.square().sum() for one in first), leaves))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    x, weight, add, window = tensors("cube", 1, True)
    assert add is not None
    leaves = {"x": x, "weight": weight, "bias": add}
    for name, leaf in leaves.items():
        leaf.requires_grad_(name != frozen)
    conv3d(x, weight, add, window, route="onednn").sum().backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is None] == [frozen]


def test_expanded_and_strided_tensors() -> None:
    x, weight, _, window = tensors("cube", 2, False)
    for given in (x[:, :, ::2], x[:1].expand(3, -1, -1, -1, -1), x.transpose(3, 4)):
        expected = conv3d(given, weight, None, window, route="plain")
        leaf = given.detach().requires_grad_()
        y = conv3d(leaf, weight, None, window, route="onednn")
        torch.testing.assert_close(y, expected)
        y.sum().backward()  # its gradient is one number, expanded
        assert leaf.grad is not None
        assert leaf.grad.shape == given.shape


def big(batch: int = 1, kernel: tuple[int, int, int] = (3, 3, 3), dilation: int = 1) -> tuple[Tensor, Conv3d]:
    """A clip and a layer beyond `SMALL` and `FEW`."""
    torch.manual_seed(0)
    layer = Conv3d(32, 32, kernel, padding=tuple(dilation * (side // 2) for side in kernel), dilation=dilation)
    return numbers(batch, 32, 4, 8, 8), layer


def route_of(x: Tensor, layer: nn.Conv3d) -> str:
    window = Window(layer.stride, layer.padding, layer.dilation, layer.groups)
    return conv3d_route(x, layer.weight, layer.bias, window)


def test_a_single_clip_and_kernels_along_time_go_to_onednn() -> None:
    """And what PyTorch sends there itself stays with PyTorch."""
    assert route_of(*big()) == "onednn"
    assert route_of(*big(batch=2)) == "plain"
    assert route_of(*big(batch=8, kernel=(5, 1, 1))) == ("onednn" if torch.get_num_threads() == 1 else "plain")
    assert route_of(*big(kernel=(1, 1, 1))) == "plain"
    assert route_of(*big(dilation=2)) == "onednn"


def test_pytorch_still_says_which_way_it_goes() -> None:
    chosen = torch._C._select_conv_backend(
        numbers(1, 4, 4, 4, 4), numbers(4, 4, 3, 3, 3), None, (1,) * 3, (1,) * 3, (1,) * 3, False, (0,) * 3, 1
    )
    assert chosen.name in SLOW_WAYS


def test_the_route_is_chosen_by_size_type_and_onlookers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, layer = big()
    few = nn.Conv3d(512, 512, 3, padding=1)
    assert route_of(numbers(1, 512, 3, 3, 7), few) == "plain"
    assert 3 * 3 * 7 * few.weight.numel() > SMALL
    assert FEW - 1 == 3 * 3 * 7
    assert route_of(x[..., :3], layer) == "plain"  # 96 positions, 2.7 million multiply-adds
    assert 96 * layer.weight.numel() < SMALL
    assert route_of(x.double(), layer.double()) == "plain"
    assert route_of(x.to("meta"), layer.to("meta")) == "plain"
    x, layer = big()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert route_of(x, layer) == "plain"
        assert layer(x).dtype == torch.bfloat16
    with monkeypatch.context() as off:
        off.setattr(torch.backends.mkldnn, "enabled", False)
        assert route_of(x, layer) == "plain"
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        layer(x)
    assert counted.get_total_flops() == 2 * 256 * layer.weight.numel()
    _say.cache_clear()
    with caplog.at_level("INFO", logger="wholereel.ops.conv3d"):
        layer(x)
        layer(x)
    assert caplog.messages == ["3-D convolutions in float32 on cpu of single clips or along time: onednn"]


def test_routes_that_do_not_serve_are_refused() -> None:
    x, layer = big()
    with pytest.raises(ValueError, match=r"route must be one of \('plain', 'onednn'\), got 'quick'"):
        conv3d(x, layer.weight, layer.bias, Window(), route="quick")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"oneDNN serves float32 on the CPU, .* got torch.float64 on cpu"):
        conv3d(x.double(), layer.weight.double(), None, Window(), route="onednn")
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        conv3d(numbers(1, 512, 1, 20, 20), numbers(512, 512, 3, 3, 3), None, Window())


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"padding": 1, "padding_mode": "replicate"}])
def test_other_paddings_are_those_of_pytorch(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = Conv3d(4, 4, 3, **settings)
    theirs = nn.Conv3d(4, 4, 3, **settings)
    theirs.load_state_dict(ours.state_dict())
    x = numbers(1, 4, 5, 6, 7)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_functional_gradients() -> None:
    x, layer = big()
    expected = torch.autograd.grad(conv3d(x, w := layer.weight, None, Window(), route="plain").square().sum(), w)[0]

    def loss(weight: Tensor) -> Tensor:
        return conv3d(x, weight, None, Window(), route="onednn").square().sum()

    found = torch.func.grad(loss)(layer.weight.detach())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("frames", "kernel"), [(2, (3, 3, 3)), (2, (3, 1, 1)), (3, (5, 1, 1))])
def test_few_frames_in_bfloat16(frames: int, kernel: tuple[int, int, int], autocast: bool) -> None:
    """PyTorch's own gradient of these weights is whatever its memory held: here 1e20, from tensors just freed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 32, frames, 4, 4, generator=generator).bfloat16()
    weight = (0.05 * torch.randn(32, 32, *kernel, generator=generator)).bfloat16()
    window = Window(padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2))
    error = torch.randn(2, 32, frames, 4, 4, generator=generator).bfloat16()
    exact = weight.double().requires_grad_()
    F.conv3d(x.double(), exact, None, padding=window.padding).backward(error.double())
    assert exact.grad is not None
    for _ in range(3):
        freed = [torch.full((size,), 1e20) for size in (1000, 30_000, 100_000)]
        del freed
        ours = (weight.float() if autocast else weight).clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            conv3d(x.float() if autocast else x, ours, None, window, route="plain").backward(error)
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=0.05, atol=0.05 * float(exact.grad.abs().max()))
