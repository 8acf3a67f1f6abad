"""Files of MViT and MeMViT: recognised with their options, converted both ways, made to fit; licences go along."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from wholereel.cli.main import main
from wholereel.errors import CheckpointError, ConfigError
from wholereel.models import create_model
from wholereel.models.memvit import MeMViT, memvit_config
from wholereel.models.memvit_state import MemoryConfig
from wholereel.models.mvit import MViT
from wholereel.models.mvit_config import tiny_config
from wholereel.models.mvit_keys import export_keys, fit_tensors, split_qkv
from wholereel.models.weight_conversion import convert_weights, recognise
from wholereel.models.weights import METADATA_KEY, load_clip_weights


def described(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


@pytest.mark.parametrize(
    ("layout", "licence"),
    [
        ("pyslowfast", "Apache-2.0"),
        ("torchvision", "BSD-3"),
        ("pytorchvideo", "Apache-2.0"),
        ("memvit", "CC-BY-NC-4.0"),
    ],
)
def test_families_convert_both_ways(
    layout: str, licence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "memvit_tiny" if layout == "memvit" else "mvit_tiny"
    model = create_model(name, num_classes=5)
    theirs, ours, again = tmp_path / "theirs.pyth", tmp_path / "ours.safetensors", tmp_path / "again.safetensors"
    torch.save({"model_state": export_keys(model, layout), "cfg": "MVIT: {}", "epoch": 1}, theirs)
    assert main(["convert", str(theirs), str(ours)]) == 0
    printed = capsys.readouterr().out
    assert f"theirs.pyth: {name} (" in printed
    assert f"licence of the weights: {licence}" in printed
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in load_file(ours).items())
    assert main(["convert", str(ours), str(again), "--to", layout]) == 0
    exported, written = export_keys(model, layout), load_file(again)
    assert set(written) == set(exported)
    assert all(torch.equal(written[key], exported[key]) for key in exported)
    assert described(again)["licence"] == described(ours)["licence"]


SAID = """
MVIT: {DEPTH: 4, MODE: conv, POOL_FIRST: true, CONV_Q: 1, CAUSAL: true, FRAME_LEVEL: false, PATCH_PADDING: [1, 3, 3]}
MEMVIT:
  {ENABLE: true, SAMPLER: gap2, EXCLUDE_LAYERS: [3, 1, 5], COMPRESS: {POOL_KERNEL: [3, 3, 3], POOL_STRIDE: [2, 2, 2]}}
