"""Streams of clips: places are pure and balanced, labels come from timed events, clips are cut where they should be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wholereel.batches import IGNORED
from wholereel.config import Augment, Clips, Data, Erasing, Mixing, RandAugment, Streams
from wholereel.datasets.loader import TooManyFaultsError
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.mirror import Mirror
from wholereel.datasets.sample import Box, Event
from wholereel.datasets.stream_dataset import StreamDataset, collate_streams
from wholereel.datasets.stream_labels import begins_next, fills_most, labels_of_part
from wholereel.datasets.stream_loader import stream_loader
from wholereel.datasets.stream_places import StreamKey, StreamPlaces
from wholereel.errors import ConfigError, DataError
from wholereel.media.stream_clips import grid_count, jittered, plan_clip_at, segment_begin
from wholereel.media.video_writer import write_video

LENGTHS = (5, 1, 7, 3, 3, 9, 2, 4)
RATE = 4


# places


def read_by_rows(lengths, *, rows, world_size, **options):
    """What each row of each rank reads."""
    found = []
    for rank in range(world_size):
        places = StreamPlaces(lengths, rows, seed=1, rank=rank, world_size=world_size, **options)
        steps = list(places.steps(2))
        assert len(steps) == places.steps_per_epoch
        found += [[step[row] for step in steps] for row in range(rows)]
    return found


@pytest.mark.parametrize(("rows", "world_size"), [(1, 1), (3, 1), (2, 2), (1, 5)])
@pytest.mark.parametrize("order", ["balanced", "memvit"])
def test_evaluation_reads_every_clip_once_and_in_order(rows, world_size, order):
    streams = read_by_rows(LENGTHS, rows=rows, world_size=world_size, train=False, order=order)
    keys = [key for row in streams for key in row if key is not None]
    assert Counter((key.video, key.clip) for key in keys) == Counter(
        (v, c) for v, n in enumerate(LENGTHS) for c in range(n)
    )
    for row in streams:
        for before, after in zip([None, *row], row, strict=False):
            if after is not None and not after.starts:
                assert before is not None
                assert (after.video, after.clip) == (before.video, before.clip + 1)


@pytest.mark.parametrize(("rows", "world_size"), [(3, 1), (2, 2)])
@pytest.mark.parametrize("order", ["balanced", "memvit"])
def test_training_has_as_many_steps_in_every_epoch_and_may_begin_anywhere(rows, world_size, order):
    for rank in range(world_size):
        places = StreamPlaces(LENGTHS, rows, seed=1, order=order, rank=rank, world_size=world_size)
        for epoch in range(4):
            steps = list(places.steps(epoch))
            assert len(steps) == places.steps_per_epoch
            for start in (1, len(steps) - 1, len(steps)):
                assert list(places.steps(epoch, start)) == steps[start:]
        assert list(places.steps(0)) != list(places.steps(1))


def test_training_steps_waste_little():
    streams = read_by_rows((40,) * 400, rows=32, world_size=1)
    idle = sum(key is None for row in streams for key in row)
    assert idle <= 0.03 * sum(map(len, streams))


def test_with_more_rows_than_videos_each_is_read_to_its_end():
    streams = read_by_rows((3, 9), rows=4, world_size=1)
    assert [sum(key is not None for key in row) for row in streams if any(row)] in ([3, 9], [9, 3])


def test_what_cannot_be_streamed():
    with pytest.raises(ConfigError, match="6 clips do not fill one step of 8 x 1 rows in order 'memvit'"):
        StreamPlaces((3, 3), 8, seed=0, order="memvit")
    with pytest.raises(ValueError, match="order must be one of balanced, memvit, got 'best'"):
        StreamPlaces((3, 3), 1, seed=0, order="best")
    with pytest.raises(ValueError, match="no video to stream"):
        StreamPlaces((), 1, seed=0)


# labels

EVENTS = (Event(1, 0.0, 3.0), Event(2, 2.5, 4.0), Event(0, 6.0, 9.0))


@pytest.mark.parametrize(
    ("begin", "end", "label"),
    [(0, 2, 1), (2, 4, 2), (3, 5, 2), (4, 6, IGNORED), (5, 7, 0), (5, 6.9, IGNORED), (8, 10, 0), (9, 11, IGNORED)],
)
def test_a_clip_has_the_class_that_fills_most_and_at_least_half_of_it(begin, end, label):
    assert fills_most(EVENTS, begin, end) == label


def test_every_event_is_next_for_exactly_one_clip_of_the_grid():
    hop, gap, span = 0.5, 1.0, 2.0
    asked = [begins_next(EVENTS, clip * hop + span + gap, clip * hop + span + gap + hop) for clip in range(20)]
    assert Counter(asked) == Counter({IGNORED: 19, 0: 1})  # the others begin before any clip could tell
    asked = [begins_next(EVENTS, time, time + hop) for time in torch.arange(0, 10, hop).tolist()]
    assert Counter(asked) == Counter({IGNORED: 17, 0: 1, 1: 1, 2: 1})


def test_parts_and_several_labels():
    options = {"hop": 2.0, "gap": 1.0, "classes": 3}
    parts = labels_of_part(EVENTS, 1.0, 4.0, rule="shown", parts=4, **options)
    assert parts.tolist() == [1, 1, 2, IGNORED]
    several = labels_of_part(EVENTS, 2.0, 2.0, rule="all", parts=0, **options)
    assert several.tolist() == [0, 1, 1]
    assert labels_of_part(EVENTS, 2.0, 2.0, rule="all", parts=2, **options).tolist() == [[0, 1, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="one of shown, all, next, got 'some'"):
        labels_of_part(EVENTS, 2.0, 2.0, rule="some", parts=0, **options)


# times


@pytest.mark.parametrize(
    ("duration", "span", "hop", "count"), [(80, 2, 2, 40), (80, 2, 1, 79), (81, 2, 2, 41), (1, 2, 2, 1), (2.0, 2, 5, 1)]
)
def test_the_grid_reaches_the_end(duration, span, hop, count):
    assert grid_count(duration, span, hop) == count
    with pytest.raises(ValueError, match="must be positive"):
        grid_count(duration, span, 0)


def test_frames_of_a_clip_stay_in_their_part():
    clips = Clips(frames=3, stride=2)
    assert plan_clip_at(1.0, 20, 4.0, clips).indices_NT.tolist() == [[4, 6, 8]]
    assert plan_clip_at(-1.0, 20, 4.0, clips).indices_NT.tolist() == [[0, 0, 0]]
    assert plan_clip_at(4.5, 20, 4.0, clips).indices_NT.tolist() == [[18, 19, 19]]
    assert plan_clip_at(1.0, 20, 4.0, clips, start=1.5, end=2.0).indices_NT.tolist() == [[6, 6, 7]]
    other_rate = plan_clip_at(1.0, 20, 4.0, replace(clips, frame_rate=2.0))
    assert other_rate.indices_NT is None
    assert other_rate.seconds_NT.tolist() == [[1.0, 2.0, 3.0]]
    with pytest.raises(ValueError, match=r"no frame between 6.0 s and 5.0 s of 20 frames"):
        plan_clip_at(6.0, 20, 4.0, clips, start=6.0)
    assert segment_begin("middle", 2.0, 6.0, 1.0) == 3.5
    assert segment_begin("end", 2.0, 6.0, 1.0) == 5.0
    with pytest.raises(ValueError, match="not 'begin'"):
        segment_begin("begin", 2.0, 6.0, 1.0)


# clips of files


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two videos of 5 s and 3 s at 4 frames per second: frame n of video v has the brightness 10 n + 5 v."""
    folder = tmp_path_factory.mktemp("streams")
    lines = []
    for video, frames in enumerate((20, 12)):
        levels = 10 * torch.arange(frames, dtype=torch.uint8) + 5 * video
        pixels_TCHW = levels[:, None, None, None].expand(frames, 3, 16, 16)
        write_video(folder / f"{video}.mp4", pixels_TCHW.permute(0, 2, 3, 1).numpy(), frame_rate=RATE, gop=4, qp=1)
        events = [["left turn", 0.0, 1.0], ["right turn", 2.0, 3.0]]
        events = [[["left turn", "right turn"].index(name), start, end] for name, start, end in events]
        lines.append(
            {"id": f"v{video}", "path": f"{video}.mp4", "label": "left turn", "split": "train", "events": events}
        )
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "classes.json").write_text(json.dumps({"label": ["left turn", "right turn"]}))
    (folder / "mirror.json").write_text(json.dumps({"labels": {"label": [["left turn", "right turn"]]}}))
    return folder


