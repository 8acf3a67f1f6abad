"""The promises of clip models, over the whole registry."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
import torchvision
from torch import Tensor, nn

from wholereel import config
from wholereel.errors import ConfigError
from wholereel.models import MODELS, ClipModel, VideoModel, create_model, list_models

ALL = list_models(kind="clip")
# Deeper networks are the same code with more blocks; tests/models/test_cost.py counts them on meta tensors.
NAMES = [name for name in ALL if not re.search(r"_(101|152)(_|$)", name)]
# Narrow enough to be quick; the sizes are odd on purpose.
SHAPE = (3, 5, 19, 21)


def make(name: str, **options) -> ClipModel:
    """Narrow where the builder has a width, as quickness matters here and numbers do not."""
    if "width" in inspect.signature(MODELS[name].build).parameters:
        options = {"width": 16} | options
    return create_model(name, num_classes=7, **options)


def clips(batch: int = 2, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_and_stages_are_the_model(name: str) -> None:
    # On a map of one position a norm takes away the bias that a depthwise convolution hands on.
    shape = (3, 9, 35, 37) if name.startswith("ip_csn") else SHAPE
    model = make(name).train()
    for module in model.modules():  # a scale that begins at zero lets no gradient through
        if isinstance(module, nn.BatchNorm3d) and not module.weight.any():
            nn.init.constant_(module.weight, 0.1)
    logits = model(clips(shape=shape))
    assert logits.shape == (2, 7)
    (logits * clips(shape=(7,))).sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []
    model.eval()
    x = clips(shape=shape)
    assert [info["name"] for info in model.feature_info] == list(model.stages)
    for info, stage in zip(model.feature_info, model.stages.values(), strict=True):
        x = stage(x)
        assert x.shape[1] == info["channels"]
        # strided convolutions round up, poolings of two frames down
        for size, step, left in zip(shape[1:], info["reduction"], x.shape[2:], strict=True):
            assert left in (-(-size // step), max(size // step, 1))
    assert torch.equal(model.forward_head(x), model(clips(shape=shape)))
    assert torch.equal(model.forward_features(clips(shape=shape)), x)
    assert model.forward_head(x, pre_logits=True).shape == (2, model.num_features)


@pytest.mark.parametrize("name", NAMES)
def test_head_off_and_on_again(name: str) -> None:
    model = make(name, in_channels=2, dropout=0.25).eval()
    x = clips(1, (2, 1, 16, 17))
    model.reset_classifier(0)
    assert model(x).shape == (1, model.num_features)
    model.reset_classifier(3, dropout=0.5)
    assert model(x).shape == (1, 3)
    assert model.num_classes == 3
    assert model.dropout.p == 0.5
    with pytest.raises(ValueError, match=r"num_classes >= 0 and dropout in \[0, 1\)"):
        model.reset_classifier(-1)


@pytest.mark.parametrize("name", NAMES)
def test_memory_stands_after_every_stage(name: str) -> None:
    clip_model = make(name)
    stages = list(clip_model.stages)
    model = VideoModel(clip_model, config.Memory(after=(*stages[:-1], "last"), dim=4)).eval()
    assert model.places == (*stages[:-1], "last")
    for block in model.memories.values():
        nn.init.normal_(block.w_o.weight, generator=torch.Generator().manual_seed(1))
    x = clips(2, (3, 4, 16, 16)).unflatten(0, (1, 2))
    alone, _ = model(x[:, 0])
    together, state = model(x)
    assert together.shape == (1, 2, 7)
    assert [place.clips_B.tolist() for place in state.places] == [[2]] * len(stages)
    assert not torch.allclose(together[:, 0], alone, rtol=1e-3)


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_torchvision_weights_load_unchanged(name: str) -> None:
    with torch.device("meta"):  # the numbers of all three are held by golden files
        theirs, ours = getattr(torchvision.models.video, name)().state_dict(), create_model(name).state_dict()
    assert {key: value.shape for key, value in theirs.items()} == {key: value.shape for key, value in ours.items()}


def test_torchvision_weights_give_torchvision_logits() -> None:
    theirs = torchvision.models.video.mc3_18(num_classes=7).eval()
    ours = make("mc3_18", width=64).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(clips()), theirs(clips()), rtol=1e-5, atol=1e-6)


def test_tiny_models_have_options() -> None:
    for name in list_models("tiny*"):
        assert any(isinstance(module, nn.GroupNorm) for module in make(name).modules())
        batch = make(name, norm="batch", width=8)
        assert not any(isinstance(module, nn.GroupNorm) for module in batch.modules())
        assert batch.num_features == (64 if name == "tiny2d_peak" else 32)
        assert sum(parameter.numel() for parameter in make(name).parameters()) < 300_000
    with pytest.raises(ValueError, match="width must be a multiple of 8, got 12"):
        make("tiny2d", width=12)
    with pytest.raises(ValueError, match="norm must be 'group' or 'batch'"):
        make("tiny_r3d", norm="layer")


def test_names_and_options_that_do_not_exist_are_answered_with_those_that_do() -> None:
    assert list_models("mc*") == ["mc2_18", "mc3_18", "mc4_18", "mc5_18"]
    assert list_models(kind="audio") == []
    with pytest.raises(ConfigError, match=r"no model 'r2plus1_18'\. Did you mean 'r2plus1d_18'"):
        create_model("r2plus1_18")
    with pytest.raises(ConfigError, match="'tiny2d' has no option depth; its options are width, norm, dropout"):
        create_model("tiny2d", depth=3)
