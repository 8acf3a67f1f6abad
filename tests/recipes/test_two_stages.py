"""The recipes of the published table: their arithmetic, and what their docstrings promise to say."""

from __future__ import annotations

import importlib
import re

import pytest

from wholereel.cli.main import main
from wholereel.config import Evaluate, Train
from wholereel.evaluation.protocols import published_views
from wholereel.models.registry import MODELS
from wholereel.recipes import RECIPES, load_recipe
from wholereel.recipes.baselines import match8_baselines, weizmann_baselines
from wholereel.recipes.two_stages import DataSet
from wholereel.training.checks import check_train

AT_SCALE = [
    name for name, place in RECIPES.items() if place.startswith("wholereel.recipes.two_stages") and name[0] != "u"
]
# Row of the published table -> value, top-1 or mAP in percent.
PUBLISHED = {
    "k400_clip_level": "79.1",
    "k400_collaborative_memory": "81.4",
    "k700_clip_level": "70.2",
    "k700_collaborative_memory": "72.4",
    "charades_clip_level": "41.3",
    "charades_collaborative_memory": "44.6",
    "ssv1_clip_level": "51.2",
    "ssv1_collaborative_memory": "53.7",
    "k400_corrnet101": "79.2",
    "ssv1_corrnet101": "53.3",
}


def clips_seen(stage: Train) -> int:
    """Clips of each video that go forward and backward."""
    return stage.epochs * stage.data.clips.count


@pytest.mark.parametrize("name", AT_SCALE)
def test_every_recipe_says_what_is_published_and_that_it_was_not_run(name: str) -> None:
    module, _, function = RECIPES[name].partition(":")
    text = " ".join(getattr(importlib.import_module(module), function).__doc__.split())
    assert "Source" in text
    assert re.search(r"[Cc]ost", text)
    assert f"`wholereel train {name} --data" in text
    assert "Measured: not run here" in text
    assert load_recipe(name).measured == ""
    assert name not in PUBLISHED or f" {PUBLISHED[name]} " in text


def test_every_row_of_the_table_that_needs_no_boxes_has_its_recipe() -> None:
    assert set(PUBLISHED) <= set(AT_SCALE)
    for name in AT_SCALE:
        for stage in load_recipe(name).stages.values():
            if isinstance(stage, Train):
                check_train(stage)
                assert stage.model.name in MODELS


@pytest.mark.parametrize("data", ["k400", "k700", "charades", "ssv1"])
def test_clip_level_and_both_stages_see_equally_many_clips(data: str) -> None:
    both, alone = load_recipe(f"{data}_collaborative_memory"), load_recipe(f"{data}_clip_level")
    first, second = both.stages["clip_level"], both.stages["video_level"]
    longer = alone.stages["clip_level"]
    assert clips_seen(longer) == clips_seen(first) + clips_seen(second)
    assert second.epochs == round(first.epochs / 4)
    assert second.optim.lr == pytest.approx(first.optim.lr / 10)
    assert (second.optim.schedule, second.optim.norm, second.strategy.name) == ("cosine", "frozen", "exact")
    assert second.optim.warmup_start == 0.01
    assert longer.optim.warmup / longer.epochs == pytest.approx(first.optim.warmup / first.epochs, rel=0.05)
    assert (second.views.clips.count, second.val.clips.count) == (second.data.clips.count,) * 2
    assert both.stages["test_video_level"].views == alone.stages["test_clip_level"].views


def test_views_are_the_published_protocols() -> None:
    for data, protocol in {"k400": "kinetics_10x3", "charades": "charades_10x3"}.items():
        stage = load_recipe(f"{data}_collaborative_memory").stages["test_video_level"]
        assert isinstance(stage, Evaluate)
        assert stage.views == published_views(protocol, stage.views, multi_label=data == "charades")


def test_other_shares_of_the_second_stage() -> None:
    fields = {"clips", "count", "augment", "task", "views", "optim", "epochs", "batch", "weights", "select"}
    assert set(DataSet.__dataclass_fields__) == fields
    alone = load_recipe("k400_corrnet101").stages["clip_level"]
    assert alone.epochs == 196  # another network's row has no second stage to keep up with


@pytest.mark.parametrize("recipe", [match8_baselines(), weizmann_baselines()], ids=lambda recipe: recipe.name)
def test_relatives_see_equally_many_clips_a_step_and_in_all(recipe) -> None:
    roads = {
        name: recipe.stages[name]
        for name in ("clip_level", "late_average", "non_local", "feature_bank", "collaborative_memory")
    }
    assert len({clips_seen(road) for road in roads.values()}) == 1
    assert len({road.batch * road.data.clips.count for road in roads.values()}) == 1
    assert len({road.optim for road in roads.values()}) == 1
    assert {road.model.weights for road in roads.values()} == {"stage:pretrain"}
    assert {name for name, road in roads.items() if road.model.memory is not None} == {
        "non_local",
        "collaborative_memory",
    }
    assert roads["non_local"].model.memory.norm == "batch"
    assert all(f"test_{name}" in recipe.stages for name in roads)


def test_the_list_says_which_recipes_were_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["recipe", "measured", "what", "it", "is"]
    found = {row.split()[0]: "not run here" in row for row in rows}
    assert not any(found[name] for name in ("match8", "ava_rooms", "jhmdb_boxes"))
    assert all(found[name] for name in AT_SCALE)
