"""Channel-separated networks: their fast convolutions are PyTorch's, their variants what they say."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.depthwise import DepthwiseConv3d
from wholereel.layers.pointwise import PointwiseConv3d
from wholereel.models import create_model


def clips(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def step(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Loss and gradients of a train step, and the buffers behind it."""
    loss = F.cross_entropy(model(x), torch.arange(len(x)))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss.detach(), **gradients, **{name: buffer.clone() for name, buffer in model.named_buffers()}}


@pytest.mark.parametrize("name", ["ir_csn_26", "ip_csn_26"])
def test_train_step_in_split_form_is_pytorchs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholereel.layers.pointwise.is_product", lambda x: x.requires_grad)  # in float64, too
    torch.manual_seed(0)
    fast = create_model(name, num_classes=5, width=8, implementation="split").double()
    plain = create_model(name, num_classes=5, width=8, implementation="native").double()
    plain.load_state_dict(fast.state_dict())
    x = clips(2, 3, 5, 40, 48, dtype=torch.float64)
    theirs, ours = step(plain, x), step(fast, x)
    assert fast.forward_features(x).is_contiguous(memory_format=torch.channels_last_3d)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-9, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("stride", [1, (2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolution_is_a_product(stride, bias: bool) -> None:
    ours = PointwiseConv3d(6, 4, stride, bias=bias)
    theirs = nn.Conv3d(6, 4, 1, stride, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = clips(2, 6, 3, 5, 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for memory_format in (torch.contiguous_format, torch.channels_last_3d):
            found = []
            for module in (ours, theirs):
                module.zero_grad()
                given = x.clone(memory_format=memory_format).requires_grad_()
                y = module(given)
                y.square().sum().backward()
                found.append([y.detach(), given.grad, *(parameter.grad for parameter in module.parameters())])
            for one, other in zip(*found, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_depthwise_module_is_a_grouped_convolution() -> None:
    ours = DepthwiseConv3d(4, (3, 3, 3), (1, 2, 2), 1, bias=True, implementation="split")
    theirs = nn.Conv3d(4, 4, 3, (1, 2, 2), 1, groups=4)
    theirs.load_state_dict(ours.state_dict())
    x = clips(2, 4, 3, 5, 7).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    assert copy.deepcopy(ours).implementation == "split"


def test_groups_of_one_channel_are_depthwise() -> None:
    model = create_model("ir_csn_26", width=8, mode="group:8")
    assert isinstance(model.get_submodule("layer1.0.conv2.0"), DepthwiseConv3d)
    assert type(model.get_submodule("layer2.0.conv2.0")) is nn.Conv3d
    with pytest.raises(ValueError, match="divisible by groups"):
        create_model("ir_csn_26", width=8, mode="group:3")
