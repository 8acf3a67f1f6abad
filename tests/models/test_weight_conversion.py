"""Files in the layouts of public code bases are recognised, loaded, written again; doubtful ones are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from wholereel.cli.main import main
from wholereel.errors import CheckpointError, ConfigError
from wholereel.models import ClipModel, create_model, list_models
from wholereel.models.layouts import OWN, rename
from wholereel.models.weight_conversion import convert_weights, recognise
from wholereel.models.weights import load_clip_weights

# Deeper networks have the same names with more numbers in them.
PUBLISHED = [name for name in list_models(kind="clip") if not name.startswith("tiny") and "_101" not in name]
SMALL = ["slow_8x8_50", "slowfast_nl_4x16_50", "ir_csn_50", "ip_csn_26", "r2plus1d_34", "corrnet_26", "i3d_nl_50"]


def meta(name: str, **options) -> ClipModel:
    with torch.device("meta"):
        return create_model(name, **options)


def random_model(name: str, **options) -> ClipModel:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **({"width": 16} | options)).eval()
    for key, value in model.state_dict().items():
        if key.endswith(("running_mean", "bias")):
            nn.init.normal_(value, std=0.05)
        elif value.ndim == 1 and not key.endswith("running_var"):
            nn.init.uniform_(value, 0.4, 0.6).mul_(0.01 if "inserted" in key else 1.0)
    return model


def in_layout(model: ClipModel, name: str) -> dict[str, Tensor]:
    layout = next(layout for layout in (OWN, *model.layouts()) if layout.name == name)
    state = model.state_dict()
    return {theirs: state[ours] for theirs, ours in rename(state, layout).items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_of_every_layout_are_one_to_one(name: str) -> None:
    model = meta(name)
    own = set(model.state_dict())
    for layout in (OWN, *model.layouts()):
        assert set(rename(own, layout).values()) == own


def test_names_are_those_of_the_public_code() -> None:
    """A sample of each layout, written down from the public code bases' own key lists."""
    expected = {
        ("slowfast_nl_4x16_50", "pyslowfast"): "s3.pathway0_nonlocal1.conv_theta.bias s4_fuse.conv_f2s.weight "
        "s1.pathway1_stem.bn.running_var s5.pathway1_res0.branch1_bn.weight head.projection.weight",
        ("slowfast_nl_4x16_50", "pyslowfast-caffe2"): "t_res4_5_branch2c_bn_subsample_bn_rm t_pool1_subsample_w "
        "nonlocal_conv4_5_theta_w t_res_conv1_bn_riv res4_0_branch2a_bn_s res5_0_branch1_w pred_b t_conv1_w",
        ("slowfast_8x8_50", "pytorchvideo"): "blocks.0.multipathway_fusion.conv_fast_to_slow.weight "
        "blocks.4.multipathway_blocks.1.res_blocks.2.branch2.norm_c.bias blocks.6.proj.bias",
        ("i3d_50", "pytorchvideo"): "blocks.0.conv.weight blocks.5.res_blocks.0.branch1_conv.weight blocks.6.proj.bias",
        ("i3d_50_mmaction2", "mmaction2"): "backbone.conv1.bn.bias backbone.layer4.0.downsample.conv.weight "
        "backbone.layer2.3.conv2.conv.weight cls_head.fc_cls.weight",
        ("ip_csn_50", "mmaction2"): "backbone.layer1.0.conv2.0.bn.bias backbone.layer1.0.conv2.1.bn.running_mean "
        "backbone.layer1.0.conv2.1.conv.weight",
        ("ir_csn_50", "vmz-caffe2"): "comp_15_conv_4_w comp_15_spatbn_3_riv shortcut_projection_13_spatbn_s conv1_w "
        "conv1_spatbn_relu_rm last_out_w",
        ("ip_csn_50", "vmz-caffe2"): "comp_0_conv_2_middle_w comp_0_spatbn_2_middle_s comp_0_conv_3_w",
        ("r2plus1d_34", "vmz-caffe2"): "conv1_middle_spatbn_relu_b comp_15_conv_2_middle_w shortcut_projection_13_w",
        ("corrnet_101", "pytorchvideo"): "blocks.3.corr.11.corr.filter blocks.3.corr.22.expand_norm.weight "
        "blocks.1.res_blocks.0.branch2.conv_b.conv_xy.weight",
    }
    for (name, layout), keys in expected.items():
        assert set(keys.split()) <= set(in_layout(meta(name), layout)), (name, layout)


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_gives_equal_logits(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    x = torch.randn(1, 3, 8, 33, 34)
    for layout in (OWN, *model.layouts()):
        path = tmp_path / f"{layout.name}.pth"
        torch.save(
            {"model_state": {f"module.{key}": value for key, value in in_layout(model, layout.name).items()}}, path
        )
        options = {"bn_eps": layout.settings.get("bn_eps", model.settings["bn_eps"])}
        again = create_model(name, num_classes=5, width=16, weights=f"file:{path}", **options).eval()
        for key, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), (layout.name, key)
        if options["bn_eps"] == model.settings["bn_eps"]:
            with torch.no_grad():
                assert torch.equal(again(x), model(x))


