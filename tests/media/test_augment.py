import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from wholereel.config import Augment, Erasing, Mixing, RandAugment, ResizedCrop
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


# what training may add

EVERYTHING = Augment(
    (40, 40), 24, flip=0.5, color_jitter=0.4, color_order="random", lighting=0.1, rand_augment=RandAugment(),
    resized_crop=ResizedCrop(), erasing=Erasing(probability=0.5),
)  # fmt: skip


def test_what_is_added_leaves_the_draws_before_it_as_they_were():
    plain = Augment((40, 40), 24, flip=0.5, color_jitter=0.4)
    for seed in range(5):
        before = TrainAugment(plain).draws(1, 40, 60, generator(seed))[0]
        after = TrainAugment(EVERYTHING).draws(1, 40, 60, generator(seed))[0]
        assert (after.side, after.top, after.left, after.flip, after.colors) == (
            before.side, before.top, before.left, before.flip, before.colors,
        )  # fmt: skip
        assert before == augmentation.Draw(40, before.top, before.left, before.flip, before.colors)


@pytest.mark.parametrize("per_clip", [False, True])
def test_everything_together_is_one_draw_for_frames_and_for_a_video_s_clips_unless_per_clip(per_clip):
    augment = TrainAugment(replace(EVERYTHING, per_clip=per_clip))
    source = picture(40, 60, 4, 3)
    before = torch.get_rng_state()
    first, second = (augment(source, generator=generator(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.clips_NTCHW, second.clips_NTCHW)
    assert first.erased == second.erased
    assert first.clips_NTCHW.shape == (4, 3, 3, 24, 24)
    assert first.clips_NTCHW.dtype == torch.uint8
    for clip in first.clips_NTCHW[1:]:
        assert torch.equal(clip[0], clip[2])
        assert torch.equal(clip, first.clips_NTCHW[0]) != per_clip
    assert torch.equal(source, picture(40, 60, 4, 3))


def test_clips_that_other_processes_have_change_no_draw():
    for per_clip in (False, True):
        augment = TrainAugment(replace(EVERYTHING, per_clip=per_clip, erasing=Erasing(probability=1.0)))
        source = picture(40, 60, 4, 2)
        whole = augment(source, generator=generator(3))
        part = augment(source[1:3], generator=generator(3), own=(1, 2), boxes=(), joints=())
        if per_clip:  # how many are drawn follows from the last one that is here
            whole = augment(source[:3], generator=generator(3))
        assert torch.equal(part.clips_NTCHW, whole.clips_NTCHW[1:3])
        assert part.erased == tuple(patch for patch in whole.erased if patch.clip in (1, 2))
        assert [patch.clip for patch in part.erased] == [1, 2]
        assert part.erased[0].seed != part.erased[1].seed


def test_boxes_and_joints_follow_a_resized_crop():
    augment = TrainAugment(Augment((60, 60), 48, flip=0.5, resized_crop=ResizedCrop()))
    seen = 0
    for seed in range(20):
        pixels = torch.zeros(1, 1, 3, 60, 80, dtype=torch.uint8)
        pixels[..., 26:34, 36:46] = 255
        boxes = tv_tensors.BoundingBoxes([[36.0, 26, 46, 34]], format="XYXY", canvas_size=(60, 80), clamping_mode=None)
        joints = tv_tensors.KeyPoints([[40.5, 29.5]], canvas_size=(60, 80))
        out = augment(pixels, [boxes], [joints], generator=generator(seed))
        (draw,) = out.draws
        bright = (out.clips_NTCHW[0, 0, 0] > 127).nonzero()
        ((x1, y1, x2, y2),), ((x, y),) = out.boxes[0].tolist(), out.joints[0].tolist()
        if len(bright) and min(x1, y1) > 0 and max(x2, y2) < 48:
            seen += 1
            found = [*bright.amin(0).flip(0).tolist(), *(bright.amax(0) + 1).flip(0).tolist()]
            assert [x1, y1, x2, y2] == pytest.approx(found, abs=1.0)
            left = 46 - 41 if draw.flip else 41 - 36  # the joint is in the middle of the sixth pixel of ten
            assert x == pytest.approx(x1 + (x2 - x1) * left / 10 - 0.5, abs=0.01)
            assert y == pytest.approx(y1 + (y2 - y1) * 4 / 8 - 0.5, abs=0.01)
    assert seen > 5


def test_a_whole_window_is_the_scaled_picture():
    augment = TrainAugment(Augment((24, 24), 24, flip=0, resized_crop=ResizedCrop((1.0, 1.0), (1.0, 1.0))))
    assert torch.equal(augment(picture(24, 24, 1, 2), generator=generator()).clips_NTCHW, picture(24, 24, 1, 2))


def test_lighting_noise_adds_one_number_to_each_colour():
    augment = TrainAugment(Augment((24, 24), 24, flip=0, lighting=0.1))
    pixels = torch.full((2, 2, 3, 24, 24), 128, dtype=torch.uint8)
    shifts = []
    for seed in range(400):
        out = augment(pixels, generator=generator(seed))
        shift = out.clips_NTCHW.int() - 128
        assert (shift == shift[0, 0, :, 0, 0][:, None, None]).all()
        expected = torch.tensor(out.draws[0].light) * 255
        assert (shift[0, 0, :, 0, 0] - expected).abs().max() <= 0.5001
        shifts.append(expected)
    # alpha_i ~ N(0, 0.1): the covariance of (r, g, b) is V diag((0.1 w)^2) V'
    axes, weights = torch.tensor(augmentation.COLOR_AXES), torch.tensor(augmentation.COLOR_WEIGHTS)
    covariance = axes @ torch.diag((25.5 * weights) ** 2) @ axes.T
    torch.testing.assert_close(torch.stack(shifts).T.cov().double(), covariance.double(), rtol=0.2, atol=4.0)
    white = augment(torch.full_like(pixels, 255), generator=generator(1)).clips_NTCHW
    assert white.amin() > 200  # clamped, not wrapped


def test_the_order_of_colours_is_drawn():
    augment = TrainAugment(Augment((24, 24), 24, color_jitter=0.4, color_order="random"))
    orders = {augment.draws(1, 24, 24, generator(seed))[0].order for seed in range(60)}
    assert len(orders) == 6


def test_randaugment_refuses_boxes():
    box = tv_tensors.BoundingBoxes([[1.0, 2, 3, 4]], format="XYXY", canvas_size=(40, 60))
    with pytest.raises(
        ConfigError, match=r"data.augment.rand_augment turns, shears and moves pictures, but not the box"
    ):
        TrainAugment(EVERYTHING)(picture(40, 60, 1, 1), [box], generator=generator())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color_order": "any"}, "augment.color_order='any' is unknown; legal are fixed, random"),
        ({"lighting": -0.1}, "augment.lighting must be a standard deviation, at least 0, got -0.1"),
        ({"copies": 0}, "augment.copies must be at least 1, got 0"),
        ({"rand_augment": RandAugment(count=0)}, "augment.rand_augment.count must be at least 1, got 0"),
        ({"rand_augment": RandAugment(magnitude=11)}, "augment.rand_augment.magnitude must be from 0 to 10, got 11"),
        ({"rand_augment": RandAugment(std=float("nan"))}, "augment.rand_augment.std must be a standard deviation"),
        ({"resized_crop": ResizedCrop(area=(0.5, 1.2))}, r"augment.resized_crop.area must be .* got \(0.5, 1.2\)"),
        ({"resized_crop": ResizedCrop(aspect=(2.0, 1.0))}, "augment.resized_crop.aspect must be a range"),
        ({"crop": 0, "resized_crop": ResizedCrop()}, "augment.resized_crop needs a size, got crop 0"),
        ({"erasing": Erasing(probability=2.0)}, "augment.erasing.probability must be from 0 to 1, got 2.0"),
        ({"erasing": Erasing(least_aspect=0.0)}, "augment.erasing.least_aspect must be above 0 and at most 1, got 0.0"),
        ({"erasing": Erasing(area=(0.0, 0.1))}, "augment.erasing.area must be a range inside of 0 to 1, above 0"),
        ({"mixing": Mixing(mixup=0.0, cutmix=0.0)}, "augment.mixing.mixup must be above 0 where mixing.cutmix is 0"),
        ({"mixing": Mixing(switch=1.5)}, "augment.mixing.switch must be from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_be_used_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainAugment(replace(Augment((40, 40), 24), **changes))
