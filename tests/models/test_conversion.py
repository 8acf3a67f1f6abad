"""Clip level to video level and back, over the whole registry: equal logits at the start, and a report of the keys."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.memory.state import CollaborativeState
from wholereel.models import VideoModel, create_model, list_models, to_clip_level, to_video_level
from wholereel.models.mvit import MViT
from wholereel.models.mvit_config import tiny_config
from wholereel.models.registry import MODELS
from wholereel.models.slowfast import SlowFast, unpack

# The deepest differ from others of their architecture in nothing but the number of blocks.
NAMES = [
    pytest.param(name, marks=pytest.mark.effects if name.endswith(("_101", "_152", "_34", "_l")) else ())
    for name in [*list_models(kind="clip"), *list_models(kind="tokens")]
]
# One of each architecture, in numbers; the others differ in depth.
COMPUTED = (
    "c2d_50", "corrnet_26", "i3d_nl_50", "ip_csn_26", "ir_csn_26", "mc3_18", "mvit_tiny", "r2d_ptv_26", "r2plus1d_18",
    "r2plus1d_ptv_26", "r3d_18", "resnet3d_26", "slow_8x8_50", "slowfast_8x8_50", "slowfast_nl_4x16_50", "tiny2d",
    "tiny2d_peak", "tiny_corrnet", "tiny_r2d", "tiny_r2plus1d", "tiny_r3d",
)  # fmt: skip
KEYS = tuple(f"memories.last.{name}.weight" for name in ("w_k", "w_q", "w_o"))


def make(name: str) -> VideoModel:
    narrow = {"width": 16} if "width" in inspect.signature(MODELS[name].build).parameters else {}
    narrow = {"width": 24} if name.startswith("mvit") else narrow
    return VideoModel(create_model(name, num_classes=4, **narrow)).eval()


def clips(name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    size = (3, 8, 32, 32) if name.startswith(("slowfast", "mvit")) else (3, 4, 17, 16)
    return torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def shake(model: VideoModel) -> None:
    """Weights of memories that say something, whatever other tests have drawn before."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.memories.parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_takes_a_memory_and_gives_it_back(name: str) -> None:
    with torch.device("meta"):
        clip_level = VideoModel(create_model(name, num_classes=4))
    video_level, report = to_video_level(clip_level, config.Memory())
    classifier = f"clip_model.{clip_level.clip_model.classifier}.weight"
    assert (report.missing, report.rescaled, report.not_rescaled) == (KEYS, (classifier,), ())
    assert video_level.blocks()[0][1].dim == clip_level.clip_model.num_features
    back, dropped = to_clip_level(video_level)
    assert (dropped.unused, dropped.rescaled) == (KEYS, (classifier,))
    assert back.state_dict().keys() == clip_level.state_dict().keys()
    stages = list(clip_level.clip_model.stages)
    everywhere, report = to_video_level(clip_level, config.Memory(after=(*stages[:-1], "last")))
    assert everywhere.places == (*stages[:-1], "last")
    assert len(report.missing) == 3 * len(stages)


@pytest.mark.parametrize("name", COMPUTED)
def test_logits_are_equal_at_the_start_and_after_the_way_back(name: str) -> None:
    clip_level, x = make(name), clips(name)
    with torch.no_grad():
        logits, _ = clip_level(x)
        torch.testing.assert_close(clip_level.clip_model(x[:, 1]), logits[:, 1], rtol=1e-5, atol=1e-6)
        video_level, _ = to_video_level(clip_level, config.Memory())
        torch.testing.assert_close(video_level(x)[0], logits, rtol=1e-6, atol=1e-6)
        back, _ = to_clip_level(video_level)
        torch.testing.assert_close(back(x)[0], logits, rtol=1e-6, atol=1e-6)
        stages = list(clip_level.clip_model.stages)
        memory = config.Memory(after=(*stages[:-1], "last"), infusion="residual")
        everywhere, _ = to_video_level(clip_level, memory)
        torch.testing.assert_close(everywhere(x)[0], logits, rtol=1e-6, atol=1e-6)
        shake(everywhere)
        assert (everywhere(x)[0] - logits).abs().max() > 0.02 * logits.abs().max()


