"""What flips do to labels: pairs of classes, classes without a mirror image, and the file that says so."""

import json
from dataclasses import replace

import pytest
import torch

from tests.datasets.broken_files import video
from wholereel.config import Augment, Clips, Data
from wholereel.datasets.clip_dataset import ClipDataset
from wholereel.datasets.manifest import read_manifest, write_manifest
from wholereel.datasets.mirror import Mirror, mirror_of_classes, mirror_of_joints, read_mirror
from wholereel.datasets.sample import Box, Event, Manifest, Sample
from wholereel.datasets.shards import pack
from wholereel.datasets.worlds import get_world
from wholereel.errors import ConfigError, DataError

CLASSES = {"label": ("Turning left", "Holding", "Turning right", "Looking left", "brightly bleft")}
DATA = Data(clips=Clips("uniform", 1, 4, 2), augment=Augment((32, 32), 32), workers=0)


def test_names_tell_the_mirror_image():
    mirror = mirror_of_classes(CLASSES | {"noun": ("cup", "leftover")})
    assert mirror.labels == {"label": (2, 1, 0, -1, 4)}
    assert mirror.knows_sides
    assert not mirror_of_classes({"noun": ("cup", "leftover")}).knows_sides
    assert mirror.flipped("label", 0) == 2
    assert mirror.flipped("label", (0, 1)) == (1, 2)
    assert mirror.flipped("noun", 5) == 5
    assert [mirror.flippable({"label": label, "noun": 0}) for label in range(5)] == [True, True, True, False, True]
    assert not mirror.flippable({"label": (1, 3)})
    assert mirror_of_joints(("right_ankle", "nose", "left_ankle", "left_eye", "right_eye")) == ((2, 0), (3, 4))
    from_to = ("Pushing something from left to right", "Pushing something from right to left")
    assert mirror_of_classes({"label": from_to}).labels == {"label": (1, 0)}


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    root = tmp_path_factory.mktemp("turning")
    video(root / "a.mp4", 1, width=32)
    samples = tuple(
        Sample(name, root / "a.mp4", None, None, "train", {"label": label})
        for name, label in zip("abcd", (0, 1, 2, 3), strict=True)
    )
    return Manifest(samples, CLASSES, root, mirror=mirror_of_classes(CLASSES))


def test_labels_follow_a_flip(turning):
    plain = ClipDataset(turning, replace(DATA, augment=Augment((32, 32), 32, flip=0.0)), train=True, seed=0)
    flips = ClipDataset(turning, replace(DATA, augment=Augment((32, 32), 32, flip=1.0)), train=True, seed=0)
    half = ClipDataset(turning, replace(DATA, augment=Augment((32, 32), 32, flip=0.5)), train=True, seed=0)
    usual = ClipDataset(turning, DATA, train=True, seed=0)
    seen = set()
    for index, mirrored in enumerate((2, 1, 0, 3)):
        before, after = plain[0, index], flips[0, index]
        assert before.labels["label"].item() == index
        assert after.labels["label"].item() == mirrored
        fixed = index == 3  # its mirror image has no label: it is shown as it is
        assert torch.equal(after.clips_NTCHW, before.clips_NTCHW if fixed else before.clips_NTCHW.flip(-1))
        for epoch in range(8):
            drawn = half[epoch, index]
            flipped = not torch.equal(drawn.clips_NTCHW, before.clips_NTCHW)
            assert drawn.labels["label"].item() == (mirrored if flipped else index)
            seen.add((index, flipped))
            assert torch.equal(usual[epoch, index].clips_NTCHW, before.clips_NTCHW)  # off where sides matter
    assert seen == {(0, False), (0, True), (1, False), (1, True), (2, False), (2, True), (3, False)}
    tested = ClipDataset(turning, replace(DATA, augment=Augment((32, 32), 32, flip=1.0)), train=False, seed=0)
    assert tested[0, 0].labels["label"].item() == 0


def test_sets_without_sides_are_flipped_half_the_time(turning):
    dataset = ClipDataset(replace(turning, mirror=Mirror()), DATA, train=True, seed=0)
    plain = ClipDataset(turning, DATA, train=True, seed=0)[0, 0].clips_NTCHW
    flipped = [not torch.equal(dataset[epoch, 0].clips_NTCHW, plain) for epoch in range(40)]
    assert 10 < sum(flipped) < 30
    assert {dataset[epoch, 0].labels["label"].item() for epoch in range(40)} == {0}


def test_several_labels_and_events_follow_too(turning):
    sample = replace(turning.samples[0], labels={"label": (0, 1)}, events=(Event(0, -1.0, 9.0),))
    quiet = replace(turning.samples[0], id="q", labels={"label": (1, 2)})
    manifest = replace(turning, samples=(sample, quiet), multi_label=True)
    data = replace(DATA, augment=Augment((32, 32), 32, flip=1.0))
    dataset = ClipDataset(manifest, data, train=True, seed=0)
    assert dataset[0, 0].labels["label"].tolist() == [0, 0, 1, 0, 0]  # what the clip shows
    assert dataset[0, 1].labels["label"].tolist() == [1, 1, 0, 0, 0]


