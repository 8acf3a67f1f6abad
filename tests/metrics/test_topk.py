"""Top-k counts: by hand, ties, NaN, Hit@k, merging, against torchmetrics' definition written out."""

from __future__ import annotations

import pytest
import torch

from wholereel.metrics.topk import TopKCounts, ranks, topk_counts

SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4]])


def test_by_hand():
    counts = topk_counts(SCORES, torch.tensor([1, 1, 0]), k=(1, 2, 3))
    assert ranks(SCORES, torch.tensor([1, 1, 0])).tolist() == [0, 1, 1]
    assert counts.value() == {"top1": 1 / 3, "top2": 1.0, "top3": 1.0}


def test_equal_scores_rank_by_class_index():
    assert ranks(torch.zeros(4, 4), torch.arange(4)).tolist() == [0, 1, 2, 3]


def test_nan_row_is_wrong_even_with_k_as_large_as_the_classes():
    scores = SCORES.clone()
    scores[0, 2] = float("nan")
    assert topk_counts(scores, torch.tensor([1, 0, 2]), k=(3,)).value() == {"top3": 2 / 3}


def test_multi_hot_target_counts_a_hit_of_any_label():
    target = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert topk_counts(SCORES, target, k=(1, 2, 3)).value() == {"top1": 0, "top2": 1 / 3, "top3": 2 / 3}


def test_parts_merge_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    scores, target = torch.rand(101, 7, generator=generator), torch.randint(7, (101,), generator=generator)
    parts = [topk_counts(scores[i::3], target[i::3]) for i in range(3)]
    whole = topk_counts(scores, target)
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(TopKCounts.zero())
    assert merged.value() == whole.value()
    assert int(merged.total) == 101


def test_errors():
    with pytest.raises(ValueError, match=r"target has shape \(2,\); expected \(3,\) or \(3, 3\)"):
        topk_counts(SCORES, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"k=\[1\] with k=\[1, 5\]"):
        TopKCounts.zero((1,)).merge(TopKCounts.zero())
    assert torch.tensor(TopKCounts.zero().value()["top1"]).isnan()
