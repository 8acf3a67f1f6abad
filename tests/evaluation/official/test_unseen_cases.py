"""Random nasty cases through the official files, against evaluators written from the rules and not from our code.

Each evaluator is slow and plain: lists, loops, one thing after the other. Nasty means ties of scores, key frames
without boxes or without detections, excluded ones, boxes of no size, classes outside the map, more rows than count,
tail and unseen segments, videos without labels, ignored regions, people who cross.
"""

from __future__ import annotations

import itertools
import json
import math
import random

import numpy as np
import pytest

from wholereel.evaluation.official.ava import ava_report
from wholereel.evaluation.official.charades import charades_report
from wholereel.evaluation.official.epic import anticipation_report, recognition_report
from wholereel.evaluation.official.poses import posetrack_report

# The 60 evaluated classes of AVA's label maps.
SIXTY = (1, *range(3, 16), 17, 20, 22, 24, *range(26, 31), 34, *range(36, 39), 41, 43, *range(45, 50), 51, 52, 54,
         *range(56, 71), *range(72, 75), *range(76, 81))  # fmt: skip


def ava_map(rows_true, rows_found, classes, excluded, empty, protocol):
    """mAP by the written rules; rows are (frame, box, class, score)."""
    rows_true = [row for row in rows_true if row[0] not in excluded and row[2] in classes]
    rows_found = [row for row in rows_found if row[0] not in excluded and row[2] in classes]
    official = protocol == "activitynet_official"
    judged_frames = {row[0] for row in rows_true} | (empty - excluded if official else set())
    judged = {kind: [] for kind in classes}
    for frame in dict.fromkeys(row[0] for row in rows_found):
        rows = [row for row in rows_found if row[0] == frame]
        if official:
            if frame not in judged_frames:
                continue
            rows = sorted(rows, key=lambda row: row[3], reverse=True)[:50]
        taken = set()
        for _, box, kind, score in rows:
            if box[0] >= box[2] or box[1] >= box[3]:
                continue
            best, best_overlap = None, -1.0
            for place, (other_frame, other, other_kind, _) in enumerate(rows_true):
                if other_frame == frame and other_kind == kind and iou(box, other) > best_overlap:
                    best, best_overlap = place, iou(box, other)
            hit = best is not None and best_overlap >= 0.5 and best not in taken
            if hit:
                taken.add(best)
            judged[kind].append((score, hit))
    values = {}
    for kind in classes:
        positives = sum(row[2] == kind for row in rows_true)
        if positives:
            order = sorted(range(len(judged[kind])), key=lambda i: (-judged[kind][i][0], i))
            hits = [judged[kind][i][1] for i in order]
            points = [(sum(hits[: n + 1]) / positives, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
            area, before = 0.0, 0.0
            for n, (recall, _) in enumerate(points):
                area += (recall - before) * max(precision for _, precision in points[n:])
                before = recall
            values[kind] = area
    return values


def iou(a, b):
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = down * across
    return shared / ((a[3] - a[1]) * (a[2] - a[0]) + (b[3] - b[1]) * (b[2] - b[0]) - shared)


@pytest.mark.parametrize("protocol", ["slowfast", "activitynet_official"])
@pytest.mark.parametrize("classes", [SIXTY, tuple(range(1, 81))], ids=["60", "80"])
@pytest.mark.parametrize("seed", [0, 1])
def test_ava(tmp_path, protocol, classes, seed):
    draw = random.Random(seed)
    frames = [(video, second) for video in ("-a_b", "zz") for second in range(902, 908)]
    kinds = draw.sample(range(1, 81), 12)
    excluded, empty = {frames[1]}, {frames[2], frames[1]}
    grid = [n / 8 for n in range(9)]

    def box(least=1):
        x, y = sorted(draw.sample(range(9), 2)), sorted(draw.sample(range(9), 2))
        return grid[x[0]], grid[y[0]], grid[x[1] if least else x[0]], grid[y[1]]

    shown = [frame for frame in frames if frame not in empty and draw.random() < 0.8] + [frames[1]]
    true = [(frame, box(), draw.choice(kinds), 1.0) for frame in shown for _ in range(draw.randint(1, 9))]
    found = []
    for frame in draw.sample(frames, 10):
        for _ in range(draw.choice([3, 40, 80])):
            near = [row[1] for row in true if row[0] == frame]
            spot = draw.choice(near) if near and draw.random() < 0.6 else box(draw.random() < 0.9)
            found.append(
                (frame, spot, draw.choice(kinds), draw.choice([0.1, 0.25, 0.5, 0.75, round(draw.random(), 3)]))
            )
    draw.shuffle(found)

    def text(rows, last):
        return "".join(
            f"{frame[0]},{frame[1]:04d},{','.join(map(str, spot))},{kind},{score if last else 7}\n"
            for frame, spot, kind, score in rows
        )

    def names(chosen):
        return "".join(f"{video},{second:04d}\n" for video, second in sorted(chosen))

    files = {
        "truth": text(true, last=False),
        "found": text(found, last=True),
        "excluded": names(excluded),
        "empty": names(empty),
        "map": "".join(f'item {{\n  name: "action {kind}"\n  id: {kind}\n}}\n' for kind in classes),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    report = ava_report(
        tmp_path / "truth", tmp_path / "found", tmp_path / "map",
        excluded=tmp_path / "excluded", empty=tmp_path / "empty", protocol=protocol,
    )  # fmt: skip
    expected = ava_map(true, found, classes, excluded, empty, protocol)
    assert report.metrics["mAP"] == pytest.approx(sum(expected.values()) / len(expected), rel=1e-9)
    ours = {int(row.name.split()[1]): row.value for row in report.per_class if row.count}
    assert ours == pytest.approx(expected, rel=1e-9)
    assert report.counts["classes"] == len(classes)
    assert report.counts["classes_with_truth"] == len(expected)
    groups = {"pose": range(1, 15), "object": range(15, 64), "person": range(64, 81)}
    for group, ids in groups.items():
        inside = [value for kind, value in expected.items() if kind in ids]
        if inside:
            assert report.metrics[f"mAP_{group}"] == pytest.approx(sum(inside) / len(inside), rel=1e-9)


# ----------------------------------------------------------------------------------------------------------------- EPIC


def epic_case(folder, seed, verbs=97, nouns=300, count=40):
    draw = np.random.default_rng(seed)
    segments = [
        (f"P{p:02d}_{n:03d}", f"P{p:02d}", int(draw.integers(verbs)), int(draw.integers(nouns)))
        for n, p in enumerate(draw.choice([1, 2, 18, 32], count).tolist())
    ]
    tails = sorted(draw.permutation(verbs)[: verbs // 2].tolist()), sorted(draw.permutation(nouns)[:200].tolist())
    (folder / "truth.csv").write_text(
        "narration_id,participant_id,video_id,verb_class,noun_class\n"
        + "".join(f"{name},{person},V,{verb},{noun}\n" for name, person, verb, noun in segments)
    )
    (folder / "verbs.csv").write_text("verb\n" + "".join(f"{n}\n" for n in tails[0]))
    (folder / "nouns.csv").write_text("noun\n" + "".join(f"{n}\n" for n in tails[1]))
    (folder / "unseen.csv").write_text("participant_id\nP18\nP32\n")
    # Few different values: many ties, also around the true class.
    scores = {"verb": draw.integers(0, 6, (count, verbs)) / 2.0, "noun": draw.integers(0, 12, (count, nouns)) / 2.0}
    for row, (_, _, verb, noun) in enumerate(segments):
        scores["verb"][row, verb] += draw.choice([0.0, 1.0, 3.0])
        scores["noun"][row, noun] += draw.choice([0.0, 2.0, 6.0])
    given = {"truth": folder / "truth.csv", "tail_verbs": folder / "verbs.csv", "tail_nouns": folder / "nouns.csv",
             "unseen": folder / "unseen.csv"}  # fmt: skip
    return segments, tails, scores, given


def descending(scores):
    """Classes from the best on; of equal scores the higher number first."""
    return sorted(range(len(scores)), key=lambda k: (scores[k], k), reverse=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_epic_recognition(tmp_path, seed):
    segments, tails, scores, given = epic_case(tmp_path, seed)
    np.savez(tmp_path / "p.npz", narration_id=np.array([row[0] for row in segments]), **scores)
    ranks = {"verb": [], "noun": [], "action": []}
    for row, (_, _, verb, noun) in enumerate(segments):
        best = {task: descending(scores[task][row].tolist()) for task in ("verb", "noun")}
        ranks["verb"].append(best["verb"].index(verb))
        ranks["noun"].append(best["noun"].index(noun))
        kept_v, kept_n = best["verb"][:100], best["noun"][:100]
        share = {}
        for task, kept in (("verb", kept_v), ("noun", kept_n)):
            values = np.array([scores[task][row][k] for k in kept])
            share[task] = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
        pairs = [(a, b) for a in kept_v for b in kept_n]
        products = [share["verb"][i] * share["noun"][j] for i in range(len(kept_v)) for j in range(len(kept_n))]
        ordered = [pairs[i] for i in descending(products)[:100]]
        ranks["action"].append(ordered.index((verb, noun)) if (verb, noun) in ordered else 10**6)
    is_tail = {
        "verb": [row[2] in tails[0] for row in segments],
        "noun": [row[3] in tails[1] for row in segments],
        "action": [row[2] in tails[0] or row[3] in tails[1] for row in segments],
    }
    expected = {}
    for task, places in ranks.items():
        unseen = [row[1] in ("P18", "P32") for row in segments]
        for k in (1, 5):
            expected[f"all_{task}_accuracy_at_{k}"] = sum(place < k for place in places) / len(places)
        for split, mask in (("unseen", unseen), ("tail", is_tail[task])):
            chosen = [place for place, there in zip(places, mask, strict=True) if there]
            expected[f"{split}_{task}_accuracy_at_1"] = sum(place < 1 for place in chosen) / len(chosen)
    report = recognition_report(predictions=tmp_path / "p.npz", **given)
    assert dict(report.metrics) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_epic_anticipation(tmp_path, seed):
    segments, tails, scores, given = epic_case(tmp_path, seed, verbs=6, nouns=7, count=60)
    vocabulary = sorted({row[2:] for row in segments[:50]})  # some pairs are in no vocabulary
    draw = np.random.default_rng(seed + 9)
    action = draw.integers(0, 9, (len(segments), len(vocabulary))) / 2.0
    np.savez(
        tmp_path / "p.npz", narration_id=np.array([row[0] for row in segments]), **scores, action=action,
        action_pairs=np.array(vocabulary),
    )  # fmt: skip
    report = anticipation_report(predictions=tmp_path / "p.npz", **given)
    tables = {**scores, "action": action}
    for task in ("verb", "noun", "action"):
        true = [row[2:] if task == "action" else row[2] if task == "verb" else row[3] for row in segments]
        names = vocabulary if task == "action" else range(tables[task].shape[1])
        best = [[names[k] for k in descending(row.tolist())] for row in tables[task]]
        tail = {
            "verb": [row[2] in tails[0] for row in segments],
            "noun": [row[3] in tails[1] for row in segments],
            "action": [row[2] in tails[0] or row[3] in tails[1] for row in segments],
        }[task]
        splits = {"overall": [True] * len(true), "unseen": [row[1] in ("P18", "P32") for row in segments], "tail": tail}
        for split, mask in splits.items():
            recalls = {}
            for row, there in enumerate(mask):
                if there:
                    # Pairs outside the vocabulary are one class that is never found.
                    name = true[row] if true[row] in names else None
                    recalls.setdefault(name, []).append(true[row] in best[row][:5])
            value = sum(sum(hits) / len(hits) for hits in recalls.values()) / len(recalls)
            assert report.metrics[f"{split}_{task}"] == pytest.approx(value, rel=1e-9), (split, task)
        for k in (1, 5):
            hits = sum(label in order[:k] for label, order in zip(true, best, strict=True))
            assert report.metrics[f"top{k}_{task}"] == pytest.approx(hits / len(true), rel=1e-9)


# ------------------------------------------------------------------------------------------------------------- Charades


@pytest.mark.parametrize("seed", [0, 1])
def test_charades(tmp_path, seed):
    draw = random.Random(seed)
    labels = [sorted(draw.sample(range(157), draw.choice([0, 0, 1, 3, 9]))) for _ in range(30)]
    lines = [
        f"V{n:04d},{';'.join(f'c{k:03d} 0.00 {draw.uniform(1, 9):.2f}' for k in own)},12.00"
        for n, own in enumerate(labels)
    ]
    (tmp_path / "test.csv").write_text("id,actions,length\n" + "\n".join(lines) + "\n")
    views = np.random.default_rng(seed).integers(0, 7, (30, 3, 157)) / 7.0
    np.savez(tmp_path / "p.npz", ids=[f"V{n:04d}" for n in range(30)], scores=views)
    largest = views.max(1)

    def precision(kind, official):
        column = [-math.inf if official and not own else value
                  for own, value in zip(labels, largest[:, kind].tolist(), strict=True)]  # fmt: skip
        positives = [n for n, own in enumerate(labels) if kind in own]
        at = []
        for n in positives:
            above = [m for m in range(30) if column[m] >= column[n]]
            at.append(sum(kind in labels[m] for m in above) / len(above))
        return sum(at) / len(at), len(at)

    report = charades_report(tmp_path / "test.csv", tmp_path / "p.npz")
    kinds = sorted({kind for own in labels for kind in own})
    for suffix, official in (("", False), ("_official", True)):
        values = [precision(kind, official) for kind in kinds]
        assert report.metrics[f"map{suffix}"] == pytest.approx(sum(v for v, _ in values) / len(values), rel=1e-9)
        weighted = sum(v * n for v, n in values) / sum(n for _, n in values)
        assert report.metrics[f"weighted_map{suffix}"] == pytest.approx(weighted, rel=1e-9)
    assert report.counts["classes_with_positives"] == len(kinds)
    assert report.counts["videos_without_label"] == sum(not own for own in labels)


# ------------------------------------------------------------------------------------------------------------ PoseTrack

JOINTS = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
          "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "nose", "head_top")  # fmt: skip
REGION = ((60.0, 0.0), (100.0, 0.0), (100.0, 40.0), (60.0, 40.0))


def inside(point):
    return 60 < point[0] < 100 and 0 < point[1] < 40


def people(draw, count, *, centre=None):
    """Persons as {joint: (x, y)}; some joints are missing."""
    found = []
    for number in range(count):
        x, y = (draw.randint(0, 90), draw.randint(0, 60)) if centre is None else centre[number]
        joints = {j: (x + j % 5 + draw.choice([0, 0.5, 3.25]), y + j // 5) for j in range(15) if draw.random() < 0.9}
        found.append(joints or {0: (float(x), float(y))})
    return found


def annolist(frames, *, scored, ignored):
    entries = []
    for number, persons in enumerate(frames, start=1):
        rects = []
        for track, (joints, scores) in persons:
            points = [
                {"id": [j], "x": [x], "y": [y], **({"score": [scores[j]]} if scored else {"is_visible": [1]})}
                for j, (x, y) in joints.items()
            ]
            rects.append({"x1": [0.0], "y1": [0.0], "x2": [6.0], "y2": [8.0], "track_id": [track],
                          "annopoints": [{"point": points}]})  # fmt: skip
        entry = {"image": [{"name": f"images/v/{number:06d}.jpg"}], "imgnum": [number], "is_labeled": [1],
                 "annorect": rects}  # fmt: skip
        if ignored:
            corners = [{"x": [x], "y": [y]} for x, y in REGION]
            entry["ignore_regions"] = [{"point": corners}]
        entries.append(entry)
    return {"annolist": entries}


SLOTS = ("nose", "neck", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
         "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
         "right_ankle")  # fmt: skip


def coco(frames, *, scored, ignored):
    """The same in the layout of 2018: 17 slots, head boxes by their size."""
    images, annotations = [], []
    for number, persons in enumerate(frames):
        images.append({"id": 100 + number, "file_name": f"images/v/{number:06d}.jpg", "is_labeled": True})
        if ignored:
            images[-1] |= {"ignore_regions_x": [[x for x, _ in REGION]], "ignore_regions_y": [[y for _, y in REGION]]}
        for track, (joints, scores) in persons:
            slots = [JOINTS.index(name) if name in JOINTS else -1 for name in SLOTS]
            points = [value for j in slots for value in ((*joints[j], 1.0) if j in joints else (0.0, 0.0, 0.0))]
            annotations.append(
                {"image_id": 100 + number, "keypoints": points, "bbox_head": [0.0, 0.0, 6.0, 8.0], "track_id": track}
                | ({"scores": [scores.get(j, 0.0) for j in slots]} if scored else {})
            )
    names = [name.replace("neck", "head_bottom") for name in SLOTS]
    return {"images": images, "annotations": annotations, "categories": [{"keypoints": names}]}


def near(a, b):
    return math.dist(a, b) / 6.0  # the head box has a diagonal of 10


def pose_precision(true_frames, found_frames):
    """AP by joint: scores and hits of all frames."""
    judged, labelled = {j: [] for j in range(15)}, dict.fromkeys(range(15), 0)
    for true, found in zip(true_frames, found_frames, strict=True):
        for _, (joints, _) in true:
            for j in joints:
                labelled[j] += 1
        owner = {}
        for d, (_, (joints, _)) in enumerate(found):
            shares = [
                sum(j in joints and near(joints[j], theirs[j]) <= 0.5 for j in theirs) / len(theirs)
                for _, (theirs, _) in true
            ]
            if shares and max(shares) > 0:
                g = shares.index(max(shares))
                if g not in owner or shares[g] > owner[g][1]:
                    owner[g] = (d, shares[g])
        for d, (_, (joints, scores)) in enumerate(found):
            mine = next((true[g][1][0] for g, (taker, _) in owner.items() if taker == d), {})
            for j in joints:
                judged[j].append((scores[j], j in mine and near(joints[j], mine[j]) <= 0.5))
    values = []
    for j in range(15):
        rows = sorted(judged[j], key=lambda one: -one[0])
        hits = [hit for _, hit in rows]
        area = 0.0
        for n, hit in enumerate(hits):
            if hit:
                area += max(sum(hits[: m + 1]) / (m + 1) for m in range(n, len(hits)))
        values.append(area / labelled[j])
    return values


def tracking(true_frames, found_frames, joint):
    """MOTA of one joint: earlier pairs are kept, the rest is matched as fully and then as cheaply as possible."""
    partner, objects, wrong = {}, 0, 0
    for true, found in zip(true_frames, found_frames, strict=True):
        here = {track: joints[joint] for track, (joints, _) in true if joint in joints}
        claims = {track: joints[joint] for track, (joints, _) in found if joint in joints}
        far = {(o, h): near(here[o], claims[h]) for o in here for h in claims if near(here[o], claims[h]) <= 0.5}
        pairs = {}
        for o in here:
            if partner.get(o) in claims and (o, partner[o]) in far and partner[o] not in pairs.values():
                pairs[o] = partner[o]
        left_o = [o for o in here if o not in pairs]
        left_h = [h for h in claims if h not in pairs.values()]
        best = ((0, 0.0), ())
        for count in range(1, min(len(left_o), len(left_h)) + 1):
            for chosen in itertools.combinations(left_o, count):
                for others in itertools.permutations(left_h, count):
                    if all(pair in far for pair in zip(chosen, others, strict=True)):
                        key = (-count, sum(far[pair] for pair in zip(chosen, others, strict=True)))
                        best = min(best, (key, tuple(zip(chosen, others, strict=True))))
        for o, h in best[1]:
            wrong += o in partner and partner[o] != h
            pairs[o] = partner[o] = h
        objects += len(here)
        wrong += len(here) - len(pairs) + len(claims) - len(pairs)
    return 1 - wrong / objects


@pytest.mark.parametrize("layout", [annolist, coco], ids=["2017", "2018"])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_posetrack(tmp_path, layout, ignored, seed):
    draw = random.Random(seed)
    true_frames, found_frames = [], []
    for _ in range(9):
        # The first person stands outside the region: no frame loses everybody.
        bodies = people(draw, 3, centre=[(10 + draw.random(), 50), (70, 10 + draw.random()), (30, 20)])
        tracks = [4, 5, 6]
        found = [
            ({j: (x + draw.choice([0.0, 0.0, 1.5, 3.5]), y) for j, (x, y) in joints.items() if draw.random() < 0.95}
             or joints) for joints in bodies
        ]  # fmt: skip
        found += people(draw, 1)
        identities = [1, 2, 3, 9] if draw.random() < 0.7 else [2, 1, 3, 9]
        scored = [{j: draw.choice([0.1, 0.2, 0.5, draw.random()]) for j in joints} for joints in found]
        true_frames.append(list(zip(tracks, [(joints, {}) for joints in bodies], strict=True)))
        found_frames.append(list(zip(identities, zip(found, scored, strict=True), strict=True)))
    for name, frames, with_scores in (("gt", true_frames, False), ("pred", found_frames, True)):
        (tmp_path / name).mkdir()
        content = layout(frames, scored=with_scores, ignored=ignored and not with_scores)
        (tmp_path / name / "v.json").write_text(json.dumps(content))
    report = posetrack_report(tmp_path / "gt", tmp_path / "pred")
    if ignored:
        true_frames, found_frames = (
            [
                [(track, (kept, scores)) for track, (joints, scores) in frame
                 if (kept := {j: place for j, place in joints.items() if not inside(place)})]
                for frame in frames
            ]
            for frames in (true_frames, found_frames)
        )  # fmt: skip
    expected = pose_precision(true_frames, found_frames)
    found_values = {row.name: row.value for row in report.per_class}
    for joint, value in zip(JOINTS, expected, strict=True):
        assert found_values[joint] == pytest.approx(value, rel=1e-9)
    assert report.metrics["AP/total"] == pytest.approx(sum(expected) / 15, rel=1e-9)
    assert report.metrics["AP/Head"] == pytest.approx(sum(expected[12:]) / 3, rel=1e-9)
    for suffix, frames in (("", slice(0, -1)), ("_full", slice(0, None))):
        values = [tracking(true_frames[frames], found_frames[frames], j) for j in range(15)]
        assert report.metrics[f"MOTA{suffix}/total"] == pytest.approx(sum(values) / 15, rel=1e-9)
