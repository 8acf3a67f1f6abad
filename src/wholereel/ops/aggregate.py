"""From clip logits to one score vector per video: the test-time half of the video-level loss (`config.Aggregate`).

Extra axes: K classes. The test aggregation is the training one unless a protocol says otherwise; which rule follows
from `clip` and `mix`, whose losses do not name one, is our choice and stands in `RULES`.
Not here: the losses (`tasks/`), which use the two masked reductions below.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wholereel.config import Aggregate

__all__ = ["RULES", "aggregate_scores", "max_over_clips", "mean_over_clips"]

RULES: dict[str, str] = {
    "logits": "logits",
    "prob": "prob",
    "max": "max",
    "clip": "prob",  # a clip-level model is a set of independent judges: the usual mean of their probabilities
    "mix": "logits",  # its video-level part is the loss `logits`
}


def mean_over_clips(values_BNK: Tensor, valid_BN: Tensor) -> Tensor:
    """Mean over the valid clips.

    Args:
        values_BNK: any floating type; values of invalid clips are ignored, even NaN.
        valid_BN: bool; a row without any True gives NaN.
    Returns: values_BK, same dtype.
    """
    kept_BNK = values_BNK.masked_fill(~valid_BN[..., None], 0.0)
    return kept_BNK.sum(1) / valid_BN.sum(1, keepdim=True).to(values_BNK.dtype)


def max_over_clips(values_BNK: Tensor, valid_BN: Tensor) -> Tensor:
    """Maximum per class over the valid clips; arguments as in `mean_over_clips`, a row without any True gives -inf."""
    return values_BNK.masked_fill(~valid_BN[..., None], float("-inf")).amax(1)


def aggregate_scores(
    clip_logits_BNK: Tensor, valid_BN: Tensor, aggregate: Aggregate, *, multi_label: bool = False
) -> Tensor:
    """Probabilities of each video from the logits of its clips.

    Args:
        clip_logits_BNK: logits of N clips (or views) of B videos; computed in float32 at least.
        valid_BN: bool, which of them exist.
        aggregate: `logits` and `mix`: probability of the mean logit. `prob` and `clip`: mean of the probabilities.
            `max`: probability of the largest logit per class.
        multi_label: sigmoid per class instead of softmax over classes.
    Returns: scores_BK in [0, 1]; rows sum to 1 unless `multi_label`. A video without a valid clip has NaN scores.
    Raises: ValueError: unknown aggregate, or shapes that do not agree.
    """
    if aggregate not in RULES:
        raise ValueError(f"aggregate={aggregate!r} is none of {sorted(RULES)}")
    if clip_logits_BNK.ndim != 3 or clip_logits_BNK.shape[:2] != valid_BN.shape:
        raise ValueError(
            f"aggregate_scores needs logits (B, N, K) and valid (B, N); "
            f"got {tuple(clip_logits_BNK.shape)} and {tuple(valid_BN.shape)}"
        )
    logits_BNK = clip_logits_BNK.to(torch.promote_types(clip_logits_BNK.dtype, torch.float32))
    rule = RULES[aggregate]
    if rule == "prob":
        return mean_over_clips(_probabilities(logits_BNK, multi_label), valid_BN)
    logits_BK = (mean_over_clips if rule == "logits" else max_over_clips)(logits_BNK, valid_BN)
    scores_BK = _probabilities(logits_BK, multi_label)
    # sigmoid(-inf) is 0, which would look like a confident "no" for a video that was never seen
    return scores_BK.masked_fill(~valid_BN.any(1, keepdim=True), float("nan"))


def _probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    return logits.sigmoid() if multi_label else logits.softmax(-1)
