"""Families of official metrics and test views: numbers of the public evaluators, from files or from a seed.

Numbers agree to 1e-6 relative (poses: 1e-9). B samples, K classes, V views.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.parity.golden import Comparison, Golden, NotUnderstood, Outcome
from wholereel.evaluation.files.ava import read_box_rows, read_key_frames, read_label_map
from wholereel.evaluation.files.coco import image_poses, keypoint_ap
from wholereel.evaluation.files.posetrack import pose_frames
from wholereel.media.augment import scaled_size, test_crops
from wholereel.media.clip_plans import view_frames, view_starts
from wholereel.metrics.class_recall import Anticipation, marginal_scores, mean_class_recall
from wholereel.metrics.frame_map import PROTOCOLS, FrameMap
from wholereel.metrics.keypoint_ap import similarity_DG
from wholereel.metrics.pose_tracks import PoseTracks
from wholereel.metrics.topk import topk_counts
from wholereel.metrics.verb_noun import VerbNoun, VerbNounSplits, ranks_higher_index_first
from wholereel.metrics.video_scores import MultiLabelVideos
from wholereel.ops.aggregate import aggregate_scores

__all__ = [
    "check_ava", "check_charades", "check_coco", "check_epic", "check_posetrack", "check_views",
    "companions", "is_ava", "is_charades", "is_coco", "is_epic", "is_posetrack", "is_views",
]  # fmt: skip

TOLERANCE = 1e-6
POSES = 1e-9
AP_NAME = "PascalBoxes_PerformanceByCategory/AP@0.5IOU/"
MEAN_NAME = "PascalBoxes_Precision/mAP@0.5IOU"


def is_ava(golden: Golden) -> bool:
    return any(protocol in golden.meta for protocol in PROTOCOLS)


def is_epic(golden: Golden) -> bool:
    return "anticipation_percent" in golden.meta or "classification_accuracy_percent" in golden.meta


def is_charades(golden: Golden) -> bool:
    return any(name.startswith("map_max_views") for name in golden.meta)


def is_views(golden: Golden) -> bool:
    return "temporal_views" in golden.meta or "top1_top5_percent_sum_of_softmax" in golden.meta


def is_posetrack(golden: Golden) -> bool:
    if str(golden.meta.get("format", "")).startswith("posetrack"):
        return True
    return {"expected", "joint_names"} <= golden.meta.keys() and (golden.path.parent / "data.json").is_file()


def is_coco(golden: Golden) -> bool:
    return "oks_image1" in golden.meta or ("sigmas" in golden.meta and "pred" in golden.meta)


def check_ava(golden: Golden) -> Outcome:
    """Every class and the mean, in both protocols, from the four or five official files beside `expected.json`."""
    folder = golden.path.parent
    labels = read_label_map(folder / "labelmap.pbtxt")
    truth, empty = read_box_rows(folder / "gt.csv", truth=True)
    detections, _ = read_box_rows(folder / "detections.csv", truth=False)
    excluded, more = (
        read_key_frames(folder / name) if (folder / name).is_file() else frozenset()
        for name in ("excluded_timestamps.csv", "gt_empty_keyframes.csv")
    )
    frames = FrameMap(tuple(labels.names), excluded, (truth,), (detections,), empty | more)
    comparisons: list[Comparison] = []
    for protocol in (name for name in PROTOCOLS if name in golden.meta):
        counts = frames.compute(protocol, input_order=True)
        ours = {f"{AP_NAME}{labels.names[number]}": value for number, value in counts.ap.items()}
        ours[MEAN_NAME] = counts.mean()
        comparisons += _numbers(golden.meta[protocol], ours, TOLERANCE, f"{protocol} ")
    return Outcome(tuple(comparisons))


def check_epic(golden: Golden) -> Outcome:
    """Classification and anticipation on labels and scores that are drawn from the seed."""
    drawn, meta = _epic_data(golden), golden.meta
    scores, targets = drawn["scores"], drawn["targets"]
    ids = [f"{index:06d}" for index in range(len(targets["verb"]))]
    participants = [f"P{number:02d}" for number in drawn["participant"]]
    splits = VerbNounSplits(
        frozenset(meta["unseen_participants"]), _class_range(meta, "tail_verbs"), _class_range(meta, "tail_nouns")
    )
    ours = VerbNoun(splits).update(
        ids, scores["verb"], scores["noun"], targets["verb"], targets["noun"], participants
    )  # fmt: skip
    comparisons = _epic_stream(golden, drawn, participants)
    comparisons += _numbers(meta.get("classification_accuracy_percent", {}), _percent(ours.compute()), TOLERANCE)
    recalls = Anticipation(splits).update(ids, scores, targets, participants).compute()
    recalls |= {f"meter_{task}": recalls[f"overall_{task}"] for task in scores}
    power = np.exp(scores["action"].astype(np.float64) - scores["action"].max(1, keepdims=True))
    shares = power / power.sum(1, keepdims=True)
    for task, place in (("verb", 0), ("noun", 1)):
        marginal_BK = marginal_scores(shares, np.array([pair[place] for pair in drawn["pairs"]]))
        rank_B = ranks_higher_index_first(marginal_BK, targets[task])
        recalls[f"marginal_{task}_recall5"] = mean_class_recall(rank_B, targets[task])
    comparisons += _numbers(meta.get("anticipation_percent", {}), _percent(recalls), TOLERANCE)
    return Outcome(tuple(comparisons))


def _epic_data(golden: Golden) -> dict[str, Any]:
    meta = golden.meta
    count, strength = meta["N"], np.float32(meta["strength"])
    rng = np.random.RandomState(meta["seed"])
    verbs, nouns = 1 / np.arange(1, 98) ** 1.2, 1 / np.arange(1, 301) ** 1.0
    verb_B = rng.choice(97, count, p=verbs / verbs.sum())
    noun_B = rng.choice(300, count, p=nouns / nouns.sum())
    participant_B = rng.choice([1, 2, 3, 4, 5, 18, 32], count, p=[0.25, 0.2, 0.15, 0.15, 0.15, 0.06, 0.04])
    scores = {task: rng.standard_normal((count, k)).astype(np.float32) for task, k in (("verb", 97), ("noun", 300))}
    true = list(zip(verb_B.tolist(), noun_B.tolist(), strict=True))
    extra = list(zip(rng.choice(97, 600).tolist(), rng.choice(300, 600).tolist(), strict=True))
    pairs = sorted(set(true) | set(extra))
    scores["action"] = rng.standard_normal((count, len(pairs))).astype(np.float32)
    column = {pair: place for place, pair in enumerate(pairs)}
    targets = {"verb": verb_B, "noun": noun_B, "action": np.array([column[pair] for pair in true])}
    for task, scores_BK in scores.items():
        scores_BK[np.arange(count), targets[task]] += strength
    return {"scores": scores, "targets": targets, "participant": participant_B, "pairs": pairs}


def _epic_stream(golden: Golden, drawn: Mapping[str, Any], participants: list[str]) -> list[Comparison]:
    first = golden.meta["first_values"]
    same = participants[: len(first["participant"])] == list(first["participant"])
    ours = {"n_pairs": len(drawn["pairs"]), "participant": int(same)}
    theirs: dict[str, Any] = {"n_pairs": first["n_pairs"], "participant": 1}
    for task in ("verb", "noun", "action"):
        name = f"{task}_scores_0_0to4"
        if name in first:
            ours |= {f"{name}[{i}]": value for i, value in enumerate(drawn["scores"][task][0, :4].tolist())}
            theirs |= {f"{name}[{i}]": value for i, value in enumerate(first[name])}
    return _numbers(theirs, ours, TOLERANCE, "stream ")


def _class_range(meta: Mapping[str, Any], name: str) -> frozenset[int]:
    if meta.get("tail_ranges_are", "inclusive") != "inclusive":
        raise NotUnderstood(f"tail_ranges_are {meta['tail_ranges_are']!r}")
    low, high = meta[name]
    return frozenset(range(low, high + 1))


def check_charades(golden: Golden) -> Outcome:
    """Mean average precision of the largest and the mean sigmoid of views, plain and official."""
    meta = golden.meta
    count, classes, views = meta["N"], meta["classes"], meta["views"]
    rng = np.random.RandomState(meta["seed"])
    share_K = np.minimum(0.4, 0.6 / np.arange(1, classes + 1) ** 0.7)
    share_K[-3:] = 0
    labels_BK = rng.uniform(size=(count, classes)) < share_K
    labels_BK[:2] = 0
    logits_BVK = rng.standard_normal((count, views, classes)).astype(np.float32)
    logits_BVK = logits_BVK + np.float32(meta["effect"]) * labels_BK[:, None].astype(np.float32) - np.float32(2)
    logits, target_BK = torch.from_numpy(logits_BVK).double(), torch.from_numpy(labels_BK)
    valid_BV = torch.ones(count, views, dtype=torch.bool)
    ids = [f"{index:06d}" for index in range(count)]
    largest, mean = (
        MultiLabelVideos().update(ids, aggregate_scores(logits, valid_BV, rule, multi_label=True), target_BK)
        for rule in ("max", "prob")
    )
    values = {name: 100 * value for name, value in largest.compute().items()}
    check = meta["check"]
    ours = {
        "n_positive": int(labels_BK.sum()),
        "classes_with_positives": largest.counts()["classes_with_positives"],
        "map_max_views_slowfast_percent": values["map"],
        "map_mean_views_slowfast_percent": 100 * mean.compute()["map"],
        "map_max_views_official_percent_over_classes_with_positives": values["map_official"],
        "weighted_map_official_percent": values["weighted_map_official"],
    }
    theirs = {name: meta[name] for name in ours if name in meta} | {
        name: check[name] for name in ("n_positive", "classes_with_positives")
    }
    official = 100 * largest.average_precision_K(official=True)
    for name, numbers in (
        ("logit_0_0_0to4", logits_BVK[0, 0, :4]),
        ("ap_max_views_official_first10_percent", official[:10]),
    ):
        expected = check.get(name, meta.get(name, []))
        ours |= {f"{name}[{i}]": float(value) for i, value in enumerate(numbers)}
        theirs |= {f"{name}[{i}]": value for i, value in enumerate(expected)}
    return Outcome(tuple(_numbers(theirs, ours, TOLERANCE)))


def check_views(golden: Golden) -> Outcome:
    """Where test views and crops lie, and what becomes of their logits."""
    comparisons: list[Comparison] = []
    if "labels_0to8" in golden.meta.get("check", {}):
        comparisons += _view_scores(golden.meta)
    for number, case in enumerate(golden.meta.get("temporal_views", [])):
        rule = "offset" if case["use_offset"] else "classic"
        starts_N = view_starts(rule, case["video_frames"], case["clip_size"], case["num_clips"])
        indices_NT = view_frames(starts_N, case["clip_size"], case["num_samples"], case["video_frames"])
        for view, (start, frames) in enumerate(zip(starts_N.tolist(), indices_NT.tolist(), strict=True)):
            expected, name = case["views"][view], f"temporal {number} view {view} "
            ends = {"start": start, "end": start + case["clip_size"] - 1}
            comparisons += _numbers({key: expected[key] for key in ends}, ends, TOLERANCE, name)
            comparisons.append(Comparison(f"{name}frames", float(frames != expected["frames"]), 0.0))
    for number, case in enumerate(golden.meta.get("spatial_views", [])):
        comparisons.append(Comparison(f"spatial {number}", float(_crops(case) != case["offsets_yx"]), 0.0))
        size = list(scaled_size(case["height"], case["width"], case["short_side"]))
        comparisons.append(Comparison(f"spatial {number} scaled", float(size != case["scaled"]), 0.0))
    return Outcome(tuple(comparisons))


def _crops(case: Mapping[str, Any]) -> list[list[int]]:
    """Offsets of the crops, read from pixels that say where they are (two bytes a coordinate)."""
    height, width = case["scaled"]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    found = []
    for picture in (rows, columns):
        pixels = torch.stack([picture % 256, picture // 256, picture * 0]).to(torch.uint8)
        views = test_crops(pixels[None, None], case["short_side"], case["crop"], 3)
        found.append([int(view[0, 0, 0, 0]) + 256 * int(view[0, 1, 0, 0]) for view in views])
    return [list(pair) for pair in zip(*found, strict=True)]


def _view_scores(meta: Mapping[str, Any]) -> list[Comparison]:
    count, classes, views = meta["N"], meta["classes"], meta["temporal"] * meta["spatial"]
    rng = np.random.RandomState(meta["seed"])
    labels_B = rng.randint(0, classes, count)
    logits_BVK = rng.standard_normal((count, views, classes)).astype(np.float32)
    logits_BVK[np.arange(count), :, labels_B] += np.float32(0.6)
    target_B, logits = torch.from_numpy(labels_B), torch.from_numpy(logits_BVK)
    valid_BV = torch.ones(count, views, dtype=torch.bool)
    scores = {
        "top1_top5_percent_sum_of_softmax": aggregate_scores(logits, valid_BV, "prob"),
        "top1_top5_percent_sum_of_logits": aggregate_scores(logits, valid_BV, "logits"),
        "top1_top5_percent_single_middle_view": logits[:, views // 2],
    }
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for name, scores_BK in scores.items():
        if name in meta:
            values = topk_counts(scores_BK, target_B).value()
            ours |= {f"{name}[{i}]": 100 * values[f"top{k}"] for i, k in enumerate((1, 5))}
            theirs |= {f"{name}[{i}]": value for i, value in enumerate(meta[name])}
    check = meta["check"]
    ours |= {f"label[{i}]": value for i, value in enumerate(labels_B[:8].tolist())}
    theirs |= {f"label[{i}]": value for i, value in enumerate(check["labels_0to8"])}
    ours |= {f"logit[{i}]": value for i, value in enumerate(logits_BVK[0, 0, :4].tolist())}
    theirs |= {f"logit[{i}]": value for i, value in enumerate(check["logit_0_0_0to4"])}
    return _numbers(theirs, ours, TOLERANCE)


def check_posetrack(golden: Golden) -> Outcome:
    """AP, precision, recall and CLEAR-MOT by joint, by group and in total, in the reference's own way of counting."""
    beside = golden.path.parent / "data.json"
    data = golden.meta if "gt" in golden.meta else json.loads(beside.read_text(encoding="utf-8"))
    tracks = PoseTracks()
    for name in data["gt"]:
        tracks = tracks.update(name, pose_frames(data["gt"][name], data["pred"][name]))
    values = _percent(tracks.compute())
    ours: dict[str, float] = {"frames_after_cleanup": tracks.counts()["frames"]}
    theirs: dict[str, Any] = {}
    for name, expected in golden.meta["expected"].items():
        if isinstance(expected, Mapping):
            table = name.removesuffix("_groups")
            for joint, value in expected.items():
                theirs[f"{name}/{joint}"] = value
                ours[f"{name}/{joint}"] = values.get(f"{table}/{'total' if joint == 'Total' else joint}", math.nan)
        else:
            theirs[name] = expected
            if name.endswith("_total"):
                ours[name] = values[name.removesuffix("_total") + "/total"]
    return Outcome(tuple(_numbers(theirs, ours, POSES)))


