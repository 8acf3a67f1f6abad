"""A memory of sixteen clips learns what the clip before decides; the same network without memory is at chance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wholereel.config import Evaluate, Model, Train
from wholereel.recipes import load_recipe
from wholereel.recipes.runner import run_recipe
from wholereel.report.run_files import read_results

pytestmark = pytest.mark.effects


def test_what_the_clip_before_decides_is_learned_through_the_memory_alone(tmp_path):
    recipe = load_recipe("memvit_cue_probe", seed=0)
    stages = {name: recipe.stages[name] for name in ("trimmed", "pretrain", "short", "learn")}
    learn = stages["learn"]
    assert isinstance(learn, Train)
    twin = Model(learn.model.name, learn.model.weights, options={**learn.model.options, "remember": False})
    stages["twin"] = replace(learn, model=twin, epochs=1)
    test = replace(learn.data, split="test")
    whole = recipe.stages["test_support_16"]
    assert isinstance(whole, Evaluate)
    for name in ("learn", "twin"):
        stages[f"test_{name}"] = replace(whole, model=f"stage:{name}", data=test)
    run_recipe(replace(recipe, stages=stages, main="learn"), tmp_path, devices="cpu")
    found = {name: read_results(tmp_path / f"test_{name}")["metrics"]["clip_top1"] for name in ("learn", "twin")}
    assert found["learn"] >= 0.9, found
    assert 0.15 <= found["twin"] <= 0.35, found
