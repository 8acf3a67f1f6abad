"""`Stream.run` over sources of all kinds, from other threads, in asyncio; stopped, reset and resumed."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

from tests.inference.builders import moving_square, package
from tests.inference.stream_cases import CLIPS, MEMORIES, equal, memvit_package, run_file
from tests.media.stream_servers import Web
from wholereel import BatchStream, LiveSource, PushedFrames, Stream, config
from wholereel.errors import ConfigError
from wholereel.media.frames import Frames
from wholereel.media.video_reader import VideoReader
from wholereel.models.package import load_package


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return moving_square(tmp_path_factory.mktemp("video") / "square.mp4", frames=77, right=True, seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_package(package(tmp_path_factory.mktemp("package"), MEMORIES["last"]))


def test_every_kind_of_source_says_the_same(model, video, tmp_path):
    _, expected = run_file(model, video, clips=CLIPS)

    def stream():
        return Stream(model, device="cpu", clips=CLIPS)

    with VideoReader(video, size=36) as reader:
        equal(list(stream().run(reader)), expected)
        chunks = list(reader.stream(chunk=5))
    scores = [clip.scores_K for clip in expected]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(video.read_bytes())
    pushed = PushedFrames(policy="block", room=2)

    def fill():
        for frames in chunks:
            pushed.put(frames)
        pushed.end()

    threading.Thread(target=fill).start()
    with Web(video.parent) as web:
        sources = [iter(chunks), pushed, web.url(video.name), LiveSource(folder, size=36, give_up=1.2, chunk=3)]
        for source in sources:
            found = list(stream().run(source))
            torch.testing.assert_close([clip.scores_K for clip in found], scores, rtol=0, atol=1e-6)
            assert [clip.begin for clip in found] == pytest.approx([clip.begin for clip in expected], abs=1e-3)


def test_a_program_pushes_while_another_thread_judges_and_stops(model):
    source, stream = PushedFrames(frame_rate=10), Stream(model, device="cpu", clips=CLIPS)
    halt = threading.Event()

    def camera():
        while not halt.is_set():
            source.put(np.zeros((36, 48, 3), np.uint8))
            time.sleep(0.002)

    thread = threading.Thread(target=camera)
    thread.start()
    found = []
    for clip in stream.run(source):
        found.append(clip)
        if len(found) == 3:
            threading.Thread(target=stream.stop).start()
    halt.set()
    thread.join()
    assert stream.stopped
    assert 3 <= len(found) <= 5
    assert stream.clips_seen == len(found)


def test_asyncio_goes_on_meanwhile(model, video):
    async def both():
        ticks, found = 0, []

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(tick())
        async for clip in Stream(model, device="cpu", clips=CLIPS).watch(video):
            found.append(clip)
        task.cancel()
        return ticks, found

    ticks, found = asyncio.run(both())
    equal(found, run_file(model, video, clips=CLIPS)[1])
    assert ticks > len(found)


@pytest.mark.parametrize("mode", ["late_read", "two_sweep"])
def test_a_stopped_run_goes_on(model, video, mode, tmp_path):
    _, expected = run_file(model, video, clips=CLIPS, mode=mode)
    stream, found = Stream(model, device="cpu", clips=CLIPS, mode=mode), []
    for clip in stream.run(video, state=tmp_path / "state"):
        found.append(clip)
        if len(found) == 4:
            stream.stop()
    other = Stream(model, device="cpu", clips=CLIPS, mode=mode)
    other.load(tmp_path / "state")
    equal(found + list(other.run(video)), expected)
    other.reset()
    equal(list(other.run(video)), expected)


def test_a_hop_in_seconds_survives_a_resume(video, tmp_path):
    trained = dataclasses.replace(memvit_package(), streams=config.Streams(hop=0.7))
    _, expected = run_file(trained, video)
    stream = Stream(trained, device="cpu")
    found = []
    for clip in stream.run(video, state=tmp_path / "state"):
        found.append(clip)
        if len(found) == 3:
            stream.stop()
    other = Stream(trained, device="cpu")
    other.load(tmp_path / "state")
    equal(found + list(other.run(video)), expected)


def test_half_precision_computes_the_model_and_keeps_the_memory(model, video):
    stream, found = run_file(model, video, clips=CLIPS, precision="bf16")
    _, full = run_file(model, video, clips=CLIPS)
    assert stream._track.state.places[0].sum_BPV.dtype == torch.float32
    worst = max(float((a.scores_K - b.scores_K).abs().max()) for a, b in zip(found, full, strict=True))
    assert 0 < worst < 0.05
    assert len(run_file(memvit_package(), video, precision="bf16")[1]) == 20


def test_settings_that_cannot_be(model, video):
    with pytest.raises(ConfigError, match="save_every must be at least 1"):
        next(Stream(model).run(video, save_every=0))
    with pytest.raises(ConfigError, match="save_every must be at least 1"):
        next(BatchStream(model).run([video], save_every=0))
    stream = Stream(model, device="cpu")
    with pytest.raises(ValueError, match="must increase"):
        stream.push(Frames(torch.zeros(2, 3, 36, 48, dtype=torch.uint8), torch.zeros(2, dtype=torch.float64)))
