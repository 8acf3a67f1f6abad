"""`wholereel metrics ...` on files: numbers, protocol and counts are printed and stored; mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wholereel.cli.main import main

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets_and_metrics"
AVA = [
    f"--{name}={GOLDEN}/ava_small/{file}"
    for name, file in (
        ("truth", "gt.csv"),
        ("detections", "detections.csv"),
        ("labels", "labelmap.pbtxt"),
        ("excluded", "excluded_timestamps.csv"),
    )
]


def test_ava(tmp_path, capsys):
    assert main(["metrics", "ava", *AVA, "--classes", f"--out={tmp_path}/ava.json"]) == 0
    out = capsys.readouterr().out
    assert "AVA, slowfast: frame-mAP at IoU 0.5" in out
    assert "47.554 %" in out
    assert "classes_with_truth" in out
    assert "action 17" in out
    assert json.loads((tmp_path / "ava.json").read_text())["metrics"]["mAP"] == pytest.approx(0.4755379188712523)
    assert main(["metrics", "ava", *AVA, "--protocol=activitynet_official"]) == 0
    assert "64.661 %" in capsys.readouterr().out


def test_epic_and_anticipation(tmp_path, capsys):
    import numpy as np

    truth = tmp_path / "v.csv"
    truth.write_text("narration_id,participant_id,verb_class,noun_class\na,P01,1,0\nb,P02,0,1\n")
    np.savez(tmp_path / "p.npz", narration_id=["a", "b"], verb=np.eye(2), noun=np.eye(2))
    files = [f"--truth={truth}", f"--predictions={tmp_path}/p.npz"]
    assert main(["metrics", "epic", *files]) == 0
    out = capsys.readouterr().out
    assert "all_action_accuracy_at_1" in out
    assert "undefined" in out  # no list of unseen participants
    assert main(["metrics", "epic-anticipation", *files]) == 0
    assert "overall_verb" in capsys.readouterr().out


def test_charades(tmp_path, capsys):
    truth = tmp_path / "t.csv"
    truth.write_text("id,actions,length\nAAAAA,c000 0 1,2\nBBBBB,,2\n")
    (tmp_path / "p.txt").write_text("AAAAA " + "0.5 " * 157 + "\nBBBBB " + "0.1 " * 157 + "\n")
    assert main(["metrics", "charades", f"--truth={truth}", f"--predictions={tmp_path}/p.txt"]) == 0
    assert "map_official" in capsys.readouterr().out


def test_videos(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("id,label\na,1\nb,0\n")
    (tmp_path / "p.jsonl").write_text('{"id": "a", "scores": [0.1, 0.9]}\n{"id": "b", "scores": [0.1, 0.9]}\n')
    words = ["metrics", "videos", f"--truth={tmp_path}/t.csv", f"--predictions={tmp_path}/p.jsonl", "--classes"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "videos, one label" in out
    assert "50.000 %" in out


def test_poses(tmp_path, capsys):
    golden = json.loads((GOLDEN / "posetrack_a" / "data.json").read_text())
    for side in ("gt", "pred"):
        (tmp_path / f"{side}.json").write_text(json.dumps(golden[side]["000000"]))
    files = [f"--truth={tmp_path}/gt.json", f"--predictions={tmp_path}/pred.json"]
    assert main(["metrics", "posetrack", *files, "--tracking=full"]) == 0
    assert "MOTA_reference/total" in capsys.readouterr().out
    golden = json.loads((GOLDEN / "coco_oks_ap.json").read_text())
    for side in ("gt", "pred"):
        (tmp_path / f"{side}.json").write_text(json.dumps(golden[side]))
    assert main(["metrics", "coco-keypoints", *files]) == 0
    assert "0.2950" in capsys.readouterr().out


def test_mistakes_are_one_line(tmp_path, capsys):
    (tmp_path / "d.csv").write_text("a,0902,0.1\n")
    words = [AVA[0], f"--detections={tmp_path}/d.csv", AVA[2]]
    assert main(["metrics", "ava", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["metrics", "ava", *words[::2], "--detections=nowhere.csv"]) == 2
    assert "nowhere.csv: No such file" in capsys.readouterr().err
    assert main(["metrics", "ana"]) == 2
    assert "Did you mean 'ava'?" in capsys.readouterr().err


def test_a_trained_model_under_a_published_protocol_and_its_predictions_again(package, videos, tmp_path, capsys):
    words = ["evaluate", str(package), "--data", str(videos), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*words, "--protocol", "kinetics_10x3", "--set", "data.workers=0"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["protocol"]["views"]["clips"]["plan"], results["protocol"]["views"]["crops"]) == ("classic", 3)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    labels = "".join(f"{row['id']},{results['classes'].index(row['labels'][0])}\n" for row in lines)
    (tmp_path / "labels.csv").write_text("id,label\n" + labels)
    files = [f"--truth={tmp_path}/labels.csv", f"--predictions={tmp_path}/predictions.jsonl"]
    assert main(["metrics", "videos", *files, f"--out={tmp_path}/again.json"]) == 0
    again = json.loads((tmp_path / "again.json").read_text())["metrics"]
    assert again["top1"] == results["metrics"]["video_top1"]
    assert again["mean_class_accuracy"] == results["metrics"]["video_mean_class"]
    assert main([*words, "--protocol", "charades_10x3"]) == 2
    assert "is for any number of labels a video; this model gives one label" in capsys.readouterr().err
