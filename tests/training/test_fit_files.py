"""`fit` from video files to a package that predicts: two classes of made videos, one of the files broken."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from wholereel import config
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.evaluate import evaluate
from wholereel.inference.predictor import Predictor
from wholereel.media.video_writer import write_video
from wholereel.models.package import load_package
from wholereel.training.fit import fit
from wholereel.training.packages import as_package, views_of

TRAIN = config.Train(
    model=config.Model("tiny2d", options={"width": 8}, memory=config.Memory(dim=8)),
    data=config.Data(
        clips=config.Clips(count=2, frames=4, stride=1),
        augment=config.Augment(short_side=(32, 36), crop=32),
        workers=0,
        max_bad=0.5,
    ),
    optim=config.Optim(lr=0.05),
    epochs=3,
    batch=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of classes: `bright` and `dark`, six videos each; one of them is no video."""
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for level, name in enumerate(["dark", "bright"]):
        (root / name).mkdir()
        for index in range(6):
            frames = (rng.integers(0, 60, (12, 36, 48, 3)) + 120 * level).astype(np.uint8)
            write_video(root / name / f"{index}.mp4", frames, frame_rate=8, gop=12)
    (root / "dark" / "3.mp4").write_bytes(b"no video")
    return root


def test_from_files_to_a_prediction(folder, tmp_path):
    manifest = read_manifest(folder)
    classes = manifest.classes["label"]
    stream = io.StringIO()

    def validate(task):
        return evaluate(as_package(task, TRAIN, classes), manifest, views_of(TRAIN), data=TRAIN.data).metrics

    result = fit(TRAIN, manifest, tmp_path / "run", validate=validate, device="cpu", log_every=1, stream=stream)
    assert result.metrics["video_top1"] == 1.0
    assert load_package(result.package).classes == ("bright", "dark")
    faults = [line.split("\t") for line in (tmp_path / "run" / "faults.tsv").read_text().splitlines()[1:]]
    assert {row[3] for row in faults} == {str(folder / "dark" / "3.mp4")}
    assert len(faults) == 3  # once an epoch
    assert all(row[5] for row in faults)
    assert "epoch 3/3  video_top1 1.0000" in stream.getvalue()
    prediction = Predictor(tmp_path / "run", device="cpu")(folder / "bright" / "0.mp4")
    assert prediction.scores_K.argmax() == 0
    again = fit(TRAIN, manifest, tmp_path / "run", validate=validate, device="cpu", resume=True, stream=None)
    assert again == result


@pytest.mark.parametrize("accumulate", [1, 3])  # with this seed the bad file comes in the third batch
def test_too_many_broken_files_stop_the_run_and_are_listed(folder, tmp_path, accumulate):
    train = replace(TRAIN, data=replace(TRAIN.data, max_bad=0.01), accumulate=accumulate, seed=6)
    with pytest.raises(DataError, match="1 of 12 samples of epoch 1 could not be read"):
        fit(train, read_manifest(folder), tmp_path, device="cpu", stream=None)
    header, row = [line.split("\t") for line in (tmp_path / "faults.tsv").read_text().splitlines()]
    found = dict(zip(header, row, strict=True))
    assert (found["epoch"], found["step"]) == ("1", "3" if accumulate == 1 else "1")
    assert found["path"] == str(folder / "dark" / "3.mp4")


def test_settings_that_cannot_be_used(folder, tmp_path):
    manifest = read_manifest(folder)
    multi = replace(TRAIN, task=config.Task(multi_label=True))
    with pytest.raises(ConfigError, match="the data set has one label a video, but task.multi_label=True"):
        fit(multi, manifest, tmp_path, device="cpu", stream=None)
    spaces = replace(TRAIN, data=replace(TRAIN.data, labels=("verb", "noun")))
    with pytest.raises(ConfigError, match=r"exactly one label space of \['label'\], got \['verb', 'noun'\]"):
        fit(spaces, manifest, tmp_path, device="cpu", stream=None)
    step = replace(TRAIN, accumulate=2, strategy=config.Strategy("multi_iteration", "step"))
    with pytest.raises(ConfigError, match="accumulate=2 has no meaning"):
        fit(step, manifest, tmp_path, device="cpu", stream=None)
    kind = replace(TRAIN, task=config.Task(kind="guess"))
    with pytest.raises(ConfigError, match="no task 'guess'. Tasks: classify"):
        fit(kind, manifest, tmp_path, device="cpu", stream=None)