def test_a_file_is_recognised_or_refused() -> None:
    tensors = in_layout(meta("slowfast_4x16_50"), "pyslowfast")
    assert [match.name for match in recognise(tensors)] == ["slowfast_4x16_50"]
    tensors = in_layout(meta("ir_csn_50", bn_eps=1e-5, num_classes=7), "pytorchvideo")
    (match,) = recognise(tensors, list_models("*csn*"))
    assert (match.name, match.layout, match.classes) == ("ir_csn_50", "pytorchvideo", 7)
    assert match.options == {"bn_eps": 1e-5}
    # alpha is 4 or 8, and shapes don't tell
    nl = list_models("slowfast_nl*")
    names = [match.name for match in recognise(in_layout(meta("slowfast_nl_8x8_50"), "pyslowfast"), nl)]
    assert names == ["slowfast_nl_4x16_50", "slowfast_nl_8x8_50"]
    del tensors["blocks.0.conv.weight"]
    assert recognise(tensors, ["ir_csn_50"]) == []


def write(model: ClipModel, layout: str, path: Path) -> Path:
    torch.save(in_layout(model, layout), path)
    return path


def test_convert_writes_a_description_and_mismatches_are_refused(tmp_path: Path) -> None:
    model = random_model("ip_csn_26", width=64, pool1=False)
    source, target = write(model, "wholereel", tmp_path / "in.pth"), tmp_path / "out.safetensors"
    converted = convert_weights(source, target, model="ip_csn_26", options={"pool1": False})
    assert (converted.match.name, converted.match.classes, converted.unused) == ("ip_csn_26", 5, ())
    again = create_model("ip_csn_26", num_classes=5, pool1=False, weights=f"file:{target}")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
    with pytest.raises(CheckpointError, match=r"out.safetensors: .* says pool1=False, expected pool1=True"):
        create_model("ip_csn_26", num_classes=5, weights=f"file:{target}")
    back = tmp_path / "back.safetensors"
    pooled = write(random_model("ip_csn_26", width=64), "mmaction2", tmp_path / "pooled.pth")
    with pytest.raises(CheckpointError, match="networks in the layout mmaction2 have pool1=True, expected pool1=False"):
        convert_weights(pooled, back, model="ip_csn_26", options={"pool1": False})
    written = convert_weights(target, back, layout="mmaction2")
    assert written.match.options == {"pool1": False}
    assert written.unlike == ("pool1=False, not True",)
    # its description knows better than its names
    again = create_model("ip_csn_26", num_classes=5, pool1=False, weights=f"file:{back}")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
    assert convert_weights(back, tmp_path / "own.safetensors").match.options == {"pool1": False}
    with pytest.raises(CheckpointError, match=r"back.safetensors: .* says pool1=False, expected pool1=True"):
        create_model("ip_csn_26", num_classes=5, weights=f"file:{back}")
    with safe_open(back, framework="pt") as file:
        assert "backbone.conv1.conv.weight" in file.keys()  # noqa: SIM118


