"""Evaluation at key frames: AVA's files in, AVA's file out, the same numbers as the official evaluators give for it."""

import csv
import json
import os
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.evaluation.test_evaluate import _free_port as free_port
from tests.inference.test_key_frames import BOX, CLIPS, OTHER, films, package  # noqa: F401 (a fixture)
from wholereel.config import Views
from wholereel.datasets.formats.ava import read_ava
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.prepare import prepare, write_prepared
from wholereel.datasets.sample import Manifest, Sample
from wholereel.errors import DataError
from wholereel.evaluation.key_frame_results import BoxRecord, TruthBox, summarise
from wholereel.evaluation.key_frames import evaluate_key_frames
from wholereel.evaluation.measure import measure
from wholereel.evaluation.official.ava import ava_report
from wholereel.metrics.frame_map import PROTOCOLS

VIEWS = Views(clips=CLIPS, short_side=32, crop=0)
# "y" is not evaluated: the map lacks it.
LABEL_MAP = 'label {\n  name: "x"\n  label_id: 1\n}\nlabel {\n  name: "z"\n  label_id: 3\n}\n'


def row(video, second, box, *rest):
    return ",".join([video, f"{900 + second:04d}", *map(str, box), *map(str, rest)]) + "\n"


@pytest.fixture(scope="module")
def official(films, tmp_path_factory):  # noqa: F811
    """The two films in AVA's form: second 2 of a film is 0902; detections of all seconds, one excluded."""
    root = tmp_path_factory.mktemp("ava")
    for film in films:
        (root / film.path.name).symlink_to(film.path)
    truth = [row("a", t, BOX, 1 + t % 2, 0) + row("a", t, BOX, 3, 0) for t in range(2, 18)]
    truth += [row("b", t, OTHER, 1, 4) for t in (2, 3, 5)]
    found = [row("a", t, (0.11, 0.2, 0.5, 0.9), "", 0.95) + row("a", t, OTHER, "", 0.85) for t in range(2, 20)]
    found += [row("b", t, (0.4, 0.05, 1.0, 0.7), "", 0.9) for t in range(2, 9)] + [row("b", 4, BOX, "", 0.1)]
    texts = {
        "ava_train_v2.2.csv": truth[0],
        "ava_val_v2.2.csv": "".join(truth),
        "ava_train_excluded_timestamps_v2.2.csv": "",
        "ava_val_excluded_timestamps_v2.2.csv": "b,0903\n",
        "ava_action_list_v2.2_for_activitynet_2019.pbtxt": LABEL_MAP,
        "found.csv": "".join(found),
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    return root


def prepared(official, folder, **options):
    write_prepared(prepare(read_ava(official, layout="segments", **options)), "ava_v2.2", {}, folder)
    return read_manifest(folder, split="val")


@pytest.mark.parametrize("detected", [True, False])
def test_official_files_in_and_out(official, tmp_path, detected):
    options = {"val_boxes": "found.csv"} if detected else {}
    manifest = prepared(official, tmp_path / "keys", **options)
    given = replace(package(), classes=manifest.classes["label"])
    results = measure(given, manifest, VIEWS, out=tmp_path / "out")
    truth, labels = official / "ava_val_v2.2.csv", official / "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
    excluded = official / "ava_val_excluded_timestamps_v2.2.csv"
    for protocol in PROTOCOLS:
        report = ava_report(truth, tmp_path / "out" / "detections.csv", labels, excluded=excluded, protocol=protocol)
        name = "map" if protocol == "slowfast" else "map_activitynet"
        assert results.metrics[name] == pytest.approx(report.metrics["mAP"], abs=1e-12)
        if protocol == "slowfast":
            assert results.counts["rows_detected"] == report.counts["rows_detected"]
            assert results.counts["key_frames_truth"] == report.counts["key_frames_truth"] == 16 + 2
            assert results.counts["key_frames_both"] == report.counts["key_frames_both"]
            assert {row.name: row.value for row in results.per_class} == pytest.approx(
                {row.name: row.value for row in report.per_class}
            )
    # Every second of the detections, also where nothing is annotated; the excluded one on neither side.
    assert results.evaluated == results.samples == results.counts["key_frames"] == (18 + 6 if detected else 16 + 2)
    assert results.counts["classes"] == 2
    assert results.counts["boxes"] == (2 * 18 + 6 if detected else 16 + 2)
    rows = list(csv.reader((tmp_path / "out" / "detections.csv").read_text().splitlines()))
    assert len(rows) == 2 * results.counts["boxes"]
    assert rows[0][:2] == ["a", "0902"]
    assert rows[0][2:6] == (["0.11", "0.2", "0.5", "0.9"] if detected else ["0.1", "0.2", "0.5", "0.9"])
    assert {row[6] for row in rows} == {"1", "3"}
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved["metrics"]["map"] == pytest.approx(results.metrics["map"], abs=1e-6)
    assert saved["protocol"]["judged"] == ("detected" if detected else "annotated")
    assert "each clip of a film encoded once" in saved["protocol"]["text"]
    assert f"{results.evaluated} of {results.samples} key frames evaluated" in str(results)


def test_a_film_that_cannot_be_read_is_listed(official, tmp_path):
    manifest = prepared(official, tmp_path / "keys")
    samples = tuple(
        replace(one, path=official / "none.mp4") if one.meta["video"] == "b" else one for one in manifest.samples
    )
    given = replace(package(), classes=manifest.classes["label"])
    results = evaluate_key_frames(given, replace(manifest, samples=samples), VIEWS)
    assert (results.evaluated, results.samples) == (16, 18)
    assert [fault.id for fault in results.faults] == ["b,0902", "b,0905"]
    with pytest.raises(DataError, match="none of 2 key frames could be judged; the first: .*none.mp4"):
        evaluate_key_frames(given, replace(manifest, samples=samples[16:]), VIEWS)


def test_two_processes_give_the_same_files(official, tmp_path):
    """Each takes whole films; of two films, one each, and of one film, one process none."""
    manifest = prepared(official, tmp_path / "keys", val_boxes="found.csv")
    given = replace(package(), classes=manifest.classes["label"])
    for name, chosen in (("both", manifest), ("one", replace(manifest, samples=manifest.samples[:18]))):
        evaluate_key_frames(given, chosen, VIEWS, out=tmp_path / name / "alone")
        port, out = free_port(), tmp_path / name / "several"
        mp.start_processes(_worker, (port, given, chosen, out), nprocs=2, start_method="fork")
        for file in ("results.json", "per_class.csv"):
            assert (out / file).read_bytes() == (tmp_path / name / "alone" / file).read_bytes()


def _worker(rank, port, given, manifest, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        results = evaluate_key_frames(given, manifest, VIEWS, out=out)
        assert results.evaluated == len(manifest.samples)
    finally:
        dist.destroy_process_group()


def test_sets_that_do_not_fit(official, tmp_path):
    manifest = prepared(official, tmp_path / "keys")
    with pytest.raises(DataError, match=r"1 class in column 'label' that the model does not know: 'action 2'"):
        evaluate_key_frames(replace(package(), classes=("x", "y", "z")), manifest, VIEWS)
    plain = Manifest((Sample("a", official / "a.mp4", None, None, "val", {"label": ()}),), {"label": ("x",)}, official)
    with pytest.raises(DataError, match="has no key frame with boxes, expected samples of key frames"):
        evaluate_key_frames(package(), plain, VIEWS)


def test_boxes_of_one_label_have_an_accuracy():
    right = BoxRecord(0, "a,0902", "a", 902.0, (BOX, OTHER), ((0.5, 0.1), (0.2, 0.3)), 1, 1)
    wrong = replace(right, index=1, id="a,0903", scores=((0.1, 0.2), (0.2, 0.3)))
    truth = {index: (TruthBox(BOX, (0,)), TruthBox(OTHER, (1,))) for index in (0, 1)}
    given = {"classes": ("x", "y"), "evaluated": (0, 1), "protocol": {}}
    assert summarise([right, wrong], (), truth, **given).metrics["box_top1"] == 0.75
    several = {**truth, 1: (TruthBox(BOX, (0, 1)), TruthBox(OTHER, (1,)))}
    assert "box_top1" not in summarise([right, wrong], (), several, **given).metrics
    detected = replace(right, boxes=(BOX, (0.0, 0.0, 1.0, 1.0)))
    assert "box_top1" not in summarise([detected, wrong], (), truth, **given).metrics


def test_each_key_frame_counts_once():
    record = BoxRecord(0, "a,0902", "a", 902.0, (BOX,), ((0.5,),), 1, 1)
    with pytest.raises(ValueError, match="a key frame was judged twice"):
        summarise([record, replace(record, index=1)], (), {0: (), 1: ()}, classes=("x",), evaluated=(0,), protocol={})
