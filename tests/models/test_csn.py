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
from wholereel.models.csn import PointThenDepthwise, copy_dense


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


def test_dilated_depthwise_convolutions_are_pytorchs() -> None:
    torch.manual_seed(0)
    fast = create_model("ir_csn_26", num_classes=5, width=8, dilated=True).eval()
    plain = create_model("ir_csn_26", num_classes=5, width=8, dilated=True, implementation="native").eval()
    plain.load_state_dict(fast.state_dict())
    x = clips(1, 3, 4, 64, 64)
    with torch.no_grad():
        assert fast.forward_features(x).shape[3:] == (4, 4)
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-5)


def test_groups_of_one_channel_are_depthwise() -> None:
    model = create_model("ir_csn_26", width=8, mode="group:8")
    assert isinstance(model.get_submodule("layer1.0.conv2.0"), DepthwiseConv3d)
    assert type(model.get_submodule("layer2.0.conv2.0")) is nn.Conv3d
    with pytest.raises(ValueError, match="divisible by groups"):
        create_model("ir_csn_26", width=8, mode="group:3")


def test_an_ip_network_begins_as_a_dense_one_with_separable_kernels() -> None:
    torch.manual_seed(0)
    dense = create_model("resnet3d_26", num_classes=5, width=8).eval()
    for name, parameter in dense.named_parameters():
        if name.endswith("conv2.0.weight"):
            p, d = clips(*parameter.shape[:2], seed=1), clips(len(parameter), 3, 3, 3, seed=2)
            parameter.data = torch.einsum("oi,oxyz->oixyz", p, d) / 30
    for module in dense.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
    separated = create_model("ip_csn_26", num_classes=5, width=8).eval()
    copy_dense(separated, dense)
    x = clips(1, 3, 5, 33, 40)
    with torch.no_grad():
        expected, found = dense(x), separated(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.std().item())
    for wrong in (create_model("ir_csn_26", width=8), create_model("ip_csn_26", width=8, relu_between=True)):
        with pytest.raises(ValueError, match="needs an 'ip' network without ReLU between its factors"):
            copy_dense(wrong, dense)
    with pytest.raises(ValueError, match="the dense one of its size"):
        copy_dense(create_model("ip_csn_26", width=16), dense)


def test_nearest_separable_kernel_is_the_best_of_rank_one() -> None:
    torch.manual_seed(0)
    dense, separated = (create_model(name, num_classes=0, width=8) for name in ("resnet3d_26", "ip_csn_26"))
    copy_dense(separated, dense)
    kernel_OIK = dense.get_submodule("layer1.0.conv2.0").weight.detach().flatten(2)
    pointwise, _, depthwise = separated.get_submodule("layer1.0.conv2.0")
    ours_OIK = pointwise.weight.detach().flatten(1)[..., None] * depthwise.weight.detach().flatten(2)
    missing_O = (kernel_OIK - ours_OIK).square().sum((1, 2))
    torch.testing.assert_close(missing_O, torch.linalg.svdvals(kernel_OIK)[:, 1:].square().sum(1), rtol=1e-4, atol=1e-6)


def test_ip_whose_first_factor_changes_nothing_is_ir() -> None:
    torch.manual_seed(0)
    reduced, preserved = (create_model(name, num_classes=5, width=8).eval() for name in ("ir_csn_26", "ip_csn_26"))
    state = preserved.state_dict()
    for key, value in reduced.state_dict().items():
        ours = key.replace("conv2.0.weight", "conv2.0.2.weight")
        state[ours] = value
    for name, module in preserved.named_modules():
        if isinstance(module, PointThenDepthwise):
            state[f"{name}.0.weight"] = torch.eye(module[0].out_channels)[..., None, None, None]
            state[f"{name}.1.weight"] = torch.full((module[0].out_channels,), (1 + module[1].eps) ** 0.5)
    preserved.load_state_dict(state)
    x = clips(1, 3, 4, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(preserved(x), reduced(x), rtol=1e-4, atol=1e-5)


def test_stem_bottleneck_and_temporal_strides_are_settings() -> None:
    model = create_model("ip_csn_26", width=8, stem_kernel=5, stem_stride=2, bottleneck=0.5, temporal_strides=1)
    assert model.get_submodule("stem.0").kernel_size == (5, 7, 7)
    assert model.get_submodule("layer1.0.conv2.0.0").weight.shape[:2] == (4, 4)
    assert model.feature_info[-1]["reduction"] == (4, 32, 32)
    assert model.eval().forward_features(clips(1, 3, 8, 32, 32)).shape[2] == 2
    assert model.settings["temporal_strides"] == 1
    assert "temporal_strides" not in create_model("ip_csn_26", width=8).settings
    assert create_model("r2plus1d_18_vmz", width=8, temporal_strides=2).feature_info[-1]["reduction"] == (4, 16, 16)