def test_convert_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.pth"
    torch.save({"conv.weight": torch.zeros(3)}, source)
    assert main(["convert", str(source), str(tmp_path / "out.safetensors"), "--model", "c2d_50"]) == 2
    assert "in.pth: 1 tensors that do not fit the network c2d_50" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"weights are written as \.safetensors"):
        convert_weights(source, tmp_path / "out.pth")
    torch.save(in_layout(random_model("slow_8x8_50", width=64), "pyslowfast"), source)
    assert main(["convert", str(source), str(tmp_path / "out.safetensors")]) == 2
    assert "fit 2 networks: slow_4x16_50 (pyslowfast names); slow_8x8_50" in capsys.readouterr().err
    assert main(["convert", str(source), str(tmp_path / "out.safetensors"), "--model", "slow_8x8_50"]) == 0
    assert "slow_8x8_50 (pyslowfast names), 5 classes" in capsys.readouterr().out


def test_epsilon_of_a_layout_is_not_ignored(tmp_path: Path) -> None:
    path = write(random_model("ir_csn_26"), "pytorchvideo", tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"layout pytorchvideo have bn_eps=1e-05, expected bn_eps=0\.001"):
        create_model("ir_csn_26", num_classes=5, width=16, weights=f"file:{path}")


def blobs_of(model: ClipModel, layout: str) -> dict[str, np.ndarray]:
    named = in_layout(model, layout)
    return {
        key.replace("last_out_", "last_out_L5_"): value.numpy()
        for key, value in named.items()
        if value.is_floating_point()
    }


@pytest.mark.parametrize(
    ("name", "layout"), [("slowfast_nl_4x16_50", "pyslowfast-caffe2"), ("ir_csn_26", "vmz-caffe2")]
)
def test_caffe2_pickles_are_read(name: str, layout: str, tmp_path: Path) -> None:
    model = random_model(name)
    blobs = {**blobs_of(model, layout), "conv1_w_momentum": np.zeros(3, np.float32), "lr": np.float32(0.1)}
    key = next(key for key in blobs if blobs[key].ndim == 1)
    blobs[key] = blobs[key][None]  # as some files have it
    path = tmp_path / "a.pkl"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"blobs": blobs}, protocol))
        again = create_model(name, num_classes=5, width=16)
        assert load_clip_weights(again, f"file:{path}").missing == ()
        for own, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[own], value), own


class Harmful:
    def __reduce__(self):
        return print, ("harm",)


@pytest.mark.parametrize(
    "content", [Harmful(), {"blobs": {"a": Harmful()}}, {"blobs": {"a": [1]}}, [], b"", {"a": {1: 2}}]
)
def test_other_pickles_are_refused_and_run_nothing(
    content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content) if content != b"" else b"no pickle")
    with pytest.raises(CheckpointError, match=r"a\.pkl: "):
        load_clip_weights(create_model("tiny2d"), f"file:{path}")
    assert "harm" not in capsys.readouterr().out


@pytest.mark.parametrize(("name", "layout"), [("mc2_18", "torchvision"), ("ir_csn_26", "vmz")])
def test_names_that_are_also_ours_are_written_under_their_own_name(
    name: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = random_model(name, width=64, bn_eps=1e-4)
    source, target = write(model, "wholereel", tmp_path / "in.pth"), tmp_path / "out.safetensors"
    words = ["convert", str(source), str(target), "--model", name, "--set", "bn_eps=1e-4", "--to", layout]
    assert main(words) == 0
    printed = capsys.readouterr().out
    usual = 1e-5 if layout == "torchvision" else 1e-3
    assert f"mind: other networks with {layout} names differ, this one has bn_eps=0.0001, not {usual}" in printed
    with safe_open(target, framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    again = create_model(name, num_classes=5, bn_eps=1e-4, weights=f"file:{target}")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
