"""Evaluation looks at the frames that training's reading of a sample names: parts, key frames, padding, rates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.datasets.broken_files import video
from tests.inference.builders import package
from tests.media.nasty_files import variable_rate
from wholereel import config
from wholereel.config import Augment, Clips, Data, Views
from wholereel.datasets.clip_dataset import ClipDataset
from wholereel.datasets.frame_cache import FrameCache
from wholereel.datasets.sample import Manifest, Sample
from wholereel.evaluation.evaluate import evaluate
from wholereel.evaluation.loading import batches

VIEWS = Views(Clips("uniform", 3, 4, 2), short_side=32, crop=32)
PARTS = {
    "whole": {},
    "part": {"start": 0.5, "end": 2.5},
    "key": {"key_seconds": 2.0},
    "key at the beginning": {"key_seconds": 0.0},
    "key at the end": {"key_seconds": 2.95},
    "key in a part": {"key_seconds": 1.2, "start": 1.0, "end": 1.5},
    "padded": {"start": 0.0, "end": 1.0, "meta": {"left_pad": 1.5}},
}


def sample(path, part, id="a"):
    values = {"start": None, "end": None, **PARTS[part]}
    return Sample(id, path, values.pop("start"), values.pop("end"), "test", {"label": 0}, **values)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    video(root / "even.mp4", 1, frames=36)
    variable_rate(root / "uneven.mp4")
    return root


class Asked:
    """In the place of a bank: keeps what it is asked for."""

    def __init__(self):
        self.middles = []

    def read(self, id_, middles_N):
        self.middles.append((id_, middles_N.tolist()))
        return torch.zeros(1, 2), torch.ones(len(middles_N), 1, dtype=torch.bool)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    "clips",
    [
        VIEWS.clips,
        replace(VIEWS.clips, frame_rate=5.0),
        replace(VIEWS.clips, plan="contiguous", coverage=True),
        Clips("segments", 1, 4, 1),
        Clips("offset", 3, 4, 2),
        replace(VIEWS.clips, window=2.0),
    ],
    ids=["uniform", "resampled", "contiguous", "segments", "offset", "window"],
)
@pytest.mark.parametrize("name", ["even.mp4", "uneven.mp4"])
def test_evaluation_reads_what_the_data_set_reads(files, tmp_path, name, clips, cache):
    parts = [part for part in PARTS if name == "even.mp4" or part in ("whole", "key at the beginning")]
    samples = tuple(sample(files / name, part, part) for part in parts)
    manifest = Manifest(samples, {"label": ("x",)}, files)
    data = Data(clips=clips, augment=Augment((32, 32), 32), workers=0)
    dataset = ClipDataset(manifest, data, train=False, seed=0)
    dataset._bank, bank = Asked(), Asked()
    views = replace(VIEWS, clips=clips)
    kept = FrameCache(tmp_path, 32) if cache else None
    read = batches(samples, range(len(samples)), views, batch=1, workers=0, cache=kept, bank=bank)
    for index, one in enumerate(read):
        expected = dataset[0, index]
        assert one.faults == ()
        assert torch.equal(one.views_BVTCHW[0], expected.clips_NTCHW)
        assert torch.equal(one.valid_BV[0], expected.valid_N)
        assert bank.middles[-1] == (samples[index].id, pytest.approx(dataset._bank.middles[-1][1], abs=1e-9))


def test_the_protocol_says_where_clips_lie(files, tmp_path):
    folder = package(tmp_path / "package", config.Memory())
    texts = {}
    for part in ("whole", "key", "padded"):
        one = replace(sample(files / "even.mp4", part), labels={"label": 0})
        manifest = Manifest((one,), {"label": ("left", "right")}, files)
        results = evaluate(folder, manifest, replace(VIEWS, short_side=36), workers=0, device="cpu")
        texts[part] = results.protocol["text"]
    assert "3 clips (spread evenly from the first to the last frame) of" in texts["whole"]
    assert "3 clips (around the key frame) of" in texts["key"]
    assert "frame; what would lie before a video is its first frame) of" in texts["padded"]
