"""Linear maps by oneDNN against PyTorch's: values, GELU, gradients of first and second order, who is not served."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wholereel.ops.linear import SMALL, _has_product, linear, linear_route

pytestmark = pytest.mark.skipif(not _has_product(), reason="a torch without oneDNN")


def layer(bias: bool = True, wide: int = 8) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, wide, bias=bias)


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_both_routes_agree(bias: bool, gelu: bool) -> None:
    module, x = layer(bias), tokens(2, 5, 6)
    with torch.no_grad():
        expected = linear(x, module, gelu=gelu, route="plain")
        for given in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):  # the second is not contiguous
            torch.testing.assert_close(linear(given, module, gelu=gelu, route="onednn"), expected)
    gradients = []
    for route in ("plain", "onednn"):
        leaf = x.clone().requires_grad_()
        y = linear(leaf, module, gelu=gelu, route=route)
        inputs = [leaf, *module.parameters()]
        first = torch.autograd.grad((y * tokens(*y.shape)).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), module.weight)
        gradients.append([*first, *second])
    for ours, theirs in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_functional_gradients() -> None:
    module, x = layer(), tokens(3, 6)

    def loss(weight: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"weight": weight}, (x,)).square().sum()

    def ours(leaf: Tensor) -> Tensor:
        return linear(leaf, module, route="onednn").square().sum()

    expected = torch.func.grad(lambda leaf: module(leaf).square().sum())(x)
    torch.testing.assert_close(torch.func.grad(ours)(x), expected)
    assert torch.func.grad(loss)(module.weight).shape == module.weight.shape


def test_frozen_weights_and_inputs_ask_for_no_gradient() -> None:
    module, x = layer(), tokens(3, 6)
    module.weight.requires_grad_(False)
    leaf = x.clone().requires_grad_()
    linear(leaf, module, route="onednn").sum().backward()
    torch.testing.assert_close(leaf.grad, module.weight.sum(0).expand(3, -1))
    assert module.weight.grad is None
    assert module.bias.grad is not None
    module.bias.grad = None
    linear(x, module, route="onednn").sum().backward()  # the bias is all that learns
    torch.testing.assert_close(module.bias.grad, torch.full_like(module.bias, len(x)))


def test_the_route_is_chosen_by_size_type_and_onlookers(caplog: pytest.LogCaptureFixture) -> None:
    big = layer(wide=-(-SMALL // 600))
    x = tokens(100, 6)
    assert linear_route(tokens(99, 6), big) == "plain"
    assert linear_route(x, big) == "onednn"
    assert (
        linear_route(x.double(), big) == linear_route(x.bfloat16(), big) == linear_route(x.to("meta"), big) == "plain"
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear_route(x, big) == "plain"
    assert linear_route(x, nn.utils.parametrizations.weight_norm(layer(wide=big.out_features))) == "plain"
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        linear(x, big)
    assert counted.get_total_flops() == 2 * 100 * 6 * big.out_features
    seen = []
    handle = big.register_forward_hook(lambda *call: seen.append(call))
    linear(x, big)
    handle.remove()
    assert len(seen) == 1
    handle = big.register_full_backward_pre_hook(lambda *call: None)
    assert linear_route(x, big) == "plain"
    handle.remove()
    assert linear_route(x, big) == "onednn"


def test_routes_that_do_not_serve_are_refused() -> None:
    with pytest.raises(ValueError, match=r"route must be one of \('plain', 'onednn'\), got 'quick'"):
        linear(tokens(2, 6), layer(), route="quick")
    with pytest.raises(ValueError, match="oneDNN serves float32 on the CPU, .* got torch.float64 on cpu"):
        linear(tokens(2, 6).double(), layer().double(), route="onednn")
