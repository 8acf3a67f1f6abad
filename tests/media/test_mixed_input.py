"""Erased rectangles and blends, bit by bit where bits are promised."""

from __future__ import annotations

import pytest
import torch

from wholereel.batches import Blend, Erased
from wholereel.config import Mixing
from wholereel.media.mixed_input import blended, draw_blend, draw_share, erase, pairs

PATCH = Erased(row=1, clip=2, top=3, left=4, height=5, width=6, seed=7)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clips(*lead, dtype=torch.float32):
    return torch.randn(*lead, 2, 3, 12, 16, generator=generator(), dtype=dtype)


def test_noise_fills_exactly_the_rectangle_of_all_frames():
    before = clips(2, 3)
    after = before.clone()
    erase(after, [PATCH], range(3))
    changed = (after != before).nonzero()
    assert changed.amin(0).tolist() == [1, 2, 0, 0, 3, 4]
    assert changed.amax(0).tolist() == [1, 2, 1, 2, 7, 9]
    assert len(changed) == 2 * 3 * 5 * 6
    noise_CTHW = after[1, 2, :, :, 3:8, 4:10]
    assert not torch.equal(noise_CTHW[:, 0], noise_CTHW[:, 1])  # drawn anew for each frame


def test_noise_is_standard_normal_and_a_function_of_its_seed():
    big = Erased(0, 0, 0, 0, 120, 120, seed=3)
    first, second, third = (torch.zeros(1, 1, 3, 8, 128, 128) for _ in range(3))
    erase(first, [big], range(1))
    erase(second, [big], range(1))
    erase(third, [Erased(**{**vars(big), "seed": 4})], range(1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    noise = first[..., :120, :120]
    assert noise.mean().abs() < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_some_clips_are_erased_as_all_are():
    whole = clips(2, 3)
    part = whole[:, 1:].clone()
    erase(whole, [PATCH], range(3))
    erase(part, [PATCH], range(1, 3))
    assert torch.equal(part, whole[:, 1:])
    untouched = whole[:, :1].clone()
    erase(untouched, [PATCH], range(1))
    assert torch.equal(untouched, whole[:, :1])


def blend(*rows):
    """Of rows `(share, box)`."""
    return Blend(
        pairs(len(rows)),
        torch.tensor([share for share, _ in rows], dtype=torch.float64),
        torch.tensor([box for _, box in rows]),
    )


NO_BOX = (0, 0, 0, 0)


def test_mixup_is_the_weighted_sum_and_a_share_of_one_keeps_all_bits():
    x = clips(4, 2, dtype=torch.float64)
    mixed = blended(x, blend((0.3, NO_BOX), (1.0, NO_BOX), (1.0, NO_BOX), (0.3, NO_BOX)))
    torch.testing.assert_close(mixed[0], 0.3 * x[0] + 0.7 * x[3], rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(mixed[3], 0.3 * x[3] + 0.7 * x[0], rtol=1e-14, atol=1e-14)
    assert torch.equal(mixed[1:3], x[1:3])
    other = clips(4, 2).bfloat16()
    assert torch.equal(blended(other, blend(*[(1.0, NO_BOX)] * 4)), other)


def test_cutmix_pastes_the_partner_s_rectangle():
    x = clips(2)
    mixed = blended(x, blend((0.5, (2, 8, 1, 5)), (0.5, (2, 8, 1, 5))))
    expected = x.clone()
    expected[..., 2:8, 1:5] = x.flip(0)[..., 2:8, 1:5]
    assert torch.equal(mixed, expected)


def test_the_middle_row_of_an_odd_batch_is_its_own_partner():
    x = clips(3, dtype=torch.float64)
    mixed = blended(x, draw_blend(Mixing(cutmix=0.0), 3, 12, 16, generator(1)))
    assert torch.equal(mixed[1], x[1])
    assert not torch.equal(mixed[0], x[0])


def test_draws_have_the_published_distribution():
    source = generator()
    drawn = [draw_share(Mixing(), 224, 224, source) for _ in range(4000)]
    cuts = [(share, box) for share, box in drawn if box != NO_BOX]
    plain = torch.tensor([share for share, box in drawn if box == NO_BOX])
    assert len(cuts) / 4000 == pytest.approx(0.5, abs=0.03)
    # a Beta(a, a) has the variance 1 / (4 (2 a + 1))
    assert plain.mean() == pytest.approx(0.5, abs=0.02)
    assert plain.var() == pytest.approx(1 / (4 * 2.6), abs=0.006)
    for share, (top, bottom, left, right) in cuts:
        assert 0 <= top < bottom <= 224
        assert 0 <= left < right <= 224
        assert share == 1 - (bottom - top) * (right - left) / 224**2
    # Cut at the border, a rectangle is smaller than the uniform share it was drawn for.
    assert 0.55 < torch.tensor([share for share, _ in cuts]).mean() < 0.75


def test_kinds_and_probability():
    only = [draw_share(Mixing(mixup=0.0), 64, 64, generator(seed)) for seed in range(50)]
    assert all(box != NO_BOX or share == 1 for share, box in only)
    none = [draw_share(Mixing(cutmix=0.0, probability=0.0), 64, 64, generator(seed)) for seed in range(9)]
    assert set(none) == {(1.0, NO_BOX)}
    first, second = (draw_blend(Mixing(), 6, 64, 64, generator(5)) for _ in range(2))
    assert torch.equal(first.share_B, second.share_B)
    assert first.partner_B.tolist() == [5, 4, 3, 2, 1, 0]
    assert len(set(first.share_B.tolist())) == 1  # one draw for the batch, as in the public code
