"""`train` and `demo`: what reaches the runner, and several processes."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import yaml

from wholereel.cli import launch
from wholereel.cli.main import main
from wholereel.recipes import load_recipe
from wholereel.recipes.overrides import diff, from_plain

DEFAULTS = {"data": None, "resume": False, "devices": "auto", "tensorboard": False}
OWN_RECIPE = """
from dataclasses import replace
from wholereel.recipes import load_recipe

def mine():
    return replace(load_recipe("pair6"), name="mine")

def wrong():
    return 3
"""


@pytest.fixture
def runs(monkeypatch):
    """Calls of `run_recipe`, which is not executed."""
    calls = []
    runner = types.ModuleType("wholereel.recipes.runner")
    runner.run_recipe = lambda recipe, out, **options: calls.append((recipe, out, options))
    monkeypatch.setitem(sys.modules, "wholereel.recipes.runner", runner)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return calls


def test_a_recipe_runs_as_named_into_its_own_folder(runs):
    assert main(["train", "match8"]) == 0
    assert runs == [(load_recipe("match8"), Path("runs/match8"), DEFAULTS)]


def test_every_flag_reaches_the_runner(runs):
    places = ["--out", "o", "--data", "d", "--devices", "cpu", "--resume", "--tensorboard"]
    numbers = ["--seed", "7", "--precision", "bf16", "--batch", "3", "--epochs", "2"]
    assert main(["train", "own_videos", *places, *numbers, "--set", "stages.clip_level.optim.lr=0.5"]) == 0
    [(recipe, out, options)] = runs
    assert (out, options) == (Path("o"), {"data": Path("d"), "resume": True, "devices": "cpu", "tensorboard": True})
    changed = {path: after for path, (_, after) in diff(load_recipe("own_videos", seed=7), recipe).items()}
    assert changed == {
        "stages.clip_level.precision": "bf16",
        "stages.video_level.precision": "bf16",
        "stages.test_clip_level.precision": "bf16",
        "stages.test_video_level.precision": "bf16",
        "stages.clip_level.batch": 3,
        "stages.video_level.batch": 3,
        "stages.clip_level.epochs": 2,
        "stages.video_level.epochs": 2,
        "stages.clip_level.optim.lr": 0.5,
    }


def test_set_wins_over_the_flag(runs):
    main(["train", "match8", "--epochs", "2", "--set", "stages.pretrain.epochs=5"])
    stages = runs[0][0].stages
    assert (stages["pretrain"].epochs, stages["late_average"].epochs) == (5, 2)


def test_demo_is_the_recipe_of_that_name_and_ends_with_its_report(runs, monkeypatch, capsys):
    reports = []

    def write_demo_report(out, *, command):
        reports.append((out, command))
        systems = {"late_average": 0.6, "collaborative_memory": 0.9}
        numbers = {name: {"video_top1": value, "videos": 300} for name, value in systems.items()}
        return {**numbers, "ceilings": {"sum": 9 / 14}}

    report = types.ModuleType("wholereel.recipes.demo_report")
    report.write_demo_report = write_demo_report
    monkeypatch.setitem(sys.modules, "wholereel.recipes.demo_report", report)
    monkeypatch.setattr(sys, "argv", ["wholereel", "demo", "--out", "here", "--seed", "1"])
    assert main() == 0
    assert runs == [(load_recipe("demo", seed=1), Path("here"), DEFAULTS)]
    assert reports == [(Path("here"), "wholereel demo --out here --seed 1")]
    printed = capsys.readouterr().out
    assert "collaborative_memory  0.900  of 300 test videos" in printed
    assert "0.643" in printed


def test_show_prints_settings_that_can_be_read_back(runs, capsys):
    assert main(["train", "match8", "--show", "--set", "stages.pretrain.epochs=5"]) == 0
    printed = capsys.readouterr().out
    assert from_plain(yaml.safe_load(printed)).stages["pretrain"].epochs == 5
    assert printed.splitlines()[-1].startswith("# changed: stages.pretrain.epochs: ")
    assert not runs


def test_a_recipe_of_ones_own_is_found_in_the_current_folder(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_recipe_for_test.py").write_text(OWN_RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["train", "own_recipe_for_test:mine"]) == 0
    assert runs[0][1] == Path("runs/mine")
    assert main(["train", "own_recipe_for_test:wrong"]) == 2
    assert "returned int, expected wholereel.config.Recipe" in capsys.readouterr().err


def test_several_devices_become_processes_of_the_same_command(runs, monkeypatch):
    started = []

    def become(path, words):
        started.append((path, words))
        raise SystemExit(0)

    monkeypatch.setattr(launch.os, "execv", become)
    monkeypatch.setattr(sys, "argv", ["wholereel", "train", "match8", "--devices", "3"])
    assert main() == 0
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "wholereel"]
    assert started == [(sys.executable, [sys.executable, *run, "train", "match8", "--devices", "3"])]
    assert not runs


def test_a_process_of_several_does_not_start_more(runs, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(["train", "match8", "--devices", "3"]) == 0
    assert runs[0][2]["devices"] == "auto"
