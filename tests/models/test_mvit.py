"""MViT: sizes and costs of the published networks, torchvision's form of them, other layouts and other sizes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.video import mvit as theirs

from tests.models.counting import multiply_adds
from tests.parity.families import check_file, golden_files
from wholereel.models import create_model, list_models
from wholereel.models.mvit import MViT
from wholereel.models.mvit_config import MvitConfig, block_plans, every_block, tiny_config, v2_config
from wholereel.models.mvit_keys import convert_keys, detect_layout, export_keys, fit_tensors, grown_table
from wholereel.models.weights import load_clip_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "memvit"


@pytest.mark.parametrize("path", golden_files(GOLDEN), ids=lambda path: path.stem)
def test_golden_file_is_matched(path: Path) -> None:
    line = check_file(path)
    assert line.status == "pass", line.text
    assert "not compared" not in line.text


# Parameters and tensors with 400 classes, G multiply-adds of a clip: of the public code.
PUBLISHED = {
    "mvitv1_b": ({}, 36_610_672, 313, 70.80),
    "mvitv1_b 32": ({"frames": 32}, 53_115_280, 439, 236.31),
    "mvitv2_s": ({}, 34_537_744, 397, 64.46),
    "mvitv2_b": ({}, 51_230_128, 589, 225.17),
    "mvitv2_l": ({}, 213_390_112, 1165, 2828),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    options, parameters, tensors, cost = PUBLISHED[name]
    with torch.device("meta"):
        model = create_model(name.split()[0], **options).eval()
        clip = torch.empty(1, 3, model.info.frames, model.info.crop, model.info.crop)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert multiply_adds(model, clip) / 1e9 == pytest.approx(cost, rel=5e-3)


def test_block_plans_follow_the_strides() -> None:
    plans = block_plans(v2_config("16x4"))
    assert [plan.dim_out for plan in plans] == [96, 192, 192] + [384] * 11 + [768] * 2
    assert [plan.heads for plan in plans] == [1, 2, 2] + [4] * 11 + [8] * 2
    assert [plan.stride_kv[1] for plan in plans] == [8, 4, 4] + [2] * 11 + [1] * 2
    assert [plan.grid[1] for plan in plans] == [56, 56, 28, 28] + [14] * 11 + [7]
    explicit = replace(
        v2_config("16x4"), kv_stride=None, kv_strides=tuple((i, *p.stride_kv) for i, p in enumerate(plans))
    )
    assert block_plans(explicit) == plans


def small(version: int) -> tuple[nn.Module, MViT]:
    """torchvision's network and ours with three blocks, for clips of 4 frames of 32 pixels."""
    settings = [
        theirs.MSBlockConfig(heads, dim, dim_out, [3, 3, 3], [3, 3, 3], stride_q, stride_kv)
        for heads, dim, dim_out, stride_q, stride_kv in (
            (1, 8, 8 if version == 2 else 16, [1, 1, 1] if version == 2 else [], [1, 4, 4]),
            (2, 8 if version == 2 else 16, 16, [1, 2, 2], [1, 2, 2]),
            (2, 16, 16, [1, 1, 1] if version == 2 else [], [1, 2, 2]),
        )
    ]
    for block in settings:
        if not block.stride_q:
            block.kernel_q = []
    v2 = version == 2
    model = theirs.MViT(
        spatial_size=(32, 32),
        temporal_size=4,
        block_setting=settings,
        residual_pool=v2,
        residual_with_cls_embed=False,
        rel_pos_embed=v2,
        proj_after_attn=v2,
        num_classes=5,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    config = MvitConfig(
        frames=4,
        crop=32,
        embed_dim=8,
        depth=3,
        widen=((1, 2.0),),
        widen_in_attention=v2,
        q_strides=every_block(3, (1,)) if v2 else ((1, 1, 2, 2),),
        kv_stride=(1, 4, 4),
        absolute="none" if v2 else "separable",
        rel_pos_spatial=v2,
        rel_pos_temporal=v2,
        residual=int(v2),
    )
    return model.eval(), MViT(config, num_classes=5).eval()


def clips(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("version", [1, 2])
def test_torchvision_weights_give_torchvision_logits_and_go_back(version: int) -> None:
    torch.manual_seed(0)
    reference, ours = small(version)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.2)
    weights = reference.state_dict()
    assert detect_layout(weights) == "torchvision"
    ours.load_state_dict(convert_keys(ours, weights))
    x = clips(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-4, atol=1e-5)
    back = export_keys(ours, "torchvision")
    assert {key: tuple(value.shape) for key, value in back.items()} == {k: tuple(v.shape) for k, v in weights.items()}
    assert all(torch.equal(back[key], weights[key]) for key in weights)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("layout", ["pyslowfast", "torchvision", "pytorchvideo"])
def test_layouts_round_trip(layout: str, version: int) -> None:
    _, model = small(version)
    exported = export_keys(model, layout)
    assert detect_layout(exported) == layout
    if layout == "pytorchvideo":
        assert "blocks.0.attn.q.weight" in exported
        assert "cls_positional_encoding.cls_token" in exported
        exported["blocks.0.attn._attention_pool_q.pool.weight"] = torch.zeros(1)
    back = convert_keys(model, exported)
    own = model.state_dict()
    assert set(back) == set(own)
    assert all(torch.equal(back[key], own[key]) for key in own)
    with pytest.raises(ValueError, match="layout 'memvit' is not that of a network with pool_first=False"):
        export_keys(model, "memvit")
    with pytest.raises(ValueError, match="layout must be one of pyslowfast, memvit, torchvision, pytorchvideo"):
        export_keys(model, "caffe2")


def test_files_of_other_layouts_load_by_name(tmp_path: Path) -> None:
    reference, ours = small(1)
    torch.save({"model": reference.state_dict()}, tmp_path / "torchvision.pth")
    load_clip_weights(ours, f"file:{tmp_path / 'torchvision.pth'}")
    assert torch.equal(ours.blocks[2].attn.pool_k.weight, reference.blocks[2].attn.pool_k.pool.weight)
    assert torch.equal(ours.cls_token[0, 0], reference.pos_encoding.class_token)
    apart = MViT(replace(ours.config, separate_qkv=True), num_classes=5).eval()
    torch.save(export_keys(ours, "pytorchvideo"), tmp_path / "pytorchvideo.pth")
    load_clip_weights(apart, f"file:{tmp_path / 'pytorchvideo.pth'}")
    x = clips(1, 3, 4, 32, 32)
    torch.testing.assert_close(apart(x), ours(x), rtol=1e-5, atol=1e-6)
    source = create_model("memvit_tiny", num_classes=5, width=8)
    torch.save({"model_state": source.state_dict(), "epoch": 3, "cfg": "MVIT: {}"}, tmp_path / "memvit.pyth")
    target = create_model("memvit_tiny", num_classes=4, width=8, weights=f"file:{tmp_path / 'memvit.pyth'}")
    assert torch.equal(target.blocks[1].attn.compress_k.weight, source.blocks[1].attn.compress_k.weight)


def test_weights_of_another_size_are_fitted() -> None:
    source = create_model("memvit_tiny", num_classes=5, width=8, crop=32)
    target = create_model("memvit_tiny", num_classes=5, width=8, crop=64, reach=4)
    fitted, report = fit_tensors(target, source.state_dict())
    target.load_state_dict(fitted)
    assert torch.equal(target.blocks[0].attn.rel_pos_mem_t[:11], source.blocks[0].attn.rel_pos_mem_t)
    assert torch.equal(target.blocks[0].attn.rel_pos_mem_t[11:], source.blocks[0].attn.rel_pos_mem_t[-1:].expand(8, -1))
    assert "blocks.0.attn.rel_pos_h" in report.resized
    assert report.dropped == report.fresh == ()
    plain = create_model("mvit_tiny", num_classes=5, width=8, frames=4)
    fitted, report = fit_tensors(source, plain.state_dict())
    assert {key.split(".")[-1] for key in report.fresh if "rel_pos" in key} == {f"rel_pos_mem_{axis}" for axis in "hwt"}
    keys = plain.blocks[0].attn.qkv.weight.chunk(3)[1]
    assert torch.equal(fitted["blocks.0.attn.k.weight"], keys)
    fitted, report = fit_tensors(plain, source.state_dict())
    assert all(".rel_pos_mem_" in key or "compress_" in key for key in report.dropped)
    assert torch.equal(fitted["blocks.1.attn.qkv.bias"].chunk(3)[2], source.blocks[1].attn.v.bias)
    assert torch.equal(grown_table(torch.arange(4.0)[:, None], 2)[:, 0], torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("name", [*list_models("*tiny", kind="tokens"), *list_models("*tiny", kind="memory")])
def test_other_clip_sizes_and_heads(name: str) -> None:
    model = create_model(name, num_classes=5, width=8, in_channels=2, dropout=0.25).eval()
    memory = name.startswith("memvit")
    frames = model.config.frames
    for size in ((32, 32), (32, 56), (56, 32)):
        clip = clips(2, 2, frames, *size)
        out = model(clip, model.init_state(2, size=size))[0] if memory else model(clip)
        assert out.shape == (2, 5)
        assert out.isfinite().all()
    model.reset_classifier(0)
    clip = clips(1, 2, frames, 32, 32)
    out = model(clip, model.init_state(1))[0] if memory else model(clip)
    assert out.shape == (1, model.num_features)
    model.reset_classifier((3, 4))
    out = model(clip, model.init_state(1))[0] if memory else model(clip)
    assert [tuple(part.shape) for part in out] == [(1, 3), (1, 4)]
    with pytest.raises(ValueError, match=r"num_classes >= 0 and dropout in \[0, 1\)"):
        model.reset_classifier(-1)


@pytest.mark.parametrize("options", [{}, {"absolute": "joint", "norm_stem": True}, {"absolute": "separable"}])
@pytest.mark.parametrize("head", [{}, {"class_token": False}, {"mean_first": True}, {"frame_level": True}])
def test_every_parameter_gets_a_gradient(options: dict, head: dict) -> None:
    torch.manual_seed(0)
    config = replace(tiny_config(8, 32, 8), drop_path=0.05, dropout=0.1, attention_dropout=0.1, **options, **head)
    model = MViT(config, num_classes=5).train()
    out = model(clips(3, 3, 8, 32, 32))
    assert out.shape == ((3, 4, 5) if config.frame_level else (3, 5))
    out.square().sum().backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # Only the class token is read behind the last block: what its other queries need has a gradient of zero there.
    grid_only = {f"blocks.3.attn.{part}" for part in ("pool_q.weight", "rel_pos_h", "rel_pos_w", "rel_pos_t")}
    assert unused == (set() if head else grid_only)
    assert {name for name in model.no_weight_decay() if name.startswith("blocks.0.")} == {
        f"blocks.0.attn.rel_pos_{axis}" for axis in "hwt"
    }


def test_absolute_positions_are_interpolated() -> None:
    model = MViT(replace(tiny_config(8, 32, 8), absolute="separable"), num_classes=5).eval()
    assert model(clips(1, 3, 12, 48, 40)).shape == (1, 5)
    with pytest.raises(ValueError, match="frames must be 16 or 32, got 8"):
        create_model("mvitv1_b", frames=8)
