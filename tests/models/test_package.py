"""Weight files and model packages: what fits loads, what does not says which keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wholereel import config
from wholereel.errors import CheckpointError, ConfigError, MissingExtraError
from wholereel.models import (
    Package,
    VideoModel,
    build_model,
    build_model_with_report,
    create_model,
    list_models,
    load_package,
    save_package,
)

INPUT = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "short_side": 40,
    "crop": 32,
    "clips": config.Clips(count=3, frames=4, frame_rate=8.0),
}
SPEC = config.Model("tiny2d", options={"width": 8})
WITH_MEMORY = config.Model("tiny2d", options={"width": 8}, memory=config.Memory(after=("layer1", "last")))


def save(directory: Path, spec: config.Model, model: VideoModel | None = None, **extra: Any) -> VideoModel:
    model = build_model(spec, 4) if model is None else model
    task = config.Task(aggregate="prob", dropout=0.5)
    save_package(
        directory, model, spec=spec, num_classes=4, classes=("a", "b", "c", "d"), task=task, input=INPUT, extra=extra
    )
    return model


# One of each architecture file's layouts: the files of the deep ones are big, and the code does not know them.
@pytest.mark.parametrize("name", [*list_models("tiny*"), "mc3_18"])
@pytest.mark.parametrize("memory", [None, config.Memory(value="separate", dim=4, value_dim=3)])
def test_round_trip(tmp_path: Path, name: str, memory: config.Memory | None) -> None:
    spec = config.Model(name, memory=memory)
    model = save(tmp_path / "best", spec, note="run 7").eval()
    package = load_package(tmp_path / "best")
    assert (package.spec, package.classes, package.clips) == (spec, ("a", "b", "c", "d"), INPUT["clips"])
    assert package.task == config.Task(aggregate="prob", dropout=0.5)
    assert (package.mean, package.std) == (INPUT["mean"], INPUT["std"])
    assert (package.short_side, package.crop, package.extra) == (40, 32, {"note": "run 7"})
    own, loaded = model.state_dict(), package.model.state_dict()
    assert own.keys() == loaded.keys()
    assert all(torch.equal(own[key], loaded[key]) for key in own)
    assert not package.model.training


def test_saving_again_replaces_and_leaves_no_parts(tmp_path: Path) -> None:
    save(tmp_path, SPEC)
    model = save(tmp_path, SPEC)
    assert torch.equal(load_package(tmp_path).model.clip_model.fc.weight, model.clip_model.fc.weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "model.json").read_text())["model"]["name"] == "tiny2d"


def test_packages_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must agree"):
        save(tmp_path, WITH_MEMORY, build_model(SPEC, 4))
    with pytest.raises(CheckpointError, match=r"there is no model\.safetensors in it"):
        load_package(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="weights without a description"):
        load_package(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"wholereel": '{"format": 99}'})
    with pytest.raises(CheckpointError, match="package format 99"):
        load_package(tmp_path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_bare_files_load_with_wrappers_and_prefixes(tmp_path: Path, suffix: str) -> None:
    model = create_model("tiny2d", num_classes=4, width=8)
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"model_state": {f"module.{key}": value for key, value in model.state_dict().items()}}, file)
    else:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
    loaded, report = build_model_with_report(config.Model("tiny2d", f"file:{file}", {"width": 8}), 4)
    assert str(report) == "all keys used as they are"
    assert all(torch.equal(loaded.clip_model.state_dict()[key], value) for key, value in model.state_dict().items())


def test_another_number_of_classes_gets_a_fresh_head(tmp_path: Path) -> None:
    trained = save(tmp_path, SPEC)
    model, report = build_model_with_report(config.Model("tiny2d", f"file:{tmp_path}", {"width": 8}), 9)
    assert report.missing == report.unused == ("fc.bias", "fc.weight")
    assert model.num_classes == 9
    assert torch.equal(model.clip_model.stem.conv.weight, trained.clip_model.stem.conv.weight)


def test_a_clip_level_package_becomes_a_video_level_model_and_back(tmp_path: Path) -> None:
    clip_level = save(tmp_path / "clip", SPEC).eval()
    x = torch.randn(1, 2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    memory = config.Memory()
    spec = config.Model("tiny2d", f"file:{tmp_path / 'clip'}", {"width": 8}, memory)
    video_level, report = build_model_with_report(spec, 4)
    assert report.rescaled == ("clip_model.fc.weight",)
    torch.testing.assert_close(video_level.eval()(x)[0], clip_level(x)[0], rtol=1e-6, atol=1e-6)
    nn.init.normal_(video_level.memories["last"].w_o.weight)
    save(tmp_path / "video", spec, video_level)
    again = build_model(config.Model("tiny2d", f"file:{tmp_path / 'video'}", {"width": 8}, memory), 4)
    assert torch.equal(again.eval()(x)[0], video_level(x)[0])
    back, dropped = build_model_with_report(config.Model("tiny2d", f"file:{tmp_path / 'video'}", {"width": 8}), 4)
    assert dropped.unused == tuple(f"memories.last.{key}.weight" for key in ("w_k", "w_q", "w_o"))
    torch.testing.assert_close(back.eval()(x)[0], clip_level(x)[0], rtol=1e-6, atol=1e-6)


def test_weights_that_do_not_fit_say_which_keys(tmp_path: Path) -> None:
    save(tmp_path / "clip", SPEC)
    save(tmp_path / "video", WITH_MEMORY)
    with pytest.raises(
        CheckpointError, match=r"100 keys missing: layer1\.0\.conv1\.0\.weight.*12 keys left over: layer1\.conv"
    ):
        build_model(config.Model("mc3_18", f"file:{tmp_path / 'clip'}"), 4)
    with pytest.raises(CheckpointError, match=r"of another shape: fc\.weight \(4, 32\) instead of \(4, 96\)"):
        build_model(config.Model("tiny2d", f"file:{tmp_path / 'clip'}"), 4)
    with pytest.raises(CheckpointError, match="holds Memory"):
        build_model(config.Model("tiny2d", f"file:{tmp_path / 'video'}", {"width": 8}, config.Memory()), 4)
    with pytest.raises(CheckpointError, match="holds a model with memory"):
        create_model("tiny2d", num_classes=4, width=8, weights=f"file:{tmp_path / 'video'}")


def test_files_that_are_no_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: str) -> None:
        build_model(config.Model("tiny2d", source), 4)

    with pytest.raises(CheckpointError, match="there is no such file"):
        load(f"file:{tmp_path / 'absent.pth'}")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load(f"file:{tmp_path / 'text.pth'}")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load(f"file:{tmp_path / 'text.safetensors'}")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="something else than tensors by name"):
        load(f"file:{tmp_path / 'other.pth'}")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")  # a pickle of code is never executed
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load(f"file:{tmp_path / 'module.pth'}")
    with pytest.raises(ConfigError, match="weights must be 'file:PATH' or 'hub:OWNER/NAME', got 'stage:clip'"):
        load("stage:clip")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"wholereel\[hub\]"):
        load("hub:someone/model")


def test_settings_that_do_not_fit_the_model_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="may name each of stem"):
        build_model(config.Model("tiny2d", memory=config.Memory(after=("res5",))), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "width must be a multiple of 8, got 7"),
        ({"norm": "x"}, "norm must be 'group' or 'batch', got 'x'"),
        ({"width": "a"}, "'<' not supported"),
    ],
)
def test_options_that_the_builder_cannot_use_are_the_setting_s_fault(options, message):
    with pytest.raises(ConfigError, match=f"model 'tiny2d' with options {{.*}}: {message}"):
        build_model(config.Model("tiny2d", options=options), 3)


@pytest.mark.parametrize(
    "spec",
    [
        config.Model("tiny_r2plus1d", options={"width": 8, "norm": "batch"}, memory=config.Memory(dim=8)),
        config.Model(
            "tiny_r2plus1d", options={"width": 8, "norm": "batch"}, memory=config.Memory(after=("layer1",), dim=8)
        ),
        config.Model("tiny_r2plus1d", options={"width": 8, "norm": "batch"}, boxes=config.BoxHead()),
    ],
    ids=["memory", "inner memory", "boxes"],
)
def test_a_folded_package_says_the_same_and_the_package_stays_as_it_is(spec: config.Model) -> None:
    torch.manual_seed(0)
    model = build_model(spec, 4).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    clips = config.Clips(count=3, frames=4, frame_rate=8.0)
    given = Package(model, spec, tuple("abcd"), config.Task(), clips, 40, 0, (0.5,) * 3, (0.25,) * 3, {})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = given.folded().model
    boxes = {} if spec.boxes is None else {"boxes_R5": torch.tensor([[0.0, 1, 1, 30, 30], [1.0, 5, 5, 20, 30]])}
    x = torch.randn(1, 3, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(folded(x, **boxes)[0], model(x, **boxes)[0], rtol=1e-4, atol=1e-5)
    norms = (nn.BatchNorm2d, nn.BatchNorm3d)
    assert not any(isinstance(module, norms) for module in folded.modules())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_package_without_norms_is_not_folded() -> None:
    spec = config.Model("memvit_tiny", options={"frames": 4, "crop": 32})
    clips = config.Clips(frames=4)
    given = Package(
        build_model(spec, 4), spec, tuple("abcd"), config.Task(), clips, 40, 32, (0.5,) * 3, (0.25,) * 3, {}
    )
    with pytest.raises(ConfigError, match="MeMViT has no BatchNorm"):
        given.folded()