DATA = Data(
    clips=Clips(frames=2, stride=2),
    augment=Augment(short_side=(16, 16), crop=16, flip=0.0),
    workers=0,
    streams=Streams(),
)


def dataset(folder, *, train=False, **changes):
    return StreamDataset(read_manifest(folder), replace(DATA, **changes), train=train, seed=0)


def levels(clip):
    """Brightness of the frames."""
    return [round(float(frame.float().mean())) for frame in clip.clip_TCHW]


def test_the_grid_of_a_file(folder):
    streams = dataset(folder)
    assert [video.clips for video in streams.videos] == [5, 3]
    clips = [streams[StreamKey(0, 0, clip, clip == 0)] for clip in range(5)]
    assert [clip.seconds_2.tolist() for clip in clips] == [[n, n + 1.0] for n in range(5)]
    assert [clip.labels["label"].item() for clip in clips] == [0, IGNORED, 1, IGNORED, IGNORED]
    assert [clip.id for clip in clips][:2] == ["v0#0000", "v0#0001"]
    for number, clip in enumerate(clips):
        assert levels(clip) == pytest.approx([40 * number, 40 * number + 20], abs=3)
    overlapping = dataset(folder, streams=Streams(hop=0.5))
    assert [video.clips for video in overlapping.videos] == [9, 5]


