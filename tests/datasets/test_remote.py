"""Data sets on a server read like local ones; what was fetched is kept until it changes there."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch

from tests.datasets.broken_files import data_set
from tests.media.sound_files import murmur, sound_file
from wholereel.config import Augment, Clips, Data
from wholereel.datasets.check import check_data
from wholereel.datasets.loader import clip_loader
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.shards import pack
from wholereel.errors import DataError, MissingExtraError, VideoError
from wholereel.media import VideoReader, remote_files
from wholereel.media.audio_reader import AudioReader
from wholereel.media.remote_files import is_remote, local_copy, remote_url

DATA = Data(clips=Clips("stratified", count=2, frames=2, stride=2), augment=Augment((24, 28), 24), workers=0)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An empty store in memory, an empty cache, and a count of the files that are opened in the store."""
    monkeypatch.setenv("WHOLEREEL_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    remote_files._state.cache_clear()
    opened: list[str] = []
    plain = type(store).open

    def counted(self, path, *args, **kwargs):
        opened.append(path)
        return plain(self, path, *args, **kwargs)

    monkeypatch.setattr(type(store), "open", counted)
    store.opened = opened
    yield store
    store.store.clear()
    remote_files._state.cache_clear()


def upload(bucket, folder: Path, to: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            bucket.pipe(f"/{to}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    bucket.opened.clear()


def batches(manifest, data=DATA):
    loader = clip_loader(manifest, data, train=True, seed=3, batch=3)
    try:
        return list(loader.epoch(0))
    finally:
        loader.close()


def assert_same(ours, theirs):
    assert [batch.ids for batch in ours] == [batch.ids for batch in theirs]
    assert all(torch.equal(a.clips_BNTCHW, b.clips_BNTCHW) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["", "/annotations.csv"])
def test_a_list_of_files_on_a_server(bucket, tmp_path, name):
    data_set(tmp_path / "data", 6)
    upload(bucket, tmp_path / "data", "films")
    local, remote = read_manifest(tmp_path / "data"), read_manifest(f"memory://films{name}", split="train")
    assert remote.classes == local.classes
    assert [sample.id for sample in remote.samples] == [sample.id for sample in local.samples]
    assert remote_url(remote.samples[0].path) == f"memory://films/{local.samples[0].id}"
    assert bucket.opened == ["/films/annotations.csv"]  # no video yet
    assert_same(batches(remote), batches(local))
    assert len(bucket.opened) == 1 + 6
    assert_same(batches(read_manifest(Path(f"memory://films{name}"))), batches(local))
    assert check_data(remote) == []
    assert len(bucket.opened) == 1 + 6  # all of it was here already


def test_shards_on_a_server(bucket, tmp_path):
    data_set(tmp_path / "data", 6)
    local = read_manifest(tmp_path / "data")
    pack(local, tmp_path / "packed", shard_bytes=30_000)
    upload(bucket, tmp_path / "packed", "films/v1")
    remote = read_manifest("memory://films/v1")
    assert all(".tar#" in str(sample.path) for sample in remote.samples)
    assert remote.classes == local.classes
    assert_same(batches(remote), batches(local))
    fetched = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and "lists" not in path.parts]
    video_bytes = sum(sample.path.stat().st_size for sample in local.samples)
    videos = [path for path in fetched if path.suffix == ".mp4"]
    assert sum(path.stat().st_size for path in videos) == video_bytes  # the videos, not the shards
    assert {path.suffix for path in fetched} == {".mp4", ".jsonl", ".json"}


def test_changed_files_are_fetched_anew(bucket, tmp_path):
    data_set(tmp_path / "data", 2)
    first, second = sorted((tmp_path / "data" / "videos").iterdir())
    bucket.pipe("/films/a.mp4", first.read_bytes())
    before = local_copy("memory://films/a.mp4")
    assert Path(before).read_bytes() == first.read_bytes()
    assert local_copy("memory:/films/a.mp4") == before
    bucket.pipe("/films/a.mp4", second.read_bytes())
    assert local_copy("memory://films/a.mp4") == before  # a process asks once
    remote_files._state.cache_clear()
    assert Path(local_copy("memory://films/a.mp4")).read_bytes() == second.read_bytes()
    with VideoReader("memory://films/a.mp4") as reader, VideoReader(second) as plain:
        assert torch.equal(reader.read(indices=[3]).pixels_TCHW, plain.read(indices=[3]).pixels_TCHW)


def test_sound_on_a_server(bucket, tmp_path):
    path = sound_file(tmp_path / "a.flac", "flac", murmur(1, 8000), 8000)
    bucket.pipe("/films/a.flac", path.read_bytes())
    with AudioReader("memory://films/a.flac") as ours, AudioReader(path) as theirs:
        assert torch.equal(ours.read().wave_CS, theirs.read().wave_CS)


def test_what_is_not_there(bucket, tmp_path):
    with pytest.raises(VideoError, match="memory://films/none.mp4: no such file"):
        VideoReader("memory://films/none.mp4")
    bucket.pipe("/some/list.csv", b"path,label\nnone.mp4,x\n")
    (problem,) = check_data(read_manifest("memory://some/list.csv"))
    assert problem.reason.endswith("Check the path, and whether the annotation file fits this copy of the data.")
    bucket.pipe("/films/run/a.mp4", b"x")
    with pytest.raises(DataError, match=r"memory://films: holds no list of videos, expected manifest.jsonl"):
        read_manifest("memory://films")
    with pytest.raises(DataError, match="memory://nowhere"):
        read_manifest("memory://nowhere/train.csv")
    with pytest.raises(DataError, match=r"nonsense://a/b.mp4: cannot be reached"):
        local_copy("nonsense://a/b.mp4")


def test_missing_packages_are_named(monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    remote_files._state.cache_clear()
    with pytest.raises(
        MissingExtraError, match=r"reading s3:// needs another package \(Install s3fs.*wholereel\[remote\]"
    ):
        local_copy("s3://bucket/a.mp4")


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("s3://b/k.mp4", True),
        ("hf:/datasets/a/b.mp4", True),
        ("gs+x://b", True),
        ("a.mp4", False),
        ("/s3:/b", False),
        ("c:/films/a.mp4", False),
        ("films/s3://a", False),
    ],
)
def test_what_counts_as_remote(path, remote):
    assert is_remote(path) is remote
    assert is_remote(Path(path)) is remote
