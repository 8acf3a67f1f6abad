"""Average precision: by hand, ties in one step, classes without positives, merging."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wholereel.metrics.average_precision import ScoredVideos, average_precision_K


def test_by_hand():
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    target = torch.tensor([[1.0], [0], [1], [0]])
    assert average_precision_K(scores, target).item() == pytest.approx((1 + 2 / 3) / 2)


def test_ties_are_one_step_in_any_order():
    scores = torch.tensor([[0.5], [0.5], [0.1]])
    for target in ([[1.0], [0], [0]], [[0.0], [1], [0]]):
        assert average_precision_K(scores, torch.tensor(target)).item() == pytest.approx(0.5)


def test_class_without_positive_is_left_out():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.5]])
    target = torch.tensor([[1.0, 0], [0, 0]])
    per_class = average_precision_K(scores, target)
    assert per_class[0] == 1
    assert per_class[1].isnan()
    merged = (
        ScoredVideos.zero(2).merge(ScoredVideos(scores[:1], target[:1])).merge(ScoredVideos(scores[1:], target[1:]))
    )
    assert merged.value() == {"map": 1.0}


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="differ in shape"):
        average_precision_K(torch.zeros(2, 3), torch.zeros(3, 2))


def test_public_charades_evaluation():
    """Reference values in SlowFast's protocol: 120 random videos, 30 views, 157 classes, in percent."""
    rng = np.random.RandomState(31)  # the rule by which the reference drew
    share = np.minimum(0.4, 0.6 / np.arange(1, 158) ** 0.7)
    share[-3:] = 0
    labels = rng.uniform(size=(120, 157)) < share
    labels[:2] = 0
    logits = rng.standard_normal((120, 30, 157)).astype(np.float32)
    logits += np.float32(0.5) * labels[:, None].astype(np.float32) - np.float32(2)
    scores, target = torch.from_numpy(logits).double().sigmoid(), torch.from_numpy(labels).float()
    for views, expected in ((scores.amax(1), 22.32453458252472), (scores.mean(1), 76.85498485067788)):
        assert 100 * ScoredVideos(views, target).value()["map"] == pytest.approx(expected, rel=1e-9)
