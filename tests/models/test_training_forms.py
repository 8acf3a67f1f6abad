"""What training makes of a network: checkpointed stages, dropped branches, weights of image networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from wholereel.errors import CheckpointError, ConfigError
from wholereel.layers.mlp import DropPath
from wholereel.models import ClipModel, create_model
from wholereel.models.slow import IMAGE, slow_resnet
from wholereel.models.slowfast import slowfast, unpack
from wholereel.models.weights import load_clip_weights

NETWORKS = {
    "ir_csn_26": lambda **options: create_model("ir_csn_26", **options),
    "r2plus1d_18_vmz": lambda **options: create_model("r2plus1d_18_vmz", **options),
    "corrnet_26": lambda **options: create_model("corrnet_26", frames=4, kernel=3, dropout=0.0, **options),
    "i3d_26": lambda **options: slow_resnet("i3d", 26, 4, 8, dropout=0.0, non_local={"res3": (0,)}, **options),
    "slowfast_26": lambda **options: slowfast(26, 4, 4, 5, dropout=0.0, **options),
}


def clips(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointed_stages_give_the_same_gradients_and_statistics(name: str) -> None:
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model: ClipModel = NETWORKS[name](num_classes=5, width=8).double().train()
        model.checkpoint_stages(checkpointed)
        runs = 0

        def count(*_: object) -> None:
            nonlocal runs
            runs += 1

        first = next(
            module
            for key, module in model.named_modules()
            if (key.count(".") > 1 and key.endswith("conv2.0")) or key.endswith("blocks.0")
        )
        first.register_forward_hook(count)
        loss = F.cross_entropy(model(clips(2, 3, 4, 33, 36).double()), torch.tensor([1, 3]))
        loss.backward()
        assert runs == 1 + checkpointed
        state = {key: value.clone() for key, value in model.named_buffers()}
        found.append({"loss": loss.detach(), **{key: p.grad for key, p in model.named_parameters()}, **state})
    for key, value in found[0].items():
        torch.testing.assert_close(
            found[1][key], value, rtol=1e-9, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_checkpointed_is_an_option_and_names_stages() -> None:
    model = create_model("ir_csn_26", width=8, checkpointed=["layer2"])
    assert [stage.checkpointed for name, stage in model.stages.items() if name != "stem"] == [False, True, False, False]
    with pytest.raises(
        ConfigError, match="option checkpointed: ChannelSeparated can checkpoint layer1, layer2, layer3, "
    ):
        create_model("ir_csn_26", width=8, checkpointed=["stem"])
    with pytest.raises(ConfigError, match="Tiny can checkpoint no stage"):
        create_model("tiny2d", checkpointed=True)


def test_stochastic_depth_grows_from_zero_in_each_pathway() -> None:
    model = slowfast(26, 4, 4, 5, width=8)
    model.set_stochastic_depth(0.7)
    rates = {name: module.probability for name, module in model.named_modules() if isinstance(module, DropPath)}
    for pathway in (0, 1):
        mine = [rate for name, rate in rates.items() if f"pathways.{pathway}." in name]
        assert mine == pytest.approx([0.1 * index for index in range(8)])
    with pytest.raises(ConfigError, match=r"option stochastic_depth: stochastic depth needs a rate in \[0, 1\)"):
        create_model("ir_csn_26", width=8, stochastic_depth=1.0)


def test_dropped_branches_leave_the_shortcut_and_nothing_in_evaluation() -> None:
    torch.manual_seed(0)
    model = create_model("ir_csn_26", num_classes=5, width=8, stochastic_depth=0.5)
    plain = create_model("ir_csn_26", num_classes=5, width=8)
    plain.load_state_dict(model.state_dict())
    x = clips(4, 3, 4, 24, 24)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), plain.eval()(x))
    block = model.get_submodule("layer1.1")
    block.drop_path.probability = 1 - 1e-12
    block.train()
    features = clips(2, 8, 4, 6, 6).relu()
    torch.testing.assert_close(block(features), features)


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = torchvision.models.resnet50(num_classes=11).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
    path = tmp_path_factory.mktemp("image") / "resnet50.pth"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("name", ["i3d_50", "slow_8x8_50"])
def test_a_video_of_one_picture_gives_the_image_networks_activations(
    name: str, resnet50: tuple[nn.Module, Path]
) -> None:
    image, path = resnet50
    model = create_model(name, num_classes=5, weights=f"image:{path}").eval()
    picture = clips(1, 3, 32, 32)
    frames = 33 if name == "i3d_50" else 19  # kernels in time see so far to both sides, padded with zeros
    with torch.no_grad():
        features = image.layer1(image.maxpool(image.relu(image.bn1(image.conv1(picture)))))
        expected = image.layer4(image.layer3(image.layer2(features)))
        found = model.forward_features(picture[:, :, None].expand(-1, -1, frames, -1, -1))
    middle = found[:, :, found.shape[2] // 2]
    torch.testing.assert_close(middle, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def image_of(model: ClipModel) -> dict[str, Tensor]:
    """A C2D network's weights as those of the image network that it is, under torchvision's names."""
    return {IMAGE.key(key): value[:, :, 0] if value.ndim == 5 else value for key, value in model.state_dict().items()}


@pytest.mark.parametrize("beta", [4, 1])
def test_pathways_of_slowfast_are_inflated_where_they_are_as_wide_as_the_image_network(
    beta: int, tmp_path: Path
) -> None:
    """The slow one is told nothing at first; the fast one is mostly too thin for it."""
    torch.manual_seed(0)
    image = slow_resnet("c2d", 26, 4, 8, num_classes=11, width=8, zero_init=False).eval()
    for name, buffer in image.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.1)
    torch.save(image_of(image), tmp_path / "image.pth")
    model = slowfast(26, 32, 2, 5, num_classes=5, width=8, beta=beta, non_local={"res3": (0,)}).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_clip_weights(model, f"image:{tmp_path / 'image.pth'}")
    picture = clips(1, 3, 32, 32)
    with torch.no_grad():
        expected = image.forward_features(picture[:, :, None].expand(-1, -1, 4, -1, -1))[:, :, 0]
        packed = model.forward_features(picture[:, :, None].expand(-1, -1, 36, -1, -1))
    slow, fast = unpack(packed, 2, 256 // beta)
    limit = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(slow[:, :, slow.shape[2] // 2], expected, rtol=0, atol=limit)
    if beta == 1:
        torch.testing.assert_close(fast[:, :, fast.shape[2] // 2], expected, rtol=0, atol=limit)
    fresh = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    thin = {key for key in before if ".pathways.1." in key} if beta > 1 else set()
    beside = {key for key in before if ".fusion." in key or ".inserted." in key or key.startswith("fc.")}
    assert set(report.missing) == thin | beside <= fresh
    assert set(report.unused) == {"fc.weight", "fc.bias"}
    grey = {
        key: value.mean(1, keepdim=True) if key == "conv1.weight" else value for key, value in image_of(image).items()
    }
    torch.save(grey, tmp_path / "grey.pth")
    with pytest.raises(CheckpointError, match=r"1 keys of another shape: stem.pathways.0.conv.weight"):
        load_clip_weights(model, f"image:{tmp_path / 'grey.pth'}")


def test_image_weights_of_another_network_are_refused(resnet50: tuple[nn.Module, Path]) -> None:
    _, path = resnet50
    with pytest.raises(CheckpointError, match="VideoResNet cannot be inflated"):
        create_model("r2plus1d_18", weights=f"image:{path}")
    with pytest.raises(CheckpointError, match="keys"):
        create_model("i3d_101", weights=f"image:{path}")


@pytest.mark.exports
def test_checkpointed_stages_can_be_compiled() -> None:
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = slow_resnet("slow", 26, 4, 8, num_classes=5, width=8, dropout=0.0).double().train()
        model.checkpoint_stages(["res3"] if checkpointed else False)
        run = torch.compile(model, backend="aot_eager", fullgraph=True) if checkpointed else model
        F.cross_entropy(run(clips(2, 3, 4, 24, 24).double()), torch.tensor([0, 1])).backward()
        found.append([*(p.grad for p in model.parameters()), *model.buffers()])
    for value, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def test_networks_begin_as_a_code_base_draws_them() -> None:
    torch.manual_seed(0)
    for beginning, spread, at_zero in (("caffe2", 64**-0.5, 0), ("torchvision", 0.01, 0), ("slowfast", 0.01, 1)):
        for name in ("ir_csn_26", "r2plus1d_18_vmz", "i3d_nl_50"):
            model = create_model(name, num_classes=50, width=8, init=beginning)
            zeros = [
                key for key, norm in model.named_modules() if isinstance(norm, nn.BatchNorm3d) and not norm.weight.any()
            ]
            branches = sum(hasattr(module, "last_norm") for module in model.modules())
            assert len(zeros) == branches * at_zero, (name, beginning)
            assert not at_zero or all(key.endswith((".1", ".norm_c", ".norm")) for key in zeros)
        classifier = create_model("ir_csn_26", num_classes=200, width=8, init=beginning).fc
        assert classifier.weight.std().item() == pytest.approx(spread, rel=0.05)
        assert not classifier.bias.any()
    kernel = create_model("ir_csn_26", width=8, init="caffe2").layer4[0].conv1[0].weight  # 64 filters of 32 inputs
    assert kernel.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    with pytest.raises(ConfigError, match="there is no beginning 'keras'; there are caffe2, torchvision, slowfast"):
        create_model("ir_csn_26", width=8, init="keras")
    with pytest.raises(ConfigError, match="option init: MViT has no residual blocks of convolutions"):
        create_model("mvit_tiny", init="caffe2")