def check_coco(golden: Golden) -> Outcome:
    """The ten numbers of COCO's key-point evaluation."""
    meta = golden.meta
    ours = keypoint_ap(meta["gt"], meta["pred"], meta["sigmas"]).compute()
    comparisons = _numbers(meta["expected"], ours, POSES)
    if "oks_image1" in meta:
        truth, detected = image_poses(meta["gt"], meta["pred"], 1, len(meta["sigmas"]))
        order_D = np.argsort(-detected.score_D, kind="stable")
        oks_DG = similarity_DG(detected, truth, np.array(meta["sigmas"]))[order_D]
        expected_DG = np.array(meta["oks_image1"])
        same = oks_DG.shape == expected_DG.shape
        error = float(np.abs(oks_DG - expected_DG).max()) if same else math.inf
        comparisons.append(Comparison("oks_image1", error, POSES))
    return Outcome(tuple(comparisons))


def _percent(values: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * value for name, value in values.items()}


def _numbers(
    expected: Mapping[str, Any], ours: Mapping[str, float], tolerance: float, title: str = ""
) -> list[Comparison]:
    """Relative errors; `null` and NaN stand for "undefined" and agree with each other only."""
    return [Comparison(f"{title}{name}", _error(ours.get(name), value), tolerance) for name, value in expected.items()]


def _error(ours: float | None, theirs: float | None) -> float:
    if ours is None:
        return math.inf  # a number that we do not report
    if theirs is None or math.isnan(theirs):
        return 0.0 if math.isnan(ours) else math.inf
    return abs(ours - theirs) / (abs(theirs) or 1.0)


def companions(paths: Iterable[Path]) -> set[Path]:
    """Files that belong to a golden file beside them and are none themselves."""
    return {path for path in paths if path.name == "data.json" and (path.parent / "expected.json").is_file()}