def test_events_and_files_as_steps(folder):
    shown = dataset(folder, streams=Streams(steps="events"))
    assert [video.clips for video in shown.videos] == [2, 2]
    assert levels(shown[StreamKey(0, 0, 1, False)]) == pytest.approx([80, 100], abs=3)
    after = dataset(folder, streams=Streams(steps="events", label="next", gap=0.5))
    clip = after[StreamKey(0, 1, 1, False)]
    assert clip.seconds_2.tolist() == [0.5, 1.5]
    assert levels(clip) == pytest.approx([25, 45], abs=3)
    assert clip.labels["label"].item() == 1
    early = after[
        StreamKey(0, 1, 0, True)
    ]  # the event is there from the beginning: the first frame stands for what was
    assert levels(early) == pytest.approx([5, 5], abs=3)
    files = dataset(folder, streams=Streams(steps="samples", place="end"))
    assert [video.clips for video in files.videos] == [1, 1]
    assert levels(files[StreamKey(0, 0, 0, True)]) == pytest.approx([160, 180], abs=3)


@pytest.mark.parametrize(("label", "expected"), [("video", [0] * 5), ("last", [IGNORED] * 4 + [0])])
def test_the_label_of_the_whole_video(folder, label, expected):
    streams = dataset(folder, streams=Streams(label=label))
    found = [streams[StreamKey(0, 0, clip, clip == 0)].labels["label"].item() for clip in range(5)]
    assert found == expected


def test_a_stream_is_drawn_once_an_epoch_and_its_labels_follow_a_flip(folder):
    augment = Augment(short_side=(16, 16), crop=12, flip=0.5, color_jitter=0.4)
    streams = dataset(folder, train=True, augment=augment)
    seen = set()
    for epoch in range(8):
        labels = [streams[StreamKey(epoch, 0, clip, False)].labels["label"].item() for clip in (0, 2)]
        assert labels in ([0, 1], [1, 0])
        seen.add(tuple(labels))
    assert len(seen) == 2
    own = dataset(folder, train=True, augment=replace(augment, flip=0.0, per_clip=True))
    ratios = [levels(own[StreamKey(0, 0, clip, False)])[0] / (40 * clip) for clip in (1, 2, 3, 4)]
    shared = dataset(folder, train=True, augment=replace(augment, flip=0.0))
    same = [levels(shared[StreamKey(0, 0, clip, False)])[0] / (40 * clip) for clip in (1, 2, 3)]
    assert max(ratios) - min(ratios) > 0.1
    assert max(same) - min(same) < 0.06  # rounding to whole levels


def test_rows_that_have_ended(folder):
    streams = dataset(folder)
    batch = collate_streams([streams[StreamKey(0, 0, 0, True)], streams[None]])
    assert batch.valid_B.tolist() == [True, False]
    assert batch.starts_B.tolist() == [True, False]
    assert batch.ids == ("v0#0000", "")
    assert batch.target.labels["label"].tolist() == [0, IGNORED]
    assert not batch.clip_BTCHW[1].any()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_goes_on_in_the_middle_of_a_video(folder, workers):
    data = replace(DATA, workers=workers)
    loader = stream_loader(read_manifest(folder), data, train=True, seed=3, batch=2)
    whole = [(batch.ids, batch.clip_BTCHW) for batch in loader.epoch(1)]
    rest = [(batch.ids, batch.clip_BTCHW) for batch in loader.epoch(1, 2)]
    loader.close()
    assert loader.steps_per_epoch == len(whole) == 5
    for (ids, clips), (same_ids, same_clips) in zip(whole[2:], rest, strict=True):
        assert ids == same_ids
        assert torch.equal(clips, same_clips)
    with pytest.raises(ValueError, match="closed"):
        next(loader.epoch(0))


