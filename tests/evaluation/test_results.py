"""Numbers of records against published rules (golden values of facebookresearch/SlowFast's code), and the files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from wholereel import config
from wholereel.batches import Fault
from wholereel.evaluation.results import VideoRecord, summarise, write_results
from wholereel.inference.predictor import combine_views
from wholereel.models.package import Package

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation"


def record(index, target, scores, views=4, shared=2, alone=1):
    target = target if isinstance(target, tuple) else (target,)
    return VideoRecord(index, f"v{index}", target, tuple(scores), views, shared, alone)


def summary(records, classes, multi_label=False, faults=()):
    return summarise(records, faults, classes=classes, multi_label=multi_label, protocol={"text": "a protocol"})


def scores_of(logits_BVK, combine, multi_label=False):
    package = Package(None, config.Model("x"), (), config.Task(multi_label=multi_label), None, 0, 0, (), (), {})
    valid_BV = torch.ones(logits_BVK.shape[:2], dtype=torch.bool)
    return combine_views(logits_BVK, valid_BV, config.Views(combine=combine), package)


@pytest.mark.parametrize("combine", ["softmax_mean", "task"])
def test_thirty_views_match_the_public_meter(combine):
    golden = json.loads((GOLDEN / "views.json").read_text())
    rng = np.random.RandomState(golden["seed"])
    size, views, classes = golden["N"], golden["temporal"] * golden["spatial"], golden["classes"]
    labels = rng.randint(0, classes, size)
    logits = rng.standard_normal((size, views, classes)).astype(np.float32)
    logits[np.arange(size), :, labels] += np.float32(0.6)
    assert logits[0, 0, :4].tolist() == pytest.approx(golden["check"]["logit_0_0_0to4"])
    scores = scores_of(torch.from_numpy(logits), combine)
    results = summary(
        [record(i, int(labels[i]), scores[i].tolist()) for i in range(size)], tuple(map(str, range(classes)))
    )
    key = "top1_top5_percent_sum_of_softmax" if combine == "softmax_mean" else "top1_top5_percent_sum_of_logits"
    assert [100 * results.metrics[f"video_top{k}"] for k in (1, 5)] == pytest.approx(golden[key])


def test_charades_views_match_the_public_code():
    golden = json.loads((GOLDEN / "charades.json").read_text())
    size, views, classes = golden["N"], golden["views"], golden["classes"]
    rng = np.random.RandomState(golden["seed"])
    share = np.minimum(0.4, 0.6 / np.arange(1, classes + 1) ** 0.7)
    share[-3:] = 0
    labels = rng.uniform(size=(size, classes)) < share
    labels[:2] = 0
    logits = rng.standard_normal((size, views, classes)).astype(np.float32)
    logits += np.float32(golden["effect"]) * labels[:, None].astype(np.float32) - np.float32(2)
    assert logits[0, 0, :4].tolist() == pytest.approx(golden["check"]["logit_0_0_0to4"])
    scores = scores_of(torch.from_numpy(logits).double(), "sigmoid_max", multi_label=True)
    records = [record(i, tuple(np.flatnonzero(labels[i]).tolist()), scores[i].tolist()) for i in range(size)]
    results = summary(records, tuple(map(str, range(classes))), multi_label=True)
    assert 100 * results.metrics["video_map"] == pytest.approx(golden["map_max_views_slowfast_percent"], rel=1e-6)
    assert sum(row.videos > 0 for row in results.per_class) == golden["check"]["classes_with_positives"]
    assert results.confusion_KK == ()


def test_single_label_numbers_by_hand():
    records = [
        record(3, 0, [0.6, 0.3, 0.1]),
        record(0, 0, [0.2, 0.7, 0.1], shared=0, alone=4),
        record(1, 1, [0.1, 0.8, 0.1]),
        record(2, 1, [0.4, 0.4, 0.2], views=2),  # equal scores: the first class is called
    ]
    results = summary(records, ("a", "b", "c"), faults=[Fault("v9", "v9.mp4", "cannot be read")])
    assert results.metrics == pytest.approx(
        {"video_top1": 0.5, "video_mean_class": 0.5, "clip_top1_shared": 6 / 14, "clip_top1_alone": 7 / 14}
    )
    assert results.confusion_KK == ((1, 1, 0), (1, 1, 0), (0, 0, 0))
    assert [(row.name, row.videos, row.right) for row in results.per_class] == [("a", 2, 1), ("b", 2, 1), ("c", 0, 0)]
    assert results.intervals["video_top1"] == pytest.approx((0.150, 0.850), abs=5e-4)  # 2 of 4
    assert str(results).splitlines()[-2:] == ["4 of 5 evaluated", "  failed: v9: cannot be read"]


def test_order_and_shards_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(11, 7, generator=generator)
    for multi_label in (False, True):
        records = [record(i, (i % 7, (i + 2) % 7) if multi_label else i % 7, scores[i].tolist()) for i in range(11)]
        whole = summary(records, tuple("abcdefg"), multi_label)
        merged = summary(records[2::3] + records[1::3] + records[0::3], tuple("abcdefg"), multi_label)
        assert merged == whole


def rows_of(file):
    return list(csv.reader(file.read_text(encoding="utf-8").splitlines()))


def test_files(tmp_path):
    records = [record(0, 0, [0.6, 0.4]), record(1, 1, [math.nan, math.nan])]
    results = summary(records, ("läuft", "steht"))
    write_results(results, tmp_path)
    assert results.metrics["video_top1"] == 0.5  # scores that are no numbers are never right
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert stored["protocol"]["text"] == "a protocol"
    assert (stored["evaluated"], stored["samples"], stored["classes"]) == (2, 2, ["läuft", "steht"])
    assert stored["metrics"]["video_top1"] == 0.5
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["scores"] for line in lines] == [[0.6, 0.4], [None, None]]
    assert rows_of(tmp_path / "per_class.csv")[1] == ["läuft", "1", "1", "1.000000"]
    header, *rows = rows_of(tmp_path / "confusion.csv")
    assert header[1:] == ["läuft", "steht"]
    assert [row[1:] for row in rows] == [["1", "0"], ["0", "0"]]
    assert not list(tmp_path.glob(".writing*"))
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_results(results, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_multi_label_files_have_no_confusion(tmp_path):
    results = summary([record(0, (0, 1), [0.6, 0.4]), record(1, (), [0.1, 0.2])], ("a", "b"), multi_label=True)
    write_results(results, tmp_path)
    assert not (tmp_path / "confusion.csv").exists()
    assert (tmp_path / "per_class.csv").read_text().splitlines()[0] == "class,videos,average_precision"
    assert results.metrics["video_map"] == 1.0
    assert results.metrics["video_hit1"] == 0.5  # a video without labels is a miss


def test_errors():
    with pytest.raises(ValueError, match="no video could be evaluated"):
        summary([], ("a", "b"))
    with pytest.raises(ValueError, match="evaluated twice"):
        summary([record(0, 0, [1, 0]), record(0, 0, [1, 0])], ("a", "b"))