@pytest.mark.parametrize("pathway", ["concat", "slow"])
@pytest.mark.parametrize("infusion", ["gate", "residual"])
def test_two_pathways_share_one_memory(pathway: str, infusion: str) -> None:
    """By hand, from the pathways' own maps: slow channels and the means of the fast ones."""
    model, x = make("slowfast_4x16_50").double(), clips("slowfast_4x16_50", torch.float64)
    network = model.clip_model
    assert isinstance(network, SlowFast)
    video_level, _ = to_video_level(model, config.Memory(pathway=pathway, infusion=infusion, rescale_head=False))
    shake(video_level)
    block = video_level.blocks()[0][1]
    slow = 32 * 16
    assert block.dim == (slow + slow // 8 if pathway == "concat" else slow)
    maps = [unpack(network.forward_features(x[:, n]), network.alpha, network.fast_channels) for n in range(2)]
    joined = [torch.cat([a, b.unflatten(2, (-1, network.alpha)).mean(3)], 1) for a, b in maps]
    seen = torch.stack(joined if pathway == "concat" else [a for a, _ in maps], 1)
    state = block.push(seen)
    popped = block.pop(state, seen).mean(2)
    change = block.w_o(popped)
    change = change.sigmoid() if infusion == "gate" else change
    change = nn.functional.pad(change, (0, slow + slow // 8 - block.dim))
    pooled = torch.stack([each.mean((2, 3, 4)) for each in joined], 1)
    expected = network.fc(pooled * (1 + change) if infusion == "gate" else pooled + change)
    torch.testing.assert_close(video_level(x)[0], expected, rtol=1e-9, atol=1e-12)
    assert isinstance(state, CollaborativeState)


@pytest.mark.parametrize("pathway", ["concat", "slow"])
def test_a_gate_on_packed_maps_is_the_gate_on_pathways(pathway: str) -> None:
    """Behind an inner stage every frame of the fast pathway is changed like its channel."""
    model, x = make("slowfast_8x8_50").double(), clips("slowfast_8x8_50", torch.float64)
    video_level, _ = to_video_level(model, config.Memory(after=("res3",), pathway=pathway))
    shake(video_level)
    network, block, view = model.clip_model, video_level.blocks()[0][1], video_level.view("res3")
    packed = video_level.run_segment(0, x[:, 0])[:, None]
    memory = video_level.push_at(0, packed)
    infused = video_level.infuse_at(0, packed, memory)
    gate = block.w_o(block.pop_pooled(memory, view.seen(packed))).sigmoid()[0, 0]
    wide, thin = 8 * 16, 16  # res3
    slow, fast = unpack(packed[:, 0], network.alpha, thin)
    new_slow, new_fast = unpack(infused[:, 0], network.alpha, thin)
    torch.testing.assert_close(new_slow, slow * (1 + gate[:wide, None, None, None]))
    factor = 1 + gate[wide:, None, None, None] if pathway == "concat" else 1.0
    torch.testing.assert_close(new_fast, fast * factor)
    with pytest.raises(ValueError, match="pathway must be one of concat, slow; got 'fast'"):
        network.memory_view("res3", "fast")


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("infusion", ["gate", "residual"])
def test_tokens_push_and_the_class_token_is_judged(class_token: bool, infusion: str) -> None:
    """By hand, from tokens: those of the clip push; what the head reads is gated by them, or asks itself."""
    torch.manual_seed(0)
    network = MViT(replace(tiny_config(), class_token=class_token), num_classes=4).double().eval()
    model = VideoModel(network, config.Memory(infusion=infusion, value="separate")).double().eval()
    shake(model)
    block, x = model.blocks()[0][1], clips("mvit_tiny", torch.float64)
    tokens = [network.forward_features(x[:, n]) for n in range(2)]
    own = torch.stack([each[:, int(class_token) :] for each in tokens], 1)
    judged = torch.stack([each[:, 0] if class_token else each.mean(1) for each in tokens], 1)
    state = block.push(own.transpose(2, 3)[..., None, None])
    assert isinstance(state, CollaborativeState)
    asks = own.mean(2) if infusion == "gate" else judged
    change = block.w_o(block.w_q(asks) @ state.mean())
    expected = network.head(judged * (1 + change.sigmoid()) if infusion == "gate" else judged + change)
    torch.testing.assert_close(model(x)[0], expected, rtol=1e-9, atol=1e-12)
    maps = model.run_segment(0, x.flatten(0, 1))
    assert maps.shape[2:] == ((5 if class_token else 4), 2, 2)


def test_models_without_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="MeMViT has no stages behind which a memory could stand"):
        VideoModel(create_model("memvit_tiny", num_classes=4))