def test_files_that_cannot_be_opened_are_listed_and_end_a_training(folder, tmp_path):
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    broken = {**json.loads(lines[1]), "id": "broken", "path": str(tmp_path / "broken.mp4")}
    whole = {**json.loads(lines[0]), "path": str(folder / "0.mp4")}
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "classes.json").write_text((folder / "classes.json").read_text())
    (tmp_path / "manifest.jsonl").write_text(f"{json.dumps(whole)}\n{json.dumps(broken)}\n")
    manifest = read_manifest(tmp_path)
    loader = stream_loader(manifest, DATA, train=False, seed=0, batch=1)
    faults = [fault for batch in loader.epoch(0) for fault in batch.faults]
    assert [fault.id for fault in faults] == ["broken"]
    with pytest.raises(TooManyFaultsError, match="1 of 2 samples of epoch 1 could not be read"):
        next(stream_loader(manifest, DATA, train=True, seed=0, batch=1).epoch(0))
    allowed = stream_loader(manifest, replace(DATA, max_bad=0.5), train=True, seed=0, batch=1)
    assert len(list(allowed.epoch(0))) == 5
    (tmp_path / "manifest.jsonl").write_text(f"{json.dumps(broken)}\n")
    with pytest.raises(DataError, match="has no video that can be streamed"):
        stream_loader(read_manifest(tmp_path), DATA, train=False, seed=0, batch=1)


