"""PCK as counts: by hand, borders, missing joints, merging."""

from __future__ import annotations

import pytest
import torch

from wholereel.metrics.pck import PckCounts, pck_counts

TRUE = torch.zeros(2, 3, 2)
PREDICTED = torch.tensor([[[0.0, 5.0], [3.0, 4.0], [0.0, 5.1]], [[0.0, 0.0], [float("nan")] * 2, [1.0, 0.0]]])
LABELLED = torch.tensor([[1, 1, 1], [0, 2, 1]])


def test_by_hand():
    counts = pck_counts(PREDICTED, TRUE, LABELLED, torch.tensor([10.0, 2.0]))
    assert counts.right_J.tolist() == [1, 1, 1]  # exactly half is near enough, a missing joint is wrong
    assert counts.total_J.tolist() == [1, 2, 2]
    assert counts.value() == {"pck": 3 / 5, "mean_joint_pck": pytest.approx((1 + 0.5 + 0.5) / 3)}


def test_threshold_and_joints_that_are_never_labelled():
    counts = pck_counts(PREDICTED[:1], TRUE[:1], torch.tensor([[1, 0, 1]]), torch.tensor([10.0]), threshold=0.51)
    assert counts.value() == {"pck": 1.0, "mean_joint_pck": 1.0}


def test_merge():
    scale = torch.tensor([10.0, 2.0])
    whole = pck_counts(PREDICTED, TRUE, LABELLED, scale)
    parts = [pck_counts(PREDICTED[i : i + 1], TRUE[i : i + 1], LABELLED[i : i + 1], scale[i : i + 1]) for i in (0, 1)]
    assert parts[1].merge(PckCounts.zero(3)).merge(parts[0]).value() == whole.value()


def test_errors():
    with pytest.raises(ValueError, match=r"scale has shape \(1,\); expected \(2,\)"):
        pck_counts(PREDICTED, TRUE, LABELLED, torch.ones(1))
    with pytest.raises(ValueError, match="differ"):
        pck_counts(PREDICTED, TRUE[:1], LABELLED, torch.ones(2))
    with pytest.raises(ValueError, match="3 joints with 4"):
        PckCounts.zero(3).merge(PckCounts.zero(4))
