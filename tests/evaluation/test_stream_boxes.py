"""A toy set in AVA's form, three films of ten key frames, read in order: each judged once, with what came before."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.evaluation.test_key_frames import LABEL_MAP, row
from wholereel.config import Augment, Clips, Data, Model, Optim, Strategy, Streams, Task, Train, Views
from wholereel.datasets.formats.ava import read_ava
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.prepare import prepare, write_prepared
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.measure import measure
from wholereel.evaluation.official.ava import ava_report
from wholereel.evaluation.stream_boxes import evaluate_stream_boxes
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video
from wholereel.metrics.frame_map import PROTOCOLS
from wholereel.models.package import Package, build_model, load_package
from wholereel.training.fit import fit

SIDE = 32
CLIPS = Clips(frames=2, stride=2)
VIEWS = Views(clips=CLIPS, short_side=SIDE, crop=0)
STREAMS = Streams(steps="samples")
DATA = Data(split="val", workers=0, streams=STREAMS)
FILMS = ("a", "b", "c")
SECONDS = range(2, 12)
LEFT, RIGHT = (0.05, 0.1, 0.5, 0.95), (0.5, 0.0, 0.95, 0.9)
OPTIONS = {"frames": 2, "crop": SIDE, "width": 8, "boxes": True, "reach": 2}


def boxes_of(film, second):
    """One box, or two; their number changes within a film and between films that are read side by side."""
    return (LEFT, RIGHT) if (second + FILMS.index(film)) % 3 else (RIGHT,)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Films at 4 frames a second, each with its own noise; the rows of b and c alternate in the files."""
    root = tmp_path_factory.mktemp("toy")
    for number, film in enumerate(FILMS):
        pixels = np.random.default_rng(number).integers(0, 255, (52, SIDE, SIDE, 3), dtype=np.uint8)
        write_video(root / f"{film}.mp4", pixels, frame_rate=4, gop=4)
    rows = {
        film: [
            row(film, second, box, 1 + 2 * ((second + person) % 2), person)
            for second in SECONDS
            for person, box in enumerate(boxes_of(film, second))
        ]
        for film in FILMS
    }
    mixed = [line for pair in zip(rows["c"], rows["b"], strict=False) for line in pair]
    truth = rows["a"] + mixed + rows["b"][len(rows["c"]) :] + rows["c"][len(rows["b"]) :]
    for split in ("train", "val"):
        (root / f"ava_{split}_v2.2.csv").write_text("".join(truth))
        (root / f"ava_{split}_excluded_timestamps_v2.2.csv").write_text("")
    (root / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(LABEL_MAP)
    write_prepared(prepare(read_ava(root, layout="segments")), "ava_v2.2", {}, root / "keys")
    return root


@pytest.fixture(scope="module")
def manifest(root):
    return read_manifest(root / "keys", split="val")


def package(**changes) -> Package:
    spec = Model("memvit_tiny", options={**OPTIONS, **changes})
    torch.manual_seed(0)
    model = build_model(spec, 3).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("head"):
            torch.nn.init.normal_(parameter, std=0.5)
    colours = model.info.mean, model.info.std
    task = Task("stream_detect", multi_label=True)
    spaces = {"label": ("x", "action 2", "z")}
    return Package(model, spec, spaces["label"], task, CLIPS, SIDE, 0, *colours, {}, spaces, STREAMS)


def by_hand(root, given):
    """Scores of all boxes, film after film, the memory begun anew for each: nothing of the library's readers."""
    found = {}
    for film in FILMS:
        reader, state = VideoReader(root / f"{film}.mp4"), given.model.init_state(1)
        for second in SECONDS:
            pixels_TCHW = reader.read(indices=[4 * second - 2, 4 * second]).pixels_TCHW
            clip_BCTHW = (pixels_TCHW.float() / 255 - 0.5).div(0.25).transpose(0, 1)[None]
            corners = [[0.0, *(SIDE * value for value in box)] for box in boxes_of(film, second)]
            with torch.no_grad():
                logits_RK, state = given.model(clip_BCTHW, state, torch.tensor(corners))
            found[film, second] = logits_RK.sigmoid().tolist()
    return found


def test_every_key_frame_once_with_what_came_before(root, manifest):
    given = package()
    expected = by_hand(root, given)
    for batch in (1, 2, 3):
        results = evaluate_stream_boxes(given, manifest, VIEWS, data=DATA, batch=batch)
        assert results.evaluated == results.samples == 30
        assert Counter(record.id for record in results.records) == Counter(sample.id for sample in manifest.samples)
        for record in results.records:
            scores = np.array(expected[record.video, int(record.seconds) % 900])
            assert np.array(record.scores) == pytest.approx(scores, abs=1e-5), (batch, record.id)


def test_what_came_before_counts(manifest):
    """Key frames that are left out are missed by the next ones of their film, and by no other film."""
    short = replace(
        manifest,
        samples=tuple(one for one in manifest.samples if one.meta["video"] != "a" or one.key_seconds >= 6),
    )
    whole = {one.id: one for one in evaluate_stream_boxes(package(), manifest, VIEWS, data=DATA, batch=2).records}
    parts = evaluate_stream_boxes(package(), short, VIEWS, data=DATA, batch=2).records
    assert len(parts) == 26
    same = {one.id: np.array(one.scores) == pytest.approx(np.array(whole[one.id].scores), abs=1e-6) for one in parts}
    assert not same["a,0906"]
    assert not same["a,0907"]
    assert all(equal for id, equal in same.items() if not id.startswith("a"))


def test_official_files_in_and_out_after_training(root, manifest, tmp_path):
    """Training, evaluation, and AVA's own evaluation of the file that comes out."""
    data = replace(DATA, root=str(root / "keys"), split="train", clips=CLIPS, augment=Augment((SIDE, SIDE), 0, 0.0))
    train = Train(
        model=Model("memvit_tiny", options=OPTIONS),
        data=data,
        task=Task("stream_detect", multi_label=True),
        strategy=Strategy("sequential"),
        optim=Optim("adamw", lr=1e-3),
        views=VIEWS,
        epochs=1,
        batch=2,
    )
    fit(train, read_manifest(root / "keys", split="train"), tmp_path / "run", device="cpu", stream=None)
    out = tmp_path / "out"
    results = measure(load_package(tmp_path / "run" / "last"), manifest, VIEWS, data=DATA, out=out)
    labels = root / "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
    for protocol in PROTOCOLS:
        report = ava_report(root / "ava_val_v2.2.csv", out / "detections.csv", labels, protocol=protocol)
        name = "map" if protocol == "slowfast" else "map_activitynet"
        assert results.metrics[name] == pytest.approx(report.metrics["mAP"], abs=1e-6)
    boxes = sum(len(boxes_of(film, second)) for film in FILMS for second in SECONDS)
    rows = list(csv.reader((out / "detections.csv").read_text().splitlines()))
    assert len({tuple(one[:7]) for one in rows}) == len(rows) == 2 * boxes, "a row for each box and evaluated class"
    assert {(one[0], int(one[1])) for one in rows} == {(film, 900 + second) for film in FILMS for second in SECONDS}
    saved = json.loads((out / "results.json").read_text())
    assert saved["evaluated"] == 30
    assert "the memory carried through each film" in saved["protocol"]["text"]


def test_a_film_that_cannot_be_read_is_listed(root, manifest):
    gone = root / "none.mp4"
    samples = [replace(one, path=gone) if one.meta["video"] == "b" else one for one in manifest.samples]
    broken = replace(manifest, samples=tuple(samples))
    results = evaluate_stream_boxes(package(), broken, VIEWS, data=DATA)
    assert (results.evaluated, results.samples) == (20, 30)
    assert [fault.id for fault in results.faults] == [f"b,09{second:02d}" for second in SECONDS]
    only = replace(manifest, samples=tuple(one for one in samples if one.meta["video"] == "b"))
    with pytest.raises(DataError, match="has no video that can be streamed; the first: .*none.mp4"):
        evaluate_stream_boxes(package(), only, VIEWS, data=DATA)


def test_sets_and_packages_that_do_not_fit(manifest):
    grid = replace(package(), streams=Streams())
    with pytest.raises(ConfigError, match="needs streams.steps='samples'"):
        evaluate_stream_boxes(grid, manifest, VIEWS)
    whole = replace(manifest, samples=tuple(replace(one, key_seconds=None) for one in manifest.samples))
    with pytest.raises(DataError, match="has samples without key frame, expected key frames with boxes"):
        evaluate_stream_boxes(package(), whole, VIEWS, data=DATA)
