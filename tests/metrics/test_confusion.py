"""Confusion counts and mean class accuracy: by hand, ties, absent classes, unscored videos, merging."""

from __future__ import annotations

import pytest
import torch

from wholereel.metrics.confusion import ConfusionCounts, confusion_counts

SCORES = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
TARGET = torch.tensor([0, 0, 0, 1])


def test_by_hand_with_a_tie_and_an_absent_class():
    counts = confusion_counts(SCORES, TARGET)
    assert counts.matrix_KK.tolist() == [[2, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert counts.value() == {"accuracy": 0.5, "mean_class_accuracy": pytest.approx((2 / 3 + 0) / 2)}
    assert counts.class_accuracy_K()[2].isnan()


def test_unscored_video_is_wrong():
    scores = SCORES.clone()
    scores[0] = float("nan")
    counts = confusion_counts(scores, TARGET)
    assert counts.unscored_K.tolist() == [1, 0, 0]
    assert counts.value()["accuracy"] == 0.25


def test_parts_merge_to_the_whole():
    whole = confusion_counts(SCORES, TARGET)
    merged = ConfusionCounts.zero(3).merge(confusion_counts(SCORES[:1], TARGET[:1]))
    merged = merged.merge(confusion_counts(SCORES[1:], TARGET[1:]))
    assert torch.equal(merged.matrix_KK, whole.matrix_KK)
    with pytest.raises(ValueError, match="cannot merge 3 classes with 2"):
        whole.merge(ConfusionCounts.zero(2))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected \(4,\)"):
        confusion_counts(SCORES, TARGET[:2])
