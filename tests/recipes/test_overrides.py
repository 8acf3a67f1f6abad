"""`--set`: paths, types, texts of errors; plain data there and back; differences."""

from __future__ import annotations

import json
import typing

import pytest

from wholereel import config
from wholereel.errors import ConfigError
from wholereel.recipes import RECIPES, load_recipe
from wholereel.recipes.overrides import apply_overrides, diff, from_plain, stage_overrides, to_plain
from wholereel.recipes.plain import STAGE_KINDS, build

RECIPE = config.Recipe(
    "small",
    {
        "world": config.World("match8"),
        "train": config.Train(config.Model("tiny2d", options={"width": 8}), config.Data("stage:world")),
        "test": config.Evaluate("stage:train", config.Data("stage:world", split="test")),
    },
)


def changed(*assignments: str) -> dict[str, tuple[object, object]]:
    return diff(RECIPE, apply_overrides(RECIPE, assignments))


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("stages.train.optim.lr=1e-3", "stages.train.optim.lr", 0.001),  # YAML 1.1 alone would read text
        ("stages.train.optim.lr=1", "stages.train.optim.lr", 1.0),
        ("stages.train.epochs = 3", "stages.train.epochs", 3),
        ("stages.train.compile=true", "stages.train.compile", True),
        ("stages.train.data.root=007", "stages.train.data.root", "007"),
        ("stages.train.data.root=null", "stages.train.data.root", None),
        ("stages.train.task.kind=on", "stages.train.task.kind", "on"),
        ("stages.train.strategy.name=multi_iteration", "stages.train.strategy.name", "multi_iteration"),
        ("stages.train.data.augment.short_side=[40, 48]", "stages.train.data.augment.short_side", [40, 48]),
        ("stages.train.data.labels=[verb, noun]", "stages.train.data.labels", ["verb", "noun"]),
        ("stages.train.model.options.width=32", "stages.train.model.options.width", 32),
        ("stages.test.views.crops=3", "stages.test.views.crops", 3),
        ("stages.world.sizes={train: 4, val: 2}", "stages.world.sizes", {"train": 4, "val": 2}),
    ],
)
def test_a_setting_is_changed_by_its_path_and_nothing_else(assignment, path, value):
    [(found, (_, after))] = changed(assignment).items()
    assert (found, after) == (path, value)
    assert type(after) is type(value)


def test_later_assignments_win_and_the_recipe_stays_as_it_was():
    before = to_plain(RECIPE)
    assert changed("stages.train.epochs=3", "stages.train.epochs=4") == {"stages.train.epochs": (10, 4)}
    assert to_plain(RECIPE) == before


def test_an_absent_part_is_set_as_a_whole_and_then_inside():
    recipe = apply_overrides(RECIPE, ["stages.train.model.memory={}", "stages.train.model.memory.dim=8"])
    stage = recipe.stages["train"]
    assert isinstance(stage, config.Train)
    assert stage.model.memory == config.Memory(dim=8)
    augment = "stages.train.data.augment"
    recipe = apply_overrides(
        RECIPE,
        [f"{augment}.rand_augment={{count: 2}}", f"{augment}.rand_augment.magnitude=9", f"{augment}.mixing={{}}"],
    )
    assert isinstance(stage := recipe.stages["train"], config.Train)
    assert stage.data.augment.rand_augment == config.RandAugment(count=2, magnitude=9.0)
    assert stage.data.augment.mixing == config.Mixing()
    assert from_plain(json.loads(json.dumps(to_plain(recipe)))) == recipe


