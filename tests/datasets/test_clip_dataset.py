from dataclasses import replace

import pytest
import torch
from PIL import Image

from tests.datasets.broken_files import add_broken, data_set, truncated_video, video
from wholereel.batches import Fault
from wholereel.config import Augment, Clips, Data
from wholereel.datasets.clip_dataset import ClipDataset, collate
from wholereel.datasets.manifest import Manifest, Sample, read_manifest
from wholereel.errors import ConfigError, DataError
from wholereel.media.video_reader import VideoReader

DATA = Data(clips=Clips("stratified", count=3, frames=4, stride=1), augment=Augment((24, 32), 24), workers=0)
FIXED = replace(DATA, augment=Augment((32, 32), 24))
TEST = replace(DATA, clips=Clips("uniform", count=3, frames=4, stride=1))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy")
    data_set(root, 6)
    return read_manifest(root)


def manifest_of(path, *, start=None, end=None):
    return Manifest((Sample("a", path, start, end, "train", {"label": 0}),), {"label": ("x",)}, path.parent)


def test_a_sample_is_a_function_of_seed_epoch_and_index(healthy):
    train = ClipDataset(healthy, DATA, train=True, seed=1)
    again = ClipDataset(healthy, DATA, train=True, seed=1)
    _ = [again[0, index] for index in range(3)]  # what was loaded before does not matter
    sample = train[2, 4]
    assert sample.clips_NTCHW.shape == (3, 4, 3, 24, 24)
    assert sample.clips_NTCHW.dtype == torch.uint8
    assert torch.equal(sample.clips_NTCHW, again[2, 4].clips_NTCHW)
    others = [train[3, 4], train[2, 1], ClipDataset(healthy, DATA, train=True, seed=2)[2, 4]]
    assert all(not torch.equal(sample.clips_NTCHW, other.clips_NTCHW) for other in others)


