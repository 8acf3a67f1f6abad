"""Video-level losses of classification (N clips, one label), and the loss of boxes.

Source of the idea: arXiv 2104.01198, "joint optimisation with a video-level supervision"; its formula could not be
consulted, so all aggregates are our choice. Extra axes: K classes, R boxes.
The test-time twin of each rule is `ops.aggregate.aggregate_scores`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.batches import Losses, LossPart
from wholereel.config import Aggregate
from wholereel.ops.aggregate import max_over_clips, mean_over_clips

__all__ = ["box_loss", "video_loss", "video_losses", "without_tail"]

STRUCK_OUT = -1e10  # as a logit


def video_losses(
    clip_logits_BNK: Tensor,
    target: Tensor,
    valid_BN: Tensor,
    *,
    aggregate: Aggregate,
    mix: float = 0.5,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
    share_B: Tensor | None = None,
) -> Losses:
    """The parts of an aggregate: `video` (clips judged together), `clip` (judged one by one), for `mix` both.

    Args: as `video_loss`; and
        mix: share of the `clip` part in `aggregate="mix"`, 0 to 1.
    Returns: for `mix`: (1 - mix) * `logits` + mix * `clip`, as two weighted parts.
    """
    if aggregate == "mix":
        rules: dict[str, Aggregate] = {"video": "logits", "clip": "clip"}
        weights = {"video": 1.0 - mix, "clip": mix}
    else:
        rules = {"clip" if aggregate == "clip" else "video": aggregate}
        weights = {}
    parts = {
        name: video_loss(
            clip_logits_BNK,
            target,
            valid_BN,
            aggregate=rule,
            multi_label=multi_label,
            label_smoothing=label_smoothing,
            share_B=share_B,
        )
        for name, rule in rules.items()
    }
    return Losses(parts, weights)


def video_loss(
    clip_logits_BNK: Tensor,
    target: Tensor,
    valid_BN: Tensor,
    *,
    aggregate: Aggregate,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
    share_B: Tensor | None = None,
) -> LossPart:
    """Sum over videos of one video-level loss, and how many videos it sums.

    Args:
        clip_logits_BNK: computed in float32 at least; values of invalid clips get no gradient, even if they are NaN.
        target: int64 class indices (B,), or multi-hot (B, K) with `multi_label`; `clip` also takes labels per clip,
            (B, N) or (B, N, K).
        valid_BN: bool. A video without a valid clip adds neither to the sum nor to the count.
        aggregate: `logits`, `max`: the loss of the mean or maximal logits. `prob`: of the mean probabilities.
            `clip`: mean of the clips' losses. Binary cross-entropies are means over the K classes.
        label_smoothing: share s of the target given to all classes alike; with `multi_label`, y becomes
            y (1 - s) + s / 2.
        share_B: how much of each video counts; `None` = all of it.
    Raises: ValueError: unknown aggregate, or shapes that do not agree.
    """
    _check(clip_logits_BNK, target, valid_BN, aggregate, multi_label)
    present_B = valid_BN.any(1)
    logits_BNK = clip_logits_BNK.to(torch.promote_types(clip_logits_BNK.dtype, torch.float32))
    # fill before any arithmetic: zero times NaN is NaN in the backward pass
    logits_BNK = logits_BNK.masked_fill(~valid_BN[..., None], 0.0)
    clips_BN = valid_BN | ~present_B[:, None]  # a video without clips counts its zeros, and is struck out below
    if aggregate == "clip":
        loss_B = _mean_of_clip_losses(logits_BNK, target, clips_BN, multi_label, label_smoothing)
    else:
        yes_BK, no_BK = _log_probabilities(logits_BNK, clips_BN, aggregate, multi_label)
        loss_B = _cross_entropy(yes_BK, no_BK, target, label_smoothing)
    loss_B = loss_B.masked_fill(~present_B, 0.0)
    if share_B is not None:
        share_B = share_B.to(loss_B.dtype)
        return LossPart((share_B * loss_B).sum(), (share_B * present_B).sum())
    return LossPart(loss_B.sum(), present_B.sum().to(loss_B.dtype))


def box_loss(logits_RK: Tensor, labels_RK: Tensor, *, label_smoothing: float = 0.0) -> LossPart:
    """Sum over boxes of binary cross-entropies, means over the K classes, and how many boxes it sums.

    Args:
        logits_RK: computed in float32 at least.
        labels_RK: multi-hot.
        label_smoothing: share s: y becomes y (1 - s) + s / 2.
    """
    logits_RK = logits_RK.to(torch.promote_types(logits_RK.dtype, torch.float32))
    soft_RK = labels_RK.to(logits_RK.dtype) * (1.0 - label_smoothing) + 0.5 * label_smoothing
    loss_R = F.binary_cross_entropy_with_logits(logits_RK, soft_RK, reduction="none").mean(1)
    return LossPart(loss_R.sum(), loss_R.new_full((), float(len(loss_R))))


def without_tail(logits: Tensor, labels: Tensor, tail_K: Tensor, *, drop: float) -> Tensor:
    """Logits in which each rare class, unless it is the true one, is struck out with probability `drop`.

    With softmax cross-entropy this is the equalisation loss of the public code of arXiv 2201.08383, which nothing calls
    there: what is struck out of the sum is not pushed down.

    Args:
        logits: float32 or wider, classes last. labels: class indices, one axis less; negative = none.
        tail_K: bool, the rare classes.
        drop: probability, drawn anew for each label and class.
    """
    true = F.one_hot(labels.clamp(min=0), len(tail_K)).bool() & (labels >= 0)[..., None]
    struck = tail_K & ~true & (torch.rand(logits.shape, device=logits.device) < drop)
    return logits.masked_fill(struck, STRUCK_OUT)


def _log_probabilities(
    logits_BNK: Tensor, valid_BN: Tensor, aggregate: Aggregate, multi_label: bool
) -> tuple[Tensor, Tensor | None]:
    """Logarithms of the video's class probabilities and, for multi-label, of their complements."""
    if aggregate == "prob":
        if not multi_label:
            return _log_mean_exp(logits_BNK.log_softmax(-1), valid_BN), None
        yes, no = F.logsigmoid(logits_BNK), F.logsigmoid(-logits_BNK)
        return _log_mean_exp(yes, valid_BN), _log_mean_exp(no, valid_BN)
    logits_BK = (mean_over_clips if aggregate == "logits" else max_over_clips)(logits_BNK, valid_BN)
    return _split(logits_BK, multi_label)


