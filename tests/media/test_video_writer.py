"""The writer: groups share nothing, equal input gives equal bytes, sound is lossless, nothing half-written stays."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.media.nasty_files import moving
from wholereel.media import VideoReader, write_video


@pytest.mark.parametrize(("gop", "segment"), [(8, 3), (1, 10), (12, 0)])
def test_replacing_one_group_changes_exactly_that_group(tmp_path: Path, gop: int, segment: int) -> None:
    frames_THWC = moving(48, 64, 64)
    changed_THWC = frames_THWC.copy()
    part = slice(segment * gop, segment * gop + gop)
    changed_THWC[part] = moving(gop, 64, 64, seed=5)
    decoded = []
    for name, content in (("a.mp4", frames_THWC), ("b.mp4", changed_THWC)):
        write_video(tmp_path / name, content, frame_rate=8, gop=gop)
        with VideoReader(tmp_path / name) as reader:
            decoded.append(reader.read(indices=range(48)).pixels_TCHW)
    differs_T = (decoded[0] != decoded[1]).flatten(1).any(1)
    expected_T = torch.zeros(48, dtype=torch.bool)
    expected_T[part] = True
    assert torch.equal(differs_T, expected_T)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    wave_CS = np.random.default_rng(0).uniform(-1, 1, (1, 16000)).astype(np.float32)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, iter(moving(25)), frame_rate=25, gop=5, audio=(wave_CS, 16000))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["float32", "int16"])
def test_sound_is_lossless_and_begins_at_zero(tmp_path: Path, channels: int, kind: str) -> None:
    wave_CS = np.random.default_rng(1).integers(-32767, 32768, (channels, 20001)).astype(np.int16)
    given_CS = wave_CS if kind == "int16" else (wave_CS / 32767).astype(np.float32)
    write_video(tmp_path / "s.mp4", moving(10), frame_rate=16, gop=5, audio=(given_CS, 16000))
    with av.open(str(tmp_path / "s.mp4")) as container:
        blocks = [(f.pts, f.to_ndarray()) for f in container.decode(audio=0)]
    assert blocks[0][0] == 0
    found_CS = np.concatenate([block.reshape(-1, channels).T for _, block in blocks], axis=1)
    assert np.array_equal(found_CS, wave_CS)


def test_rates_and_sizes_are_kept(tmp_path: Path) -> None:
    for rate in (Fraction(30000, 1001), 29.97, 8, 12.5):
        write_video(tmp_path / "r.mp4", moving(20, 32, 48), frame_rate=rate, gop=10)
        with VideoReader(tmp_path / "r.mp4") as reader:
            assert (reader.metadata.height, reader.metadata.width, reader.frame_count) == (32, 48, 20)
            assert reader.metadata.frame_rate == pytest.approx(float(rate), rel=1e-6)
            assert reader.seconds_T[19].item() == pytest.approx(19 / float(rate), abs=1e-4)


def test_key_frames_are_where_groups_begin(tmp_path: Path) -> None:
    write_video(tmp_path / "k.mp4", moving(30), frame_rate=10, gop=7)
    with av.open(str(tmp_path / "k.mp4")) as container:
        keys = [i for i, p in enumerate(p for p in container.demux(video=0) if p.size) if p.is_keyframe]
    assert keys == [0, 7, 14, 21, 28]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "v.mp4"
    write_video(target, moving(5), frame_rate=10, gop=5)
    before = target.read_bytes()

    def broken() -> Iterator[np.ndarray]:
        yield moving(1)[0]
        yield np.zeros((10, 10, 3), np.uint8)

    with pytest.raises(ValueError, match=r"frame 1 has shape \(10, 10, 3\), the first one has \(48, 64, 3\)"):
        write_video(target, broken(), frame_rate=10, gop=5)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "v.mp4"
    with pytest.raises(ValueError, match="no frames to write"):
        write_video(target, [], frame_rate=10, gop=5)
    with pytest.raises(ValueError, match="even sizes, got height 47"):
        write_video(target, moving(2, 47, 64), frame_rate=10, gop=5)
    with pytest.raises(ValueError, match="must be uint8"):
        write_video(target, np.zeros((2, 8, 8, 3), np.float32), frame_rate=10, gop=5)
    with pytest.raises(ValueError, match="gop must be at least 1"):
        write_video(target, moving(2), frame_rate=10, gop=0)
    with pytest.raises(ValueError, match="frame_rate must be positive"):
        write_video(target, moving(2), frame_rate=0, gop=5)
    with pytest.raises(ValueError, match="1 or 2 channels"):
        write_video(target, moving(2), frame_rate=10, gop=5, audio=(np.zeros((3, 10), np.int16), 8000))
    assert list(tmp_path.iterdir()) == []
