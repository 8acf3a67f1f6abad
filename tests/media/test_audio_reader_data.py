"""Files with sound of a real data folder (`WHOLEREEL_DATA`): whole and in parts, they are what decoding in order is."""

from __future__ import annotations

import os
import random
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.media.test_audio_reader import assert_slice
from wholereel.media.audio_reader import AudioReader, NoSoundError

ROOT = os.environ.get("WHOLEREEL_DATA")
SUFFIXES = {".mp4", ".avi", ".webm", ".mkv", ".mov", ".mpg", ".ogg", ".wav", ".mp3", ".flac"}
FILES = sorted(path for path in Path(ROOT).rglob("*") if path.suffix.lower() in SUFFIXES) if ROOT else []


@pytest.mark.skipif(not ROOT, reason="WHOLEREEL_DATA is not set")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_sound(path: Path) -> None:
    try:
        reader = AudioReader(path)
    except NoSoundError:
        with av.open(str(path)) as container:
            assert not container.streams.audio
        return
    with reader, av.open(str(path)) as container:
        expected = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
        whole = reader.read()
        np.testing.assert_array_equal(whole.wave_CS.numpy(), expected)
        assert whole.valid_S.all()
        draw = random.Random(path.stem)
        starts = [draw.uniform(-0.2, whole.seconds) for _ in range(4)]
        for start in starts:
            assert_slice(reader.read(start=start, seconds=0.5), whole)
    with AudioReader(path, rate=16000, mono=True) as reader:
        whole = reader.read()
        assert whole.valid_S.all()
        for start in starts:
            assert_slice(reader.read(start=start, seconds=0.5), whole)
        assert torch.equal(torch.cat([part.wave_CS for part in reader.stream(chunk=0.7)], 1), whole.wave_CS)
