"""Targets that depend on where clips lie: boxes at key frames, labels of timed events."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.datasets.broken_files import video
from wholereel.config import Augment, Clips, Data
from wholereel.datasets.clip_dataset import ClipDataset, collate
from wholereel.datasets.mirror import mirror_of_classes
from wholereel.datasets.sample import Box, Event, Manifest, Sample
from wholereel.errors import DataError
from wholereel.media.video_writer import write_video

RATE, HEIGHT, WIDTH = 12, 32, 40
CLASSES = {"label": ("bend", "run", "sit")}
DATA = Data(clips=Clips("stratified", 1, 4, 2), augment=Augment((32, 32), 24, flip=0.0, color_jitter=0.0), workers=0)


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    """24 frames with a white square that stands still at x 14..26, y 8..20."""
    path = tmp_path_factory.mktemp("square") / "a.mp4"
    frames = np.zeros((24, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, 8:20, 14:26] = 255
    write_video(path, frames, frame_rate=RATE, gop=6)
    return path


def key_sample(path, id="a", key=1.0, *boxes):
    return Sample(id, path, None, None, "train", {"label": ()}, key_seconds=key, boxes=boxes)


SQUARE = (14 / WIDTH, 8 / HEIGHT, 26 / WIDTH, 20 / HEIGHT)


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("side", [32, 48])
def test_boxes_move_with_the_pixels(square, flip, train, side):
    sample = key_sample(square, "a", 1.0, Box(1.0, SQUARE, (0, 2), track=5))
    augment = Augment((side, side), side - 4, flip=flip, color_jitter=0.0)
    data = replace(DATA, augment=augment, clips=replace(DATA.clips, count=3))
    dataset = ClipDataset(Manifest((sample,), CLASSES, square.parent, True), data, train=train, seed=1)
    for epoch in range(5):
        found = dataset[epoch, 0]
        x1, y1, x2, y2 = found.boxes.xyxy_R4[0].tolist()
        white = found.clips_NTCHW[1, 2].float().mean(0) > 127
        rows, columns = white.any(1).nonzero(), white.any(0).nonzero()
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for ours, seen in zip((x1, y1, x2, y2), edges, strict=True):
            assert abs(ours - float(seen)) <= 1.0
    assert found.boxes.clip_R.tolist() == [1]  # of three clips, the one in the middle holds the key frame
    assert found.boxes.labels_RK.tolist() == [[1.0, 0.0, 1.0]]
    assert found.boxes.seconds_R.tolist() == [1.0]
    assert (found.boxes.track_R.tolist(), found.boxes.score_R) == ([5], None)
    assert found.seconds_NT[1].tolist() == [frame / RATE for frame in (8, 10, 12, 14)]


def test_boxes_of_a_batch(square):
    half, detected = Box(1.0, (0.0, 0.0, 0.5, 1.0), (1,)), Box(0.5, SQUARE, score=0.75)
    samples = (
        key_sample(square, "a", 1.0, Box(1.0, SQUARE, (0,), track=3), half),
        key_sample(square, "b", 1.5),
        key_sample(square, "c", 0.5, detected),
    )
    manifest = Manifest(samples, CLASSES, square.parent, True)
    dataset = ClipDataset(manifest, DATA, train=True, seed=0)
    boxes = collate([dataset[0, index] for index in range(3)]).target.boxes
    assert boxes.video_R.tolist() == [0, 0, 2]
    assert boxes.clip_R.tolist() == [0, 0, 0]
    assert boxes.seconds_R.tolist() == [1.0, 1.0, 0.5]
    assert boxes.labels_RK.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert boxes.score_R.tolist() == [1.0, 1.0, 0.75]  # annotated boxes are certain
    assert boxes.track_R is None
    # in evaluation what was found by a detector counts; annotated boxes would give the answer away
    tested = ClipDataset(manifest, DATA, train=False, seed=0)
    assert [len(tested[0, index].boxes.xyxy_R4) for index in range(3)] == [0, 0, 1]
    annotated = ClipDataset(replace(manifest, samples=samples[:2]), DATA, train=False, seed=0)
    assert [len(annotated[0, index].boxes.xyxy_R4) for index in range(2)] == [2, 0]


def window(square, **data):
    """Key frames at 0.5, 1.0 and 1.5 s, each with the square and another box; clips half a second apart."""
    boxes = [
        (Box(key, SQUARE, (0,)), Box(key, (0.0, 0.0, 0.1, 1.0), (place,))) for place, key in enumerate((0.5, 1, 1.5))
    ]
    samples = tuple(key_sample(square, f"{own[0].seconds}", own[0].seconds, *own) for own in boxes)
    clips = replace(DATA.clips, count=5, window=2.0)
    return Manifest(samples, CLASSES, square.parent, True), replace(DATA, clips=clips, **data)


def test_all_key_frames_in_a_window_are_judged(square):
    manifest, data = window(square, judged="all", augment=Augment((32, 32), 0, flip=0.0))
    batch = collate([ClipDataset(manifest, data, train=True, seed=0)[0, index] for index in range(2)])
    assert batch.clips_BNTCHW.shape[-2:] == (HEIGHT, WIDTH)  # whole pictures
    assert batch.valid_BN.tolist() == [[False, True, True, True, True], [True, True, True, True, False]]
    boxes = batch.target.boxes
    # Clip 2 holds the sample's own key frame; clips 3 and 4 of the first and clips 1 and 3 of the second hold others.
    assert boxes.video_R.tolist() == [0] * 6 + [1] * 6
    assert boxes.clip_R.tolist() == [2, 2, 3, 3, 4, 4, 1, 1, 2, 2, 3, 3]
    assert boxes.labels_RK[1::2].argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
    assert boxes.xyxy_R4[0].tolist() == pytest.approx([14, 8, 26, 20])
    # In evaluation a key frame is judged by itself.
    tested = ClipDataset(manifest, data, train=False, seed=0)[0, 0]
    assert tested.boxes.clip_R.tolist() == [2, 2]
    assert tested.boxes.xyxy_R4[0].tolist() == pytest.approx([14, 8, 26, 20])


def test_boxes_follow_a_flip_with_their_labels(square):
    classes = {"label": ("turn left", "run", "turn right")}
    sample = key_sample(square, "a", 1.0, Box(1.0, SQUARE, (0, 1)))
    for flip, labels in ((1.0, [0.0, 1.0, 1.0]), (0.0, [1.0, 1.0, 0.0]), (None, [1.0, 1.0, 0.0])):
        data = replace(DATA, augment=Augment((32, 32), 0, flip=flip))
        manifest = Manifest((sample,), classes, square.parent, True, mirror=mirror_of_classes(classes))
        boxes = ClipDataset(manifest, data, train=True, seed=0)[0, 0].boxes
        assert boxes.labels_RK.tolist() == [labels]
        assert boxes.xyxy_R4[0].tolist() == pytest.approx([14, 8, 26, 20])  # the square stands in the middle


def test_training_leaves_out_boxes_that_the_crop_cut_away(square):
    manifest, data = window(square, augment=Augment((32, 32), 24, flip=0.0))
    dataset = ClipDataset(manifest, data, train=True, seed=0)
    seen = set()
    for epoch in range(12):
        boxes = dataset[epoch, 0].boxes
        sides = boxes.xyxy_R4[:, 2:] - boxes.xyxy_R4[:, :2]
        assert (sides >= 1).all()
        assert len(boxes.labels_RK) == len(boxes.xyxy_R4) == len(boxes.clip_R)
        seen.add(len(sides))
    assert seen == {1, 2}  # the box at the left edge, 4 of 40 pixels, is now and then outside


def test_a_key_frame_behind_the_end(square):
    manifest = Manifest((key_sample(square, "a", 2.0),), CLASSES, square.parent, True)
    with pytest.raises(DataError, match=r"lasts 2\.00 s, expected a part from 2\.00 s on"):
        ClipDataset(manifest, DATA, train=True, seed=0)[0, 0]


@pytest.mark.parametrize("cache", [False, True])
def test_training_clips_are_labelled_by_what_they_show(tmp_path, cache):
    video(tmp_path / "a.mp4", 1, frames=48)  # at 12 frames a second
    events = (Event(0, 0.0, 1.0), Event(1, 1.5, 1.6), Event(2, 3.0, 4.0))
    sample = Sample("a", tmp_path / "a.mp4", None, None, "train", {"label": (0, 1, 2)}, events=events)
    quiet = replace(sample, id="b", labels={"label": ()}, events=())
    manifest = Manifest((sample, quiet), CLASSES, tmp_path, True)
    data = replace(DATA, cache=cache)
    seen = set()
    dataset = ClipDataset(manifest, data, train=True, seed=0, cache_dir=tmp_path / "cache")
    for epoch in range(30):
        found = dataset[epoch, 0]
        first, last = found.seconds_NT[0, 0].item(), found.seconds_NT[0, -1].item()
        times = [frame / RATE for frame in range(48) if first - 1e-6 <= frame / RATE <= last + 1e-6]
        expected = [float(any(event.start < time < event.end for time in times)) for event in events]
        assert found.labels["label"].tolist() == expected
        seen.add(tuple(expected))
    assert len(seen) > 2
    assert dataset[0, 1].labels["label"].tolist() == [0.0, 0.0, 0.0]
    both = ClipDataset(manifest, replace(data, clips=Clips("uniform", 2, 4, 2)), train=True, seed=0, cache_dir=tmp_path)
    assert both[0, 0].labels["label"].tolist() == [1.0, 0.0, 1.0]  # the first and the last second
    tested = ClipDataset(manifest, data, train=False, seed=0, cache_dir=tmp_path / "cache")
    assert torch.equal(tested[0, 0].labels["label"], torch.ones(3))  # the whole video


def test_what_would_lie_before_the_video_is_its_first_frame(tmp_path):
    video(tmp_path / "a.mp4", 1)
    sample = Sample("a", tmp_path / "a.mp4", 0.0, 0.5, "val", {"label": 0}, meta={"left_pad": 0.5})
    data = replace(DATA, clips=Clips("uniform", 1, 12, 1))
    found = ClipDataset(Manifest((sample,), CLASSES, tmp_path), data, train=False, seed=0)[0, 0]
    assert found.seconds_NT.tolist() == [[0.0] * 6 + [frame / RATE for frame in range(6)]]
