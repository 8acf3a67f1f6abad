"""Video-level losses: each aggregate against its formula, masks, extremes, smoothing; twin of the test-time scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wholereel.ops.aggregate import aggregate_scores
from wholereel.tasks.losses import video_loss, video_losses

Y = torch.tensor([2, 0])
Y_HOT = torch.tensor([[0.0, 1, 1], [1, 0, 0]])
FORMULAS = {
    ("logits", False): lambda z, y: F.cross_entropy(z.mean(0), y),
    ("prob", False): lambda z, y: -z.softmax(-1).mean(0)[y].log(),
    ("max", False): lambda z, y: F.cross_entropy(z.amax(0), y),
    ("clip", False): lambda z, y: F.cross_entropy(z, y.expand(len(z))),
    ("logits", True): lambda z, y: F.binary_cross_entropy_with_logits(z.mean(0), y),
    ("prob", True): lambda z, y: F.binary_cross_entropy(z.sigmoid().mean(0), y),
    ("max", True): lambda z, y: F.binary_cross_entropy_with_logits(z.amax(0), y),
    ("clip", True): lambda z, y: F.binary_cross_entropy_with_logits(z, y.expand_as(z)),
}


def _logits(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("aggregate", "multi_label"), FORMULAS)
def test_sum_over_videos_of_the_formula_over_valid_clips(aggregate, multi_label):
    z = _logits(2, 4, 3)
    valid = torch.tensor([[True, False, True, True], [True, False, False, True]])
    y = Y_HOT.double() if multi_label else Y
    part = video_loss(z, y, valid, aggregate=aggregate, multi_label=multi_label)
    expected = sum(FORMULAS[aggregate, multi_label](z[b, valid[b]], y[b]) for b in range(2))
    torch.testing.assert_close(part.sum, expected)
    assert part.count == 2


@pytest.mark.parametrize(("aggregate", "multi_label"), FORMULAS)
def test_invalid_clips_and_videos_get_no_gradient_even_if_nan(aggregate, multi_label):
    z = _logits(3, 2, 3)
    z[0, 1] = float("nan")
    z[2] = float("nan")
    z.requires_grad_()
    valid = torch.tensor([[True, False], [True, True], [False, False]])
    y = torch.cat([Y_HOT, Y_HOT[:1]]) if multi_label else torch.tensor([2, 0, 1])
    part = video_loss(z, y, valid, aggregate=aggregate, multi_label=multi_label)
    (gradient,) = torch.autograd.grad(part.sum, z)
    assert part.count == 2
    assert gradient[0, 0].abs().sum() > 0
    assert (gradient[0, 1] == 0).all()
    assert (gradient[2] == 0).all()


@pytest.mark.parametrize("aggregate", ["logits", "prob", "max", "clip"])
def test_loss_and_gradient_stay_finite_where_probabilities_underflow(aggregate):
    z = torch.tensor([[[400.0, -400.0], [300.0, -500.0]]], requires_grad=True)
    valid = torch.ones(1, 2, dtype=torch.bool)
    single = video_loss(z, torch.tensor([1]), valid, aggregate=aggregate)
    multi = video_loss(z, torch.tensor([[0.0, 1.0]]), valid, aggregate=aggregate, multi_label=True)
    for part in (single, multi):
        assert part.sum > 300
        assert torch.autograd.grad(part.sum, z)[0].isfinite().all()


@pytest.mark.parametrize("aggregate", ["logits", "prob", "max"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_loss_is_the_log_of_the_test_time_score(aggregate, multi_label):
    z, valid = _logits(2, 3, 3), torch.tensor([[True, True, False], [True, True, True]])
    scores = aggregate_scores(z, valid, aggregate, multi_label=multi_label)
    if multi_label:
        y = Y_HOT.double()
        expected = -(y * scores.log() + (1 - y) * (1 - scores).log()).mean(-1).sum()
    else:
        y, expected = Y, -scores[torch.arange(2), Y].log().sum()
    torch.testing.assert_close(video_loss(z, y, valid, aggregate=aggregate, multi_label=multi_label).sum, expected)


def test_label_smoothing_is_that_of_torch():
    z, valid = _logits(2, 1, 3), torch.ones(2, 1, dtype=torch.bool)
    ours = video_loss(z, Y, valid, aggregate="prob", label_smoothing=0.2).sum
    torch.testing.assert_close(ours, F.cross_entropy(z[:, 0], Y, label_smoothing=0.2, reduction="sum"))
    ours = video_loss(z, Y_HOT, valid, aggregate="logits", multi_label=True, label_smoothing=0.2).sum
    torch.testing.assert_close(ours, 2 * F.binary_cross_entropy_with_logits(z[:, 0], Y_HOT.double() * 0.8 + 0.1))


def test_mix_is_two_weighted_parts():
    z, valid = _logits(2, 3, 3), torch.ones(2, 3, dtype=torch.bool)
    mixed = video_losses(z, Y, valid, aggregate="mix", mix=0.25)
    assert set(mixed.parts) == {"video", "clip"}
    video = video_losses(z, Y, valid, aggregate="logits").total()
    clip = video_losses(z, Y, valid, aggregate="clip").total()
    torch.testing.assert_close(mixed.total(), 0.75 * video + 0.25 * clip)


def test_clip_takes_labels_per_clip():
    z, valid = _logits(2, 3, 3), torch.ones(2, 3, dtype=torch.bool)
    labels = torch.tensor([[0, 1, 2], [2, 2, 0]])
    part = video_loss(z, labels, valid, aggregate="clip")
    torch.testing.assert_close(part.sum, F.cross_entropy(z.flatten(0, 1), labels.flatten(), reduction="sum") / 3)


def test_half_precision_logits_are_computed_in_float32():
    part = video_loss(_logits(2, 3, 3).bfloat16(), Y, torch.ones(2, 3, dtype=torch.bool), aggregate="prob")
    assert part.sum.dtype == part.count.dtype == torch.float32


def test_errors_name_shapes_and_choices():
    z, valid = _logits(2, 3, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="aggregate='median' is none of"):
        video_loss(z, Y, valid, aggregate="median")
    with pytest.raises(
        ValueError, match=r"target has shape \(2, 3\); aggregate='logits' with multi_label=False needs \(2,\)"
    ):
        video_loss(z, Y_HOT, valid, aggregate="logits")
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 3\)"):
        video_loss(z[..., 0], Y, valid, aggregate="logits")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("aggregate", "multi_label"), FORMULAS)
def test_shares_of_two_labels_are_the_loss_of_the_mixed_target(aggregate, multi_label, smoothing):
    """Against the soft targets of facebookresearch/SlowFast (`mixup_target`), in double precision."""
    z, shares = _logits(2, 4, 3), torch.tensor([0.3, 0.85], dtype=torch.float64)
    valid = torch.tensor([[True, False, True, True], [True, False, False, True]])
    y = Y_HOT.double() if multi_label else Y
    options = {"aggregate": aggregate, "multi_label": multi_label, "label_smoothing": smoothing}
    own = video_loss(z, y, valid, share_B=shares, **options)
    others = video_loss(z, y.flip(0), valid, share_B=1 - shares, **options)
    one_hot = y if multi_label else F.one_hot(y, 3).double()
    mixed = shares[:, None] * one_hot + (1 - shares)[:, None] * one_hot.flip(0)
    soft = mixed * (1 - smoothing) + smoothing / (2 if multi_label else 3)
    expected = 0.0
    for row in range(2):
        clips = z[row, valid[row]]
        if aggregate == "clip":
            logits = clips
        elif aggregate == "prob":
            probability = clips.sigmoid().mean(0) if multi_label else clips.softmax(-1).mean(0)
            logits = probability.logit() if multi_label else probability.log()
        else:
            logits = clips.mean(0) if aggregate == "logits" else clips.amax(0)
        target = soft[row].expand_as(logits)
        loss = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy
        expected = expected + loss(logits, target)
    torch.testing.assert_close(own.sum + others.sum, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.count + others.count, torch.tensor(2.0, dtype=torch.float64))