def test_a_clip_that_cannot_be_read_counts_for_nothing(folder, monkeypatch):
    streams = dataset(folder)

    def fail(*args):
        raise DataError("0.mp4", "the disk is gone")

    monkeypatch.setattr(streams, "_read", fail)
    clip = streams[StreamKey(0, 0, 2, False)]
    assert not clip.valid
    assert clip.labels["label"].item() == IGNORED
    assert "the disk is gone" in clip.fault.reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": None}, "data.streams is null"),
        ({"streams": Streams(count=0)}, "streams.count must be at least 1, or null, got 0"),
        ({"streams": Streams(steps="samples", begin="random")}, "streams.begin='random' are of steps='grid', not of"),
        ({"streams": Streams(begin="random")}, "streams.begin='random' moves a few clips of each video"),
        ({"streams": Streams(hop=0.0)}, "streams.hop must be positive"),
        ({"streams": Streams(steps="events", label="all")}, "'events' asks for what is 'shown' or 'next'"),
        ({"labels": ("verb",)}, "needs steps='samples'"),
        ({"streams": Streams(frames=-1)}, "must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be_used(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        dataset(folder, **changes)


def test_classes_without_a_mirror_image_are_never_flipped(folder):
    manifest = replace(read_manifest(folder), mirror=Mirror({"label": (1, -1)}))
    data = replace(DATA, augment=Augment(short_side=(16, 16), crop=16, flip=1.0))
    streams = StreamDataset(manifest, data, train=True, seed=0)
    assert streams[StreamKey(0, 0, 0, True)].labels["label"].item() == 0


def test_boxes_and_their_labels_follow_a_flip(folder):
    box = Box(1.0, (0.0, 0.25, 0.25, 0.75), labels=(1,))
    samples = tuple(
        replace(sample, key_seconds=1.0, boxes=(box,), labels={}, events=()) for sample in read_manifest(folder).samples
    )
    manifest = replace(read_manifest(folder), samples=samples, multi_label=True)
    augment = Augment(short_side=(16, 16), crop=0, flip=1.0)
    data = replace(DATA, augment=augment, streams=Streams(steps="samples"), clips=Clips(frames=2, stride=1))
    for train, corners, label in (
        (False, [0.0, 4.0, 4.0, 12.0], [0.0, 1.0]),
        (True, [12.0, 4.0, 16.0, 12.0], [1.0, 0.0]),
    ):
        clip = StreamDataset(manifest, data, train=train, seed=0)[StreamKey(0, 0, 0, True)]
        assert clip.boxes.xyxy_R4.tolist() == [corners]
        assert clip.boxes.labels_RK.tolist() == [label]


# what training may add to the pictures


def test_frames_move_by_less_than_half_a_stride_and_stay_in_the_video():
    clips = Clips(frames=6, stride=4)
    generator = torch.Generator().manual_seed(0)
    late = jittered(plan_clip_at(9.0, 100, 10.0, clips), 100, 10.0, clips, generator)
    assert late.indices_NT.amax() <= 99
    plan = plan_clip_at(2.0, 100, 10.0, clips)
    moved = [jittered(plan, 100, 10.0, clips, generator) for _ in range(300)]
    shifts = torch.cat([times.indices_NT - plan.indices_NT for times in moved])
    found = [set(column.tolist()) for column in shifts.T]
    assert found == [{0, 1}, *[{-2, -1, 0, 1}] * 4, {-2, -1}]  # as in the public code
    torch.testing.assert_close(moved[0].seconds_NT, moved[0].indices_NT.double() / 10.0)
    early = plan_clip_at(0.0, 3, 10.0, clips)
    assert all(0 <= int(jittered(early, 3, 10.0, clips, generator).indices_NT.amax()) <= 2 for _ in range(20))
    cut = plan_clip_at(1.5, 100, 10.0, clips, start=2.0, end=4.0)
    there = [jittered(cut, 100, 10.0, clips, generator, start=2.0, end=4.0).indices_NT for _ in range(100)]
    assert (int(torch.cat(there).amin()), int(torch.cat(there).amax())) == (20, 34)  # never those of its neighbours
    by_time = replace(clips, frame_rate=30.0)
    plan = plan_clip_at(2.0, 100, 10.0, by_time)
    steps = (jittered(plan, 100, 10.0, by_time, generator).seconds_NT - plan.seconds_NT) * 30
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
    assert jittered(plan, 100, 10.0, replace(clips, stride=1), generator) is plan


def test_frames_are_jittered_in_training_alone_and_anew_for_each_clip_if_asked(folder):
    augment = Augment((16, 16), 16, flip=0.0, frame_jitter=True, per_clip=True)
    trained, evaluated = (dataset(folder, train=train, augment=augment) for train in (True, False))
    keys = [StreamKey(epoch, 0, clip, False) for epoch in range(4) for clip in (1, 2, 3)]
    seen = {
        tuple(round((a - b) / 10) for a, b in zip(levels(trained[key]), levels(evaluated[key]), strict=True))
        for key in keys
    }
    assert seen == {(0, -1)}  # stride 2: the first frame may stay, the last one comes a frame earlier


AUGMENTED = Augment((16, 16), 12, color_jitter=0.4, erasing=Erasing(probability=0.5), mixing=Mixing(), copies=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_of_copies_blend_each_pair_alike_while_both_videos_last(folder, workers):
    data = replace(DATA, augment=AUGMENTED, workers=workers, streams=Streams(label="video"))
    loader = stream_loader(read_manifest(folder), data, train=True, seed=3, batch=2)
    whole, rest = list(loader.epoch(1)), list(loader.epoch(1, 2))
    loader.close()
    for batch, again in zip(whole[2:], rest, strict=True):
        assert torch.equal(batch.clip_BTCHW, again.clip_BTCHW)
        assert torch.equal(batch.blend.share_B, again.blend.share_B)
        assert batch.erased == again.erased
    assert len(whole) == 5
    assert [batch.valid_B.sum().item() for batch in whole] == [4, 4, 4, 2, 2]
    for step, batch in enumerate(whole):
        assert batch.clip_BTCHW.shape[0] == 4
        assert batch.ids[0] == batch.ids[1]
        assert batch.starts_B.tolist() == [step == 0] * 4
        assert batch.blend.partner_B.tolist() == [3, 2, 1, 0]
        assert batch.blend.share_B[0] == batch.blend.share_B[3]
        if step < 3:  # a pair is that of a copy of one video and one of the other
            assert torch.equal(batch.blend.share_B, whole[0].blend.share_B)
            assert torch.equal(batch.blend.box_B4, whole[0].blend.box_B4)
            assert batch.blend.share_B[0] != batch.blend.share_B[1]
        else:  # the shorter video has ended, and the longer one goes on unblended
            assert batch.blend.share_B.tolist() == [1.0] * 4
    places = {(p.row, p.top, p.left, p.height, p.width) for batch in whole[:3] for p in batch.erased}
    seeds = [patch.seed for batch in whole for patch in batch.erased]
    assert len(places) == len({place[0] for place in places}) > 0  # one place a row and epoch
    assert len(set(seeds)) == len(seeds)  # the noise is another in each clip


def test_an_unreadable_clip_blends_with_nobody(folder, monkeypatch):
    data = replace(DATA, augment=replace(AUGMENTED, copies=1))
    loader = stream_loader(read_manifest(folder), data, train=True, seed=3, batch=2)

    def broken(source, sample, seconds, generator, read=loader.dataset._read):
        if sample.id == "v0":
            raise DataError(sample.path, "is torn")
        return read(source, sample, seconds, generator)

    monkeypatch.setattr(loader.dataset, "_read", broken)
    monkeypatch.setattr(loader.dataset, "data", replace(data, max_bad=1.0))
    batch = next(loader.epoch(0))
    assert sorted(batch.valid_B.tolist()) == [False, True]
    assert batch.blend.share_B.tolist() == [1.0, 1.0]


def test_key_frames_with_boxes_refuse_randaugment(folder):
    manifest = read_manifest(folder)
    boxed = [
        replace(sample, key_seconds=1.0, boxes=(Box(1.0, (0.1, 0.1, 0.5, 0.5), (0,)),)) for sample in manifest.samples
    ]
    data = replace(DATA, augment=replace(AUGMENTED, rand_augment=RandAugment()), streams=Streams(steps="samples"))
    with pytest.raises(ConfigError, match="rand_augment turns, shears and moves pictures, but not the boxes"):
        StreamDataset(replace(manifest, samples=boxed), data, train=True, seed=0)
    StreamDataset(replace(manifest, samples=boxed), data, train=False, seed=0)


def test_key_frames_are_jittered_lit_and_erased_as_ava_is_and_their_boxes_stay(folder):
    manifest = read_manifest(folder)
    box = Box(1.5, (0.25, 0.25, 0.75, 0.75), (0,))
    boxed = [replace(sample, key_seconds=1.5, boxes=(box,), events=()) for sample in manifest.samples]
    manifest = replace(manifest, samples=boxed)
    plain = Augment((16, 16), 12, flip=0.0, per_clip=True)
    changed = replace(
        plain, color_jitter=0.4, color_order="random", lighting=0.1, frame_jitter=True, erasing=Erasing(probability=1.0)
    )
    data = replace(DATA, augment=plain, streams=Streams(steps="samples"))
    before = StreamDataset(manifest, data, train=True, seed=0)
    after = StreamDataset(manifest, replace(data, augment=changed), train=True, seed=0)
    jittered_only = StreamDataset(
        manifest, replace(data, augment=replace(plain, frame_jitter=True)), train=True, seed=0
    )
    for video in range(2):
        key = StreamKey(0, video, 0, True)
        assert len(before[key].boxes.xyxy_R4) == len(after[key].boxes.xyxy_R4) == 1
        # the frames' draws come first, so places differ, but boxes move with the pixels of their own draw
        assert torch.equal(after[key].boxes.xyxy_R4, jittered_only[key].boxes.xyxy_R4)
        assert torch.equal(after[key].boxes.labels_RK, before[key].boxes.labels_RK)
        assert len(after[key].erased) == 1
        batch = collate_streams([after[key], after[None]])
        assert batch.erased == after[key].erased


def test_a_few_clips_of_a_video_begin_anywhere_in_training(folder):
    few = Streams(count=3, begin="random", label="video")
    trained, evaluated = (dataset(folder, train=train, streams=few) for train in (True, False))
    assert [video.clips for video in trained.videos] == [3, 3]
    begins = []
    for epoch in range(40):
        times = [trained[StreamKey(epoch, 0, clip, False)].seconds_2.tolist() for clip in range(3)]
        (begin, _), *_ = times
        assert times == [[begin + n, begin + n + 1.0] for n in range(3)]
        begins.append(begin)
    assert 0 <= min(begins) < 0.3
    assert 1.7 < max(begins) <= 2.0  # of five seconds three are shown
    clip = trained[StreamKey(0, 0, 1, False)]
    assert levels(clip)[0] == pytest.approx(10 * int((begins[0] + 1) * RATE), abs=2)
    assert trained[StreamKey(7, 1, 0, False)].seconds_2[0] == 0  # as long as its clips
    assert [evaluated[StreamKey(3, 0, clip, False)].seconds_2[0].item() for clip in range(3)] == [0.0, 1.0, 2.0]
    events = dataset(folder, train=True, streams=replace(few, label="shown"))
    labels = [events[StreamKey(epoch, 0, 0, False)].labels["label"].item() for epoch in range(40)]
    assert labels == [fills_most(EVENTS_OF_FOLDER, begin, begin + 1) for begin in begins]  # of what is shown


EVENTS_OF_FOLDER = (Event(0, 0.0, 1.0), Event(1, 2.0, 3.0))
