"""Whole runs of tiny recipes: stages in order, resumed, refused; and that every named recipe hangs together."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.conftest import MEMORY, tiny
from wholereel.config import Clips, Convert, Data, Evaluate, Model, Recipe, Train, World
from wholereel.datasets.feature_shards import FeatureShards
from wholereel.errors import ConfigError, DataError
from wholereel.inference.predictor import find_package
from wholereel.models.package import load_package
from wholereel.recipes import RECIPES, load_recipe, runner
from wholereel.recipes.overrides import apply_overrides, from_plain
from wholereel.recipes.runner import run_recipe

CPU = {"devices": "cpu", "workers": 1, "stream": None}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def package_tensors(folder):
    return load_file(folder / "model.safetensors")


def recipe_of(**stages) -> Recipe:
    return Recipe("made_up", stages)


# ------------------------------------------------------------------------------------------------ one run, all kinds


def test_every_stage_leaves_its_settings_and_result(tiny_run):
    for name, stage in tiny_run.recipe.stages.items():
        done = read(tiny_run.out / name / "done.json")
        assert done["settings"]["kind"] == type(stage).__name__.lower()
        assert done["result"] == tiny_run.results[name]
    words = [line for line in tiny_run.words.splitlines() if line.startswith("[") and " done in " in line]
    assert [line[1:].partition("]")[0] for line in words] == list(tiny_run.recipe.stages)


def test_evaluations_count_their_videos(tiny_run):
    result = tiny_run.results["test_collaborative_memory"]
    assert (result["evaluated"], result["samples"]) == (4, 4)
    assert read(tiny_run.out / "test_collaborative_memory" / "results.json")["metrics"] == result["metrics"]


def test_weights_of_a_stage_reach_the_next_one(tiny_run, tmp_path):
    """A training that makes no steps worth speaking of keeps the weights that it was given."""
    stage = tiny_run.recipe.stages["collaborative_memory"]
    still = replace(stage, optim=replace(stage.optim, lr=1e-12, weight_decay=0.0), val=None, views=None, epochs=1)
    stages = {**tiny_run.recipe.stages, "still": still}
    out = tiny_run.copy(tmp_path / "run")
    run_recipe(replace(tiny_run.recipe, stages=stages), out, resume=True, **CPU)
    before, after = package_tensors(out / "late_average/last"), package_tensors(out / "still/last")
    for key, value in before.items():
        factor = 1 / 1.5 if key == "clip_model.fc.weight" else 1.0  # a fresh block multiplies features by 1.5
        torch.testing.assert_close(after[key], value * factor, atol=1e-6, rtol=0)


def test_converted_there_and_back_the_weights_are_the_same(tiny_run):
    assert load_package(tiny_run.out / "with_fresh_memory").spec.memory == MEMORY
    assert load_package(tiny_run.out / "without_memory").spec.memory is None
    before, after = (
        package_tensors(tiny_run.out / "late_average/last"),
        package_tensors(tiny_run.out / "without_memory"),
    )
    assert set(before) == set(after)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value)


def test_a_fresh_memory_changes_no_score(tiny_run):
    plain, fresh = (
        [json.loads(line)["scores"] for line in (tiny_run.out / stage / "predictions.jsonl").read_text().splitlines()]
        for stage in ("test_late_average", "test_with_fresh_memory")
    )
    torch.testing.assert_close(torch.tensor(plain), torch.tensor(fresh), atol=2e-6, rtol=0)


def test_extracted_features_of_a_stage(tiny_run):
    assert tiny_run.results["features"] == {"videos": 4, "faults": 0}
    shards = FeatureShards(tiny_run.out / "features")
    video = shards[next(iter(shards))]
    assert video.clips["features"].shape == (4, 32)
    assert video.video["scores"].sum().item() == pytest.approx(1.0)


def test_recipe_json_holds_tree_and_difference(tmp_path):
    recipe = apply_overrides(load_recipe("own_videos"), ["stages.clip_level.optim.lr=0.5"])
    runner._prepare(recipe, runner._Context(tmp_path, None, False, runner.Ranks(), torch.device("cpu"), 1, False, None))
    content = read(tmp_path / "recipe.json")
    assert from_plain(content["recipe"]) == recipe
    assert content["changes"] == {"stages.clip_level.optim.lr": {"named": 0.1, "here": 0.5}}


def test_recipe_json_of_a_recipe_without_name_in_the_table(tiny_run):
    content = read(tiny_run.out / "recipe.json")
    assert from_plain(content["recipe"]) == tiny_run.recipe
    assert content["changes"] == {}


@pytest.mark.parametrize(
    ("name", "main"),
    [("own_videos", "video_level"), ("weizmann", "collaborative_memory"), ("demo", "collaborative_memory")],
)
def test_runs_of_named_recipes_stand_for_their_model_with_memory(name, main):
    recipe = load_recipe(name)
    assert recipe.main == main
    assert recipe.stages[main].model.memory is not None


def test_the_main_stage_stands_for_the_run(tiny_run, tmp_path):
    assert find_package(tiny_run.out) == tiny_run.out / "collaborative_memory" / "best"
    out = tiny_run.copy(tmp_path / "run")
    file = out / "recipe.json"
    for main, package in {"late_average": "late_average/last", "without_memory": "without_memory"}.items():
        content = read(file)
        content["recipe"]["main"] = main
        file.write_text(json.dumps(content))
        assert find_package(out) == out / package


def test_all_stages_run_on_the_gpu_of_their_process(tmp_path, monkeypatch):
    """Collective calls of Python objects travel over the current GPU, which must be another one in each process."""
    events: list[str] = []

    @contextmanager
    def current(device):
        events.append(f"enter {device}")
        yield
        events.append(f"leave {device}")

    monkeypatch.setattr(runner.distributed, "choose_device", lambda *_: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setitem(runner.STAGES, World, lambda *_: events.append("stage"))
    run_recipe(recipe_of(one=World("pair6"), two=World("pair6")), tmp_path, stream=None)
    assert events == ["enter cuda:1", "stage", "stage", "leave cuda:1"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no core affinity")
def test_worlds_are_made_on_the_cores_of_this_process(tmp_path, monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8})
    monkeypatch.setitem(runner.STAGES, World, lambda _stage, _directory, context: seen.append(context.workers))
    run_recipe(recipe_of(one=World("pair6")), tmp_path, devices="cpu", stream=None)
    assert seen == [3]


# ---------------------------------------------------------------------------------------------------------- resuming


def test_finished_stages_are_passed_over(tiny_run, tmp_path):
    out, words = tiny_run.copy(tmp_path / "run"), io.StringIO()
    (out / "test_late_average" / "done.json").unlink()
    results = run_recipe(tiny_run.recipe, out, resume=True, devices="cpu", workers=1, stream=words)
    assert results == tiny_run.results
    passed = [line for line in words.getvalue().splitlines() if line.endswith("done before")]
    assert len(passed) == len(tiny_run.recipe.stages) - 1
    assert "[test_late_average] evaluate" in words.getvalue()


def test_a_run_that_broke_off_goes_on_where_it_was(tiny_run, tmp_path, monkeypatch):
    """The second validation of the second training fails; resumed, everything comes out as without the failure.

    The folder is spelled in another way and then moved, which must make no difference.
    """
    measure, calls = runner.measure, []

    def failing(*args, **kwargs):
        calls.append(kwargs.get("out"))
        if len(calls) == 2:
            raise OSError("disk is gone")
        return measure(*args, **kwargs)

    out = tmp_path / "run"
    monkeypatch.setattr(runner, "measure", failing)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="disk is gone"):
        run_recipe(tiny_run.recipe, "run", **CPU)
    monkeypatch.undo()
    assert calls == [None, None]
    assert [stage for stage in tiny_run.recipe.stages if (out / stage / "done.json").exists()] == [
        "match8",
        "late_average",
    ]
    out = out.rename(tmp_path / "moved")
    assert run_recipe(tiny_run.recipe, out, resume=True, **CPU) == tiny_run.results
    for package in ("collaborative_memory/best", "collaborative_memory/last"):
        ours, theirs = package_tensors(out / package), package_tensors(tiny_run.out / package)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


# ----------------------------------------------------------------------------------------------------------- refusals


def test_a_run_that_exists_needs_resume(tiny_run):
    with pytest.raises(ConfigError, match=r"tiny holds a run already. Add --resume to go on with it, or choose"):
        run_recipe(tiny_run.recipe, tiny_run.out, **CPU)


def test_another_recipe_in_the_folder(tiny_run):
    with pytest.raises(ConfigError, match=r"holds a run of recipe 'tiny', not of 'other'. Choose another --out"):
        run_recipe(replace(tiny_run.recipe, name="other"), tiny_run.out, resume=True, **CPU)


def test_changed_settings_of_a_finished_stage_are_refused_before_anything_is_written(tiny_run, tmp_path):
    out = tiny_run.copy(tmp_path / "run")
    (out / "late_average" / "done.json").unlink()
    before = (out / "recipe.json").read_bytes()
    changed = apply_overrides(tiny_run.recipe, ["stages.collaborative_memory.epochs=3"])
    with pytest.raises(ConfigError, match=r"collaborative_memory was made with other settings. Give it back"):
        run_recipe(changed, out, resume=True, **CPU)
    assert (out / "recipe.json").read_bytes() == before
    assert not (out / "late_average" / "done.json").exists()


def test_a_finished_stage_may_be_older_than_a_setting_at_its_default(tiny_run, tmp_path):
    out = tiny_run.copy(tmp_path / "run")
    done = out / "late_average" / "done.json"
    content = json.loads(done.read_text())
    del content["settings"]["data"]["augment"]["copies"], content["settings"]["optim"]["precise_norm"]
    done.write_text(json.dumps(content))
    run_recipe(tiny_run.recipe, out, resume=True, **CPU)
    changed = apply_overrides(tiny_run.recipe, ["stages.late_average.data.augment.copies=2"])
    with pytest.raises(ConfigError, match="late_average was made with other settings"):
        run_recipe(changed, out, resume=True, **CPU)


def test_what_validation_needs_is_checked_before_the_first_step(tiny_run, tmp_path):
    world = str(tiny_run.out / "match8")
    stage = replace(tiny_run.recipe.stages["late_average"], data=Data(world, cache=True))
    stage = replace(stage, data=replace(stage.data, clips=Clips(frames=1)), val=Data(world, "val"))
    with pytest.raises(ConfigError, match="select='video_map' is not measured with task.multi_label=False"):
        run_recipe(recipe_of(fit=replace(stage, select="video_map")), tmp_path / "a", **CPU)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "annotations.csv").write_text("path,label,split\na.mp4,unheard,val\n")
    other = replace(stage, val=Data(str(tmp_path / "other"), "val"))
    with pytest.raises(DataError, match="1 classes of the validation set are not in the training set: unheard"):
        run_recipe(recipe_of(fit=other), tmp_path / "b", **CPU)
    with pytest.raises(ConfigError, match="batch must be at least 1, got 0"):
        run_recipe(recipe_of(fit=replace(stage, batch=0)), tmp_path / "c", **CPU)
    assert not list(tmp_path.glob("*/fit/metrics.jsonl"))


def test_other_data_are_noticed_though_the_settings_leave_the_path_open(tiny_run, tmp_path):
    world = tiny_run.out / "match8"
    recipe = recipe_of(test=replace(tiny_run.recipe.stages["test_late_average"], data=Data(split="test")))
    file = tmp_path / "run" / "recipe.json"
    context = runner._Context(file.parent, world, True, runner.Ranks(), torch.device("cpu"), 1, False, None)
    runner._prepare(recipe, context)
    assert read(file)["data"]["path"] == str(world)
    assert read(file)["data"]["samples"] == 12
    moved = tmp_path / "moved"
    shutil.copytree(world, moved)
    runner._prepare(recipe, replace(context, data=moved))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "annotations.csv").write_text("path,label,split\na.mp4,match,test\n")
    with pytest.raises(
        ConfigError, match=r"was begun with --data .*moved \(12 samples\), but --data .*more \(1 sample"
    ):
        runner._prepare(recipe, replace(context, data=tmp_path / "more"))
    assert read(file)["data"]["path"] == str(moved)


TRAIN = Train(Model("tiny2d"), Data(root="stage:world"))
WORLD = World("match8", "smoke")

REFUSED = {
    "refers to 'stage:wrold', which is no stage before it. Before it: world.": {
        "world": WORLD,
        "fit": replace(TRAIN, data=Data(root="stage:wrold")),
    },
    "refers to 'stage:world', which is no stage before it. Before it: none.": {"fit": TRAIN, "world": WORLD},
    "stage 'test' refers to 'stage:fit', which is no stage before it. Before it: world.": {
        "world": WORLD,
        "test": Evaluate("stage:fit", TRAIN.data),
        "fit": TRAIN,
    },
    "stage 'test' refers to 'stage:world', a stage of kind world, but needs one of train or convert.": {
        "world": WORLD,
        "test": Evaluate("stage:world", TRAIN.data),
    },
    "stage 'again' refers to 'stage:fit', a stage of kind train, but needs one of world or prepare.": {
        "world": WORLD,
        "fit": TRAIN,
        "again": replace(TRAIN, data=Data(root="stage:fit")),
    },
    "stage 'fit' of recipe 'made_up' needs videos: give their folder or list with --data.": {
        "fit": Train(Model("tiny2d"), Data())
    },
    "stage 'convert': a conversion to='video' needs `memory`, one to='clip' has none.": {
        "world": WORLD,
        "fit": TRAIN,
        "convert": Convert("stage:fit", to="video"),
    },
}


@pytest.mark.parametrize("text", REFUSED)
def test_recipes_that_do_not_hang_together(text, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_recipe(recipe_of(**REFUSED[text]), tmp_path / "run", **CPU)
    assert text in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_and_a_main_stage_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"--data .*nowhere: there is no such file or folder"):
        run_recipe(load_recipe("own_videos"), tmp_path / "run", data=tmp_path / "nowhere", **CPU)
    with pytest.raises(ConfigError, match=r"recipe 'tiny' calls 'memory' its main stage. Stages: match8, late_average"):
        run_recipe(replace(tiny(), main="memory"), tmp_path / "run", **CPU)


def test_a_conversion_that_makes_no_sense(tiny_run, tmp_path):
    stages = {**tiny_run.recipe.stages, "twice": Convert("stage:collaborative_memory", to="video", memory=MEMORY)}
    with pytest.raises(
        ConfigError, match=r"'stage:collaborative_memory' cannot be converted to='video': the model has"
    ):
        run_recipe(replace(tiny_run.recipe, stages=stages), tiny_run.copy(tmp_path / "run"), resume=True, **CPU)


# ------------------------------------------------------------------------------------------------- the named recipes


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_hang_together(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    runner._check_recipe(recipe, tmp_path)


def test_loading_all_recipes_loads_no_torch():
    script = (
        "import sys\nfrom wholereel.recipes import RECIPES, load_recipe\n"
        "assert all(load_recipe(name, seed=3) for name in RECIPES)\n"
        "print({'torch', 'numpy', 'av'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("weizman", r"no recipe named 'weizman'. Did you mean 'weizmann'\? There are: demo, "),
        ("qqqq", r"no recipe named 'qqqq'. There are: .*; your own is named as module:function"),
        ("no_such_module:mine", r"'no_such_module:mine' cannot be loaded: No module named 'no_such_module'"),
        ("wholereel.recipes.demo:dmo", r"'wholereel.recipes.demo:dmo' cannot be loaded: .* has no attribute 'dmo'"),
        (":mine", r"recipe ':mine' is not of the form module:function"),
        ("./mine.py:mine", r"recipe './mine.py:mine' is not of the form module:function"),
        ("wholereel.recipes.demo:MATCH8", r"names \{.*\}, expected a function that returns a Recipe"),
        ("wholereel.recipes.worlds:video_stages", r"returned dict, expected wholereel.config.Recipe"),
    ],
)
def test_recipes_that_cannot_be_loaded(name, text, monkeypatch):
    if name.endswith("video_stages"):
        monkeypatch.setattr("wholereel.recipes.worlds.video_stages", lambda: {})
    with pytest.raises(ConfigError, match=text):
        load_recipe(name)


def test_module_and_function_name_a_recipe_too(monkeypatch):
    assert load_recipe("wholereel.recipes.worlds:pair6", seed=4) == load_recipe("pair6", seed=4)
    assert load_recipe("pair6", seed=4) != load_recipe("pair6")
    monkeypatch.setattr("wholereel.recipes.worlds.pair6", lambda: load_recipe("order2"))
    with pytest.raises(ConfigError, match=r"recipe 'pair6' has no argument 'seed'; set the seeds of its stages"):
        load_recipe("pair6", seed=4)
