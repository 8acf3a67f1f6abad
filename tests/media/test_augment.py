import json
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from wholereel.config import Augment
from wholereel.errors import ConfigError
from wholereel.media import augment as augmentation
from wholereel.media.augment import CenterCrop, TrainAugment, scaled_size

# Offsets computed with facebookresearch/SlowFast, slowfast/datasets/transform.py (uniform_crop).
VIEWS = json.loads((Path(__file__).parents[1] / "golden" / "views" / "spatial_views.json").read_text())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(height, width, *lead):
    """Pixels whose red and green say where they are."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([rows, columns, rows + columns]).to(torch.uint8)
    return pixels.expand(*lead, 3, height, width).clone()


def place(crop):
    """(top, left, flipped) of a crop of `picture`."""
    row, column = int(crop[0, 0, 0]), crop[1, 0]
    return row, int(column.min()), bool(column[0] > column[-1])


def test_all_clips_of_a_video_share_one_draw():
    augment = TrainAugment(Augment((40, 40), 24, flip=0.5, color_jitter=0.4))
    clips = augment(picture(40, 60, 5, 3), generator=generator(1)).clips_NTCHW
    assert clips.shape == (5, 3, 3, 24, 24)
    assert clips.dtype == torch.uint8
    for clip in clips[1:]:
        assert torch.equal(clip, clips[0])
    for frame in clips[0, 1:]:
        assert torch.equal(frame, clips[0, 0])


def test_independent_draws_differ_between_clips_but_not_between_frames():
    augment = TrainAugment(Augment((40, 40), 24, per_clip=True))
    clips = augment(picture(40, 60, 8, 3), generator=generator(1)).clips_NTCHW
    assert len({place(clip[0]) for clip in clips}) > 4
    for clip in clips:
        assert torch.equal(clip[0], clip[2])


def test_independent_sides_scale_each_clip():
    augment = TrainAugment(Augment((24, 48), 24, flip=0.0, per_clip=True))
    side = augment.side(generator())
    assert side == 48
    clips = augment(picture(48, 60, 16, 1), generator=generator()).clips_NTCHW
    heights = [int(clip[0, 0, -1, 0]) - int(clip[0, 0, 0, 0]) for clip in clips]  # rows of the source that a crop spans
    assert min(heights) < 26
    assert max(heights) > 40


def test_crops_and_flips_reach_every_place_equally():
    augment = TrainAugment(Augment((12, 12), 10, flip=0.25))
    source = generator(0)
    places = [place(augment(picture(12, 14, 1, 1), generator=source).clips_NTCHW[0, 0]) for _ in range(600)]
    assert {top for top, _, _ in places} == {0, 1, 2}
    assert {left for _, left, _ in places} == {0, 1, 2, 3, 4}
    assert sum(flip for *_, flip in places) / 600 == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("per_clip", [False, True])
def test_the_draws_say_which_clips_were_flipped(per_clip):
    augment = TrainAugment(Augment((24, 24), 24, flip=0.5, per_clip=per_clip))
    seen = set()
    for seed in range(8):
        out = augment(picture(24, 32, 6, 1), generator=generator(seed))
        assert len(out.draws) == (6 if per_clip else 1)
        assert out.flipped == tuple(place(clip[0])[2] for clip in out.clips_NTCHW)
        seen.update(out.flipped)
    assert seen == {False, True}


def test_side_is_drawn_from_the_inclusive_range():
    source = generator()
    assert {TrainAugment(Augment((20, 23), 16)).side(source) for _ in range(100)} == {20, 21, 22, 23}


def test_boxes_and_joints_move_with_the_pixels():
    augment = TrainAugment(Augment((40, 40), 24, flip=0.5))
    for seed in range(12):
        pixels = torch.zeros(2, 1, 3, 40, 60, dtype=torch.uint8)
        pixels[:, :, :, 18:22, 28:34] = 255
        boxes = tv_tensors.BoundingBoxes([[28.0, 18, 34, 22]], format="XYXY", canvas_size=(40, 60), clamping_mode=None)
        joints = tv_tensors.KeyPoints([[30.5, 19.5]], canvas_size=(40, 60))
        out = augment(pixels, [boxes] * 2, [joints] * 2, generator=generator(seed))
        bright = out.clips_NTCHW[0, 0, 0].nonzero()
        ((x1, y1, x2, y2),), ((x, y),) = out.boxes[0].tolist(), out.joints[1].tolist()
        left, right = max(x1, 0), min(x2, 24)
        if len(bright):
            assert (bright[:, 1].min(), bright[:, 1].max() + 1) == (left, right)
            assert (bright[:, 0].min(), bright[:, 0].max() + 1) == (max(y1, 0), min(y2, 24))
        # boxes count pixel borders, joints count pixel centres
        assert (x, y) == ((x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5)


def test_the_same_seed_gives_the_same_pixels_and_the_global_generator_is_left_alone():
    augment = TrainAugment(Augment((30, 36), 24, color_jitter=0.3, per_clip=True))
    before = torch.get_rng_state()
    first, second = (augment(picture(36, 40, 3, 2), generator=generator(5)).clips_NTCHW for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_colour_jitter_changes_colours_only_when_asked():
    plain = TrainAugment(Augment((24, 24), 24, flip=0))
    strong = TrainAugment(Augment((24, 24), 24, flip=0, color_jitter=0.8))
    pixels = picture(24, 24, 1, 2)
    assert torch.equal(plain(pixels, generator=generator()).clips_NTCHW, pixels)
    assert not torch.equal(strong(pixels, generator=generator()).clips_NTCHW, pixels)


@pytest.mark.parametrize("case", VIEWS, ids=lambda case: f"{case['height']}x{case['width']}")
def test_three_crops_stand_where_slowfast_puts_them(case):
    height, width, crop = case["height"], case["width"], case["crop"]
    assert list(scaled_size(height, width, case["short_side"])) == case["scaled"]
    scaled_height, scaled_width = case["scaled"]
    rows = torch.arange(scaled_height).view(-1, 1).expand(scaled_height, scaled_width)
    columns = torch.arange(scaled_width).expand(scaled_height, scaled_width)
    # two channels of 8 bits hold places up to 65535
    pixels = torch.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256]).to(torch.uint8)[None, None]
    views = augmentation.test_crops(pixels, case["short_side"], crop, 3)
    corners = views[:, 0, :, 0, 0].int()
    offsets = [[int(r + 256 * (high // 16)), int(c + 256 * (high % 16))] for r, c, high in corners]
    assert offsets == case["offsets_yx"]
    middle = augmentation.test_crops(pixels, case["short_side"], crop, 1)
    assert torch.equal(middle[0], views[1])


def test_views_of_a_clip_stand_together():
    pixels = picture(20, 40, 2, 3)
    pixels[1] += 100
    views = augmentation.test_crops(pixels, 20, 16, 3)
    assert views.shape == (6, 3, 3, 16, 16)
    assert [int(view[0, 0, 0, 0]) >= 100 for view in views] == [False] * 3 + [True] * 3
    assert [int(view[0, 1, 0, 0]) % 100 for view in views] == [0, 12, 24] * 2


def test_centre_crop_scales_frames_of_another_size():
    crop = CenterCrop(Augment((24, 99), 16))
    assert crop(picture(48, 64, 2, 1)).shape == (2, 1, 3, 16, 16)
    middle = crop(picture(24, 32, 1, 1))[0, 0]
    assert place(middle) == (4, 8, False)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"crop 32 and short_side \(24, 40\) do not fit"):
        TrainAugment(Augment((24, 40), 32))
    with pytest.raises(ConfigError, match=r"flip is a probability from 0 to 1, got 1\.5"):
        TrainAugment(Augment(flip=1.5))
    with pytest.raises(ConfigError, match="color_jitter is a strength from 0 to 1, got -1"):
        CenterCrop(Augment(color_jitter=-1))
    box = tv_tensors.BoundingBoxes([[1, 1, 2, 2]], format="XYXY", canvas_size=(40, 60))
    with pytest.raises(ValueError, match="3 clips need as many boxes and joints, got 1 and 0"):
        TrainAugment(Augment((40, 40), 24))(picture(40, 60, 3, 1), [box], generator=generator())
    with pytest.raises(ValueError, match="crops must be 1 or 3, got 2"):
        augmentation.test_crops(picture(40, 60, 1, 1), 40, 24, 2)
    with pytest.raises(ValueError, match="a crop of 50 pixels does not fit into a short side of 40"):
        augmentation.test_crops(picture(40, 60, 1, 1), 40, 50, 1)


def test_inverse_jitter_draws_one_over_the_side():
    augment = TrainAugment(Augment((100, 300), 64, jitter="inverse"))
    sides = torch.tensor([augment.side(torch.Generator().manual_seed(n)) for n in range(3000)]).double()
    assert (sides.min(), sides.max()) == (100, 300)
    # 1 / side is uniform in [1/300, 1/100]: half of the sides are below 150, where a uniform draw has a quarter
    assert (sides < 150).double().mean() == pytest.approx(0.5, abs=0.03)
    assert (1 / sides).mean() == pytest.approx((1 / 100 + 1 / 300) / 2, rel=0.02)
    with pytest.raises(ConfigError, match="jitter='log' is unknown; legal are uniform, inverse"):
        TrainAugment(Augment(jitter="log"))
