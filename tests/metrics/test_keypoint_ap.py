"""Key-point AP: golden value, and COCO's own tool on random images where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.parity.families import check_file
from wholereel.evaluation.files.coco import keypoint_ap, run_pycocotools
from wholereel.metrics.keypoint_ap import DetectedPoses, KeypointAP, TruePoses

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets_and_metrics" / "coco_oks_ap.json"


def files(seed, images=12, joints=17):
    """Annotations and results: crowds, persons without labels, images without either, ties of scores."""
    rng = np.random.RandomState(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        for _ in range(rng.randint(4)):
            points = np.c_[rng.uniform(0, 200, (joints, 2)), rng.randint(0, 3, joints)]
            points[:, 2] *= rng.rand() > 0.2
            area = float(rng.choice([20.0**2, 60.0**2, 150.0**2]))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": 1, "area": area,
                "keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum()),
                "bbox": [*points[:, :2].min(0), *np.ptp(points[:, :2], axis=0)], "iscrowd": int(rng.rand() < 0.2),
            })  # fmt: skip
            for _ in range(rng.randint(3)):
                moved = points + np.c_[rng.normal(0, 0.08 * np.sqrt(area), (joints, 2)), np.zeros(joints)]
                results.append({"image_id": image, "category_id": 1, "keypoints": moved.ravel().tolist(),
                                "score": float(rng.randint(5) / 5)})  # fmt: skip
    truth = {"images": [{"id": image} for image in range(1, images + 1)], "annotations": annotations}
    return truth, results


def test_official_numbers():
    line = check_file(GOLDEN)
    assert line.status == "pass", line.text


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed):
    truth, results = files(seed)
    ours, theirs = keypoint_ap(truth, results).compute(), run_pycocotools(truth, results)
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert -1 < ours["AP"] < 1


def test_images_in_shards():
    truth, results = files(9)
    whole = keypoint_ap(truth, results)
    parts = [KeypointAP(images={k: v for k, v in whole.images.items() if k % 3 in (r, 0)}) for r in range(3)]
    merged = parts[1].merge(parts[2]).merge(parts[0])
    assert merged.compute() == whole.compute()
    assert merged.counts() == whole.counts()


def test_nothing_to_find():
    none = TruePoses(np.empty((0, 17, 3)), np.empty(0), np.empty((0, 4)), np.empty(0))
    assert set(KeypointAP().update(1, none, DetectedPoses(np.zeros((1, 17, 2)), np.ones(1))).compute().values()) == {-1}


def test_errors():
    none = TruePoses(np.empty((0, 15, 3)), np.empty(0), np.empty((0, 4)), np.empty(0))
    with pytest.raises(ValueError, match=r"\[15, 17\] joints for 17 sigmas"):
        KeypointAP().update(1, none, DetectedPoses(np.zeros((1, 17, 2)), np.ones(1)))
    with pytest.raises(ValueError, match="other sigmas"):
        KeypointAP().merge(KeypointAP((0.1,)))
