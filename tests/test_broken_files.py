"""A data set with broken files, from the command that checks it through training to the measured model.

The promise: a bad file is named with its reason, never counted as right or wrong, and too many of them end the run.
"""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.datasets.broken_files import REASONS, add_broken, data_set, truncated_video
from wholereel.cli.main import main
from wholereel.config import Augment, Clips, Data, Evaluate, Model, Optim, Recipe, Train, Views
from wholereel.errors import DataError
from wholereel.recipes.runner import run_recipe

CLIPS = Clips(plan="uniform", count=2, frames=2, stride=2)
VIEWS = Views(clips=CLIPS, short_side=32, crop=32)
CUT_END = "videos/cut_end.avi"


def recipe(**settings) -> Recipe:
    data = Data(clips=CLIPS, augment=Augment(short_side=(32, 32), crop=32), workers=0, **settings)
    fit = Train(Model("tiny2d", options={"width": 8}), data, optim=Optim("adamw", lr=1e-3), epochs=1, batch=3)
    return Recipe("broken", {"fit": fit, "test": Evaluate("stage:fit", Data(split="test", workers=0), views=VIEWS)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """In each of two splits: healthy videos, one file broken in each way, and one that ends early but can be read."""
    root = tmp_path_factory.mktemp("videos")
    for part, split, healthy in ((root, "train", 9), (root / "more", "test", 6)):
        data_set(part, healthy, split)
        add_broken(part, split)
        truncated_video(part / CUT_END)
        with (part / "annotations.csv").open("a") as file:
            file.write(f"{CUT_END},run,{split}\n")
    more = (root / "more" / "annotations.csv").read_text().splitlines()[1:]
    with (root / "annotations.csv").open("a") as file:
        file.writelines(f"more/{line}\n" for line in more)
    (root / "more" / "annotations.csv").unlink()
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run that bears with all of them, and what it said."""
    out, words = tmp_path_factory.mktemp("runs") / "run", io.StringIO()
    run_recipe(recipe(max_bad=0.5), out, data=folder, devices="cpu", stream=words)
    return out, words.getvalue()


def test_check_lists_every_file_before_training_does(folder, tmp_path, capsys):
    assert main(["data", "check", str(folder), "--out", str(tmp_path / "bad.tsv")]) == 1
    printed = capsys.readouterr().out
    for part in (folder, folder / "more"):
        for name, reason in {**REASONS, "cut_end.avi": "truncated: "}.items():
            assert f"{part / 'videos' / name}: {reason}" in printed
    assert f"{2 * (len(REASONS) + 1)} problems, also in " in printed
    assert len((tmp_path / "bad.tsv").read_text().splitlines()) == 1 + 2 * (len(REASONS) + 1)


def test_training_goes_on_and_names_what_it_left_out(run, folder):
    out, _ = run
    with (out / "fit" / "faults.tsv").open(newline="") as file:
        listed = list(csv.DictReader(file, delimiter="\t"))
    rows = {row["id"]: row for row in listed}
    assert len(rows) == len(listed)
    assert set(rows) == {CUT_END, *(f"videos/{name}" for name in REASONS)}
    assert rows[CUT_END]["reason"] == "truncated: the last frame that decodes is repeated"
    assert rows[CUT_END]["replaced_by"] == ""
    for name, reason in REASONS.items():
        row = rows[f"videos/{name}"]
        assert row["path"] == str(folder / "videos" / name)
        assert reason in row["reason"]
        assert row["replaced_by"].startswith("videos/train_") or row["replaced_by"] == CUT_END
    assert (out / "fit" / "last" / "model.safetensors").is_file()


def test_evaluation_says_how_many_of_how_many_and_why(run):
    out, words = run
    results = json.loads((out / "test" / "results.json").read_text())
    assert (results["evaluated"], results["samples"]) == (7, 7 + len(REASONS))
    reasons = {fault["id"].removeprefix("more/videos/"): fault["reason"] for fault in results["faults"]}
    assert set(reasons) == set(REASONS)
    assert all(REASONS[name] in reason for name, reason in reasons.items())
    assert results["truncated"] == [f"more/{CUT_END}"]
    predicted = (out / "test" / "predictions.jsonl").read_text().splitlines()
    assert len(predicted) == 7
    assert f"7 of {7 + len(REASONS)} evaluated" in words
    assert "failed: more/videos/empty.mp4: " in words


def test_too_many_end_the_run_with_one_error_that_names_them_and_what_to_do(folder, tmp_path):
    with pytest.raises(DataError) as caught:
        run_recipe(recipe(), tmp_path / "run", data=folder, devices="cpu", stream=None)
    text = str(caught.value)
    assert text.startswith(f"{folder}: ")
    assert "of 15 samples of epoch 1 could not be read (" in text
    assert any(f"{folder / 'videos' / name}: {reason}" in text for name, reason in REASONS.items())
    assert "at most 1.00% (data.max_bad)" in text
    assert "Run `wholereel data check` for the full list, repair or remove those files, or raise data.max_bad." in text
    assert not (tmp_path / "run" / "fit" / "done.json").exists()
