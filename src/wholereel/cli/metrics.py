"""`wholereel metrics ...`: official numbers from files of predictions, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

if TYPE_CHECKING:
    from wholereel.evaluation.official.report import Report

__all__ = ["ava", "charades", "coco_keypoints", "epic", "epic_anticipation", "folds", "posetrack", "videos"]

File = Annotated[Path, arg(metavar="FILE")]
Optional = Annotated[Path | None, arg(metavar="FILE")]


def ava(
    truth: File,
    detections: File,
    labels: File,
    excluded: Optional = None,
    empty: Optional = None,
    protocol: Literal["slowfast", "activitynet_official"] = "slowfast",
    classes: bool = False,
    out: Optional = None,
) -> int:
    """Frame-mAP of boxes with actions, AVA's official files.

    Args:
        truth: ava_val_v2.x.csv.
        detections: The same columns with a score at the end.
        labels: Label map (.pbtxt); its classes are evaluated.
        excluded: Key frames to leave out on both sides.
        empty: Key frames that are declared to show nothing (activitynet_official).
        protocol: Whose evaluator: published SlowFast and MeMViT numbers, or the challenge's.
        classes: Print every class, too.
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.ava import ava_report

    report = ava_report(truth, detections, labels, excluded=excluded, empty=empty, protocol=protocol)
    return _finish(report, classes, out)


def epic(
    truth: File,
    predictions: File,
    tail_verbs: Optional = None,
    tail_nouns: Optional = None,
    unseen: Optional = None,
    actions: Optional = None,
    out: Optional = None,
) -> int:
    """Top-k accuracy of verbs, nouns and actions, EPIC-KITCHENS-100.

    Args:
        truth: EPIC_100_validation.csv.
        predictions: .npz with narration_id, verb, noun (and action, action_pairs), or a submission (.json).
        tail_verbs: EPIC_100_tail_verbs.csv.
        tail_nouns: EPIC_100_tail_nouns.csv.
        unseen: EPIC_100_unseen_participant_ids_validation.csv.
        actions: List of actions (id,verb,noun), for scores of an action head.
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.epic import recognition_report

    report = recognition_report(
        truth, predictions, tail_verbs=tail_verbs, tail_nouns=tail_nouns, unseen=unseen, actions=actions
    )
    return _finish(report, False, out)


def epic_anticipation(
    truth: File,
    predictions: File,
    tail_verbs: Optional = None,
    tail_nouns: Optional = None,
    unseen: Optional = None,
    actions: Optional = None,
    quirk: Literal["reference", "zero"] = "reference",
    out: Optional = None,
) -> int:
    """Class-mean top-5 recall of verbs, nouns and actions, EPIC-KITCHENS-100 anticipation.

    Args:
        truth: EPIC_100_validation.csv.
        predictions: .npz with narration_id and verb, noun, action or some of them, or a submission (.json).
        tail_verbs: EPIC_100_tail_verbs.csv.
        tail_nouns: EPIC_100_tail_nouns.csv.
        unseen: EPIC_100_unseen_participant_ids_validation.csv.
        actions: List of actions (id,verb,noun).
        quirk: Verbs in no action score what action 0 scores, as in the public code, or zero (action scores only).
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.epic import anticipation_report

    report = anticipation_report(
        truth, predictions, tail_verbs=tail_verbs, tail_nouns=tail_nouns, unseen=unseen, actions=actions,
        reference_quirk=quirk == "reference",
    )  # fmt: skip
    return _finish(report, False, out)


def charades(
    truth: File,
    predictions: File,
    task: Literal["classify", "localise"] = "classify",
    classes: bool = False,
    out: Optional = None,
) -> int:
    """Mean average precision of videos or of moments, Charades.

    Args:
        truth: Charades_v1_test.csv.
        predictions: Lines "id score score ..." (for moments "id point score ..."), .npz or .jsonl.
        task: Whole videos, or 25 moments of each.
        classes: Print every class, too.
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.charades import charades_report

    return _finish(charades_report(truth, predictions, localisation=task == "localise"), classes, out)


def videos(
    truth: File,
    predictions: File,
    views: Literal["auto", "softmax_sum", "sigmoid_max", "logits_mean"] = "auto",
    labels: Literal["auto", "several"] = "auto",
    classes: bool = False,
    out: Optional = None,
) -> int:
    """Top-k and mean class accuracy, or mean average precision and Hit@k, of any data set.

    Args:
        truth: CSV with id and label: a class index, or several with ";" between them.
        predictions: Lines "id score score ...", .npz (scores of videos, or logits of views), .json or .jsonl.
        views: How the logits of views become one score; auto: softmax_sum for one label, sigmoid_max for several.
        labels: "several" where videos may have any number of labels though all happen to have one.
        classes: Print every class, too.
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.videos import videos_report

    return _finish(
        videos_report(truth, predictions, views=None if views == "auto" else views, several=labels == "several"),
        classes,
        out,
    )


def folds(results: Annotated[tuple[Path, ...], arg(metavar="RESULTS")], /, out: Optional = None) -> int:
    """The mean over the folds of UCF101, HMDB51 or ESC-50, one model trained for each.

    Args:
        results: What `wholereel evaluate --out` has written for each fold: results.json, or its folder.
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.folds import folds_report

    return _finish(folds_report(results), True, out)


def posetrack(
    truth: File,
    predictions: File,
    tracking: Literal["reference", "full"] = "reference",
    classes: bool = False,
    out: Optional = None,
) -> int:
    """AP and MOTA of poses in videos, PoseTrack 2017 or 2018 files.

    Args:
        truth: Folder of .json files, one a sequence, or one file.
        predictions: The same; files go by their names.
        tracking: Count as the public code does (without the last frame of a sequence), or every frame.
        classes: Print every joint, too.
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.poses import posetrack_report

    return _finish(posetrack_report(truth, predictions, strict_reference=tracking == "reference"), classes, out)


def coco_keypoints(
    truth: File,
    predictions: File,
    engine: Literal["wholereel", "pycocotools"] = "wholereel",
    out: Optional = None,
) -> int:
    """Average precision of key points by OKS, COCO files.

    Args:
        truth: Annotation file.
        predictions: List of results.
        engine: Ours, or COCO's own tool (needs the extra "pose"); same numbers.
        out: Write all numbers as JSON.
    """
    from wholereel.evaluation.official.poses import keypoint_report

    return _finish(keypoint_report(truth, predictions, engine=engine), False, out)


def _finish(report: Report, classes: bool, out: Path | None) -> int:
    from wholereel.cli.text import table

    print(report)
    if classes:
        rows = [
            (row.name, str(row.count), "-" if row.value != row.value else f"{row.value:.4f}")
            for row in report.per_class
        ]
        print("\n" + table(rows, ("name", "count", "value")))
    if out is not None:
        report.write(out)
        print(out)
    return 0
