"""Packed data sets read like the files they were made of, whoever packs and however often it is stopped."""

from __future__ import annotations

import gc
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.datasets.broken_files import REASONS, add_broken, data_set
from tests.media.nasty_files import encode, moving, variable_rate
from tests.media.sound_files import flash_and_click, murmur, sound_file
from wholereel.cli.main import main
from wholereel.config import Augment, Clips, Data
from wholereel.datasets.check import check_data
from wholereel.datasets.loader import clip_loader
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.sample import Manifest, Sample
from wholereel.datasets.shard_encode import Encoding, encode_anew
from wholereel.datasets.shards import pack
from wholereel.errors import DataError, VideoError
from wholereel.media import VideoReader
from wholereel.media.audio_reader import AudioReader


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy")
    data_set(root, 11)
    return read_manifest(root)


def test_a_packed_data_set_is_the_data_set(healthy, tmp_path):
    packed = pack(healthy, tmp_path, shard_bytes=40_000)
    assert (packed.files, packed.samples, packed.of_samples) == (11, 11, 11)
    assert packed.shards > 1
    assert packed.unpackable == ()
    again = read_manifest(tmp_path)
    assert again.classes == healthy.classes
    assert [replace(s, path=Path()) for s in again.samples] == [replace(s, path=Path()) for s in healthy.samples]
    assert check_data(again) == []
    data = Data(clips=Clips("stratified", count=2, frames=2, stride=2), augment=Augment((28, 28), 24), workers=0)
    kept = replace(data, cache=True)
    for ours, cached, theirs in zip(
        clip_loader(again, data, train=True, seed=3, batch=4).epoch(0),
        clip_loader(again, kept, train=True, seed=3, batch=4, cache_dir=tmp_path / "cache").epoch(0),
        clip_loader(healthy, data, train=True, seed=3, batch=4).epoch(0),
        strict=True,
    ):
        assert torch.equal(cached.clips_BNTCHW, theirs.clips_BNTCHW)
        assert ours.ids == theirs.ids
        assert torch.equal(ours.clips_BNTCHW, theirs.clips_BNTCHW)
        assert torch.equal(ours.target.labels["label"], theirs.target.labels["label"])


