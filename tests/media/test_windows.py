"""Windows and patches: inside the picture, with the areas and aspects that were asked for."""

from __future__ import annotations

import math

import pytest
import torch

from wholereel.config import Erasing, ResizedCrop
from wholereel.media.windows import draw_patches, draw_window

HEIGHT, WIDTH = 256, 340


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_windows_have_uniform_areas_and_log_uniform_aspects():
    source = generator()
    windows = [draw_window(ResizedCrop(), HEIGHT, WIDTH, source) for _ in range(2000)]
    for top, left, height, width in windows:
        assert 0 <= top <= HEIGHT - height
        assert 0 <= left <= WIDTH - width
    areas = torch.tensor([height * width / (HEIGHT * WIDTH) for *_, height, width in windows])
    aspects = torch.tensor([math.log(width / height) for *_, height, width in windows])
    assert 0.079 < areas.min() < 0.1
    assert areas.max() < 1.0
    # Uniform up to what fits: a window of aspect a has at most the share a H / W, and what is larger is drawn again.
    most = (torch.linspace(-1, 1, 1001) * math.log(1.3333)).exp() * HEIGHT / WIDTH
    expected = ((most**2 - 0.08**2) / 2).sum() / (most - 0.08).sum()
    assert areas.mean() == pytest.approx(float(expected), abs=0.01)
    assert aspects.abs().max() < math.log(1.3333) + 0.02
    narrow = aspects[areas < 0.4]
    assert narrow.mean().abs() < 0.03
    assert narrow.std() == pytest.approx(2 * math.log(1.3333) / math.sqrt(12), abs=0.01)


@pytest.mark.parametrize(
    ("size", "window"),
    [((100, 400), (0, 100, 100, 200)), ((400, 100), (100, 0, 200, 100)), ((90, 100), (0, 0, 90, 100))],
)
def test_what_never_fits_is_the_middle(size, window):
    settings = ResizedCrop(area=(1.0, 1.0), aspect=(0.5, 2.0))
    assert draw_window(settings, *size, generator(3)) == window


def test_patches_happen_as_often_and_are_as_large_as_asked():
    source = generator()
    drawn = [draw_patches(Erasing(), 224, 224, source) for _ in range(4000)]
    patches = [patch for patches in drawn for patch in patches]
    assert len(patches) / 4000 == pytest.approx(0.25, abs=0.02)
    assert {len(patches) for patches in drawn} == {0, 1}
    areas = torch.tensor([patch.height * patch.width / 224**2 for patch in patches])
    aspects = torch.tensor([patch.height / patch.width for patch in patches])
    assert 0.019 < areas.min() < 0.025
    assert 0.32 < areas.max() < 0.34
    assert areas.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
    assert 0.29 < aspects.min() < 0.33
    assert 3 < aspects.max() < 3.4
    for patch in patches:
        assert 0 <= patch.top <= 224 - patch.height
        assert 0 <= patch.left <= 224 - patch.width
    assert len({patch.seed for patch in patches}) == len(patches)


def test_several_patches_share_the_area():
    source = generator()
    drawn = [draw_patches(Erasing(probability=1.0, count=3), 100, 100, source) for _ in range(300)]
    assert {len(patches) for patches in drawn} == {1, 2, 3}
    three = [patch.height * patch.width for patches in drawn if len(patches) == 3 for patch in patches]
    assert max(three) <= 100 * 100 / 9 * 1.03


def test_what_cannot_fit_is_left_out():
    assert draw_patches(Erasing(probability=1.0, area=(1.0, 1.0)), 20, 20, generator()) == ()