"""


def test_a_file_says_what_its_tensors_do_not_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("memvit_tiny", num_classes=5, gap=2, remember=(0, 2), causal=True)
    theirs, ours = tmp_path / "theirs.pyth", tmp_path / "ours.safetensors"
    content = {"model_state": export_keys(model, "memvit"), "cfg": SAID, "epoch": 1}
    torch.save(content, theirs)
    assert main(["convert", str(theirs), str(ours)]) == 0
    assert "memvit_tiny (wholereel names, gap=2, causal=True, remember=[0, 2])" in capsys.readouterr().out
    options = described(ours)["options"]
    again = create_model("memvit_tiny", num_classes=5, **options)
    assert isinstance(model, MeMViT)
    assert isinstance(again, MeMViT)
    load_clip_weights(again, f"file:{ours}")
    assert (again.memory, again.remembering, again.config) == (model.memory, (0, 2), model.config)
    # What somebody asks for is done; what no option can say is refused, as it would load and compute something else.
    assert convert_weights(theirs, ours, options={"gap": 1, "remember": [0]}).match.options["gap"] == 1
    torch.save({**content, "cfg": SAID.replace("CONV_Q: 1", "CONV_Q: 0").replace("[2, 2, 2]", "[1, 2, 2]")}, theirs)
    found, expected = "MVIT.CONV_Q=0, MEMVIT.COMPRESS.POOL_STRIDE=", "MVIT.CONV_Q=1, MEMVIT.COMPRESS.POOL_STRIDE="
    with pytest.raises(CheckpointError, match=rf"{found}\[1, 2, 2\].*{expected}\[2, 2, 2\]"):
        convert_weights(theirs, ours)
    torch.save(content, theirs, _use_new_zipfile_serialization=False)  # as old PyTorch wrote files
    assert convert_weights(theirs, ours).match.options == options
    torch.save({**content, "cfg": "{["}, theirs)  # no settings that anybody can read
    assert "gap" not in convert_weights(theirs, ours).match.options


def test_pooled_means_and_residuals_of_pyslowfast_are_checked(tmp_path: Path) -> None:
    model = create_model("mvit_tiny", num_classes=5)
    file = tmp_path / "theirs.pyth"
    torch.save({"model_state": export_keys(model, "pyslowfast"), "cfg": "MVIT: {RESIDUAL_POOLING: false}"}, file)
    with pytest.raises(CheckpointError, match=r"MVIT.RESIDUAL_POOLING=False.*MVIT.RESIDUAL_POOLING=True"):
        convert_weights(file, tmp_path / "ours.safetensors")


def test_old_files_with_three_maps_load_and_a_missing_part_is_named(tmp_path: Path) -> None:
    model = create_model("mvit_tiny", num_classes=5)
    apart = split_qkv(model.state_dict())
    torch.save(apart, tmp_path / "old.pyth")
    target = create_model("mvit_tiny", num_classes=5)
    load_clip_weights(target, f"file:{tmp_path / 'old.pyth'}")
    assert all(
        torch.equal(a, b) for a, b in zip(target.state_dict().values(), model.state_dict().values(), strict=True)
    )
    del apart["blocks.1.attn.v.bias"]
    torch.save(apart, tmp_path / "cut.pyth")
    with pytest.raises(CheckpointError, match=r"2 keys left over: blocks.1.attn.k.bias, blocks.1.attn.q.bias"):
        load_clip_weights(target, f"file:{tmp_path / 'cut.pyth'}")


def test_published_variants_are_recognised_from_their_tensors() -> None:
    def tensors(name: str, **options) -> dict[str, Tensor]:
        with torch.device("meta"):
            return create_model(name, **options).state_dict()

    ava = recognise(tensors("memvit_16", num_classes=80, reach=4, boxes=True))
    assert [(m.name, m.options, m.classes) for m in ava] == [("memvit_16", {"boxes": True, "reach": 4}, 80)]
    forgetful = recognise(tensors("memvit_16", num_classes=(97, 300), reach=0))
    assert [(m.options, m.classes) for m in forgetful] == [({"boxes": False, "reach": 0}, (97, 300))]
    old = recognise(split_qkv(tensors("mvitv1_b", frames=16, every_kernel_3=False)), ["mvitv1_b"])
    assert [m.options for m in old] == [{"frames": 16, "every_kernel_3": False}]
    long = recognise(tensors("mvitv1_b", frames=32), ["mvitv1_b", "mvitv2_b"])
    assert [(m.name, m.options) for m in long] == [("mvitv1_b", {"frames": 32, "every_kernel_3": False})]


def test_a_network_without_memory_starts_one_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = create_model("mvit_tiny", num_classes=5, frames=4, width=8)
    torch.save(plain.state_dict(), tmp_path / "plain.pyth")
    out = tmp_path / "start.safetensors"
    words = ["convert", str(tmp_path / "plain.pyth"), str(out), "--fit", "--model", "memvit_tiny"]
    assert main([*words, "--set", "width=8", "crop=64", "reach=3"]) == 0
    printed = capsys.readouterr().out
    assert "resized: blocks.0.attn.rel_pos_h" in printed
    assert "fresh: blocks.0.attn.rel_pos_mem_t" in printed
    assert "licence of the weights: Apache-2.0" in printed
    start = create_model("memvit_tiny", num_classes=5, width=8, crop=64, reach=3, weights=f"file:{out}")
    assert torch.equal(start.blocks[2].attn.v.weight, plain.blocks[2].attn.qkv.weight.chunk(3)[2])
    # More memory, and back to none: tables grow at their end, and what is not needed is left out. The licence stays.
    torch.save(create_model("memvit_tiny", num_classes=5, width=8).state_dict(), tmp_path / "memory.pyth")
    words = ["convert", str(tmp_path / "memory.pyth"), str(out), "--fit", "--model", "memvit_tiny"]
    assert main([*words, "--set", "width=8", "reach=5"]) == 0
    assert "resized: blocks.0.attn.rel_pos_mem_t" in capsys.readouterr().out
    done = convert_weights(
        tmp_path / "memory.pyth", out, model="mvit_tiny", options={"width": 8, "frames": 4}, fit=True
    )
    assert done.licence == described(out)["licence"] == "CC-BY-NC-4.0 (MeMViT)"
    assert any("compress_k" in key for key in done.unused)
    with pytest.raises(ConfigError, match="--fit needs the network"):
        convert_weights(tmp_path / "memory.pyth", out, fit=True)
    with pytest.raises(ConfigError, match="--fit serves MViT and MeMViT, not tiny2d"):
        convert_weights(tmp_path / "memory.pyth", out, model="tiny2d", fit=True)


def test_images_start_videos_and_the_two_ways_over_time() -> None:
    small = replace(tiny_config(4, 32, 8), depth=2, widen=((1, 2.0),), q_strides=((0, 1, 1, 1), (1, 1, 2, 2)))
    flat = {"frames": 1, "patch_2d": True, "patch_kernel": (1, 7, 7), "patch_stride": (1, 4, 4)}
    image = MViT(replace(small, **flat, patch_padding=(0, 3, 3), kernel=(1, 3, 3), absolute="separable"), num_classes=5)
    assert image(torch.randn(2, 3, 1, 32, 32)).shape == (2, 5)
    video = MViT(replace(small, absolute="separable", crop=64), num_classes=5)
    fitted, report = fit_tensors(video, image.state_dict())
    video.load_state_dict(fitted)
    assert torch.equal(video.patch_embed.proj.weight[:, :, 2], image.patch_embed.proj.weight)
    assert torch.equal(video.blocks[0].attn.pool_q.weight[:, :, 1], image.blocks[0].attn.pool_q.weight[:, :, 0])
    assert {"patch_embed.proj.weight", "pos_embed_spatial", "pos_embed_temporal"} <= set(report.resized)
    longer = MViT(replace(small, frames=8, patch_stride=(1, 4, 4)), num_classes=5)
    table = torch.arange(7.0)[:, None].expand(-1, 8)
    source = MViT(small, num_classes=5).state_dict() | {"blocks.0.attn.rel_pos_t": table}
    centred = fit_tensors(longer, source)[0]["blocks.0.attn.rel_pos_t"][:, 0]
    assert torch.equal(centred + centred.flip(0), torch.full((15,), 6.0))
    appended = fit_tensors(longer, source, time="append")[0]["blocks.0.attn.rel_pos_t"][:, 0]
    assert appended.tolist() == [*range(7), *[6] * 8]
    with pytest.raises(ValueError, match="time must be 'centred' or 'append', got 'none'"):
        fit_tensors(longer, source, time="none")


def test_tensors_of_layers_without_memory_survive_a_round_trip() -> None:
    config = replace(memvit_config("16x4"), crop=32, depth=2, widen=((1, 2.0),), q_strides=((0, 1, 1, 1), (1, 1, 2, 2)))
    model = MeMViT(replace(config, embed_dim=8), MemoryConfig(exclude=(1,)), num_classes=5)
    exported = export_keys(model, "memvit")
    assert "blocks.1.attn.compress_k.weight" in exported
    again = MeMViT(replace(config, embed_dim=8), MemoryConfig(exclude=(0,)), num_classes=5)
    again.load_state_dict(exported)
    assert all(torch.equal(value, exported[key]) for key, value in export_keys(again, "memvit").items())
