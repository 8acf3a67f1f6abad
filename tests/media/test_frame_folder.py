import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wholereel.errors import VideoError
from wholereel.media.frame_folder import FrameFolder, open_frames
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video


def pictures(folder: Path, count: int = 7, first: int = 1, name: str = "{:05d}.png", size=(12, 16)) -> np.ndarray:
    """Random pictures; returns pixels_TCHW."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels_THWC = np.random.default_rng(count).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    for number, picture_HWC in enumerate(pixels_THWC, start=first):
        Image.fromarray(picture_HWC).save(folder / name.format(number))
    return pixels_THWC.transpose(0, 3, 1, 2)


@pytest.mark.parametrize(("name", "first"), [("{:05d}.png", 1), ("46GP8-{:06d}.png", 1), ("frame_{}.PNG", 0)])
def test_frames_are_the_pictures_in_the_order_of_their_numbers(tmp_path, name, first):
    expected = pictures(tmp_path, 12, first, name)  # without leading zeros 10 would come before 9
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".00099.png").write_text("x")
    with open_frames(tmp_path, frame_rate=12) as reader:
        assert isinstance(reader, FrameFolder)
        assert (len(reader), reader.metadata.frame_rate, reader.metadata.duration) == (12, 12, 1.0)
        assert (reader.metadata.height, reader.metadata.width, reader.metadata.codec) == (12, 16, "png")
        frames = reader.read(indices=[11, 0, 0, 9])
        assert np.array_equal(frames.pixels_TCHW, expected[[11, 0, 0, 9]])
        assert frames.seconds_T.tolist() == [11 / 12, 0.0, 0.0, 9 / 12]
        assert not frames.truncated
        assert torch.equal(reader.seconds_T, torch.arange(12, dtype=torch.float64) / 12)
        assert np.array_equal(pickle.loads(pickle.dumps(reader)).read(indices=[3]).pixels_TCHW, expected[[3]])  # noqa: S301


def test_times_take_the_last_frame_that_has_begun(tmp_path):
    expected = pictures(tmp_path, 7)
    reader = FrameFolder(tmp_path, frame_rate=24)
    seconds = [5 / 24, 5 / 24 - 1e-9, 5 / 24 - 1e-4, -1.0, 99.0]
    assert np.array_equal(reader.read(seconds=seconds).pixels_TCHW, expected[[5, 5, 4, 0, 6]])
    for rate in (7, 24, 30, 59.94):
        reader = FrameFolder(tmp_path, frame_rate=rate)
        assert np.array_equal(reader.read(seconds=reader.seconds_T).pixels_TCHW, expected)
    assert [len(part) for part in reader.stream(start=2 / 59.94, chunk=2)] == [2, 2, 1]
    parts = torch.cat([part.pixels_TCHW for part in reader.stream(chunk=3)])
    assert np.array_equal(parts, expected)


def test_a_folder_reads_like_the_file_with_the_same_frames(tmp_path):
    expected = pictures(tmp_path / "frames", 6)
    write_video(tmp_path / "a.mp4", expected.transpose(0, 2, 3, 1), frame_rate=12, gop=6)
    with open_frames(tmp_path / "frames", frame_rate=12) as folder, VideoReader(tmp_path / "a.mp4") as file:
        assert torch.equal(folder.seconds_T, file.seconds_T)
        for question in ({"indices": [5, 1, 1]}, {"seconds": [0.1, 0.4999999, 7.0]}):
            ours, theirs = folder.read(**question), file.read(**question)
            assert torch.equal(ours.seconds_T, theirs.seconds_T)
            assert ours.pixels_TCHW.shape == theirs.pixels_TCHW.shape
        for wrong in ([6], [-1]):
            messages = []
            for reader in (folder, file):
                with pytest.raises(IndexError) as error:
                    reader.read(indices=wrong)
                messages.append(str(error.value).split(": ")[1])
            assert messages[0] == messages[1]
        for reader in (folder, file):
            for question in ({}, {"indices": [0], "seconds": [0.0]}, {"seconds": [float("nan")]}):
                with pytest.raises(ValueError):
                    reader.read(**question)


@pytest.mark.parametrize("size", [6, (5, 9), 24])
def test_frames_are_scaled_to_the_same_size_as_those_of_a_file(tmp_path, size):
    pixels = pictures(tmp_path / "frames", 3, size=(12, 18))
    write_video(tmp_path / "a.mp4", pixels.transpose(0, 2, 3, 1), frame_rate=12, gop=6)
    scaled = FrameFolder(tmp_path / "frames", frame_rate=1, size=size).read(indices=[2]).pixels_TCHW
    assert scaled.shape == VideoReader(tmp_path / "a.mp4", size=size).read(indices=[2]).pixels_TCHW.shape
    height, width = scaled.shape[2:]
    stored = pixels[2].transpose(1, 2, 0)
    expected = Image.fromarray(stored).resize((width, height), Image.Resampling.BILINEAR)
    assert np.array_equal(scaled[0].permute(1, 2, 0), np.asarray(expected))


def test_grey_and_single_pictures(tmp_path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "grey.png")
    with open_frames(tmp_path / "grey.png") as reader:
        assert (reader.frame_count, reader.metadata.duration) == (1, 1.0)
        pixels_CHW = reader.read(seconds=[0.3]).pixels_TCHW[0]
    assert torch.equal(pixels_CHW, torch.arange(48, dtype=torch.uint8).view(1, 6, 8).expand(3, 6, 8))


def test_a_picture_in_a_bucket(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("WHOLEREEL_CACHE", str(tmp_path / "cache"))
    expected = pictures(tmp_path, 1)
    with fsspec.open("memory://bucket/a.png", "wb") as file:
        file.write((tmp_path / "00001.png").read_bytes())
    with open_frames("memory://bucket/a.png") as reader:
        assert np.array_equal(reader.read(indices=[0]).pixels_TCHW, expected)


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(VideoError, match="nowhere: no such file or folder"):
        FrameFolder(tmp_path / "nowhere", frame_rate=1)
    with pytest.raises(VideoError, match="holds no pictures among its 0 files, expected numbered pictures"):
        FrameFolder(tmp_path, frame_rate=1)
    pictures(tmp_path, 5)
    with pytest.raises(VideoError, match="a folder of pictures has no frame rate of its own"):
        open_frames(tmp_path)
    with pytest.raises(ValueError, match="frame_rate must be positive"):
        FrameFolder(tmp_path, frame_rate=0)
    os.rename(tmp_path / "00003.png", tmp_path / "elsewhere")
    with pytest.raises(VideoError, match="picture 3 is missing between 1 and 5, expected every number once"):
        FrameFolder(tmp_path, frame_rate=1)
    os.rename(tmp_path / "elsewhere", tmp_path / "3.jpg")
    assert len(FrameFolder(tmp_path, frame_rate=1)) == 5
    (tmp_path / "a00003.jpg").touch()
    with pytest.raises(VideoError, match="have the same number"):
        FrameFolder(tmp_path, frame_rate=1)
    os.rename(tmp_path / "a00003.jpg", tmp_path / "cover.jpg")
    with pytest.raises(VideoError, match=r"the name 'cover.jpg' ends in no number"):
        FrameFolder(tmp_path, frame_rate=1)


def test_broken_pictures_are_named(tmp_path):
    pictures(tmp_path, 4, name="{:05d}.jpg", size=(48, 64))
    data = (tmp_path / "00002.jpg").read_bytes()
    (tmp_path / "00001.jpg").write_bytes(b"")
    (tmp_path / "00002.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "00003.jpg").write_bytes(b"<html>")
    reader = FrameFolder(tmp_path, frame_rate=1)
    with pytest.raises(VideoError, match=r"00001.jpg: is empty \(0 bytes\)"):
        reader.read(indices=[0])
    pictures(tmp_path, 1, name="{:05d}.jpg", size=(48, 64))
    with pytest.raises(VideoError, match=r"00002.jpg: does not decode"):
        reader.read(indices=[1])
    with pytest.raises(VideoError, match=r"00003.jpg: cannot be opened as a picture"):
        reader.read(indices=[0, 2])
    Image.new("RGB", (20, 20)).save(tmp_path / "00004.jpg")
    with pytest.raises(VideoError, match=r"00004.jpg: is 20x20, expected 64x48, as the first picture"):
        reader.read(indices=[0, 3])
