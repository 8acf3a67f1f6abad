"""From official AVA files through training to official detections, small."""

import csv
import importlib
import json
import shutil
from dataclasses import replace

import pytest
import torch

from wholereel.config import Prepare, Train, World
from wholereel.errors import ConfigError
from wholereel.media.clip_plans import check_clips
from wholereel.models.package import build_model
from wholereel.models.weights import read_tensors
from wholereel.recipes import RECIPES, load_recipe
from wholereel.recipes.detection import ava_rooms
from wholereel.recipes.overrides import apply_overrides
from wholereel.recipes.plain import from_plain, to_plain
from wholereel.recipes.runner import run_recipe
from wholereel.training.checks import check_train

SMALL = ("model.options.width=8", "epochs=1", "batch=4", "data.limit=8")


TESTS = ("test_clip_level", "test_collaborative_memory", "test_earlier_clips")


def small():
    recipe = ava_rooms(seed=3)
    stages = dict(recipe.stages)
    stages["ava_rooms"] = replace(stages["ava_rooms"], sizes={"train": 1, "val": 1, "test": 1})
    stages["trimmed"] = replace(stages["trimmed"], sizes={"train": 8, "val": 1, "test": 1})
    for name in ("pretrain", "clip_level", "collaborative_memory"):
        stages[name] = apply_overrides(stages[name], SMALL)
    for name in TESTS:
        stages[name] = apply_overrides(stages[name], ["data.limit=5"])
    return replace(recipe, stages=stages)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A small run of the recipe."""
    out = tmp_path_factory.mktemp("rooms") / "run"
    run_recipe(small(), out, devices="cpu", workers=1, stream=None)
    return out


def test_a_small_run_of_the_recipe(out):
    done = run_recipe(small(), out, devices="cpu", resume=True, stream=None)
    prepared = json.loads((out / "keys" / "prepared.json").read_text())
    assert {split: counts["found"] for split, counts in prepared["counts"].items()} == {
        "train": 55,
        "val": 55,
        "test": 55,
    }
    for name in TESTS:
        results = json.loads((out / name / "results.json").read_text())
        assert done[name]["evaluated"] == results["evaluated"] == 5
        assert results["counts"]["classes"] == 10
        assert set(results["metrics"]) >= {"map", "map_activitynet"}
        rows = list(csv.reader((out / name / "detections.csv").read_text().splitlines()))
        assert len(rows) == 10 * results["counts"]["boxes"]
        assert all(len(row) == 8 and row[1].startswith("09") for row in rows)
    package = json.loads((out / "collaborative_memory" / "last" / "model.json").read_text())
    assert package["model"]["boxes"]["read"] == "roi"
    assert package["input"]["clips"]["window"] == 16.0
    assert package["extra"]["strategy"]["gradient"] == "exact"


def test_the_recipe_that_compares_gradients():
    """It begins with the same single clips, and its exact memory is the recipe's own."""
    ours, other = load_recipe("ava_rooms", seed=2).stages, load_recipe("ava_rooms_gradients", seed=2).stages
    for name in ("trimmed", "ava_rooms", "keys", "pretrain", "clip_level"):
        assert other[name] == ours[name]
    assert other["exact"] == ours["collaborative_memory"]
    check_train(other["truncated"])
    assert apply_overrides(other["truncated"], ["model.memory.detach=false"]) == other["exact"]
    for name in ("exact", "truncated"):
        assert other[f"test_{name}"].model == f"stage:{name}"


def test_a_small_run_in_order(out, tmp_path):
    """MeMViT on the same rooms: pictures that are wider than high, key frames as steps of streams."""
    recipe = load_recipe("memvit_ava_rooms", seed=3)
    worlds = {"rooms": "trimmed", "ava_rooms": "ava_rooms"}
    glyphs = ("trimmed", "pretrain")  # as in memvit_cue_probe
    stages = {name: stage for name, stage in recipe.stages.items() if name not in glyphs}
    stages |= {name: small().stages[other] for name, other in worlds.items()}
    for name, other in {**worlds, "keys": "keys"}.items():
        shutil.copytree(out / other, tmp_path / name)
    for name in ("boxes", "kinds", "memory", "memory_free"):
        few = ["model.options.width=8", "epochs=1", "batch=2", "data.limit=4", "val.limit=2"]
        stages[name] = apply_overrides(stages[name], few)
    stages["boxes"] = apply_overrides(stages["boxes"], ["model.weights=null"])
    for name in ("test_memory", "test_memory_free"):
        stages[name] = apply_overrides(stages[name], ["data.limit=5"])
    done = run_recipe(replace(recipe, stages=stages), tmp_path, devices="cpu", resume=True, stream=None)
    for name in ("test_memory", "test_memory_free"):
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert done[name]["evaluated"] == results["evaluated"] == 5
    package = json.loads((tmp_path / "memory" / "last" / "model.json").read_text())
    assert {"reach": 16, "remember": False, "box_places": 4}.items() <= package["model"]["options"].items()
    before, after = (read_tensors(tmp_path / name / "last" / "model.safetensors") for name in ("kinds", "memory"))
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert {key for key in before if key.startswith(("patch_embed.", "cls_token", "blocks.", "norm."))} <= same
    assert not same & {"box_blocks.0.attn.q.weight", "head.projection.weight"}


def test_the_recipe_is_as_it_says():
    recipe = load_recipe("ava_rooms", seed=1)
    assert from_plain(to_plain(recipe)) == recipe
    assert isinstance(recipe.stages["keys"], Prepare)
    assert {stage.seed for stage in recipe.stages.values() if isinstance(stage, (World, Train))} == {1}


@pytest.mark.parametrize(("name", "published"), [("ava_clip_level", "29.0"), ("ava_collaborative_memory", "31.6")])
def test_the_published_rows_of_ava(name, published):
    recipe = load_recipe(name, seed=2)
    module, _, function = RECIPES[name].partition(":")
    words = getattr(importlib.import_module(module), function).__doc__
    assert f"Published: {published}" in " ".join(words.split())
    assert "Measured: not run" in " ".join(words.split())
    trainings = [stage for stage in recipe.stages.values() if isinstance(stage, Train)]
    for train in trainings:
        check_train(train)
        check_clips(train.data.clips)
        check_clips(train.views.clips)
    # Equal numbers of clips of each key frame: 45 epochs of one, or 20 of one and 5 of five.
    assert sum(train.epochs * train.data.clips.count for train in trainings) == 45
    assert recipe.stages["keys"].options["val_boxes"] == "ava_val_predicted_boxes.csv"
    model = build_model(replace(trainings[-1].model, weights=None, options={"dilated": True, "width": 8}), 80)
    assert model.scale == 1 / 16


def test_what_a_preparation_needs_is_found_first(tmp_path):
    recipe = small()
    stages = {"keys": Prepare("ava_v2.2"), **{name: recipe.stages[name] for name in ("clip_level",)}}
    with pytest.raises(ConfigError, match="needs videos: give their folder or list with --data"):
        run_recipe(replace(recipe, stages=stages, main=""), tmp_path / "a", devices="cpu", stream=None)
    stages = {"keys": Prepare("ava_v2.2", root="stage:clip_level")}
    with pytest.raises(ConfigError, match="refers to 'stage:clip_level', which is no stage before it"):
        run_recipe(replace(recipe, stages=stages, main=""), tmp_path / "b", devices="cpu", stream=None)
