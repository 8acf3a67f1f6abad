"""Official reports from files: the golden numbers again through the files, formats, counts, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.metrics.test_keypoint_ap import files as coco_files
from wholereel.errors import DataError
from wholereel.evaluation.files.ava import read_box_rows, read_key_frames, read_label_map
from wholereel.evaluation.files.epic import read_actions, read_splits
from wholereel.evaluation.files.scores import read_scores
from wholereel.evaluation.official.ava import ava_report
from wholereel.evaluation.official.charades import charades_report
from wholereel.evaluation.official.epic import anticipation_report, recognition_report
from wholereel.evaluation.official.poses import keypoint_report, posetrack_report
from wholereel.evaluation.official.videos import videos_report

GOLDEN = Path(__file__).parents[2] / "golden" / "datasets_and_metrics"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------------------ AVA


@pytest.mark.parametrize("protocol", ["slowfast", "activitynet_official"])
def test_ava(protocol, tmp_path):
    case = GOLDEN / "ava_empty_keyframes"
    report = ava_report(
        case / "gt.csv", case / "detections.csv", case / "labelmap.pbtxt",
        excluded=case / "excluded_timestamps.csv", empty=case / "gt_empty_keyframes.csv", protocol=protocol,
    )  # fmt: skip
    expected = json.loads((case / "expected.json").read_text())[protocol]["PascalBoxes_Precision/mAP@0.5IOU"]
    assert report.metrics["mAP"] == pytest.approx(expected, rel=1e-9)
    assert (report.counts["classes"], report.counts["key_frames_excluded"]) == (9, 1)
    assert report.counts["key_frames_truth"] == (24 if protocol == "activitynet_official" else 19)
    assert report.metrics["mAP_pose"] == report.metrics["mAP"]  # the map calls all its classes movements
    assert protocol in str(report)
    assert "key_frames_both" in str(report)
    report.write(tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["metrics"]["mAP"] == report.metrics["mAP"]
    assert len(stored["per_class"]) == 9


def test_ava_files(tmp_path):
    labels = write(
        tmp_path / "map.pbtxt",
        'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nlabel {\n  name: "watch (a person)"\n  label_id: 80\n'
        "  label_type: PERSON_INTERACTION\n}\n",
    )
    names = read_label_map(labels)
    assert names.names == {1: "bend/bow (at the waist)", 80: "watch (a person)"}
    assert names.groups == {"pose": frozenset({1}), "person": frozenset({80})}
    rows, empty = read_box_rows(
        write(
            tmp_path / "gt.csv", "-5KQ66BBWC4,0902,0.1,0.2,0.3,0.4,80,1\n-5KQ66BBWC4,902.0,0.1,0.2,0.3,0.4,1,1\nx,903\n"
        ),
        truth=True,
    )
    assert rows.frames == ("-5KQ66BBWC4,0902.000000",)
    assert rows.frame_R.tolist() == [0, 0]
    assert rows.score_R.tolist() == [1, 1]  # the person's id is no score
    assert empty == {"x,0903.000000"}
    assert read_key_frames(write(tmp_path / "ex.csv", "x,0903\n\n")) == empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,0902,0.1,0.2,0.3,0.4,80\n", "7 columns in line 1, expected .*score"),
        ("a,0902,0.1,0.2,0.3,0.4,80,0.5\na,0902,0.1,x,0.3,0.4,80,0.5\n", "line 2: could not convert"),
        ("a,0902,0.1,0.2,0.3,0.4,1.5,0.5\n", "line 1: invalid literal"),
        ("a,b,0.1,0.2,0.3,0.4,80,0.5\n", "time stamp 'b' in line 1"),
        ("a,0902,0.1,0.2,0.3,nan,80,0.5\n", "1 rows that hold NaN"),
    ],
)
def test_ava_rows_that_are_not_as_expected(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_box_rows(write(tmp_path / "det.csv", text), truth=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('label { name: "a" }', "without name or id"),
        ('label { name: "a"\n id: 3 }\nlabel { name: "b"\n id: 3 }', "without name or id|stands there twice"),
        ("nothing", "no label entry"),
    ],
)
def test_label_maps_that_are_not_as_expected(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_label_map(write(tmp_path / "map.pbtxt", text))


# ----------------------------------------------------------------------------------------------------------------- EPIC

SEGMENTS = [("P01_01_0", "P01", 0, 2), ("P18_02_1", "P18", 1, 0), ("P01_01_2", "P01", 1, 2), ("P02_01_0", "P02", 2, 1)]


def epic_files(folder):
    lines = "".join(f"{name},{person},P,{verb},{noun}\n" for name, person, verb, noun in SEGMENTS)
    return {
        "truth": write(
            folder / "EPIC_100_validation.csv", "narration_id,participant_id,video_id,verb_class,noun_class\n" + lines
        ),
        "tail_verbs": write(folder / "tail_verbs.csv", "verb\n2\n"),
        "tail_nouns": write(folder / "tail_nouns.csv", "noun\n0\n"),
        "unseen": write(folder / "unseen.csv", "participant_id\nP18\nP32\n"),
        "actions": write(folder / "actions.csv", "id,verb,noun,action\n1,1,0,x\n0,0,2,y\n2,1,2,z\n"),
    }


def epic_scores():
    verb = np.array([[3.0, 1, 0], [0, 3, 1], [3, 2, 0], [0, 1, 2]])
    noun = np.array([[0.0, 1, 3], [3, 1, 0], [0, 1, 3], [2, 1, 0]])
    action = np.array([[3.0, 0, 0], [0, 0, 3], [0, 0, 3], [0, 1, 2]])
    return verb, noun, action


def test_epic_recognition(tmp_path):
    given = epic_files(tmp_path)
    verb, noun, action = epic_scores()
    ids = [row[0] for row in SEGMENTS]
    order = [2, 0, 3, 1]  # rows go by their ids
    np.savez(tmp_path / "p.npz", narration_id=np.array([*(ids[i] for i in order), "other"]),
             **{name: np.concatenate([part[order], part[:1]]) for name, part in
                (("verb", verb), ("noun", noun), ("action", action))})  # fmt: skip
    report = recognition_report(predictions=tmp_path / "p.npz", **given)
    values = report.metrics
    assert values["all_verb_accuracy_at_1"] == 0.75
    assert values["all_noun_accuracy_at_1"] == 0.75
    assert values["all_action_accuracy_at_1"] == 0.5
    assert values["all_action_head_accuracy_at_1"] == 0.5  # segments 0 and 2; the pair of segment 3 is in no list
    assert values["unseen_verb_accuracy_at_1"] == 1.0
    assert (values["tail_verb_accuracy_at_1"], values["tail_action_accuracy_at_1"]) == (1.0, 0.5)
    assert report.counts["evaluated"] == report.counts["annotated"] == 4
    assert report.counts["unknown_ids"] == 1
    assert report.counts["tail_action_segments"] == 2
    assert report.counts["action_classes"] == 4


def test_a_submission_in_json_equals_arrays(tmp_path):
    given = epic_files(tmp_path)
    verb, noun, _ = epic_scores()
    results = {
        row[0]: {
            "verb": {str(i): value for i, value in enumerate(verb[place])},
            "noun": {str(i): value for i, value in enumerate(noun[place])},
            "action": {f"{v},{n}": verb[place, v] + noun[place, n] for v in range(3) for n in range(3) if v != place},
        }
        for place, row in enumerate(SEGMENTS[:3])
    }
    write(tmp_path / "p.json", json.dumps({"version": "0.2", "challenge": "action_recognition", "results": results}))
    np.savez(tmp_path / "p.npz", narration_id=[row[0] for row in SEGMENTS[:3]], verb=verb[:3], noun=noun[:3])
    from_json, from_npz = (recognition_report(predictions=tmp_path / name, **given) for name in ("p.json", "p.npz"))
    common = {name: from_json.metrics[name] for name in from_npz.metrics}
    np.testing.assert_equal(common, dict(from_npz.metrics))
    assert from_json.counts["without_scores"] == 1
    scores = read_scores(tmp_path / "p.json")
    assert scores.pairs == tuple((v, n) for v in range(3) for n in range(3))
    assert np.isneginf(scores.array("action")[0, :3]).all()
    assert from_json.metrics["all_action_head_accuracy_at_1"] == 0.0


def test_epic_anticipation_from_actions_alone(tmp_path):
    given = epic_files(tmp_path)
    action = epic_scores()[2]
    np.savez(tmp_path / "p.npz", narration_id=[row[0] for row in SEGMENTS], action=action)
    report = anticipation_report(predictions=tmp_path / "p.npz", **given)
    assert "probability of action 0" in report.protocol["text"]
    assert report.metrics["top1_action"] == 0.5
    assert report.metrics["top1_verb"] == 0.75
    # actions are (0, 2), (1, 0), (1, 2): noun 1 is in none and scores what action 0 does, below noun 2 (twice)
    assert report.metrics["top1_noun"] == 0.5
    assert report.metrics["top5_verb"] == 0.75  # verb 2 is beyond the last verb of any action
    assert report.counts["overall_noun_classes"] == 3
    assert read_actions(given["actions"]) == ((0, 2), (1, 0), (1, 2))


def test_epic_errors(tmp_path):
    given = epic_files(tmp_path)
    verb, noun, action = epic_scores()
    np.savez(tmp_path / "p.npz", narration_id=[row[0] for row in SEGMENTS], verb=verb[:, :2], noun=noun)
    with pytest.raises(DataError, match="2 columns of verb scores, expected at least 3"):
        recognition_report(predictions=tmp_path / "p.npz", **given)
    np.savez(tmp_path / "p.npz", narration_id=["a"], verb=verb[:1], noun=noun[:1])
    with pytest.raises(DataError, match="none of the 4 segments, e.g. 'P01_01_0'"):
        recognition_report(predictions=tmp_path / "p.npz", **given)
    np.savez(tmp_path / "p.npz", narration_id=[row[0] for row in SEGMENTS], action=action[:, :2])
    with pytest.raises(DataError, match="2 actions, expected the 3 of the list"):
        anticipation_report(predictions=tmp_path / "p.npz", **given)
    with pytest.raises(DataError, match="without their verbs and nouns"):
        anticipation_report(predictions=tmp_path / "p.npz", **{**given, "actions": None})
    with pytest.raises(DataError, match="no column 'narration_id'"):
        recognition_report(tmp_path / "tail_verbs.csv", tmp_path / "p.npz")
    with pytest.raises(DataError, match="the header 'verb', expected a column 'noun'"):
        read_splits(given["tail_verbs"], given["tail_verbs"], None)
    with pytest.raises(DataError, match="arrays scores, expected verb, noun, action"):
        anticipation_report(given["truth"], write(tmp_path / "s.txt", "P01_01_0 1 2\n"))


# ------------------------------------------------------------------------------------------------------ files of scores


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x 1 2\nx 3 4\n", "'x' occurs more than once"),
        ("a.txt", "x 1 2\ny 3\n", "rows of 1 to 2 scores"),
        ("a.txt", "x 1 2\ny 3 q\n", "line 2: could not convert"),
        ("a.txt", "x 1 nan\n", "'scores' holds NaN for 'x'"),
        ("a.json", "{", "cannot be read as scores"),
        ("a.jsonl", '{"scores": [1]}\n', "cannot be read as scores"),
    ],
)
def test_scores_that_cannot_be_used(name, text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_scores(write(tmp_path / name, text))


def test_four_forms_of_the_same_scores(tmp_path):
    table = np.array([[0.5, 1.0], [2.0, -1.0]])
    np.savez(tmp_path / "a.npz", ids=["x", "y"], scores=table)
    write(tmp_path / "a.csv", "id,0,1\nx,0.5,1\ny,2,-1\n")
    write(tmp_path / "a.json", json.dumps({"x": [0.5, 1], "y": [2, -1]}))
    write(tmp_path / "a.jsonl", '{"id": "x", "scores": [0.5, 1], "views": 3}\n\n{"id": "y", "scores": [2, -1]}\n')
    for file in tmp_path.iterdir():
        scores = read_scores(file)
        assert scores.ids == ("x", "y")
        assert np.array_equal(scores.array("scores"), table)
    with pytest.raises(DataError, match="no scores called 'verb', expected one of scores"):
        scores.array("verb")


# ------------------------------------------------------------------------------------------------------------- Charades

CSV = """id,subject,actions,length
AAAAA,S1,c001 0.00 10.00;c156 4.00 6.00,20.00
BBBBB,S2,,10.00
CCCCC,S3,c001 1.00 2.00,30.00
"""


def charades_scores():
    rng = np.random.RandomState(0)
    return rng.rand(3, 4, 157)


def test_charades_classification(tmp_path):
    truth = write(tmp_path / "test.csv", CSV)
    views = charades_scores()
    largest = views.max(1)
    np.savez(tmp_path / "p.npz", ids=["CCCCC", "AAAAA", "BBBBB"], scores=views[[2, 0, 1]])
    rows = zip(("AAAAA", "BBBBB", "CCCCC"), largest.tolist(), strict=True)
    write(tmp_path / "p.txt", "".join(f"{name} {' '.join(map(repr, row))}\n" for name, row in rows))
    report = charades_report(truth, tmp_path / "p.npz")
    assert charades_report(truth, tmp_path / "p.txt").metrics == report.metrics
    order = np.argsort(-largest[:, 1])
    hits = np.isin(order, [0, 2])
    first = np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)])
    second = 1 / (1 + int(np.flatnonzero(np.argsort(-largest[:, 156]) == 0)[0]))
    assert report.metrics["map"] == pytest.approx((first + second) / 2)
    assert report.metrics["weighted_map"] == pytest.approx((2 * first + second) / 3)
    assert report.counts["classes_with_positives"] == 2
    assert report.counts["videos_without_label"] == 1
    assert (report.per_class[1].count, report.per_class[0].count) == (2, 0)


def test_charades_localisation(tmp_path):
    truth = write(tmp_path / "test.csv", CSV)
    rng = np.random.RandomState(0)
    table = rng.rand(3, 25, 157)
    lines = [
        f"{name} {point + 1} {' '.join(map(repr, table[row, point].tolist()))}\n"
        for row, name in enumerate(("AAAAA", "BBBBB", "CCCCC"))
        for point in range(25)
        if (row, point) != (1, 7)
    ]
    report = charades_report(truth, write(tmp_path / "p.txt", "".join(lines)), localisation=True)
    # 20 s in steps of 0.8 s: 0 to 10 s are the points 0 to 12; 4 to 6 s are 5 (4.0 s, its first moment) to 7
    # 30 s in steps of 1.2 s: 1 to 2 s is the point 1
    assert (report.per_class[1].count, report.per_class[156].count) == (14, 3)
    assert (report.counts["evaluated"], report.counts["without_scores"]) == (74, 1)
    assert set(report.metrics) == {"map", "weighted_map"}
    from_zero = "".join(f"{name} {int(point) - 1} {rest}" for name, point, rest in (x.split(" ", 2) for x in lines))
    again = charades_report(truth, write(tmp_path / "q.txt", from_zero), localisation=True)
    assert again.metrics == report.metrics


def test_charades_errors(tmp_path):
    truth = write(tmp_path / "test.csv", CSV)
    with pytest.raises(DataError, match=r"the shape \(1, 2\), expected \(N, K\) or .* K > 156"):
        charades_report(truth, write(tmp_path / "p.txt", "AAAAA 1 2\n"))
    with pytest.raises(DataError, match="the action 'c20x 1 2' of video AAAAA"):
        charades_report(write(tmp_path / "t.csv", "id,actions,length\nAAAAA,c20x 1 2,20\n"), tmp_path / "p.txt")


# --------------------------------------------------------------------------------------------------------------- videos


def test_views_of_videos_match_the_public_meter(tmp_path):
    golden = json.loads((GOLDEN / "views_a.json").read_text())
    rng = np.random.RandomState(golden["seed"])
    size, views, classes = golden["N"], golden["temporal"] * golden["spatial"], golden["classes"]
    labels = rng.randint(0, classes, size)
    logits = rng.standard_normal((size, views, classes)).astype(np.float32)
    logits[np.arange(size), :, labels] += np.float32(0.6)
    ids = [f"v{i}" for i in range(size)]
    np.savez(tmp_path / "p.npz", ids=ids[::-1], scores=logits[::-1])
    truth = write(tmp_path / "t.csv", "id,label\n" + "".join(f"{i},{k}\n" for i, k in zip(ids, labels, strict=True)))
    for rule, key in (("softmax_sum", "softmax"), ("logits_mean", "logits")):
        report = videos_report(truth, tmp_path / "p.npz", views=rule)
        expected = golden[f"top1_top5_percent_sum_of_{key}"]
        assert [100 * report.metrics[f"top{k}"] for k in (1, 5)] == pytest.approx(expected)
    assert report.metrics["clip_at_1"] == pytest.approx((logits.argmax(-1) == labels[:, None]).mean())
    assert (report.counts["evaluated"], report.counts["classes"]) == (200, 400)
    assert sum(row.count for row in report.per_class) == 200


def test_views_of_several_labels_are_their_maximum(tmp_path):
    truth = write(tmp_path / "t.csv", "id,label\na,0;2\nb,1\n")
    logits = np.random.RandomState(0).standard_normal((2, 4, 3))
    np.savez(tmp_path / "views.npz", ids=["a", "b"], scores=logits)
    np.savez(tmp_path / "max.npz", ids=["a", "b"], scores=logits.max(1))
    usual = videos_report(truth, tmp_path / "views.npz")
    assert "largest sigmoid output of the views (4 views)" in usual.protocol["text"]
    assert usual.metrics.items() >= videos_report(truth, tmp_path / "max.npz").metrics.items()
    best = logits.argmax(-1)
    assert usual.metrics["clip_at_1"] == np.mean([np.isin(best[0], [0, 2]).mean(), (best[1] == 1).mean()])


def test_videos_of_several_labels(tmp_path):
    truth = write(tmp_path / "t.csv", "id,label\na,0;2\nb,\nc,1\nd,1\n")
    scores = write(tmp_path / "p.txt", "a 0.9 0.1 0.8\nb 0.1 0.2 0.9\nc 0.1 0.7 0.2\n")
    report = videos_report(truth, scores)
    assert report.metrics["map"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert report.metrics["map_official"] == 1.0
    assert report.metrics["hit1"] == pytest.approx(2 / 3)
    assert report.counts["without_scores"] == 1
    one = videos_report(write(tmp_path / "t.csv", "id,label\na,0\nc,0\n"), scores)
    assert (one.metrics["top1"], one.metrics["mean_class_accuracy"]) == (0.5, 0.5)
    assert set(videos_report(tmp_path / "t.csv", scores, several=True).metrics) >= {"map", "hit1"}
    with pytest.raises(DataError, match="scores of 3 classes, expected of all labels, 0 to 3"):
        videos_report(write(tmp_path / "t.csv", "id,label\na,0\nc,3\n"), scores)
    with pytest.raises(DataError, match="'x' in row 1 of column 'label', expected a whole number"):
        videos_report(write(tmp_path / "t.csv", "id,label\na,x\n"), scores)


# ---------------------------------------------------------------------------------------------------------------- poses


def test_posetrack_folders(tmp_path):
    golden = json.loads((GOLDEN / "poseval18.json").read_text())
    for side in ("gt", "pred"):
        (tmp_path / side).mkdir()
        for name, data in golden[side].items():
            (tmp_path / side / f"{name}.json").write_text(json.dumps(data))
    report = posetrack_report(tmp_path / "gt", tmp_path / "pred")
    for group, value in golden["expected"]["AP_groups"].items():
        assert 100 * report.metrics[f"AP/{'total' if group == 'Total' else group}"] == pytest.approx(value)
    assert 100 * report.metrics["MOTA/total"] == pytest.approx(golden["expected"]["MOTA"]["total"])
    assert report.counts["frames"] == golden["expected"]["frames_after_cleanup"]
    full = posetrack_report(tmp_path / "gt", tmp_path / "pred", strict_reference=False)
    assert full.metrics["MOTA/total"] == report.metrics["MOTA_full/total"]
    assert full.metrics["MOTA_reference/total"] == report.metrics["MOTA/total"]
    assert "last frame" in str(report)
    (tmp_path / "pred" / f"{name}.json").unlink()
    with pytest.raises(DataError, match="no such file, expected the predictions for"):
        posetrack_report(tmp_path / "gt", tmp_path / "pred")


def test_posetrack_files_that_do_not_fit(tmp_path):
    golden = json.loads((GOLDEN / "poseval17_ignore.json").read_text())
    truth, predicted = next(iter(golden["gt"].values())), next(iter(golden["pred"].values()))
    cases = {
        "frames, expected the": {"annolist": predicted["annolist"][1:]},
        "in another order, expected": {"annolist": predicted["annolist"][::-1]},
        "neither 'annolist' nor": {"frames": []},
        "KeyError on reading it": {"annolist": [{"annorect": [{"annopoints": [{"point": [{"id": [0]}]}]}]}]},
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    for message, data in cases.items():
        (tmp_path / "pred.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=message):
            posetrack_report(tmp_path / "gt.json", tmp_path / "pred.json")


def test_coco_keypoints(tmp_path):
    golden = json.loads((GOLDEN / "coco_oks_ap.json").read_text())
    write(tmp_path / "gt.json", json.dumps(golden["gt"]))
    write(tmp_path / "pred.json", json.dumps(golden["pred"]))
    report = keypoint_report(tmp_path / "gt.json", tmp_path / "pred.json")
    assert report.metrics == pytest.approx(golden["expected"], rel=1e-9)
    assert "OKS 0.50:0.05:0.95" in str(report)
    truth, results = coco_files(0)
    results[0]["image_id"] = 99
    write(tmp_path / "pred.json", json.dumps(results))
    with pytest.raises(DataError, match="1 images that are not in"):
        keypoint_report(write(tmp_path / "gt.json", json.dumps(truth)), tmp_path / "pred.json")
    with pytest.raises(DataError, match="no list of objects"):
        keypoint_report(tmp_path / "gt.json", write(tmp_path / "pred.json", "[{}]"))
