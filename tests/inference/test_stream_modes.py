"""Modes that read everything equal the offline model; parts of a video merge; models with a state of their own."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.inference.builders import CLASSES, moving_square, package
from tests.inference.stream_cases import CLIPS, MEMORIES, equal, memvit_package, run_file
from wholereel import config
from wholereel.cli.main import main
from wholereel.errors import CheckpointError, ConfigError
from wholereel.inference import Predictor
from wholereel.inference.stream import Stream
from wholereel.media.clip_assembly import ClipAssembler
from wholereel.media.frames import Frames
from wholereel.media.model_input import to_model_input
from wholereel.media.video_reader import VideoReader
from wholereel.models.package import Package, load_package, save_package
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel

ALL = {**MEMORIES, "nl": config.Memory(interaction="nl_softmax", dim=8, after=("layer1", "last"))}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return moving_square(tmp_path_factory.mktemp("video") / "square.mp4", frames=77, right=True, seed=1)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return moving_square(tmp_path_factory.mktemp("video") / "short.mp4", frames=33, right=True, seed=1)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return {name: load_package(package(folder / name, memory)) for name, memory in ALL.items()}


@pytest.mark.parametrize("rate", [None, 7.0])
@pytest.mark.parametrize(("mode", "name"), [*(("two_sweep", n) for n in ALL), ("late_read", "last")])
def test_modes_that_read_everything_say_what_the_offline_model_says(packages, video, mode, name, rate):
    clips = replace(CLIPS, frame_rate=rate)
    offline = Predictor(packages[name], device="cpu", clips=clips)(video)
    random = np.random.default_rng(3)
    for _ in range(2):
        stream, found = run_file(packages[name], video, random.integers(1, 30, 5).tolist(), mode=mode, clips=clips)
        final = [clip for clip in found if clip.final]
        assert [clip.number for clip in final] == list(range(len(offline.seconds_N2)))
        torch.testing.assert_close(torch.stack([c.scores_K for c in final]), offline.clip_scores_NK, rtol=0, atol=2e-6)
        torch.testing.assert_close(stream.video_scores(), offline.scores_K, rtol=0, atol=2e-6)
        times_N2 = torch.tensor([(clip.begin, clip.end) for clip in final], dtype=torch.float64)
        torch.testing.assert_close(times_N2, offline.seconds_N2)
        assert stream.sweeps == (1 if mode == "late_read" else 3 if name in ("two", "nl") else 1 + (name != "none"))


@pytest.mark.parametrize("name", ["mvit_tiny", "slowfast_8x8_50", "tiny_r2plus1d"])
def test_networks_of_tokens_and_of_two_pathways_too(short, name):
    torch.manual_seed(6)  # random weights to which the clips of this video look different
    narrow = {"width": 24} if name == "mvit_tiny" else {"width": 16} if name.startswith("slowfast") else {}
    clip_model = create_model(name, num_classes=2, **narrow)
    stages = list(clip_model.stages)
    clips, info = config.Clips(plan="contiguous", count=1000, frames=8, stride=1), clip_model.info
    kinds = {"dim": 8, "infusion": "residual", "position_norm": "mean"}
    for memory in (config.Memory(**kinds), config.Memory(**kinds, after=(stages[1], "last"), pathway="slow")):
        model = VideoModel(clip_model, memory).eval()
        for parameter in model.memories.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        spec = config.Model(name, memory=memory)
        loaded = Package(model, spec, CLASSES, config.Task(), clips, 36, 32, info.mean, info.std, {})
        offline = Predictor(loaded, device="cpu")(short)
        alone = Predictor(loaded, device="cpu", clips=replace(clips, count=1))(short).clip_scores_NK[0]
        assert not torch.allclose(alone, offline.clip_scores_NK[0], rtol=0, atol=1e-4)  # the memory matters
        modes = ("two_sweep",) if len(memory.after) > 1 else ("two_sweep", "late_read")
        for mode in modes:
            final = [clip.scores_K for clip in run_file(loaded, short, (4, 7), mode=mode)[1] if clip.final]
            torch.testing.assert_close(torch.stack(final), offline.clip_scores_NK, rtol=0, atol=5e-6)
        causal = run_file(loaded, short, (4, 7))[1]
        assert len(causal) == 5
        if len(memory.after) == 1:
            torch.testing.assert_close(causal[-1].scores_K, offline.clip_scores_NK[-1], rtol=0, atol=5e-6)


def test_late_read_keeps_so_many_bytes_a_clip(packages, short):
    """Its query and its features in single precision, its number and times in double; in blocks of 256 clips."""
    package_ = packages["last"]
    engine = Stream(package_, device="cpu", mode="late_read")._engine
    track, clip = engine.track(), assembled(short, package_, None)[0]
    width, keys = package_.model.clip_model.num_features, package_.model.blocks()[0][1].mem_dim
    for number in range(300):
        engine.judge_clips([track], [replace(clip, number=number)])
        if number in (0, 255, 256, 299):
            held = track.state.queries.nbytes + track.state.pooled.nbytes + track._times.nbytes
            assert held == -(-(number + 1) // 256) * 256 * (4 * (keys + width) + 24)
    assert sum(tensor.numel() for tensor in track.state.memory.as_dict().values()) < 10 * keys * width
    lists = [value for value in [*vars(track).values(), *vars(track.state).values()] if isinstance(value, list)]
    assert lists == []


@pytest.mark.parametrize("settings", [{"mode": "two_sweep"}, {"mode": "late_read"}, {"mode": "causal", "hop": 3}])
@pytest.mark.parametrize("rate", [None, 7.0])
def test_parts_that_were_read_apart_merge_to_the_whole(packages, video, tmp_path, settings, rate):
    settings = {**settings, "clips": replace(CLIPS, frame_rate=rate)}
    _, whole = run_file(packages["last"], video, **settings)
    streams = []
    for number in (1, 2, 3):
        stream = Stream(packages["last"], device="cpu", **settings)
        said = list(stream.run(video, part=(number, 3), state=tmp_path / f"{number}"))
        assert all(not clip.final for clip in said) or settings["mode"] == "causal"
        streams.append(Stream(packages["last"], device="cpu", **settings))
        streams[-1].load(tmp_path / f"{number}")
    merged = Stream(packages["last"], device="cpu", **settings)
    merged.merge(streams[2], streams[0], streams[1])
    found = list(merged.run(video))
    if settings["mode"] == "causal":
        whole_stream, _ = run_file(packages["last"], video, **settings)
        ours, theirs = merged._track.state, whole_stream._track.state
        torch.testing.assert_close(ours.places[0].sum_BPV, theirs.places[0].sum_BPV)
        assert torch.equal(ours.clips_B, theirs.clips_B)
        assert merged.clips_seen == len(whole)
    else:
        equal(found, [clip for clip in whole if clip.final], exact=False)
    with pytest.raises(ConfigError, match="consecutive stretches"):
        merged.merge(streams[0])


def test_what_cannot_be_is_refused(packages, video, tmp_path):
    stream = Stream(packages["last"], device="cpu", mode="two_sweep")
    frames = Frames(torch.zeros(1, 3, 36, 48, dtype=torch.uint8), torch.zeros(1, dtype=torch.float64))
    with pytest.raises(
        ConfigError, match=r"reads a video 2 times, which push does not allow.*'late_read' says the same"
    ):
        stream.push(frames)
    with pytest.raises(ConfigError, match="a source that is not a file does not allow"):
        list(stream.run([frames]))
    with pytest.raises(ConfigError, match="part 3/2"):
        list(stream.run(video, part=(3, 2)))
    with pytest.raises(ConfigError, match=r"part 1/99 holds no clip: the video has 3"):
        list(Stream(packages["last"], device="cpu", clips=CLIPS, hop=60).run(video, part=(1, 99)))
    with pytest.raises(ConfigError, match="part=... needs a file"):
        list(Stream(packages["last"], device="cpu").run([frames], part=(1, 2)))
    with pytest.raises(ConfigError, match="needs hop >= 1"):
        Stream(packages["last"], device="cpu", hop=0)
    other = moving_square(tmp_path / "other.mp4", frames=20, right=True, seed=1)
    stream = Stream(packages["last"], device="cpu", clips=CLIPS)
    list(stream.run(video))
    with pytest.raises(CheckpointError, match=r"other.mp4: has 20 frames, expected the video of 77 frames"):
        list(stream.run(other))
    with pytest.raises(ConfigError, match="different settings cannot be merged"):
        stream.merge(Stream(packages["last"], device="cpu", clips=CLIPS, hop=2))
    two = [Stream(packages["two"], device="cpu", clips=CLIPS, mode="two_sweep") for _ in range(2)]
    for number, half in enumerate(two, start=1):
        with pytest.raises(ConfigError, match="where a model has one memory block, .* this one has blocks at layer1"):
            list(half.run(video, part=(number, 2)))


def long_pass(model, frames_TCHW, package_, hop):
    """MeMViT over the clips of a video by hand."""
    state, said = model.init_state(1, pending=False), []
    for begin in range(0, len(frames_TCHW) - 3, hop):
        clip = frames_TCHW[begin : begin + 4, :, 2:34, 8:40]
        x = to_model_input(clip[None], mean=package_.mean, std=package_.std)
        logits, state = model(x, state)
        said.append(logits[0])
    return said


@torch.no_grad()
@pytest.mark.parametrize("frame_level", [False, True])
@pytest.mark.parametrize("hop", [None, 2, 6])
def test_memvit_is_streamed_with_its_own_state(short, tmp_path, frame_level, hop):
    package_ = memvit_package(frame_level=frame_level)
    _, found = run_file(package_, short, (5, 1, 9), hop=hop)
    with VideoReader(short, size=36) as reader:
        whole = reader.read(indices=range(33))
    expected = long_pass(package_.model, whole.pixels_TCHW, package_, hop or 4)
    assert len(found) == len(expected) + 1  # of what is left
    for clip, logits in zip(found, expected, strict=False):
        assert clip.final
        if frame_level:
            torch.testing.assert_close(clip.frame_scores_TK, logits.softmax(-1), rtol=0, atol=1e-6)
            assert clip.frame_seconds_T.tolist() == pytest.approx([clip.begin + i / 10 for i in range(4)])
        else:
            torch.testing.assert_close(clip.scores_K, logits.softmax(-1), rtol=0, atol=1e-6)
    forgetful = Stream(package_, device="cpu", hop=hop)
    fourth = assembled(short, package_, hop)[3]
    alone = forgetful._engine.judge_clips([forgetful._engine.track()], [fourth])[0]
    assert not torch.allclose(alone.scores_K, found[3].scores_K, atol=1e-4)  # the memory matters
    part = Stream(package_, device="cpu", hop=hop)
    said = part.push(Frames(whole.pixels_TCHW[:15], whole.seconds_T[:15]))
    part.save(tmp_path / "state")
    rest = Stream(package_, device="cpu", hop=hop)
    rest.load(tmp_path / "state")
    said += rest.push(Frames(whole.pixels_TCHW[15:], whole.seconds_T[15:])) + rest.finish()
    for clip, other in zip(said, found, strict=True):
        assert torch.equal(clip.scores_K, other.scores_K)


def assembled(video, package_, hop):
    assembler = ClipAssembler(package_.clips, frame_rate=10.0, hop=hop)
    with VideoReader(video, size=36) as reader:
        return [clip for frames in reader.stream() for clip in assembler.push(frames)]


@torch.no_grad()
def test_frames_left_at_the_end_are_padded_and_only_they_are_named(video):
    package_ = memvit_package(frame_level=True, causal=True)
    _, found = run_file(package_, video)  # 77 frames: one is left of the 20th clip
    assert len(found) == 20
    assert [len(clip.frame_scores_TK) for clip in found[-2:]] == [4, 1]
    assert found[-1].frame_seconds_T.tolist() == pytest.approx([7.6])
    assert len(found[-1].to_dict()["frames"]) == 1
    # Frames behind the end, repeats of the last one or not, change nothing of frames that exist; but for the one before
    # them, since the first convolution looks one frame ahead.
    with VideoReader(video, size=36) as reader:
        whole = reader.read(indices=range(76))
    said = Stream(package_, device="cpu", frame_rate=10.0)
    cut = said.push(Frames(whole.pixels_TCHW[:74], whole.seconds_T[:74])) + said.finish()
    torch.testing.assert_close(cut[-1].frame_scores_TK[:1], found[18].frame_scores_TK[:1], rtol=0, atol=1e-6)
    assert len(cut[-1].frame_scores_TK) == 2


@torch.no_grad()
def test_a_causal_stem_sees_one_long_video_and_padding_touches_nothing(video, monkeypatch):
    """Clip by clip through the stem is one pass over the whole video; frames behind the end change no output."""
    package_ = memvit_package(frame_level=True, causal=True, causal_stem=True)
    stem = package_.model.patch_embed
    tokens, forward = [], type(stem).forward
    monkeypatch.setattr(
        type(stem), "forward", lambda self, x, before=None: tokens.append(forward(self, x, before)) or tokens[-1]
    )
    _, found = run_file(package_, video, (3, 11))
    with VideoReader(video, size=36) as reader:
        whole = reader.read(indices=range(77))
    long_1CTHW = to_model_input(whole.pixels_TCHW[None, ..., 2:34, 8:40], mean=package_.mean, std=package_.std)
    expected_1LD = forward(stem, long_1CTHW)
    torch.testing.assert_close(torch.cat(tokens, 1)[:, : expected_1LD.shape[1]], expected_1LD, rtol=0, atol=1e-5)
    for frames in (73, 74, 75):
        stream = Stream(package_, device="cpu", frame_rate=10.0)
        cut = stream.push(Frames(whole.pixels_TCHW[:frames], whole.seconds_T[:frames])) + stream.finish()
        assert len(cut[-1].frame_scores_TK) == frames - 72
        torch.testing.assert_close(cut[-1].frame_scores_TK, found[18].frame_scores_TK[: frames - 72], rtol=0, atol=1e-6)


def test_label_spaces_are_judged_apart(video):
    stream, found = run_file(memvit_package(spaces=True), video)
    for clip in found:
        assert float(clip.scores_K[:2].sum()) == pytest.approx(1, abs=1e-6)
        assert float(clip.scores_K[2:].sum()) == pytest.approx(1, abs=1e-6)
        record = clip.to_dict(1)
        assert set(record["top"]) == set(record["video_top"]) == {"verb", "noun"}
        assert clip.label == f"{record['top']['verb'][0][0]} · {record['top']['noun'][0][0]}"
    assert torch.equal(stream.video_scores(), found[-1].video_scores_K)
    multi = dataclasses.replace(memvit_package(spaces=True, frame_level=True), task=config.Task(aggregate="max"))
    for clip in run_file(multi, video)[1]:
        assert clip.frame_scores_TK.shape[1] == 5
        torch.testing.assert_close(clip.frame_scores_TK[:, 2:].sum(1), torch.ones(len(clip.frame_scores_TK)))


def test_a_model_that_was_trained_on_streams_is_used_at_their_distance(video):
    trained = dataclasses.replace(memvit_package(), streams=config.Streams(hop=0.6))
    _, found = run_file(trained, video)
    assert [round(clip.begin, 3) for clip in found[:3]] == [0.0, 0.6, 1.2]
    _, other = run_file(trained, video, hop=4)
    assert [round(clip.begin, 3) for clip in other[:3]] == [0.0, 0.4, 0.8]
    rated = dataclasses.replace(trained, clips=config.Clips(frames=4, stride=1, frame_rate=5.0))
    _, slow = run_file(rated, video)
    assert [round(clip.begin, 3) for clip in slow[:3]] == [0.0, 0.6, 1.2]


def test_a_package_on_disk_is_streamed_by_the_command(video, tmp_path):
    loaded = memvit_package(frame_level=True)
    save_package(
        tmp_path / "run",
        loaded.model,
        spec=config.Model("memvit_tiny", options={"frame_level": True}),
        num_classes=2,
        classes=loaded.classes,
        task=loaded.task,
        input={"mean": loaded.mean, "std": loaded.std, "short_side": 36, "crop": 32, "clips": loaded.clips},
    )
    words = ["stream", str(tmp_path / "run"), str(video), "--device", "cpu", "--hop", "5"]
    assert main([*words, "--out", str(tmp_path / "lines")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    _, expected = run_file(loaded, video, hop=5)
    assert lines == json.loads(json.dumps([clip.to_dict(3) for clip in expected]))
    assert [frame["second"] for frame in lines[1]["frames"]] == [0.5, 0.6, 0.7, 0.8]


def test_models_with_their_own_state_know_one_mode(video):
    package_ = memvit_package()
    for mode in ("late_read", "two_sweep", "window", "ema"):
        with pytest.raises(ConfigError, match=f"mode='{mode}' is about memories that clips push into; MeMViT carries"):
            Stream(package_, mode=mode, device="cpu")
    one = Stream(package_, device="cpu")
    with pytest.raises(ConfigError, match="parts cannot be merged"):  # and not after a part has been read
        list(one.run(video, part=(1, 2)))
    assert one.clips_seen == 0
    state = one._engine.judge.begin()
    with pytest.raises(ConfigError, match="parts cannot be merged"):
        one._engine.judge.merge(state, state)
    with pytest.raises(ConfigError, match="judges boxes, and a stream has none"):
        Stream(dataclasses.replace(package_, model=boxed()), device="cpu")


def boxed():
    model = memvit_package().model
    model.boxes = object()
    return model


def test_a_long_video_takes_no_more_of_the_device(packages):
    random = torch.Generator().manual_seed(0)
    sizes = {}
    for mode in ("causal", "late_read"):
        stream = Stream(packages["last"], device="cpu", mode=mode, clips=config.Clips(frames=4, stride=1))
        held = []
        for clip in range(400):
            pixels = torch.randint(256, (4, 3, 36, 36), generator=random, dtype=torch.uint8)
            stream.push(Frames(pixels, torch.arange(4 * clip, 4 * clip + 4, dtype=torch.float64)))
            memory = stream._track.state.memory if mode == "late_read" else stream._track.state
            held.append(sum(tensor.nbytes for tensor in memory.as_dict().values()))
        assert stream.clips_seen == 400
        sizes[mode] = set(held)
        assert len(stream._track.assembler._line) == 0 or len(stream._track.assembler._line) <= 4
    assert all(len(found) == 1 for found in sizes.values()), sizes


def test_a_gap_ends_a_clip_and_another_size_does(packages):
    clips = config.Clips(frames=4, stride=1)
    stream = Stream(packages["last"], device="cpu", clips=clips, longest_gap=1.0)
    pixels = torch.zeros(6, 3, 36, 36, dtype=torch.uint8)
    seconds = torch.tensor([0, 0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    said = stream.push(Frames(pixels, seconds))
    said += stream.push(Frames(pixels, seconds + 60))
    said += stream.push(Frames(torch.zeros(6, 3, 36, 48, dtype=torch.uint8), seconds + 61))
    said += stream.finish()
    assert [clip.number for clip in said] == [0, 1, 2, 3, 4, 5]
    begins = [round(clip.begin, 3) for clip in said]
    assert begins == [0.0, 0.2, 60.0, 60.2, 61.0, 61.2]
    assert all(clip.end - clip.begin < 1 for clip in said)
    later = stream.push(Frames(pixels, seconds + 90))  # a source that returned after its end
    assert [clip.number for clip in later] == [6]


@pytest.mark.parametrize("hop", [1, 3, 8, 11])
@pytest.mark.parametrize("frames", [1, 7, 8, 9, 23, 40])
def test_the_number_of_clips_is_known_before(frames, hop):
    for rate in (None, 10.0, 6.0, 25.0):
        for tail in ("align", "pad"):
            assembler = ClipAssembler(replace(CLIPS, frame_rate=rate), frame_rate=10.0, hop=hop, tail=tail)
            expected = assembler.clip_total(frames)
            pixels = torch.zeros(frames, 3, 4, 4, dtype=torch.uint8)
            found = assembler.push(Frames(pixels, torch.arange(frames, dtype=torch.float64) / 10)) + assembler.finish()
            assert len(found) == expected
            assert all(1 <= clip.real <= 4 for clip in found)
            starts = [clip.seconds_T[0].item() for clip in found]
            assert starts == sorted(starts)
