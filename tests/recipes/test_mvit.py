"""Recipes of MViT and MeMViT at their published sizes: settings of the public files, and small runs of both kinds."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest

from tests.datasets.broken_files import data_set, video
from wholereel.config import Clips, Data, Evaluate, Model, Recipe, Train, Views
from wholereel.models.registry import create_model
from wholereel.recipes import RECIPES, load_recipe
from wholereel.recipes.runner import run_recipe
from wholereel.training.checks import check_train
from wholereel.training.schedule import lr_factor, peak_lr

PUBLISHED = {"mvitv1_b_kinetics400": "78.4", "mvitv2_s_kinetics400": "81.0", "mvitv2_b_kinetics400": "82.9"}
AT_SCALE = [*PUBLISHED, "memvit_kinetics400", "memvit_ava_16", "memvit_ava_24"]


def train_of(name: str) -> Train:
    (stage,) = [stage for stage in load_recipe(name).stages.values() if isinstance(stage, Train)]
    return stage


@pytest.mark.parametrize("name", AT_SCALE)
def test_every_recipe_is_legal_and_says_what_is_published(name):
    module, _, function = RECIPES[name].partition(":")
    text = " ".join(getattr(importlib.import_module(module), function).__doc__.split())
    assert all(part in text for part in ("Source:", "Cost:", "Command:", "Measured: not run"))
    assert PUBLISHED.get(name, "") in text
    assert "not here yet" not in text
    check_train(train_of(name))
    assert load_recipe(name).measured == ""


@pytest.mark.parametrize("name", [*PUBLISHED, "memvit_kinetics400"])
def test_kinetics_has_the_settings_of_the_public_files(name):
    """Files MVITv2_S_16x4, MVITv2_B_32x3 and MVIT_B_16x4_CONV of facebookresearch/SlowFast (configs/Kinetics)."""
    train = train_of(name)
    augment, optim = train.data.augment, train.optim
    # AUG: rand-m7-n4-mstd0.5-inc1, NUM_SAMPLE 2, RE_PROB 0.25, RE_COUNT 1
    assert vars(augment.rand_augment) == {"count": 4, "magnitude": 7.0, "std": 0.5}
    assert augment.copies == 2
    assert (augment.erasing.probability, augment.erasing.count) == (0.25, 1)
    # MIXUP; DATA.TRAIN_JITTER_SCALES_RELATIVE and _ASPECT_RELATIVE
    assert vars(augment.mixing) == {"mixup": 0.8, "cutmix": 1.0, "probability": 1.0, "switch": 0.5}
    assert train.task.label_smoothing == 0.1
    assert (augment.resized_crop.area, augment.resized_crop.aspect) == ((0.08, 1.0), (0.75, 1.3333))
    assert augment.color_jitter == 0  # "Not used if using randaug."
    # SOLVER: 1e-4 for 16 clips, from 1e-6 over 30 epochs, cosine to 1e-6
    assert peak_lr(optim, videos=16, strategy_scale=1.0) == 1e-4
    factors = {epoch: lr_factor(optim, step=epoch, steps_per_epoch=1, epochs=200) for epoch in (0, 30, 115, 200)}
    assert factors == {0: 0.01, 30: 1.0, 115: pytest.approx(0.505), 200: pytest.approx(0.01)}
    assert (optim.name, optim.betas, optim.weight_decay, optim.clip_norm) == ("adamw", (0.9, 0.999), 0.05, 1.0)
    assert (train.epochs, train.task.dropout) == (200, 0.5)
    assert (train.views.short_side, train.views.crop) == (256, 224)


def test_networks_have_their_published_drop_path():
    model = create_model("mvitv2_s", num_classes=2)
    assert model.config.drop_path == 0.2
    clips = train_of("mvitv2_s_kinetics400").data.clips
    assert (clips.frames, clips.stride, clips.frame_rate) == (16, 4, 30.0)


@pytest.mark.parametrize("name", ["memvit_ava_16", "memvit_ava_24"])
def test_ava_has_the_augmentation_of_the_public_code(name):
    augment = train_of(name).data.augment
    assert (augment.short_side, augment.jitter, augment.crop) == ((256, 320), "inverse", 224)
    assert (augment.color_jitter, augment.color_order, augment.lighting) == (0.4, "random", 0.1)
    assert augment.frame_jitter
    assert augment.per_clip
    val = train_of(name).val.augment
    assert not val.frame_jitter


def shrunk(name: str, network: str) -> Recipe:
    """The same for a second: a tiny network on tiny pictures, with everything drawn as published."""
    recipe = load_recipe(name)
    train, test = recipe.stages[recipe.main], recipe.stages["test"]
    assert isinstance(train, Train)
    assert isinstance(test, Evaluate)

    def clips(given: Clips) -> Clips:
        return replace(given, frames=4, stride=2, frame_rate=12.0)

    def data(given: Data) -> Data:
        small = replace(given.augment, short_side=(36, 36), crop=32)
        return replace(given, clips=clips(given.clips), augment=small, workers=0)

    def views(given: Views) -> Views:
        return replace(given, clips=clips(given.clips), short_side=36, crop=32)

    small = replace(
        train,
        model=Model(network, options={"frames": 4, "crop": 32, "width": 8}),
        data=data(train.data),
        val=data(train.val),
        views=views(train.views),
        epochs=1,
        batch=2,
        precision="fp32",
    )
    measured = replace(test, data=data(test.data), views=views(test.views))
    return replace(recipe, stages={recipe.main: small, "test": measured})


@pytest.mark.parametrize(
    ("name", "network"), [("mvitv2_s_kinetics400", "mvit_tiny"), ("memvit_kinetics400", "memvit_tiny")]
)
def test_a_small_run_trains_and_is_measured(tmp_path, name, network):
    root = tmp_path / "videos"
    data_set(root, 4)
    with (root / "annotations.csv").open("a") as file:
        for number in range(2):
            video(root / f"videos/val_{number}.mp4", number)
            file.write(f"videos/val_{number}.mp4,{('jump', 'run')[number]},val\n")
    recipe = shrunk(name, network)
    done = run_recipe(recipe, tmp_path / "run", data=root, devices="cpu", stream=None)
    events = [json.loads(line) for line in (tmp_path / "run" / recipe.main / "metrics.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if "loss" in event]
    assert losses
    assert all(0 < loss < 10 for loss in losses)
    assert "test" in done