def _split(logits: Tensor, multi_label: bool) -> tuple[Tensor, Tensor | None]:
    return (F.logsigmoid(logits), F.logsigmoid(-logits)) if multi_label else (logits.log_softmax(-1), None)


def _log_mean_exp(logs_BNK: Tensor, valid_BN: Tensor) -> Tensor:
    """log of the mean over valid clips of exp(logs), in the logarithm throughout (exp underflows at -104)."""
    masked = logs_BNK.masked_fill(~valid_BN[..., None], -math.inf)
    return masked.logsumexp(1) - valid_BN.sum(1, keepdim=True).to(logs_BNK.dtype).log()


def _cross_entropy(yes: Tensor, no: Tensor | None, target: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of log-probabilities (…, K); shape (…)."""
    if no is None:
        nll = -yes.gather(-1, target[..., None]).squeeze(-1)
        return (1.0 - smoothing) * nll - smoothing * yes.mean(-1) if smoothing else nll
    soft = target.to(yes.dtype) * (1.0 - smoothing) + 0.5 * smoothing
    return -(soft * yes + (1.0 - soft) * no).mean(-1)


def _mean_of_clip_losses(
    logits_BNK: Tensor, target: Tensor, valid_BN: Tensor, multi_label: bool, smoothing: float
) -> Tensor:
    label_axes = 2 if multi_label else 1
    if target.ndim == label_axes:  # one label for all clips
        target = target[:, None].expand(-1, logits_BNK.shape[1], *target.shape[1:])
    loss_BN = _cross_entropy(*_split(logits_BNK, multi_label), target, smoothing)
    return mean_over_clips(loss_BN[..., None], valid_BN).squeeze(-1)


def _check(logits: Tensor, target: Tensor, valid: Tensor, aggregate: str, multi_label: bool) -> None:
    if aggregate not in {"logits", "prob", "max", "clip"}:
        raise ValueError(f"aggregate={aggregate!r} is none of ['clip', 'logits', 'max', 'prob'] ('mix' has two parts)")
    if logits.ndim != 3 or logits.shape[:2] != valid.shape:
        raise ValueError(
            f"video_loss needs logits (B, N, K) and valid (B, N); got {tuple(logits.shape)} and {tuple(valid.shape)}"
        )
    batch, clips, classes = logits.shape
    legal: list[tuple[int, ...]] = [(batch, classes)] if multi_label else [(batch,)]
    if aggregate == "clip":
        legal.append((batch, clips, classes) if multi_label else (batch, clips))
    if tuple(target.shape) not in legal:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; aggregate={aggregate!r} with multi_label={multi_label} needs "
            + " or ".join(str(shape) for shape in legal)
        )