def test_clips_of_one_video_must_agree(turning):
    apart = replace(DATA, augment=Augment((32, 32), 32, flip=0.5, per_clip=True))
    with pytest.raises(ConfigError, match=r"per_clip flips some clips .* use augment.flip=0 instead of 0\.5"):
        ClipDataset(turning, apart, train=True, seed=0)
    ClipDataset(turning, replace(DATA, augment=Augment((32, 32), 32, per_clip=True)), train=True, seed=0)
    ClipDataset(replace(turning, mirror=Mirror()), apart, train=True, seed=0)


def test_labels_of_boxes_follow_too(turning):
    boxes = (Box(1.0, (0.0, 0.0, 0.5, 1.0), (0, 1)), Box(1.0, (0.5, 0.0, 1.0, 1.0), (2,)))
    sample = replace(turning.samples[0], labels={"label": ()}, key_seconds=1.0, boxes=boxes)
    one_sided = replace(sample, id="s", boxes=(Box(1.0, (0.0, 0.0, 0.5, 1.0), (3,)),))
    manifest = replace(turning, samples=(sample, one_sided), multi_label=True)
    data = replace(DATA, augment=Augment((32, 32), 32, flip=1.0))
    found = ClipDataset(manifest, data, train=True, seed=0)
    assert found[0, 0].boxes.labels_RK.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert found[0, 0].boxes.xyxy_R4.tolist() == [[16, 0, 32, 32], [0, 0, 16, 32]]
    assert found[0, 1].boxes.labels_RK.tolist() == [[0, 0, 0, 1, 0]]
    assert found[0, 1].boxes.xyxy_R4.tolist() == [[0, 0, 16, 32]]  # not flipped


def test_sets_that_must_not_be_flipped(turning):
    never = replace(turning, mirror=Mirror(never=True))
    data = replace(DATA, augment=Augment((32, 32), 32, flip=1.0))
    plain = ClipDataset(turning, DATA, train=True, seed=0)[0, 0].clips_NTCHW
    assert torch.equal(ClipDataset(never, data, train=True, seed=0)[0, 0].clips_NTCHW, plain)


@pytest.mark.parametrize(
    ("name", "column", "pairs"),
    [
        ("motion_objects", "label", {"left_disc": "right_disc", "grow_plus": "grow_plus"}),
        ("finemotion8", "label", {"up_left": "up_right", "down": "down"}),
        ("ava_rooms", "label", {"walk left": "walk right", "jump": "jump"}),
        ("hashtags", "verb_noun", {"right_ring": "left_ring"}),
    ],
)
def test_worlds_say_what_their_sides_are(name, column, pairs):
    world = get_world(name)
    classes, table = world.label_spaces()[column], world.mirror().labels[column]
    assert {one: classes[table[classes.index(one)]] for one in pairs} == pairs
    assert min(table) >= 0  # nobody is left without a mirror image
    assert get_world("sticks").mirror().never
    assert get_world("match8").mirror() == Mirror()


def test_the_file_comes_back(turning, tmp_path):
    mirror = replace(turning.mirror, joints=((0, 5), (1, 4)), never=True)
    write_manifest(replace(turning, mirror=mirror), tmp_path / "manifest.jsonl")
    assert json.loads((tmp_path / "mirror.json").read_text()) == {
        "labels": {"label": [["Turning left", "Turning right"]]},
        "fixed": {"label": ["Looking left"]},
        "joints": [[0, 5], [1, 4]],
        "never": True,
    }
    assert read_manifest(tmp_path).mirror == mirror
    packed = pack(read_manifest(tmp_path), tmp_path / "packed")
    assert read_manifest(packed.manifest).mirror == mirror
    write_manifest(replace(turning, mirror=Mirror()), tmp_path / "manifest.jsonl")
    assert read_manifest(tmp_path).mirror == Mirror()  # nothing is left of the one before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "'list' object"),
        ('{"labels": {"label": [["Turning left", "Turning up"]]}}', "'Turning up' is no class"),
        ('{"labels": {"label": [["Turning left", "Holding"], ["Turning left", "Turning right"]]}}', "two pairs"),
        ('{"joints": [[0, 1], [1, 2]]}', "a joint stands in two pairs"),
        ('{"labels": {"label": [["Turning left"]]}}', "not enough values"),
    ],
)
def test_a_file_that_cannot_be(tmp_path, content, reason):
    (tmp_path / "mirror.json").write_text(content)
    with pytest.raises(DataError, match=rf"mirror.json: cannot be read \(.*{reason}"):
        read_mirror(tmp_path, CLASSES)
