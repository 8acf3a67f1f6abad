"""Many videos in the rows of one batch: each as if it were alone, one call of the model per step, stop and resume."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from tests.inference.builders import moving_square, package
from tests.inference.stream_cases import CLIPS, MEMORIES, equal, memvit_package
from wholereel import config
from wholereel.errors import CheckpointError, ConfigError
from wholereel.inference.stream import Stream
from wholereel.inference.stream_batch import BatchStream
from wholereel.media.frame_queue import PushedFrames
from wholereel.models.package import load_package

LENGTHS = (61, 17, 3, 40, 24)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        moving_square(folder / f"{number}.mp4", frames=frames, right=number % 2 == 0, seed=number)
        for number, frames in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    found = {name: load_package(package(folder / name, memory)) for name, memory in MEMORIES.items()}
    return {**found, "memvit": memvit_package(), "frames": memvit_package(frame_level=True)}


def alone(package_, video, **settings):
    return list(Stream(package_, device="cpu", **settings).run(video))


def by_source(said, count=5):
    said = list(said)
    return [[clip for number, clip in said if number == source] for source in range(count)]


CASES = [
    ("last", {"mode": "causal"}),
    ("two", {"mode": "window", "window": 2}),
    ("last", {"mode": "ema"}),
    ("max", {"mode": "late_read"}),
    ("two", {"mode": "two_sweep"}),
    ("memvit", {}),
    ("frames", {"hop": 3}),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_video_does_not_know_its_neighbours(packages, videos, name, settings):
    settings = {**settings, "clips": None if name in ("memvit", "frames") else CLIPS}
    batch = BatchStream(packages[name], rows=3, device="cpu", **settings)
    found = by_source(batch.run(videos))
    for video, said in zip(videos, found, strict=True):
        equal(said, alone(packages[name], video, **settings), exact=False)
    clips = sum(len({clip.number for clip in said}) for said in found)
    assert batch.steps < clips * batch._engine.judge.sweeps / 1.5  # several clips in one call
    assert not batch.failed


def test_one_call_per_step_of_rows_in_the_same_sweep(packages, videos, monkeypatch):
    batch = BatchStream(packages["last"], rows=2, device="cpu", clips=CLIPS)
    judge, calls = batch._engine.judge, []
    step = type(judge).step
    monkeypatch.setattr(type(judge), "step", lambda self, x, states: calls.append(len(x)) or step(self, x, states))
    list(batch.run(videos[:2]))
    assert len(calls) == batch.steps == 8
    assert calls[:3] == [2, 2, 2]
    assert calls[3:] == [1] * 5


def test_a_batch_that_was_stopped_goes_on(packages, videos, tmp_path):
    settings = {"rows": 2, "device": "cpu", "clips": CLIPS, "mode": "late_read"}
    expected = by_source(BatchStream(packages["last"], **settings).run(videos))
    first = BatchStream(packages["last"], **settings)
    said = []
    for number, clip in first.run(videos, state=tmp_path / "state", save_every=1000):
        said.append((number, clip))
        if len(said) == 7:
            first.stop()
    second = BatchStream(packages["last"], **settings)
    second.load(tmp_path / "state")
    said += list(second.run(videos))
    for ours, theirs in zip(by_source(said), expected, strict=True):
        equal(ours, theirs, exact=False)
    third = BatchStream(packages["last"], **settings)
    third.load(tmp_path / "state")
    with pytest.raises(CheckpointError, match="expected the source that the state was saved with"):
        list(third.run(videos[::-1]))
    with pytest.raises(CheckpointError, match="was saved by a stream of mode='late_read'"):
        BatchStream(packages["last"], rows=2, device="cpu", clips=CLIPS).load(tmp_path / "state")


def test_live_rows_beside_a_file_and_one_that_cannot_be_read(packages, videos, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    picture = np.random.default_rng(0).integers(0, 255, (36, 48, 3), dtype=np.uint8)
    cameras = [PushedFrames(frame_rate=10, policy="block") for _ in range(2)]

    def fill(camera, frames, pause):
        for number in range(frames):
            camera.put(np.roll(picture, number, 1))
            time.sleep(pause)
        camera.end()

    threads = [threading.Thread(target=fill, args=(c, 24, p)) for c, p in zip(cameras, (0.002, 0.01), strict=True)]
    for thread in threads:
        thread.start()
    batch = BatchStream(packages["last"], rows=4, device="cpu", clips=CLIPS, patience=0.02)
    found = by_source(batch.run([videos[0], cameras[0], tmp_path / "broken.mp4", cameras[1]]), 4)
    assert [len(said) for said in found] == [8, 3, 0, 3]
    for a, b in itertools.pairwise((found[1], found[3])):
        equal(a, b, exact=False)
    assert "broken.mp4" in str(batch.failed[2])


def test_what_cannot_be_is_refused(packages, videos, tmp_path):
    with pytest.raises(ConfigError, match="rows >= 1"):
        BatchStream(packages["last"], rows=0)
    tokens = load_package(package(tmp_path / "nl", config.Memory(interaction="nl_dot", dim=8)))
    with pytest.raises(ConfigError, match="keeps as many tokens as a video has clips"):
        BatchStream(tokens, rows=2, mode="two_sweep")
    batch = BatchStream(packages["last"], mode="two_sweep", device="cpu")
    with pytest.raises(ConfigError, match="two_sweep' reads every video twice"):
        list(batch.run([PushedFrames()]))
