"""Aggregation of clip logits: each rule against its formula, masks, order of clips, errors."""

from __future__ import annotations

import pytest
import torch

from wholereel.ops.aggregate import RULES, aggregate_scores

LOGITS_NK = torch.tensor([[2.0, 0.0, -1.0], [-1.0, 3.0, 0.5], [0.0, 0.0, 4.0]])
FORMULAS = {
    ("logits", False): lambda z: z.mean(0).softmax(0),
    ("prob", False): lambda z: z.softmax(1).mean(0),
    ("max", False): lambda z: z.amax(0).softmax(0),
    ("logits", True): lambda z: z.mean(0).sigmoid(),
    ("prob", True): lambda z: z.sigmoid().mean(0),
    ("max", True): lambda z: z.sigmoid().amax(0),
}


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("aggregate", RULES)
def test_rule_is_its_formula_over_the_valid_clips(aggregate, multi_label):
    logits_BNK = torch.full((2, 4, 3), float("nan"))
    logits_BNK[0, [0, 2, 3]] = LOGITS_NK  # the invalid clips hold NaN and must not matter
    logits_BNK[1, 1] = LOGITS_NK[1]
    valid_BN = torch.tensor([[True, False, True, True], [False, True, False, False]])
    formula = FORMULAS[RULES[aggregate], multi_label]
    scores_BK = aggregate_scores(logits_BNK, valid_BN, aggregate, multi_label=multi_label)
    torch.testing.assert_close(scores_BK, torch.stack([formula(LOGITS_NK), formula(LOGITS_NK[1:2])]))


def test_order_of_clips_does_not_matter():
    valid_BN = torch.ones(1, 3, dtype=torch.bool)
    for aggregate in RULES:
        forth = aggregate_scores(LOGITS_NK[None], valid_BN, aggregate)
        back = aggregate_scores(LOGITS_NK.flip(0)[None], valid_BN, aggregate)
        torch.testing.assert_close(forth, back)


@pytest.mark.parametrize("aggregate", RULES)
def test_video_without_a_valid_clip_has_nan_scores(aggregate):
    for multi_label in (False, True):
        scores = aggregate_scores(
            LOGITS_NK[None], torch.zeros(1, 3, dtype=torch.bool), aggregate, multi_label=multi_label
        )
        assert scores.isnan().all()


def test_half_precision_is_computed_in_float32():
    valid_BN = torch.ones(1, 3, dtype=torch.bool)
    assert aggregate_scores(LOGITS_NK[None].bfloat16(), valid_BN, "prob").dtype == torch.float32


def test_errors_name_values():
    valid_BN = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="aggregate='median' is none of"):
        aggregate_scores(LOGITS_NK[None], valid_BN, "median")
    with pytest.raises(ValueError, match=r"got \(3, 3\) and \(1, 3\)"):
        aggregate_scores(LOGITS_NK, valid_BN, "logits")