def test_loading_leaves_the_global_generator_alone(healthy):
    before = torch.get_rng_state()
    ClipDataset(healthy, DATA, train=True, seed=1)[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_shows_the_planned_frames_of_the_middle(healthy):
    sample = ClipDataset(healthy, TEST, train=False, seed=0)[0, 2]
    with VideoReader(healthy.samples[2].path, size=24) as reader:
        frames = reader.read(indices=[10, 11, 12, 13])  # delta = 24 - 4, the middle clip starts at its half
    assert torch.equal(sample.clips_NTCHW[1], frames.pixels_TCHW[..., 3:27])  # 30 wide, 24 kept
    assert torch.equal(sample.seconds_NT[1], frames.seconds_T)
    assert sample.labels == {"label": torch.tensor(2)}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("frame_rate", [None, 9.0])
def test_cached_frames_are_the_decoded_frames(healthy, tmp_path, train, frame_rate):
    data = replace(FIXED, clips=replace(DATA.clips, frame_rate=frame_rate))
    plain = ClipDataset(healthy, data, train=train, seed=3)
    cached = ClipDataset(healthy, replace(data, cache=True), train=train, seed=3, cache_dir=tmp_path / "cache")
    for key in [(0, 0), (0, 5), (1, 0)]:
        assert torch.equal(plain[key].clips_NTCHW, cached[key].clips_NTCHW)
        assert torch.equal(plain[key].seconds_NT, cached[key].seconds_NT)


def test_the_cache_decodes_once_and_again_when_the_file_has_changed(tmp_path):
    video(tmp_path / "a.mp4", 1)
    dataset = ClipDataset(
        manifest_of(tmp_path / "a.mp4"), replace(FIXED, cache=True), train=False, seed=0, cache_dir=tmp_path / "cache"
    )
    first = dataset[0, 0].clips_NTCHW
    entries = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert [name[-4:] for name in entries] == ["json", ".npy"]
    assert torch.equal(dataset[1, 0].seconds_NT, dataset[1, 0].seconds_NT)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == entries
    video(tmp_path / "a.mp4", 2, frames=25)
    assert not torch.equal(dataset[0, 0].clips_NTCHW, first)
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_the_cache_refuses_jitter_and_needs_a_folder(healthy, tmp_path):
    with pytest.raises(
        ConfigError, match=r"frames of one size, but data.augment.short_side is \(24, 32\). Use \(24, 24\)"
    ):
        ClipDataset(healthy, replace(DATA, cache=True), train=True, seed=0, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="no cache_dir is given"):
        ClipDataset(healthy, replace(FIXED, cache=True), train=True, seed=0)


def test_settings_are_checked_before_anything_is_read(healthy):
    with pytest.raises(ConfigError, match="clips.frames must be at least 1, got 0"):
        ClipDataset(healthy, replace(DATA, clips=Clips(frames=0)), train=True, seed=0)
    with pytest.raises(ConfigError, match="crop 24 and short_side"):
        ClipDataset(healthy, replace(DATA, augment=Augment((16, 16), 24)), train=False, seed=0)


def test_samples_with_and_without_labels_do_not_mix(healthy):
    samples = (healthy.samples[0], replace(healthy.samples[1], labels={}))
    with pytest.raises(
        DataError, match=r"has labels \['label'\], sample 'videos/train_01\.mp4' \[\], expected the same"
    ):
        ClipDataset(replace(healthy, samples=samples), DATA, train=True, seed=0)
    unlabelled = tuple(replace(sample, labels={}) for sample in healthy.samples)
    dataset = ClipDataset(replace(healthy, samples=unlabelled), TEST, train=False, seed=0)
    assert collate([dataset[0, 0]]).target.labels == {}


def test_a_part_of_a_file(tmp_path):
    video(tmp_path / "a.mp4", 1, frames=60)
    data = replace(TEST, clips=Clips("contiguous", count=9, frames=4, stride=1))
    sample = ClipDataset(manifest_of(tmp_path / "a.mp4", start=1.0, end=2.0), data, train=False, seed=0)[0, 0]
    torch.testing.assert_close(sample.seconds_NT.flatten(), 1 + torch.arange(12).double() / 12)
    late = ClipDataset(manifest_of(tmp_path / "a.mp4", start=5.0), data, train=False, seed=0)[0, 0]
    assert late.fault.reason == f"{tmp_path}/a.mp4: lasts 5.00 s, expected a part from 5.00 s on."


def test_limit_keeps_the_first_samples(healthy):
    assert len(ClipDataset(healthy, replace(DATA, limit=2), train=True, seed=0)) == 2
    assert len(ClipDataset(healthy, replace(DATA, limit=99), train=True, seed=0)) == 6


def test_training_replaces_a_broken_sample_by_the_same_other_one(tmp_path):
    data_set(tmp_path, 6)
    broken = add_broken(tmp_path)
    manifest = read_manifest(tmp_path)
    train = ClipDataset(manifest, DATA, train=True, seed=4)
    for index in range(6, 6 + len(broken)):
        sample = train[0, index]
        assert sample.clips_NTCHW.shape == (3, 4, 3, 24, 24)
        assert sample.fault.id == manifest.samples[index].id
        assert sample.fault.replaced_by == sample.id
        assert sample.id in [healthy.id for healthy in manifest.samples[:6]]
        assert sample.fault.path in sample.fault.reason
        again = train[0, index]
        assert again.id == sample.id
        assert torch.equal(again.clips_NTCHW, sample.clips_NTCHW)
    assert len({train[epoch, 6].id for epoch in range(8)}) > 1


def test_training_gives_up_when_nothing_can_be_read(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    train = ClipDataset(manifest_of(tmp_path / "a.mp4"), DATA, train=True, seed=0)
    with pytest.raises(DataError, match="cannot be read, and neither can any of 10 other samples"):
        train[0, 0]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_a_truncated_video_gives_what_decodes_with_a_note(tmp_path, train, cache):
    truncated_video(tmp_path / "a.avi")
    data = replace(FIXED, clips=TEST.clips, cache=cache)
    manifest = manifest_of(tmp_path / "a.avi")
    sample = ClipDataset(manifest, data, train=train, seed=0, cache_dir=tmp_path / "cache")[0, 0]
    note = "truncated: the last frame that decodes is repeated"
    assert sample.fault == Fault("a", str(tmp_path / "a.avi"), note, kind="truncated")
    assert collate([sample]).ids == ("a",)
    last = sample.clips_NTCHW[-1]
    assert torch.equal(last[2], last[3])  # the last frame that decodes stands in for those behind it
    assert not torch.equal(sample.clips_NTCHW[0, 2], sample.clips_NTCHW[0, 3])
    begin = Manifest((replace(manifest.samples[0], end=1.0),), manifest.classes, tmp_path)
    assert ClipDataset(begin, data, train=train, seed=0, cache_dir=tmp_path / "cache")[0, 0].fault is None


def test_a_truncated_video_that_replaces_another_is_noted_at_its_own_turn(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    truncated_video(tmp_path / "b.avi")
    broken, cut = (manifest_of(tmp_path / name).samples[0] for name in ("a.mp4", "b.avi"))
    manifest = Manifest((broken, replace(cut, id="b")), {"label": ("x",)}, tmp_path)
    train = ClipDataset(manifest, replace(FIXED, clips=TEST.clips), train=True, seed=0)
    assert [train[0, index].fault.id for index in (0, 1)] == ["a", "b"]
    assert (train[0, 0].fault.kind, train[0, 0].fault.replaced_by) == ("unreadable", "b")


def test_collate_pads_by_repeating_the_last_clip(tmp_path):
    video(tmp_path / "short.mp4", 1, frames=5)
    video(tmp_path / "long.mp4", 2, frames=18)
    data = replace(TEST, clips=Clips("contiguous", count=9, frames=4, stride=1))
    parts = [
        ClipDataset(manifest_of(tmp_path / name), data, train=False, seed=0)[0, 0] for name in ("short.mp4", "long.mp4")
    ]
    batch = collate(parts)
    assert batch.valid_BN.tolist() == [[True, True, False, False, False], [True] * 5]
    assert batch.clips_BNTCHW.shape == (2, 5, 4, 3, 24, 24)
    assert torch.equal(batch.clips_BNTCHW[0, 4], parts[0].clips_NTCHW[1])
    assert torch.equal(batch.seconds_BNT[0, 2], parts[0].seconds_NT[1])
    assert torch.equal(batch.target.labels["label"], torch.tensor([0, 0]))
    assert batch.ids == ("a", "a")


def test_multi_label_targets_are_multi_hot(healthy):
    samples = tuple(
        replace(s, labels={"label": labels}) for s, labels in zip(healthy.samples, [(0, 2), ()], strict=False)
    )
    manifest = replace(healthy, samples=samples, multi_label=True)
    dataset = ClipDataset(manifest, TEST, train=False, seed=0)
    target = collate([dataset[0, 0], dataset[0, 1]]).target.labels["label"]
    assert target.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert target.dtype == torch.float32


def test_evaluation_leaves_broken_samples_out_and_lists_them(tmp_path):
    data_set(tmp_path, 3)
    broken = add_broken(tmp_path)
    dataset = ClipDataset(read_manifest(tmp_path), TEST, train=False, seed=0)
    batch = collate([dataset[0, index] for index in (0, 3, 1, 4)])
    assert batch.ids == ("videos/train_00.mp4", "videos/train_01.mp4")
    assert len(batch.clips_BNTCHW) == len(batch.valid_BN) == len(batch.target.labels["label"]) == 2
    assert [fault.id for fault in batch.faults] == broken[:2]
    assert all(fault.replaced_by is None for fault in batch.faults)
    empty = collate([dataset[0, index] for index in (3, 4)])
    assert empty.clips_BNTCHW.shape[0] == empty.valid_BN.shape[0] == len(empty.target.labels["label"]) == 0
    assert empty.clips_BNTCHW.shape[2:] == (4, 3, 24, 24)
    assert empty.ids == ()
    assert len(empty.faults) == 2


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_folders_of_pictures_are_videos(healthy, tmp_path, cache, train):
    with VideoReader(healthy.samples[2].path) as reader:
        for index, picture_CHW in enumerate(reader.read(indices=range(24)).pixels_TCHW, start=1):
            Image.fromarray(picture_CHW.permute(1, 2, 0).contiguous().numpy()).save(tmp_path / f"{index:05d}.png")
    folder = manifest_of(tmp_path)
    folder = replace(folder, samples=(replace(folder.samples[0], frame_rate=12.0),))
    data = replace(FIXED if train else TEST, cache=cache, augment=Augment((32, 32), 32, flip=0.0, color_jitter=0.0))
    sample = ClipDataset(folder, data, train=train, seed=3, cache_dir=tmp_path / "cache")[0, 0]
    file = manifest_of(healthy.samples[2].path)
    expected = ClipDataset(file, replace(data, cache=False), train=train, seed=3)[0, 0]
    assert torch.equal(sample.seconds_NT, expected.seconds_NT)
    assert torch.equal(sample.clips_NTCHW, expected.clips_NTCHW)  # stored size: nothing is scaled