def test_a_part_of_a_recipe_can_be_changed_alone():
    assert apply_overrides(config.Views(), ["clips.count=9"]).clips.count == 9


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stages.train.epochs", "expected path.to.field=value"),
        ("=3", "expected path.to.field=value"),
        ("train.epochs=3", "Did you mean 'stages.train.epochs'?"),
        ("stages.tain.epochs=3", "no setting 'tain' in stages. Did you mean 'train'? Legal: world, train, test."),
        ("stages.train.optin.lr=3", "no setting 'optin' in stages.train. Did you mean 'optim'? Legal: model, data,"),
        ("stages.train.model.memory.dim=3", "stages.train.model.memory is null here. Set it as a whole first"),
        ("stages.train.model.memory={dimm: 3}", "no setting 'dimm'. Did you mean 'dim'? Legal: after, interaction,"),
        ("stages.train.optim.lr.x=3", "stages.train.optim.lr is a plain value (0.1)"),
        ("stages.train.epochs=3.5", "stages.train.epochs: got 3.5, expected a whole number."),
        ("stages.train.epochs=true", "stages.train.epochs: got True, expected a whole number."),
        ("stages.train.compile=3", "stages.train.compile: got 3, expected true or false."),
        ("stages.train.optim.lr=fast", "stages.train.optim.lr: got 'fast', expected a number."),
        ("stages.train.data.limit=x", "stages.train.data.limit: got 'x', expected a whole number, or null."),
        ("stages.train.optim.name=sdg", "got 'sdg', expected one of sgd, adamw. Did you mean 'sgd'?"),
        ("stages.test.views.crops=2", "stages.test.views.crops: got 2, expected one of 1, 3."),
        ("stages.test.views.crops=true", "stages.test.views.crops: got True, expected one of 1, 3."),
        ("stages.train.data.labels=label", "stages.train.data.labels: got 'label', expected a list"),
        ("stages.train.data.augment.short_side=[1, 2, 3]", "expected a list of 2 values"),
        ("stages.train.data.augment.rand_augment={count: x}", "rand_augment.count: got 'x', expected a whole number"),
        (
            "stages.train.data.augment.rand_augment=rand-m7-n4",
            "stages.train.data.augment.rand_augment: got 'rand-m7-n4'",
        ),
        (
            "stages.train.data.augment.erasing.count=2",
            "stages.train.data.augment.erasing is null here. Set it as a whole",
        ),
        ("stages.world.sizes={train: many}", "stages.world.sizes.train: got 'many', expected a whole number"),
        ("stages.train.model={options: {}}", "stages.train.model: Model needs name."),
        ("stages.train=3", "stages.train: got 3, expected a stage, i.e. a mapping with 'kind'"),
        ("stages.train.data.root=[a", "the value is not YAML"),
    ],
)
def test_a_mistake_is_explained(assignment, message):
    with pytest.raises(ConfigError) as caught:
        apply_overrides(RECIPE, [assignment])
    assert message in str(caught.value)


def test_flags_reach_the_stages_that_have_the_setting():
    assert stage_overrides(RECIPE, epochs=2, batch=4, precision="bf16", seed=None) == [
        "stages.train.epochs=2",
        "stages.train.batch=4",
        "stages.train.precision=bf16",
        "stages.test.precision=bf16",
    ]
    with pytest.raises(ConfigError, match="--epochs: recipe 'only' has no stage with a setting 'epochs'"):
        stage_overrides(config.Recipe("only", {"world": RECIPE.stages["world"]}), epochs=2)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    recipe = load_recipe(name)
    assert from_plain(json.loads(json.dumps(to_plain(recipe)))) == recipe
    assert diff(recipe, recipe) == {}


def test_every_kind_of_stage_is_known():
    assert set(STAGE_KINDS.values()) == set(typing.get_args(config.Stage))
    with pytest.raises(ConfigError, match=r"no setting 'epoch'\. Did you mean 'epochs'"):
        build(config.Stage, {"kind": "train", "epoch": 3}, "stages.train")


def test_a_stage_that_only_one_recipe_has_is_a_difference():
    shorter = config.Recipe("small", {"world": RECIPE.stages["world"]})
    assert diff(shorter, RECIPE)["stages.train"][0] is None
