"""Streams: clips of the plan `contiguous` whatever the chunks, the memory of each mode, saving, the offline answer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.inference.builders import moving_square, package
from wholereel import config
from wholereel.errors import CheckpointError, ConfigError
from wholereel.inference import Predictor
from wholereel.inference.stream import MODES, Stream
from wholereel.media.clip_assembly import ClipAssembler
from wholereel.media.clip_plans import plan_clips
from wholereel.media.clip_reading import read_clips
from wholereel.media.frames import Frames
from wholereel.media.video_reader import VideoReader
from wholereel.models.package import load_package

CLIPS = config.Clips(plan="contiguous", count=1000, frames=4, stride=2)
MEMORIES = {
    "last": config.Memory(dim=8),
    "two": config.Memory(after=("layer1", "last"), dim=8, value="separate"),
    "max": config.Memory(interaction="max", dim=8),
    "none": None,
}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return moving_square(tmp_path_factory.mktemp("video") / "square.mp4", frames=61, right=True, seed=1)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return {name: load_package(package(folder / name, memory)) for name, memory in MEMORIES.items()}


def stream_of(package_, video, **settings):
    with VideoReader(video) as reader:
        tick = float(reader.metadata.time_base) / 2
        return Stream(package_, clips=CLIPS, frame_rate=10.0, half_tick=tick, device="cpu", **settings)


def run(stream, video, chunks=(7,)):
    found = []
    with VideoReader(video, size=stream.short_side) as reader:
        whole = reader.read(indices=range(reader.frame_count))
    begin, sizes = 0, list(chunks)
    while begin < len(whole):
        size = sizes[begin % len(sizes)]
        part = slice(begin, begin + size)
        found += stream.push(Frames(whole.pixels_TCHW[part], whole.seconds_T[part]))
        begin += size
    return found + stream.finish()


@pytest.mark.parametrize("rate", [None, 10.0, 4.0, 25.0])
@pytest.mark.parametrize("frames", [1, 3, 8, 9, 16, 37])
def test_clips_are_those_of_the_offline_plan(tmp_path, frames, rate):
    path = moving_square(tmp_path / "short.mp4", frames=frames, right=True, seed=2)
    clips = replace(CLIPS, frame_rate=rate)
    with VideoReader(path) as reader:
        expected = read_clips(reader, plan_clips(reader.frame_count, 10.0, clips))
        whole = reader.read(indices=range(frames))
        assembler = ClipAssembler(clips, frame_rate=10.0, half_tick=float(reader.metadata.time_base) / 2)
    found = []
    for begin in range(0, frames, 5):
        part = slice(begin, begin + 5)
        found += assembler.push(Frames(whole.pixels_TCHW[part], whole.seconds_T[part]))
    found += assembler.finish()
    assert [clip.number for clip in found] == list(range(len(expected.clips_NTCHW)))
    assert torch.equal(torch.stack([clip.pixels_TCHW for clip in found]), expected.clips_NTCHW)
    assert torch.equal(torch.stack([clip.seconds_T for clip in found]), expected.seconds_NT)
    assert len(assembler._line) <= assembler.span


def test_times_must_increase():
    assembler = ClipAssembler(CLIPS, frame_rate=10.0)
    frames = Frames(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0.5, 0.5], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"must increase, got 0.5 s after 0.5 s"):
        assembler.push(frames)


@pytest.mark.parametrize("name", ["last", "max", "none"])
def test_late_read_is_the_offline_answer(packages, video, name):
    offline = Predictor(packages[name], device="cpu", clips=CLIPS)(video)
    stream = stream_of(packages[name], video, mode="late_read")
    found = run(stream, video)
    final = [clip for clip in found if clip.final]
    assert [clip.number for clip in final] == list(range(len(offline.seconds_N2)))
    torch.testing.assert_close(
        torch.stack([clip.scores_K for clip in final]), offline.clip_scores_NK, rtol=0, atol=2e-6
    )
    torch.testing.assert_close(stream.video_scores(), offline.scores_K, rtol=0, atol=2e-6)
    torch.testing.assert_close(
        torch.tensor([(clip.begin, clip.end) for clip in final], dtype=torch.float64), offline.seconds_N2
    )


@pytest.mark.parametrize("name", MEMORIES)
def test_causal_clips_know_what_came_before_and_nothing_else(packages, video, name):
    found = run(stream_of(packages[name], video), video)
    assert all(clip.final for clip in found)
    with VideoReader(video, size=36) as reader:
        first = reader.read(indices=range(24))
    early = stream_of(packages[name], video).push(first)
    for clip, other in zip(early, found, strict=False):
        assert torch.equal(clip.scores_K, other.scores_K)
    if name != "two":  # with all blocks at one depth, the last clip reads what the offline model reads
        offline = Predictor(packages[name], device="cpu", clips=CLIPS)(video)
        torch.testing.assert_close(found[-1].scores_K, offline.clip_scores_NK[-1], rtol=0, atol=2e-6)


# "ema" of "max" is refused, see test_what_cannot_be_is_refused; "two_sweep" is never pushed, see test_stream_modes.py.
PUSHED = [mode for mode in MODES if mode != "two_sweep"]


@pytest.mark.parametrize(
    ("mode", "name"), [*((mode, "last") for mode in PUSHED), *((mode, "max") for mode in PUSHED if mode != "ema")]
)
def test_any_chunks_give_the_same_and_so_does_a_stream_that_was_saved(packages, video, tmp_path, mode, name):
    settings = {"mode": mode, "window": 3, "decay": 0.7}
    expected = run(stream_of(packages[name], video, **settings), video)
    again = run(stream_of(packages[name], video, **settings), video, chunks=(1, 5, 2, 13))
    assert [clip.to_dict() for clip in again] == [clip.to_dict() for clip in expected]
    with VideoReader(video, size=36) as reader:
        whole = reader.read(indices=range(61))
    first = stream_of(packages[name], video, **settings)
    found = first.push(Frames(whole.pixels_TCHW[:29], whole.seconds_T[:29]))
    first.save(tmp_path / "state.safetensors")
    second = stream_of(packages[name], video, **settings)
    second.load(tmp_path / "state.safetensors")
    found += second.push(Frames(whole.pixels_TCHW[29:], whole.seconds_T[29:])) + second.finish()
    for clip, other in zip(found, expected, strict=True):
        assert torch.equal(clip.scores_K, other.scores_K)
        assert torch.equal(clip.video_scores_K, other.video_scores_K)


def test_a_window_that_holds_all_clips_is_causal_and_a_short_one_is_not(packages, video):
    causal = run(stream_of(packages["last"], video), video)
    wide = run(stream_of(packages["last"], video, mode="window", window=100), video)
    short = run(stream_of(packages["last"], video, mode="window", window=1), video)
    for clip, other in zip(wide, causal, strict=True):
        torch.testing.assert_close(clip.scores_K, other.scores_K, rtol=0, atol=1e-6)
    assert not torch.allclose(short[-1].scores_K, causal[-1].scores_K, atol=1e-4)
    alone = Predictor(packages["last"], device="cpu", clips=replace(CLIPS, count=1))(video)
    torch.testing.assert_close(short[0].scores_K, alone.clip_scores_NK[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("aggregate", ["logits", "prob", "max"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_running_scores_follow_the_tasks_rule(tmp_path, video, aggregate, multi_label):
    one = load_package(package(tmp_path / "p", MEMORIES["none"], aggregate=aggregate, multi_label=multi_label))
    offline = Predictor(one, device="cpu", clips=CLIPS)(video)
    stream = stream_of(one, video)
    last = run(stream, video)[-1]
    torch.testing.assert_close(last.video_scores_K, offline.scores_K, rtol=0, atol=1e-6)
    assert json.dumps(last.to_dict(top=1))


def test_what_cannot_be_is_refused(packages, video, tmp_path):
    with pytest.raises(ConfigError, match="mode='sideways' is unknown"):
        stream_of(packages["last"], video, mode="sideways")
    with pytest.raises(ConfigError, match="'late_read' needs a single memory block in front of the head"):
        stream_of(packages["two"], video, mode="late_read")
    with pytest.raises(ConfigError, match="'ema' averages pushes"):
        stream_of(packages["max"], video, mode="ema")
    nonlocal_ = load_package(package(tmp_path / "nl", config.Memory(interaction="nl_dot", dim=8)))
    with pytest.raises(ConfigError, match="memory of fixed size"):
        stream_of(nonlocal_, video)
    stream_of(packages["last"], video, mode="window", window=2).save(tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match="was saved by a stream of"):
        stream_of(packages["last"], video, mode="window", window=3).load(tmp_path / "s.safetensors")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read"):
        stream_of(packages["last"], video).load(tmp_path / "empty")
