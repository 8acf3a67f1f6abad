"""COCO key-point files (also PoseTrack 2018 as COCO), and COCO's own evaluator as a second opinion."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wholereel.errors import DataError, import_extra
from wholereel.metrics.keypoint_ap import COCO_SIGMAS, DetectedPoses, KeypointAP, TruePoses

__all__ = ["image_poses", "keypoint_ap", "read_coco", "run_pycocotools"]

NUMBERS = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large")


def read_coco(truth: str | Path, predictions: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the annotation file and the list of results, and check that they belong together.

    Raises: DataError: other content, several categories, or results for images that are not listed.
    """
    data, results = (_load(path) for path in (truth, predictions))
    if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
        raise DataError(truth, "no object with 'images' and 'annotations'", "a COCO annotation file")
    if not isinstance(results, list) or any("image_id" not in row or "keypoints" not in row for row in results):
        raise DataError(predictions, "no list of objects with image_id, keypoints and score", "COCO results")
    categories = {row.get("category_id", 1) for row in data["annotations"]}
    if len(categories) > 1:
        raise DataError(truth, f"{len(categories)} categories with annotations", "one (persons)")
    unknown = sorted({row["image_id"] for row in results} - {image["id"] for image in data["images"]})
    if unknown:
        raise DataError(
            predictions, f"{len(unknown)} images that are not in {truth}, e.g. {unknown[0]}", "listed images"
        )
    return data, results


def _load(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(path, f"cannot be read as JSON ({error})") from error


def keypoint_ap(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], sigmas: Sequence[float] = COCO_SIGMAS
) -> KeypointAP:
    """Gather all images of loaded files."""
    persons, found = _by_image(truth, truth["annotations"]), _by_image(truth, results)
    images: dict[int, Any] = {}
    for image, rows in persons.items():
        poses = _poses(rows, found[image], len(sigmas))
        images |= KeypointAP(tuple(sigmas)).update(image, *poses).images
    return KeypointAP(tuple(sigmas), images)


def image_poses(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], image: int, joints: int
) -> tuple[TruePoses, DetectedPoses]:
    """The persons of one image of loaded files."""
    return _poses(_by_image(truth, truth["annotations"])[image], _by_image(truth, results)[image], joints)


def _by_image(truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    images: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for row in rows:
        images[row["image_id"]].append(row)
    return images


def _poses(
    persons: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], joints: int
) -> tuple[TruePoses, DetectedPoses]:
    points_GJ3, points_DJ3 = (
        np.array([row["keypoints"] for row in rows], dtype=np.float64).reshape(len(rows), joints, 3)
        for rows in (persons, found)
    )
    truth = TruePoses(
        points_GJ3,
        np.array([row["area"] for row in persons], dtype=np.float64),
        np.array([row["bbox"] for row in persons], dtype=np.float64).reshape(len(persons), 4),
        np.array([bool(row.get("iscrowd", 0)) for row in persons], dtype=bool),
    )
    return truth, DetectedPoses(points_DJ3[..., :2], np.array([row["score"] for row in found], dtype=np.float64))


def run_pycocotools(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], sigmas: Sequence[float] = COCO_SIGMAS
) -> dict[str, float]:
    """The same numbers from COCO's own evaluator.

    Raises: MissingExtraError: pycocotools is not installed.
    """
    coco = import_extra("pycocotools.coco", extra="pose", purpose="evaluating with COCO's own tool")
    cocoeval = import_extra("pycocotools.cocoeval", extra="pose", purpose="evaluating with COCO's own tool")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        api = coco.COCO()
        api.dataset = {"info": {}, "categories": [{"id": 1, "name": "person"}], **json.loads(json.dumps(dict(truth)))}
        api.createIndex()
        run = cocoeval.COCOeval(api, api.loadRes([dict(row) for row in results]), "keypoints")
        run.params.kpt_oks_sigmas = np.array(sigmas, dtype=np.float64)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(NUMBERS, map(float, run.stats), strict=True))
