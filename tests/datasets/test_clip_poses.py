"""Poses in batches: they stay on the pixels through scaling, crops and flips, and left joints become right ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from wholereel.config import Augment, Clips, Data, RandAugment, ResizedCrop
from wholereel.datasets.clip_dataset import ClipDataset, collate
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.mirror import Mirror
from wholereel.datasets.sample import Manifest, Pose, Sample
from wholereel.datasets.shard_encode import Encoding
from wholereel.datasets.shards import pack
from wholereel.errors import ConfigError

HEIGHT, WIDTH, FRAMES = 64, 96, 12
# The joints: red = left hand, green = right hand, blue = nose
DATA = Data(clips=Clips("uniform", 2, 4, 2), augment=Augment((64, 64), 64, flip=0.0), workers=0)


def places(frame):
    """Centres of the three coloured squares (pixel centres), of a person that walks to the right."""
    return ((30.0 + 2 * frame, 20.0), (54.0 + 2 * frame, 24.0), (42.0 + 2 * frame, 44.0))


@pytest.fixture(scope="module")
def walking(tmp_path_factory):
    root = tmp_path_factory.mktemp("walking")
    (root / "a").mkdir()
    poses = []
    for frame in range(FRAMES):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for colour, (x, y) in enumerate(places(frame)):
            picture[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5, colour] = 255
        Image.fromarray(picture).save(root / "a" / f"{frame + 1:04d}.png")
        if frame % 2 == 0 and frame != 4:  # not every frame is annotated
            joints = tuple((x, y, 1.0) for x, y in places(frame))
            box = (joints[0][0] - 4, 16.0, joints[1][0] + 5, 49.0)
            poses.append(Pose(frame, joints, box=box, track=7))
    sample = Sample("a", root / "a", None, None, "train", {}, poses=tuple(poses), frame_rate=25.0)
    return Manifest((sample,), {}, root, mirror=Mirror(joints=((0, 1),)))


def centre(picture_CHW, colour):
    """Centre of mass of a colour, and whether the whole square is in the picture."""
    weight_HW = picture_CHW[colour].double().sub(80).clamp(min=0)  # colours of a video are a little soft
    total = float(weight_HW.sum())
    rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in weight_HW.shape), indexing="ij")
    return float((weight_HW * columns).sum()) / max(total, 1), float((weight_HW * rows).sum()) / max(total, 1), total


def check(found, poses, joint_of_colour):
    """Compare joints with the coloured squares that lie wholly in the picture; returns how many."""
    seen = 0
    for row in range(len(poses.joints_PJ2)):
        picture = found.clips_NTCHW[poses.clip_P[row], poses.frame_P[row]]
        for colour, joint in enumerate(joint_of_colour):
            border = (picture[colour, 0], picture[colour, -1], picture[colour, :, 0], picture[colour, :, -1])
            x, y, total = centre(picture, colour)
            if total == 0:
                assert poses.visible_PJ[row, joint] == 0.0
            elif max(int(line.max()) for line in border) < 40:
                assert (poses.joints_PJ2[row, joint] - torch.tensor([x, y])).abs().max() < 0.6
                assert poses.visible_PJ[row, joint] == 1.0
                seen += 1
    return seen


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(("side", "per_clip"), [((64, 64), False), ((96, 160), False), ((40, 56), True)])
def test_joints_move_with_the_pixels(walking, train, flip, side, per_clip):
    augment = Augment(side, side[0] - 4, flip=flip, per_clip=per_clip)
    dataset = ClipDataset(walking, replace(DATA, augment=augment), train=train, seed=3)
    seen = 0
    for epoch in range(4):
        found = dataset[epoch, 0]
        flipped = train and flip
        seen += check(found, found.poses, (1, 0, 2) if flipped else (0, 1, 2))
    assert seen > 20


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_joints_of_every_copy_move_with_a_resized_crop_and_not_with_randaugment(walking, flip):
    augment = Augment((64, 64), 64, flip=flip, resized_crop=ResizedCrop(area=(0.5, 1.0)), copies=3)
    found = ClipDataset(walking, replace(DATA, augment=augment), train=True, seed=3)[0, 0]
    seen = 0
    for row in (found, *found.copies):
        seen += check(row, row.poses, (1, 0, 2) if flip else (0, 1, 2))
    assert seen > 5
    with pytest.raises(
        ConfigError, match=r"rand_augment turns, shears and moves pictures, but not the boxes or joints"
    ):
        ClipDataset(walking, replace(DATA, augment=replace(augment, rand_augment=RandAugment())), train=True, seed=3)


def test_a_batch_of_poses(walking, tmp_path):
    batch = collate([ClipDataset(walking, DATA, train=False, seed=0)[0, 0]] * 2)
    poses = batch.target.poses
    # clips of frames 0 2 4 6 and 4 6 8 10; frame 4 has no annotation
    assert poses.video_P.tolist() == [0] * 6 + [1] * 6
    assert poses.clip_P.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert poses.frame_P.tolist() == [0, 1, 3, 1, 2, 3] * 2
    assert poses.joints_PJ2.shape == (12, 3, 2)
    assert poses.track_P.tolist() == [7] * 12
    left = (96 - 64) // 2
    assert poses.joints_PJ2[0].tolist() == [[x - left, y] for x, y in places(0)]
    assert poses.xyxy_P4[0].tolist() == [26 - left, 16, 59 - left, 49]
    assert batch.target.labels == {}


def test_nobody_in_the_clip_and_unknown_joints(walking):
    sample = walking.samples[0]
    missing = tuple(replace(pose, joints=(None, *pose.joints[1:]), box=None, track=None) for pose in sample.poses[:1])
    others = (replace(sample, poses=missing), replace(sample, id="b", poses=(), meta={"labelled": [0]}))
    dataset = ClipDataset(
        replace(walking, samples=others), replace(DATA, clips=Clips("uniform", 1, 4, 1)), train=True, seed=0
    )
    poses = collate([dataset[0, 0], dataset[0, 1]]).target.poses
    assert len(poses.joints_PJ2) == len(poses.video_P) == 0  # frames 4 to 7 have no poses
    whole = ClipDataset(
        replace(walking, samples=others), replace(DATA, clips=Clips("uniform", 1, 12, 1)), train=True, seed=0
    )
    poses = collate([whole[0, 1], whole[0, 0]]).target.poses
    assert poses.video_P.tolist() == [1]
    assert poses.visible_PJ.tolist() == [[0.0, 1.0, 1.0]]
    assert (poses.xyxy_P4, poses.track_P) == (None, None)


def test_cached_and_packed_videos_keep_their_poses(walking, tmp_path):
    plain = ClipDataset(walking, DATA, train=True, seed=0)[0, 0].poses
    for _ in range(2):
        data = replace(DATA, cache=True)
        kept = ClipDataset(walking, data, train=True, seed=0, cache_dir=tmp_path / "cache")[0, 0].poses
        assert torch.equal(kept.joints_PJ2, plain.joints_PJ2)
    pack(walking, tmp_path / "packed", encoding=Encoding(short_side=32, gop=4, crf=10))
    packed = read_manifest(tmp_path / "packed", labels=())
    assert packed.mirror == walking.mirror
    pose = packed.samples[0].poses[0]
    assert pose.joints[0][:2] == pytest.approx(((30.5) / 2 - 0.5, (20.5) / 2 - 0.5))
    assert pose.box == pytest.approx((13.0, 8.0, 29.5, 24.5))
    found = ClipDataset(packed, replace(DATA, augment=Augment((32, 32), 32, flip=0.0)), train=False, seed=0)[0, 0]
    assert check(found, found.poses, (0, 1, 2)) > 10
