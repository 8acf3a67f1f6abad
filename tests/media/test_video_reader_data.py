"""Every video of a real data folder (`WHOLEREEL_DATA`): random access equals decoding in order, bit for bit."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from tests.media.test_video_reader import decode_in_order, pixels_THWC
from wholereel.media import VideoReader

ROOT = os.environ.get("WHOLEREEL_DATA")
SUFFIXES = {".mp4", ".avi", ".webm", ".mkv", ".mov", ".mpg"}
FILES = sorted(path for path in Path(ROOT).rglob("*") if path.suffix.lower() in SUFFIXES) if ROOT else []


@pytest.mark.skipif(not ROOT, reason="WHOLEREEL_DATA is not set")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_video(path: Path) -> None:
    expected_THWC, _ = decode_in_order(path)
    count = len(expected_THWC)
    indices = random.Random(0).sample(range(count), min(count, 40))
    with VideoReader(path) as reader:
        assert reader.frame_count == count
        found = reader.read(indices=indices)
        assert torch.equal(pixels_THWC(found), expected_THWC[indices])
        assert torch.equal(reader.read(seconds=found.seconds_T).pixels_TCHW, found.pixels_TCHW)
        for index in indices[:3]:
            assert torch.equal(pixels_THWC(reader.read(indices=[index]))[0], expected_THWC[index])
        assert (reader.seconds_T.diff() > 0).all()
