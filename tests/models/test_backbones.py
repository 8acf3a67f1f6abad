"""What the classical backbones promise beyond the contract of all clip models; numbers are held by golden files."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.errors import CheckpointError
from wholereel.layers.residual_3d import Conv2Plus1D, middle_width
from wholereel.models import create_model
from wholereel.models.layouts import rename
from wholereel.models.slowfast import Form, SlowFast, _slow_index, pack, slow_frames, unpack
from wholereel.models.slowfast import slowfast as build_slowfast
from wholereel.models.weights import fit_clip_weights


def clips(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slowfast(**options) -> SlowFast:
    torch.manual_seed(0)
    model = create_model("slowfast_8x8_50", num_classes=5, **({"width": 16, "zero_init": False} | options)).eval()
    assert isinstance(model, SlowFast)
    return model


def test_packing_loses_nothing() -> None:
    slow, fast = clips(2, 3, 4, 5, 6), clips(2, 2, 12, 5, 6, seed=1)
    packed = pack(slow, fast)
    assert packed.shape == (2, 3 + 2 * 3, 4, 5, 6)
    again = unpack(packed, alpha=3, fast_channels=2)
    assert torch.equal(again[0], slow)
    assert torch.equal(again[1], fast)
    assert torch.equal(packed[:, 3 + 1 * 3 + 2, 1], fast[:, 1, 1 * 3 + 2])  # channel 1, frame 2 of slow frame 1
    with pytest.raises(ValueError, match="12 fast frames are no multiple of 5"):
        pack(slow[:, :, :1].expand(-1, -1, 5, -1, -1), fast)


def test_slow_frames_are_the_documented_ones() -> None:
    assert slow_frames(32, 8).tolist() == [0, 10, 20, 31]
    assert slow_frames(32, 4).tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    for form, alpha in itertools.product(get_args(Form), (2, 3, 4, 8)):
        for frames in range(alpha, 256, alpha):
            made = _slow_index(frames, alpha, form, torch.device("cpu"))
            assert torch.equal(made, slow_frames(frames, alpha, form))
    model, x = slowfast(), clips(1, 3, 8, 33, 33)
    with torch.no_grad():
        assert torch.equal(model(x), model((x[:, :, [0, 7]], x)))
        # a clip that alpha does not divide goes on with its last frame
        last = x[:, :, 4:5].expand(-1, -1, 3, -1, -1)
        assert torch.equal(model(x[:, :, :5]), model(torch.cat((x[:, :, :5], last), 2)))


def test_without_lateral_weights_the_slow_pathway_does_not_see_the_fast_one() -> None:
    model = slowfast()
    for name in ("res2", "res3", "res4", "res5"):
        nn.init.zeros_(getattr(model, name).fusion.conv.weight)
    slow, fast, other = clips(1, 3, 2, 33, 33), clips(1, 3, 8, 33, 33, seed=1), clips(1, 3, 8, 33, 33, seed=2)
    with torch.no_grad():
        pooled = [model.forward_head(model.forward_features((slow, x)), pre_logits=True) for x in (fast, other)]
    assert pooled[0].shape == (1, 32 * 16 + 32 * 2)
    assert torch.equal(pooled[0][:, : 32 * 16], pooled[1][:, : 32 * 16])
    assert not torch.equal(pooled[0][:, 32 * 16 :], pooled[1][:, 32 * 16 :])


@pytest.mark.parametrize("name", ["slowfast_8x8_50", "ir_csn_26"])
def test_fully_convolutional_head_is_every_window_by_itself(name: str) -> None:
    model = create_model(name, num_classes=5, width=16).eval()
    if name == "slowfast_8x8_50":
        maps = pack(clips(2, 512, 2, 4, 5), clips(2, 64, 8, 4, 5, seed=1))
    else:
        maps = clips(2, 128, 2, 4, 5)
    with torch.no_grad():
        logits = model.forward_windows(maps, (3, 3))
        assert logits.shape == (2, 5, 2, 3)
        for row, column in [(0, 0), (1, 2)]:
            window = maps[..., row : row + 3, column : column + 3]
            torch.testing.assert_close(logits[..., row, column], model.forward_head(window), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"windows of \(7, 7\) positions in a map of \(4, 5\)"):
        model.forward_windows(maps, (7, 7))


@pytest.mark.parametrize(
    ("planes", "middle"),
    [((64, 64), 144), ((64, 128), 230), ((128, 128), 288), ((128, 256), 460), ((256, 512), 921), ((512, 512), 1152)],
)
def test_middle_widths_are_the_papers(planes: tuple[int, int], middle: int) -> None:
    assert middle_width(*planes) == middle
    convolution = Conv2Plus1D(*planes, middle, (1, 1, 1))
    factorised = sum(parameter.numel() for parameter in convolution.parameters()) - 2 * middle
    assert abs(factorised / (27 * planes[0] * planes[1]) - 1) < 0.01


def test_factorised_convolution_reproduces_a_separable_one() -> None:
    torch.manual_seed(0)
    convolution = Conv2Plus1D(2, 3, 6, (2, 2, 2)).double()
    spatial, temporal = convolution[0], convolution[3]
    kernel = torch.einsum("omt,mixy->oitxy", temporal.weight[..., 0, 0], spatial.weight[:, :, 0])
    x = clips(1, 2, 5, 6, 7).double()
    linear = temporal(spatial(x))  # without norm and ReLU
    torch.testing.assert_close(linear, nn.functional.conv3d(x, kernel, stride=2, padding=1), rtol=1e-10, atol=1e-12)


def test_detection_form_keeps_the_size_of_res4_and_the_weights() -> None:
    plain, dilated = create_model("slow_8x8_50", width=8), create_model("slow_8x8_50", width=8, dilated=True)
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in dilated.state_dict().items()
    }
    assert plain.forward_features(clips(1, 3, 2, 64, 64)).shape[3:] == (2, 2)
    assert dilated.eval().forward_features(clips(1, 3, 2, 64, 64)).shape[3:] == (4, 4)
    assert dilated.feature_info[-1]["reduction"] == (1, 16, 16)


@pytest.mark.parametrize("name", ["i3d_50", "slowfast_4x16_50", "ip_csn_26", "r2plus1d_34", "corrnet_26"])
def test_one_frame_is_a_clip(name: str) -> None:
    model = create_model(name, num_classes=5, width=16).eval()
    with torch.no_grad():
        assert model(clips(1, 3, 1, 20, 24)).isfinite().all()


def test_modes_of_channel_separation() -> None:
    relu = create_model("ip_csn_26", width=16, relu_between=True)
    assert isinstance(relu.get_submodule("layer1.0.conv2.0.2"), nn.ReLU)
    assert create_model("ir_csn_26", width=16, mode="group:4").get_submodule("layer1.0.conv2.0").groups == 4
    with pytest.raises(ValueError, match="'ir', 'ip', 'dense' or 'group:G'"):
        create_model("ir_csn_26", mode="depthwise")


def test_mmaction2s_factorised_network_is_a_form_of_its_own() -> None:
    with torch.device("meta"):
        model = create_model("r2plus1d_34_mmaction2")
    (layout,) = model.layouts()
    shapes = {layout.key(key): tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes["backbone.conv1.conv.conv_s.weight"] == (83, 3, 1, 7, 7)
    assert shapes["backbone.conv1.conv.conv_t.weight"] == (64, 83, 3, 1, 1)
    assert shapes["backbone.layer1.2.conv2.conv.bn_s.weight"] == (144,)
    downsample = [shapes[f"backbone.layer{layer}.0.downsample.conv.conv_s.weight"][0] for layer in (2, 3, 4)]
    assert downsample == [54, 109, 219]
    assert shapes["backbone.layer4.0.downsample.bn.running_var"] == shapes["backbone.layer4.0.conv1.bn.bias"] == (512,)
    assert shapes["cls_head.fc_cls.weight"] == (400, 512)
    inside = {model.get_submodule(name).eps for name in ("stem.1", "layer1.0.conv1.0.1", "layer2.0.downsample.0.1")}
    outside = {model.get_submodule(name).eps for name in ("stem.4", "layer1.0.conv1.1", "layer2.0.downsample.1")}
    assert (inside, outside) == ({1e-5}, {1e-3})
    assert model.stage_inputs("layer1") == ("layer2.0.conv1.0.0.weight", "layer2.0.downsample.0.0.weight")


def mmaction2_slowfast(state: dict[str, Tensor], x_BCTHW: Tensor, alpha: int) -> tuple[Tensor, Tensor]:
    """MMAction2's `ResNet3dSlowFast` written down anew, from its names of tensors alone: slow and fast features."""

    def convolve(name: str, x: Tensor, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        weight = state[f"backbone.{name}.conv.weight"]
        return F.conv3d(x, weight, None, stride, [side // 2 for side in weight.shape[2:]])

    def normalise(name: str, x: Tensor) -> Tensor:
        parts = (state[f"backbone.{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-5)

    def block(name: str, x: Tensor, stride: int) -> Tensor:
        strides, shortcut = (1, stride, stride), x
        if f"backbone.{name}.downsample.conv.weight" in state:
            shortcut = normalise(f"{name}.downsample", convolve(f"{name}.downsample", x, strides))
        y = normalise(f"{name}.conv1", convolve(f"{name}.conv1", x)).relu()
        y = normalise(f"{name}.conv2", convolve(f"{name}.conv2", y, strides)).relu()
        return (normalise(f"{name}.conv3", convolve(f"{name}.conv3", y)) + shortcut).relu()

    def stem(path: str, x: Tensor) -> Tensor:
        x = normalise(f"{path}.conv1", convolve(f"{path}.conv1", x, (1, 2, 2))).relu()
        return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))

    slow = stem("slow_path", F.interpolate(x_BCTHW, mode="nearest", scale_factor=(1 / alpha, 1.0, 1.0)))
    fast = stem("fast_path", x_BCTHW)
    for layer in range(1, 5):
        lateral = "slow_path.conv1_lateral" if layer == 1 else f"slow_path.layer{layer - 1}_lateral"
        slow = torch.cat((slow, convolve(lateral, fast, (alpha, 1, 1))), 1)
        for number in range(2):
            stride = 2 if layer > 1 and number == 0 else 1
            slow = block(f"slow_path.layer{layer}.{number}", slow, stride)
            fast = block(f"fast_path.layer{layer}.{number}", fast, stride)
    return slow, fast


def mmaction2_head(state: dict[str, Tensor], slow: Tensor, fast: Tensor) -> Tensor:
    """`SlowFastHead`."""
    pooled = torch.cat((fast.mean((2, 3, 4)), slow.mean((2, 3, 4))), 1)
    return F.linear(pooled, state["cls_head.fc_cls.weight"], state["cls_head.fc_cls.bias"])


def test_mmaction2s_slowfast_reads_other_frames_and_tells_them_without_a_norm() -> None:
    torch.manual_seed(0)
    model = build_slowfast(26, 8, 4, 7, None, False, "mmaction2", num_classes=5, width=16, zero_init=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    (layout,) = model.layouts()
    written = layout.written(model.state_dict())
    theirs = {name: written[ours] for name, ours in rename(written, layout).items()}
    x = clips(2, 3, 8, 40, 36)
    with torch.no_grad():
        logits, expected = model(x), mmaction2_head(theirs, *mmaction2_slowfast(theirs, x, 4))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * expected.std().item())
    again = build_slowfast(26, 8, 4, 7, None, False, "mmaction2", num_classes=5, width=16).eval()
    fit_clip_weights(again, theirs, Path("published.pth"))
    with torch.no_grad():
        assert torch.equal(again(x), logits)
    with pytest.raises(CheckpointError, match="missing"):
        fit_clip_weights(build_slowfast(26, 8, 4, 7, num_classes=5, width=16), theirs, Path("published.pth"))


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_reversed_mixed_networks_see_single_frames_first(level: int) -> None:
    with torch.device("meta"):
        model = create_model(f"rmc{level}_18")
    kernels = [model.stem[0].kernel_size[0]]
    kernels += [getattr(model, f"layer{number}")[0].conv2[0].kernel_size[0] for number in range(1, 5)]
    assert kernels == [1] * (level - 1) + [3] * (6 - level)
    frames = [info["reduction"][0] for info in model.feature_info]
    assert frames[-1] == 2 ** min(6 - level, 3)  # single frames have no temporal stride


@pytest.mark.parametrize("mode", ["ir", "ip", "group:2", "group:4", "dense"])
def test_simple_blocks_can_be_separated(mode: str) -> None:
    torch.manual_seed(0)
    model = create_model("ir_csn_18", num_classes=5, width=8, mode=mode)
    assert model(clips(2, 3, 8, 32, 32)).shape == (2, 5)
    assert model.layouts() == ()
    kernels = [module for module in model.modules() if getattr(module, "kernel_size", 0) == (3, 3, 3)]
    assert len(kernels) == 16
    groups = {"ir": 1.0, "ip": 1.0, "group:2": 8 / 2, "group:4": 8 / 4, "dense": 8.0}[mode]
    assert kernels[0].weight.shape[1] == groups
    # pairs of channels that meet in the kernels: none in depthwise ones
    pairs = sum(kernel.out_channels * math.comb(kernel.in_channels // kernel.groups, 2) for kernel in kernels)
    assert (pairs == 0) == (mode in ("ir", "ip"))
