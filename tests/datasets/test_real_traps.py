"""Traps that the descriptions of real files name (`WHOLEREEL_DATA`), met through our own data sets and readers."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from wholereel.config import Audio, Augment, Clips, Data
from wholereel.datasets.clip_dataset import ClipDataset, collate
from wholereel.datasets.manifest import label_columns, read_manifest
from wholereel.datasets.mirror import Mirror
from wholereel.datasets.sample import Manifest, Pose, Sample
from wholereel.media import VideoReader
from wholereel.media.audio_reader import AudioReader, NoSoundError

pytestmark = pytest.mark.skipif(
    "WHOLEREEL_DATA" not in os.environ, reason="WHOLEREEL_DATA names no folder of real data"
)
DATA = Path(os.environ.get("WHOLEREEL_DATA", "."))
SETTINGS = Data(clips=Clips("uniform", 1, 8, 1), augment=Augment((64, 64), 64, flip=0.0), workers=0)


def table(name):
    with (DATA / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


def of(manifest, *samples):
    return Manifest(samples, manifest.classes, manifest.root)


def test_people_of_weizmann_do_not_meet_across_splits():
    rows = table("weizmann/annotations.csv")
    people = {split: {row["subject"] for row in rows if row["split"] == split} for split in ("train", "val")}
    assert not people["train"] & people["val"]
    assert set(Counter((row["label"], row["subject"]) for row in rows).values()) == {1}
    assert len(read_manifest(DATA / "weizmann")) == len(rows) == 90


def test_frames_of_avi_with_b_frames_come_in_the_order_of_time():
    swapped = [row for row in table("ucf101_5/annotations.csv") if row["pts_in_order"] == "0"]
    assert len(swapped) == 24
    for row in swapped[:6]:
        with VideoReader(DATA / "ucf101_5" / row["path"], size=64) as reader:
            assert (reader.frame_count, reader.metadata.frame_rate) == (
                int(row["frames"]),
                pytest.approx(float(row["fps"]), abs=0.01),
            )
            frames_T = reader.read(
                indices=range(min(60, reader.frame_count - reader.frame_count % 2))
            ).pixels_TCHW.float()
        ours = (frames_T[1:] - frames_T[:-1]).abs().mean()
        exchanged_T = frames_T.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)  # 2 1 4 3: what sorting by pts would give
        assert ours < 0.9 * (exchanged_T[1:] - exchanged_T[:-1]).abs().mean()


def test_sound_gives_three_classes_away():
    rows = {row["path"]: row for row in table("ucf101_5/annotations.csv")}
    manifest = read_manifest(DATA / "ucf101_5")
    data = Data(**{**vars(SETTINGS), "audio": Audio("log_mel", seconds=0.5)})
    names, seen = manifest.classes["label"], {}
    chosen = [next(s for s in manifest.samples if s.labels["label"] == label) for label in range(len(names))]
    batch = collate([ClipDataset(of(manifest, *chosen), data, train=False, seed=0)[0, n] for n in range(len(chosen))])
    for row, sample in enumerate(chosen):
        there = bool(batch.audio.present_BN[row, 0])
        assert there == (rows[str(sample.path.relative_to(manifest.root))]["audio_hz"] not in ("", "0"))
        seen[names[sample.labels["label"]]] = there
    assert {name for name, there in seen.items() if there} == {"Archery", "BasketballDunk", "Surfing"}
    assert not batch.audio.mel_BNFT[~batch.audio.present_BN].any()


def test_clips_longer_than_their_videos_repeat_the_last_frame():
    rows = table("jhmdb_pose10/annotations.csv")
    short = min(rows, key=lambda row: int(row["frames"]))
    assert short["frames"] == "15"
    manifest = read_manifest(DATA / "jhmdb_pose10")
    sample = next(s for s in manifest.samples if s.path.name == Path(short["path"]).name)
    data = Data(**{**vars(SETTINGS), "clips": Clips("uniform", 1, 64, 1)})
    found = ClipDataset(of(manifest, sample), data, train=False, seed=0)[0, 0]
    assert found.clips_NTCHW.shape[1] == 64
    assert all(torch.equal(found.clips_NTCHW[0, 14], found.clips_NTCHW[0, t]) for t in range(15, 64))
    assert not torch.equal(found.clips_NTCHW[0, 13], found.clips_NTCHW[0, 14])
    assert found.fault is None


def test_joints_outside_the_picture_weigh_nothing():
    truth = json.loads((DATA / "jhmdb_pose10/pose.json").read_text())
    samples, outside = [], 0
    for name, clip in truth.items():
        poses = tuple(
            Pose(frame, tuple((x, y, 1.0) for x, y in joints), box=tuple(box))
            for frame, (joints, box) in enumerate(zip(clip["joints"], clip["boxes"], strict=True))
        )
        outside += sum(not (-0.5 < x < 319.5 and -0.5 < y < 239.5) for pose in poses for x, y, _ in pose.joints)
        samples.append(Sample(name, DATA / "jhmdb_pose10" / name, None, None, clip["split"], {}, poses=poses))
    joints = sum(15 * len(sample.poses) for sample in samples)
    assert 0.02 < outside / joints < 0.026  # 2.3 %
    # right and left: shoulder, hip, elbow, knee, wrist, ankle
    mirror = Mirror(joints=((3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14)))
    manifest = Manifest(tuple(samples), {}, DATA, mirror=mirror)
    whole = Data(**{**vars(SETTINGS), "clips": Clips("uniform", 1, 40, 1), "augment": Augment((240, 240), 0, flip=0.0)})
    flips = Data(**{**vars(whole), "augment": Augment((240, 240), 0, flip=1.0)})
    for index in (0, 57, 119):
        plain, turned = (ClipDataset(manifest, data, train=True, seed=0)[0, index].poses for data in (whole, flips))
        assert plain.joints_PJ2.shape[1:] == (15, 2)
        stored = samples[index].poses[0].joints
        torch.testing.assert_close(
            plain.joints_PJ2[0], torch.tensor([joint[:2] for joint in stored]), atol=1e-3, rtol=0
        )
        assert torch.equal(
            plain.visible_PJ[0] > 0, torch.tensor([-0.5 < x < 319.5 and -0.5 < y < 239.5 for x, y, _ in stored])
        )
        assert turned.joints_PJ2[0, 11, 0] == pytest.approx(319 - plain.joints_PJ2[0, 12, 0].item(), abs=1e-3)
        assert turned.joints_PJ2[0, 2, 0] == pytest.approx(319 - plain.joints_PJ2[0, 2, 0].item(), abs=1e-3)


def test_long_videos_and_their_segments():
    path = DATA / "ceiling_long/videos.csv"
    manifest = read_manifest(path, labels=label_columns(path))
    assert Counter(sample.split for sample in manifest.samples) == {"train": 6, "val": 3, "val_dark": 1}
    frames = {Path(row["path"]).name: int(row["frames"]) for row in table("ceiling_long/videos.csv")}
    for sample in manifest.samples[:3]:
        with VideoReader(sample.path) as reader:
            assert reader.frame_count == frames[sample.path.name]
    segments = table("ceiling_long/segments.csv")
    assert any(row["visible_fraction"] == "" for row in segments)  # the dark video
    assert len(read_manifest(DATA / "ceiling_long/segments.csv")) == len(segments) == 167


def test_a_header_without_a_number_of_frames_and_ten_frames_a_second():
    with VideoReader(DATA / "long_misc/videos/tears-of-steel-battle-clip-medium.webm") as reader:
        assert not reader.metadata.frame_count
        assert reader.frame_count == 1691
        assert reader.metadata.has_audio
    with VideoReader(DATA / "long_misc/videos/one-by-one-person-detection.mp4") as reader:
        assert (reader.metadata.frame_rate, reader.frame_count) == (10.0, 1394)


def test_words_of_grid_lie_where_their_sound_and_pictures_are():
    times = json.loads((DATA / "grid_s1/word_times.json").read_text())
    rows = table("grid_s1/annotations.csv")
    assert {row["frames"] for row in rows} == {"74", "75"}
    for row in rows[::35]:
        path = DATA / "grid_s1" / row["path"]
        words = next(value for name, value in times.items() if Path(name).stem == path.stem)
        spoken = [word for word in words if word["word"] not in ("sil", "sp")]
        assert len(spoken) == 6
        with AudioReader(path, rate=16000, mono=True) as sound, VideoReader(path) as pictures:
            assert abs(sound.metadata.begin) < 0.002
            assert pictures.frame_count == int(row["frames"])
            quiet = sound.read(start=0.0, seconds=max(0.1, spoken[0]["start"] - 0.1)).wave_CS.square().mean()
            begin, end = spoken[0]["start"], spoken[-1]["end"]
            loud = sound.read(start=begin, seconds=end - begin).wave_CS.square().mean()
        assert loud > 5 * quiet


def test_sounds_are_not_exactly_five_seconds_long():
    manifest = read_manifest(DATA / "esc10_120")
    rows = {Path(row["path"]).name: row for row in table("esc10_120/annotations.csv")}
    assert {row["split"]: row["fold"] for row in rows.values() if row["fold"] == "5"} == {"val": "5"}
    data = Data(clips=Clips("contiguous", 9, 100, 1, frame_rate=100.0), audio=Audio("log_mel", only=True), workers=0)
    chosen = manifest.samples[::15]
    dataset = ClipDataset(of(manifest, *chosen), data, train=False, seed=0)
    lengths = set()
    for index, sample in enumerate(chosen):
        found = dataset[0, index]
        seconds = float(rows[sample.path.name]["seconds"])
        lengths.add(len(found.seconds_NT))
        assert found.fault is None
        steps = int(seconds * 100 + 1e-6)  # whole hundredths
        assert found.audio.mel_BNFT.shape[1] == len(found.seconds_NT) == -(-steps // 100)
        # the last clip ends with the sound, also where that is not at a full second
        assert found.seconds_NT[-1, -1] == pytest.approx((steps - 1) / 100)
    assert lengths <= {5, 6}
    with pytest.raises(NoSoundError):
        AudioReader(DATA / "weizmann/videos/daria_bend.avi")


def test_grey_pictures_have_three_channels():
    paths = [DATA / "tiny_images10" / row["path"] for row in table("tiny_images10/annotations.csv")]
    grey = []
    for path in paths:
        with Image.open(path) as picture:
            grey += [path] if picture.mode == "L" else []
    assert len(grey) == 2
    samples = tuple(Sample(path.name, path, None, None, None, {"label": 0}) for path in grey)
    data = Data(clips=Clips("uniform", 1, 1, 1), augment=Augment((64, 64), 64, flip=0.0), workers=0)
    dataset = ClipDataset(Manifest(samples, {"label": ("x",)}, DATA), data, train=False, seed=0)
    for index in range(2):
        clip = dataset[0, index].clips_NTCHW
        assert clip.shape == (1, 1, 3, 64, 64)
        assert torch.equal(clip[0, 0, 0], clip[0, 0, 2])
