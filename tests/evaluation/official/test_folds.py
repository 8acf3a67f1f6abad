"""Means over folds: every fold once, one data set, one protocol; the data set's options stand in every report."""

import json
import statistics

import pytest

from tests.inference.builders import moving_square, package
from wholereel import config
from wholereel.cli.main import main
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.prepare import prepare, prepared_as, write_prepared
from wholereel.datasets.sample import Sample
from wholereel.errors import DataError
from wholereel.evaluation.evaluate import evaluate
from wholereel.evaluation.official.folds import folds_report

VIEWS = config.Views(config.Clips("uniform", 1, 4, 2), short_side=36, crop=32)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three folds of six videos: two of them test in each."""
    root = tmp_path_factory.mktemp("ucf")
    for number in range(6):
        moving_square(root / f"v{number}.mp4", frames=12, right=number % 2 == 0, seed=number)
    model = package(tmp_path_factory.mktemp("package"), config.Memory())
    folders = []
    for fold in (1, 2, 3):
        samples = tuple(
            Sample(f"v{n}", root / f"v{n}.mp4", None, None, "test" if n // 2 == fold - 1 else "train", {"label": n % 2})
            for n in range(6)
        )
        found = prepare(Annotations(samples, {"label": ("right", "left")}, root, ()))
        manifest = write_prepared(found, "ucf101", {"fold": fold}, root / f"fold{fold}")
        out = root / f"results{fold}"
        data = config.Data(split="test", workers=0)
        evaluate(model, read_manifest(manifest, split="test"), VIEWS, data=data, device="cpu", out=out)
        folders.append(out)
    return folders


def test_the_mean_of_three_folds(results, tmp_path, capsys):
    report = folds_report(results)
    tops = [json.loads((folder / "results.json").read_text())["metrics"]["video_top1"] for folder in results]
    assert report.metrics["video_top1"] == pytest.approx(statistics.fmean(tops))
    assert report.metrics["video_top1_std"] == pytest.approx(statistics.stdev(tops))
    assert report.counts == {"folds": 3, "classes": 2, "samples": 6, "evaluated": 6}
    assert [(row.name, row.count, row.value) for row in report.per_class] == [
        (f"fold {n}", 2, top) for n, top in enumerate(tops, start=1)
    ]
    assert main(["metrics", "folds", *map(str, results), "--out", str(tmp_path / "folds.json")]) == 0
    printed = capsys.readouterr().out
    assert "ucf101, 3 folds: mean over 3 folds, one model trained for each. In ucf101 (fold 1): 2 videos" in printed
    assert json.loads((tmp_path / "folds.json").read_text())["metrics"]["video_top1"] == report.metrics["video_top1"]


def test_a_report_names_its_data_set_and_options(results):
    protocol = json.loads((results[1] / "results.json").read_text())["protocol"]
    assert protocol["data"] == {"name": "ucf101", "options": {"fold": 2}}
    assert protocol["text"].startswith("ucf101 (fold 2): 2 videos, 2 classes.")
    assert prepared_as(results[1]) is None


def changed(folder, target, change):
    content = json.loads((folder / "results.json").read_text())
    change(content)
    target.mkdir()
    (target / "results.json").write_text(json.dumps(content))
    return target


def test_folds_that_do_not_belong_together(results, tmp_path):
    with pytest.raises(DataError, match=r"the folds \[1, 2\] of ucf101, expected \[1, 2, 3\], each once"):
        folds_report(results[:2])
    with pytest.raises(DataError, match=r"the folds \[1, 1, 3\] of ucf101"):
        folds_report([results[0], results[0], results[2]])
    cases = {
        "views": lambda content: content["protocol"]["views"].update(crops=3),
        "model": lambda content: content["protocol"].update(model="other"),
        "data set": lambda content: content["protocol"]["data"].update(name="hmdb51"),
    }
    for name, change in cases.items():
        other = changed(results[1], tmp_path / name, change)
        with pytest.raises(DataError, match=f"has another {name} than"):
            folds_report([results[0], other, results[2]])
    whole = changed(results[0], tmp_path / "whole", lambda content: content["protocol"].update(data=None))
    with pytest.raises(DataError, match="is no result of a fold"):
        folds_report([whole])
