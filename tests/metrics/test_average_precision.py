"""Average precision: by hand, ties in one step, classes without positives, merging."""

from __future__ import annotations

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