def test_shards_are_tar_files_as_webdataset_reads_them(healthy, tmp_path):
    packed = pack(healthy, tmp_path, shard_bytes=40_000)
    found, firsts = {}, []
    for shard in sorted(tmp_path.glob("shard-*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            assert [name.rsplit(".", 1)[1] for name in names] == ["mp4", "json"] * (len(names) // 2)
            for video, text in zip(names[::2], names[1::2], strict=True):
                assert video.split(".")[0] == text.split(".")[0]
                about = json.loads(tar.extractfile(text).read())
                found[about["samples"][0]["id"]] = (about, tar.extractfile(video).read())
            firsts.append(shard.stat().st_size)
    assert len(firsts) == packed.shards
    assert all(size >= 40_000 for size in firsts[:-1])
    for sample in healthy.samples:
        about, data = found[sample.id]
        label = sample.labels["label"]
        assert data == sample.path.read_bytes()
        assert about["path"] == sample.path.relative_to(healthy.root).as_posix()
        assert about["samples"][0]["labels"] == {"label": label}
        assert about["samples"][0]["names"] == {"label": healthy.classes["label"][label]}
    assert list(found) != [sample.id for sample in healthy.samples]  # dealt in a mixed order


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdataset_itself(healthy, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    pack(healthy, tmp_path)
    dataset = webdataset.WebDataset(str(tmp_path / "shard-000000.tar"), shardshuffle=False).decode()
    samples = {row["json"]["samples"][0]["id"]: row["mp4"] for row in dataset}
    del dataset
    gc.collect()
    assert samples == {sample.id: sample.path.read_bytes() for sample in healthy.samples}


@pytest.mark.parametrize("encoding", [None, Encoding(16, 4)], ids=["copied", "encoded"])
def test_stopping_and_workers_change_nothing(healthy, tmp_path, encoding):
    settings = {"encoding": encoding, "shard_bytes": 20_000}
    pack(healthy, tmp_path / "whole", **settings)
    expected = shards(tmp_path / "whole")
    assert sum(name.endswith(".tar") for name in expected) > 1
    pack(healthy, tmp_path / "workers", **settings, workers=3)
    stopped = tmp_path / "stopped"

    def stop(done: int, of: int) -> None:
        assert of == 11
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(healthy, stopped, **settings, progress=stop)
    assert not (stopped / "manifest.jsonl").exists()
    before = shards(stopped)
    assert all(before[name] == expected[name] for name in before)
    packed = pack(healthy, stopped, **settings)
    assert packed.resumed == sum(name.endswith(".tar") for name in before) > 0
    for folder in ("workers", "stopped"):
        found = shards(tmp_path / folder)
        assert found == expected
    assert pack(healthy, stopped, **settings).resumed == packed.shards
    with pytest.raises(DataError, match=r"pack.json: the folder holds shards that were made with other shard_bytes"):
        pack(healthy, stopped, encoding=encoding, shard_bytes=30_000)
    with pytest.raises(DataError, match="other samples and seed"):
        pack(replace(healthy, samples=healthy.samples[:3]), stopped, **settings, seed=None)


@pytest.mark.parametrize("encoding", [None, Encoding(16)], ids=["copied", "encoded"])
def test_broken_files_are_left_out_and_listed(tmp_path, encoding):
    data_set(tmp_path / "data", 4)
    add_broken(tmp_path / "data")
    packed = pack(read_manifest(tmp_path / "data"), tmp_path / "out", encoding=encoding)
    reasons = {bad.path.name: bad.reason for bad in packed.unpackable}
    if encoding is None:  # bytes are copied whatever they are
        assert set(reasons) == {"missing.mp4", "empty.mp4"}
    else:
        assert set(reasons) == set(REASONS) - {"sound.mp4"}  # sound alone is copied
        assert reasons["text.mp4"].startswith("cannot be opened as a video")
    assert packed.samples == packed.files == 9 - len(reasons)
    assert [sample.id for sample in read_manifest(packed.manifest).samples if Path(sample.id).name in reasons] == []


def test_parts_of_one_file_share_its_bytes(tmp_path):
    data_set(tmp_path / "data", 2)
    whole = read_manifest(tmp_path / "data")
    first = whole.samples[0]
    parts = [replace(first, id=f"part {n}", start=n / 2, end=n / 2 + 0.5) for n in range(4)]
    manifest = replace(whole, samples=(*parts[:2], whole.samples[1], *parts[2:]))
    packed = pack(manifest, tmp_path / "out")
    assert (packed.files, packed.samples) == (2, 5)
    again = read_manifest(packed.manifest).samples
    assert len({sample.path for sample in again}) == 2
    assert [(s.id, s.start, s.end) for s in again] == [(s.id, s.start, s.end) for s in manifest.samples]


# ------------------------------------------------------------------------------------------------------------- encoding


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(255**2 / (a.float() - b.float()).square().mean()))


@pytest.mark.parametrize("make", [variable_rate, lambda path: encode(path, moving(30, 36, 50))])
def test_encoding_keeps_frames_and_times(tmp_path, make):
    source = make(tmp_path / "a.mkv")
    encode_anew(source, tmp_path / "b.mp4", Encoding(gop=5, crf=1))
    with VideoReader(source) as before, VideoReader(tmp_path / "b.mp4") as after:
        assert after.frame_count == before.frame_count
        torch.testing.assert_close(after.seconds_T, before.seconds_T, atol=6e-6, rtol=0)
        order = range(before.frame_count)
        assert psnr(before.read(indices=order).pixels_TCHW, after.read(indices=order).pixels_TCHW) > 30
        keys = after._timeline.key_ticks_K
        assert len(keys) == -(-after.frame_count // 5)


@pytest.mark.parametrize(
    ("short_side", "expected"), [(24, (24, 32)), (25, (24, 34)), (480, (48, 64)), (None, (48, 64))]
)
def test_short_sides_are_even_and_never_enlarged(tmp_path, short_side, expected):
    encode_anew(encode(tmp_path / "a.mp4", moving(4)), tmp_path / "b.mp4", Encoding(short_side))
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert (reader.metadata.height, reader.metadata.width) == expected


@pytest.mark.parametrize(
    ("codec", "picture_start", "sound_start", "kept"),
    [("aac", 0, 0, "aac"), ("aac", 0.12, 0, None), ("aac", 0, 0.4, None), ("libopus", 0, 0, "flac")],
)
def test_encoding_keeps_sound_in_its_place(tmp_path, codec, picture_start, sound_start, kept):
    source = flash_and_click(
        tmp_path / "a.mkv",
        [0.7, 1.5],
        frame_rate=25,
        rate=48000,
        picture_start=picture_start,
        sound_start=sound_start,
        codec=codec,
    )
    encode_anew(source, tmp_path / "b.mp4", Encoding(16))
    with AudioReader(source) as before, AudioReader(tmp_path / "b.mp4") as after:
        assert kept is None or after.metadata.codec == kept
        for start in (0.0, 0.5, 1.2):
            one, other = before.read(start=start, seconds=0.7), after.read(start=start, seconds=0.7)
            clicks = [sound.wave_CS[0].abs().argmax() / sound.rate + sound.start for sound in (one, other)]
            assert clicks[0] == pytest.approx(float(clicks[1]), abs=1.1e-3)
            assert one.wave_CS.abs().max() == pytest.approx(float(other.wave_CS.abs().max()), abs=1e-4)


def test_pictures_are_packed_only_as_videos(tmp_path):
    for n, picture in enumerate(moving(6), start=1):
        (tmp_path / "data" / "v").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / "v" / f"{n:05d}.png")
    sample = Sample("v", tmp_path / "data" / "v", None, None, None, {"label": 0}, frame_rate=12.0)
    manifest = Manifest((sample,), {"label": ("x",)}, tmp_path / "data")
    with pytest.raises(DataError, match=r"v: is a picture or a folder of pictures.*Encode them"):
        pack(manifest, tmp_path / "out")
    packed = pack(manifest, tmp_path / "out", encoding=Encoding(gop=3, crf=0))
    (again,) = read_manifest(packed.manifest).samples
    assert again.frame_rate is None
    with VideoReader(again.path) as reader:
        assert reader.metadata.frame_rate == 12
        assert (
            psnr(reader.read(indices=range(6)).pixels_TCHW, torch.from_numpy(moving(6)).permute(0, 3, 1, 2)) > 20
        )  # half the colours


def test_sound_files_are_copied(tmp_path):
    path = sound_file(tmp_path / "a.wav", "pcm_s16le", murmur(1, 8000), 8000)
    manifest = Manifest((Sample("a", path, None, None, None, {"label": 0}),), {"label": ("x",)}, tmp_path)
    packed = pack(manifest, tmp_path / "out", encoding=Encoding(16))
    (again,) = read_manifest(packed.manifest).samples
    assert again.path.suffix == ".wav"
    assert check_data(read_manifest(packed.manifest)) == []
    assert torch.equal(AudioReader(again.path).read().wave_CS, AudioReader(path).read().wave_CS)


def test_settings_that_cannot_be(healthy, tmp_path):
    for wrong in ({"short_side": 1}, {"gop": 0}, {"crf": 52}):
        with pytest.raises(ValueError, match="short_side must be at least 2, gop at least 1 and crf 0 to 51"):
            Encoding(**wrong)
    with pytest.raises(ValueError, match="shard_bytes and workers must be at least 1"):
        pack(healthy, tmp_path, shard_bytes=0)
    with pytest.raises(VideoError, match="no such file"):
        encode_anew(tmp_path / "none.mp4", tmp_path / "b.mp4", Encoding())


# ------------------------------------------------------------------------------------------------------- command line


def test_command(tmp_path, capsys):
    data_set(tmp_path / "data", 3)
    add_broken(tmp_path / "data")
    words = ["data", "pack", str(tmp_path / "data"), str(tmp_path / "out")]
    assert main([*words, "--short-side", "16", "--gop", "6", "--workers", "1"]) == 1
    text = capsys.readouterr().out
    assert "4 of 8 samples in 4 files" in text
    assert "4 files were left out" in text
    assert len((tmp_path / "out" / "bad_files.tsv").read_text().splitlines()) == 5
    assert main(words) == 2
    assert "made with other encoding" in capsys.readouterr().err
    assert main([*words, "--short-side", "0"]) == 2
    assert "short_side must be at least 2" in capsys.readouterr().err
