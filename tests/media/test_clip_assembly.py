"""Clips of any hop and tail against a reader that has the whole video; chunks and interruptions change nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wholereel import config
from wholereel.errors import ConfigError
from wholereel.media.clip_assembly import ClipAssembler
from wholereel.media.clip_plans import plan_clips
from wholereel.media.frames import Frames


@dataclass(frozen=True)
class Case:
    frames: int
    clip_frames: int
    stride: int
    hop: int
    tail: str
    rate: float | None
    target: float | None


cases = st.builds(
    Case,
    frames=st.integers(1, 60),
    clip_frames=st.integers(1, 5),
    stride=st.integers(1, 3),
    hop=st.integers(1, 20),
    tail=st.sampled_from(["align", "pad"]),
    rate=st.sampled_from([10.0]),
    target=st.sampled_from([None, 10.0, 4.0, 23.0]),
)


def video(count: int) -> Frames:
    """Frame t is a picture of value t, at t tenths of a second."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 1, 1)
    return Frames(pixels, torch.arange(count, dtype=torch.float64) / 10)


def oracle(case: Case) -> list[list[int]]:
    """Frames of each clip, from the whole video."""
    if case.target is None:
        line = list(range(case.frames))
    else:
        places = max(1, math.floor(case.frames / 10 * case.target + 1e-6))
        line = [min(case.frames - 1, math.floor(p / case.target * 10 + 1e-6)) for p in range(places)]
    span, starts = case.clip_frames * case.stride, []
    while starts == [] or starts[-1] + case.hop + span <= len(line):
        if starts == [] and span > len(line):
            break
        starts.append(starts[-1] + case.hop if starts else 0)
    following = starts[-1] + case.hop if starts else 0
    covered = starts[-1] + span if starts else 0
    if len(line) > (covered if case.tail == "align" else max(following, covered)):
        starts.append(following if case.tail == "pad" else max(0, len(line) - span))
    return [[line[min(s + i * case.stride, len(line) - 1)] for i in range(case.clip_frames)] for s in starts]


def assembler_of(case: Case) -> ClipAssembler:
    clips = config.Clips(frames=case.clip_frames, stride=case.stride, frame_rate=case.target)
    return ClipAssembler(clips, frame_rate=case.rate, hop=case.hop, tail=case.tail)


def shown(clips) -> list[list[int]]:
    return [clip.pixels_TCHW[:, 0, 0, 0].tolist() for clip in clips]


@settings(max_examples=60, deadline=None)
@given(case=cases, data=st.data())
def test_any_chunks_and_interruptions_give_the_clips_of_the_whole(case, data):
    whole, expected = video(case.frames), oracle(case)
    assembler, found, begin = assembler_of(case), [], 0
    assert assembler.clip_total(case.frames) == len(expected)
    while begin < case.frames:
        size = data.draw(st.integers(1, 17))
        for clip in assembler.feed(
            Frames(whole.pixels_TCHW[begin : begin + size], whole.seconds_T[begin : begin + size])
        ):
            found.append(clip)
            if data.draw(st.booleans()):  # stopped behind this clip, and gone on from the state
                again = assembler_of(case)
                again.load_state(assembler.state())
                size = again.frames_seen - begin
                assembler = again
                break
        begin += size
    found += assembler.finish()
    assert shown(found) == expected
    assert [clip.number for clip in found] == list(range(len(expected)))
    assert all(clip.begin <= clip.end for clip in found)


@settings(max_examples=40, deadline=None)
@given(case=cases, data=st.data())
def test_a_part_begins_in_the_midst_of_the_video(case, data):
    whole, expected = video(case.frames), oracle(case)
    first = data.draw(st.integers(0, len(expected) - 1))
    assembler = assembler_of(case)
    frame = assembler.start_at(first, whole.seconds_T)
    found = assembler.push(Frames(whole.pixels_TCHW[frame:], whole.seconds_T[frame:])) + assembler.finish()
    assert shown(found) == expected[first:]
    assert [clip.number for clip in found] == list(range(first, len(expected)))


def test_what_cannot_be_is_refused():
    for wrong in ({"hop": 0}, {"tail": "cut"}, {"longest_gap": 0.0}):
        with pytest.raises(ConfigError, match="needs hop >= 1, tail one of align, pad and longest_gap > 0; got"):
            ClipAssembler(config.Clips(), **wrong)


@pytest.mark.parametrize("hop", [2, 4, 7, 11])
def test_a_stream_that_ends_has_the_clips_of_the_plan(hop):
    """Also where hops are longer than clips, and the end lies between two of them."""
    clips = config.Clips(plan="contiguous", count=99, frames=4, hop=hop / 10)
    for frames in range(1, 40):
        planned = plan_clips(frames, 10.0, clips)
        assembler = ClipAssembler(clips, frame_rate=10.0, hop=hop)
        assert shown(assembler.push(video(frames)) + assembler.finish()) == planned.indices_NT.tolist()
