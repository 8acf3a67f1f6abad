"""Sound by time from encoded files: parts are slices of the whole, and moments are those of the pictures."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.media.nasty_files import early_header, encode, moving
from tests.media.sound_files import KINDS, flash_and_click, murmur, sound_file
from wholereel.errors import VideoError
from wholereel.media import VideoReader, write_video
from wholereel.media._sound_decoder import SoundDecoder
from wholereel.media.audio_clips import read_audio_clip
from wholereel.media.audio_reader import AudioReader, NoSoundError, _Source
from wholereel.media.byte_ranges import range_path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each kind, 2.3 seconds."""
    folder = tmp_path_factory.mktemp("sound")
    return {
        name: sound_file(folder / f"{name}{suffix}", codec, murmur(channels, int(2.3 * rate)), rate)
        for name, (codec, suffix, rate, channels) in KINDS.items()
    }


def decoded(path: Path) -> np.ndarray:
    """All samples in order, by PyAV alone."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("fltp")
        blocks = [block.to_ndarray() for frame in container.decode(stream) for block in resampler.resample(frame)]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def assert_slice(part, whole):
    """`part` is the slice of `whole` at its own start, zeros outside."""
    shift = round((part.start - whole.start) * whole.rate)
    assert part.start == pytest.approx(whole.start + shift / whole.rate, abs=1e-9)
    length, count = whole.wave_CS.shape[1], part.wave_CS.shape[1]
    begin, end = min(max(0, shift), length), max(0, min(shift + count, length))
    expected = torch.zeros_like(part.wave_CS)
    valid = torch.zeros_like(part.valid_S)
    if begin < end:
        expected[:, begin - shift : end - shift] = whole.wave_CS[:, begin:end]
        valid[begin - shift : end - shift] = whole.valid_S[begin:end]
    assert torch.equal(part.wave_CS, expected)
    assert torch.equal(part.valid_S, valid)


@pytest.mark.parametrize("name", KINDS)
def test_whole_files_equal_decoding_in_order(files, name):
    _, _, rate, channels = KINDS[name]
    with AudioReader(files[name]) as reader:
        sound = reader.read()
        assert (reader.rate, reader.channels) == (rate, channels)
        assert reader.metadata.begin == sound.start == 0.0
        assert not reader.metadata.truncated
    np.testing.assert_array_equal(sound.wave_CS.numpy(), decoded(files[name]))
    assert sound.valid_S.all()
    assert 2.298 < sound.seconds < 2.4


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("rate", "mono"), [(None, False), (16000, True), (24000, False)])
def test_any_part_is_a_slice_of_the_whole(files, name, rate, mono):
    draw = random.Random(name)
    with AudioReader(files[name], rate=rate, mono=mono) as reader:
        whole = reader.read()
        assert whole.wave_CS.shape[0] == (1 if mono else KINDS[name][3])
        assert whole.valid_S.all()
        windows = [(draw.uniform(-0.5, 2.6), draw.uniform(0, 0.8)) for _ in range(6)]
        for start, seconds in [*windows, (-1.0, 0.5), (5.0, 0.25), (0.0, 0.0), (2.29, 0.5), (-0.1, 3.0)]:
            part = reader.read(start=start, seconds=seconds)
            assert part.wave_CS.shape[1] == int(seconds * reader.rate + 0.5)
            assert abs(part.start - start) <= 0.5 / reader.rate + 1e-12
            assert_slice(part, whole)


@pytest.mark.parametrize("name", ["aac", "flac_mp4", "wav"])
@pytest.mark.parametrize("rate", [None, 12000])
def test_streaming_gives_the_whole_in_chunks(files, name, rate):
    with AudioReader(files[name], rate=rate) as reader:
        whole = reader.read()
        chunks = list(reader.stream(chunk=0.3))
        assert {chunk.wave_CS.shape[1] for chunk in chunks[:-1]} == {int(0.3 * reader.rate + 0.5)}
        assert torch.equal(torch.cat([chunk.wave_CS for chunk in chunks], 1), whole.wave_CS)
        rest = reader.read(start=1.0)
        assert_slice(rest, whole)
        assert rest.start + rest.seconds == pytest.approx(whole.start + whole.seconds)
        assert list(reader.stream(start=9.0)) == []
        assert reader.read(start=9.0).wave_CS.shape[1] == 0
        early = next(reader.stream(start=-0.5, chunk=1.0))
        assert not early.valid_S[: reader.rate // 2].any()
        assert early.valid_S[reader.rate // 2 :].all()


def test_lossless_sound_comes_back_to_the_bit(tmp_path):
    stored = np.random.default_rng(0).integers(-32768, 32767, (2, 33000), dtype=np.int16)
    pictures = np.zeros((20, 16, 16, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", pictures, frame_rate=10, gop=5, audio=(stored, 16000))
    sound = AudioReader(tmp_path / "a.mp4").read()
    assert torch.equal(sound.wave_CS, torch.from_numpy(stored).float() / 32768)
    mixed = AudioReader(tmp_path / "a.mp4", mono=True).read()
    torch.testing.assert_close(mixed.wave_CS, sound.wave_CS.mean(0, keepdim=True))


def test_a_long_file_is_entered_in_the_middle(tmp_path):
    rate = 8000
    stored = murmur(1, 40 * rate)
    for path in (tmp_path / "a.mp4", tmp_path / "a.flac", tmp_path / "a.wav"):
        codec = "pcm_s16le" if path.suffix == ".wav" else "flac"
        sound_file(path, codec, stored, rate)
        with AudioReader(path) as reader:
            whole = reader.read()
            for start in (35.0, 12.3, 12.4, 39.9, 3.0, 0.0, 30.0):
                assert_slice(reader.read(start=start, seconds=0.5), whole)
            fresh = AudioReader(path)
            position, _ = next(fresh._source.decoder.blocks(begin=35 * rate))
            assert 30 * rate < position <= 35 * rate
            assert_slice(next(reader.stream(start=33.0, chunk=2.0)), whole)


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("flac", ".mp4")])
def test_memory_does_not_grow_with_the_file(tmp_path, codec, suffix):
    rate = 8000
    path = sound_file(tmp_path / f"a{suffix}", codec, murmur(1, 40 * rate), rate)
    source = _Source(SoundDecoder(str(path)))
    for second in range(40):
        source.take(second * rate, rate)
        assert sum(block_CS.shape[1] for _, block_CS in source._kept) < 4 * rate
    source.take(0, rate)
    source.take(35 * rate, rate)
    assert sum(block_CS.shape[1] for _, block_CS in source._kept) < 4 * rate


# ---------------------------------------------------------------------------------------------------------------- time


def onsets(sound, threshold: float = 0.25) -> list[float]:
    """Times at which the level rises over a threshold after a pause."""
    loud = (sound.wave_CS[0].abs() > threshold).nonzero()[:, 0].tolist()
    firsts = [at for before, at in zip([-(10**9), *loud], loud, strict=False) if at - before > 0.05 * sound.rate]
    return [sound.start + at / sound.rate for at in firsts]


@pytest.mark.parametrize("frame_rate", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001)], ids=float)
@pytest.mark.parametrize(
    ("picture_start", "sound_start"), [(0, Fraction(1, 25)), (Fraction(2, 25), 0), (0, 0)], ids=str
)
@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_clicks_are_heard_when_flashes_are_seen(tmp_path, frame_rate, picture_start, sound_start, rate):
    times = [0.5, 1.31, 2.222]
    path = flash_and_click(
        tmp_path / "a.mp4",
        times,
        frame_rate=frame_rate,
        rate=rate,
        picture_start=Fraction(picture_start),
        sound_start=Fraction(sound_start),
    )
    expected = [time - float(picture_start) for time in times]  # second 0 is the first picture
    with VideoReader(path) as video:
        frames = video.read(indices=range(video.frame_count))
        bright = frames.pixels_TCHW.float().mean((1, 2, 3)) > 128
        flashes = frames.seconds_T[bright].tolist()
    assert all(0 <= time - flash < 1 / frame_rate for time, flash in zip(expected, flashes, strict=True))
    for asked in (None, 16000):
        with AudioReader(path, rate=asked) as reader:
            if not sound_start:
                assert reader.metadata.begin == pytest.approx(-float(picture_start), abs=1e-6)
            heard = onsets(reader.read())
            # The file's edit list says in milliseconds when a late stream begins; the encoder's lead-in is before it.
            assert -0.03 < reader.metadata.begin + float(picture_start) <= sound_start
            assert heard == pytest.approx(expected, abs=0.5e-3 if not sound_start else 1.5e-3)
            for moment in expected:  # also after a jump
                assert onsets(reader.read(start=moment - 0.2, seconds=0.4)) == pytest.approx([moment], abs=1.5e-3)
            lead = reader.read(start=-0.2, seconds=0.2 + max(0.0, reader.metadata.begin))
            assert int(lead.valid_S.sum()) == round(max(0.0, -reader.metadata.begin) * reader.rate)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mkv", "aac"), (".mkv", "libopus"), (".ts", "aac"), (".mpg", "mp2"), (".mov", "pcm_s16le"), (".flv", "aac")],
)
@pytest.mark.parametrize(("picture_start", "sound_start"), [(Fraction(2, 25), 0), (0, Fraction(1, 25))], ids=str)
def test_every_container_keeps_the_moment(tmp_path, suffix, codec, picture_start, sound_start):
    path = flash_and_click(
        tmp_path / f"a{suffix}",
        [0.5, 1.31, 2.222],
        frame_rate=Fraction(25),
        rate=44100 if suffix == ".flv" else 48000,
        picture_start=Fraction(picture_start),
        sound_start=Fraction(sound_start),
        codec=codec,
    )
    with AudioReader(path) as reader:
        heard = onsets(reader.read())
        # Matroska and FLV count in milliseconds.
        assert heard == pytest.approx([time - float(picture_start) for time in (0.5, 1.31, 2.222)], abs=1.1e-3)


def test_lost_packets_leave_marked_gaps(tmp_path):
    rate = 16000
    path = sound_file(tmp_path / "a.mp4", "flac", murmur(1, 3 * rate), rate, drop=lambda packet: packet in (3, 4, 8))
    with av.open(str(path)) as container:
        kept = [(packet.pts, packet.duration) for packet in container.demux(audio=0) if packet.size]
    # The muxer stretches the packet before a hole: what is missing is known from the decoder's own blocks.
    block = 1152
    missing = [*range(3 * block, 5 * block), *range(8 * block, 9 * block)]
    assert [pts for pts, _ in kept][3:6] == [5 * block, 6 * block, 7 * block]
    with AudioReader(path) as reader:
        sound = reader.read()
        assert (~sound.valid_S).nonzero()[:, 0].tolist() == missing
        assert not sound.wave_CS[:, missing].any()
        for start in (0.8, 0.1, 2.0, 1.5):
            assert_slice(reader.read(start=start, seconds=0.4), sound)
    intact = AudioReader(sound_file(tmp_path / "b.mp4", "flac", murmur(1, 3 * rate), rate)).read()
    assert torch.equal(sound.wave_CS[:, sound.valid_S], intact.wave_CS[:, sound.valid_S])


def test_a_clock_of_milliseconds_makes_no_gaps(tmp_path):
    path = sound_file(tmp_path / "a.mkv", "flac", murmur(1, 3 * 44100), 44100)
    sound = AudioReader(path).read()
    assert sound.wave_CS.shape == (1, 3 * 44100)
    assert sound.valid_S.all()


# -------------------------------------------------------------------------------------------------------------- faults


def test_files_without_sound(tmp_path):
    path = encode(tmp_path / "a.mp4", moving(10))
    with pytest.raises(NoSoundError, match=r"a.mp4: no sound stream \(streams: video\), expected a file with sound"):
        AudioReader(path)
    audio = read_audio_clip(path, [0.0, 0.2], 0.25, 16000)
    assert audio.wave_BNCS.shape == (1, 2, 1, 4000)
    assert not audio.wave_BNCS.any()
    assert audio.present_BN.tolist() == [[False, False]]


def test_files_that_are_no_media(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video at all, " * 50)
    (tmp_path / "empty.wav").write_bytes(b"")
    for name, reason in (
        ("text.mp4", "cannot be opened"),
        ("empty.wav", r"is empty \(0 bytes\)"),
        ("none.mp3", "no such file"),
    ):
        with pytest.raises(VideoError, match=f"{name}: {reason}"):
            AudioReader(tmp_path / name)
    with pytest.raises(VideoError, match="no such file"):
        read_audio_clip(tmp_path / "none.mp3", 0.0, 1.0, 16000)


@pytest.mark.parametrize(
    ("name", "suffix", "muxer"), [("flac", ".mp4", {"movflags": "faststart"}), ("pcm_s16le", ".wav", {})]
)
def test_files_that_are_cut_off_give_what_decodes_and_say_so(tmp_path, name, suffix, muxer):
    rate = 16000
    path = sound_file(tmp_path / f"a{suffix}", name, murmur(1, 4 * rate), rate, muxer=muxer)
    intact = AudioReader(path).read()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with AudioReader(path) as reader:
        assert reader.metadata.truncated
        sound = reader.read()
        assert sound.truncated
        count = sound.wave_CS.shape[1]
        assert 1.5 * rate < count < 3 * rate
        assert torch.equal(sound.wave_CS, intact.wave_CS[:, :count])
        assert not reader.read(start=0.5, seconds=0.5).truncated
        beyond = reader.read(start=1.4, seconds=2.0)
        assert beyond.truncated
        assert_slice(beyond, sound)
        assert [chunk.truncated for chunk in reader.stream(chunk=10.0)] == [True]


def test_bytes_overwritten_in_the_middle_spoil_only_their_surroundings(tmp_path):
    rate = 16000
    path = sound_file(tmp_path / "a.mp4", "flac", murmur(1, 3 * rate), rate)
    intact = AudioReader(path).read()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 500] = bytes(500)
    path.write_bytes(data)
    sound = AudioReader(path).read()
    assert sound.wave_CS.shape == intact.wave_CS.shape
    same = sound.wave_CS[0] == intact.wave_CS[0]
    assert same.float().mean() > 0.6
    assert same[: rate // 2].all()
    assert same[-rate // 2 :].all()


def test_settings_that_cannot_be(files):
    with pytest.raises(ValueError, match="rate must be at least 1"):
        AudioReader(files["wav"], rate=0)
    with pytest.raises(NoSoundError, match="no sound stream number 1"):
        AudioReader(files["wav"], stream=1)
    reader = AudioReader(files["wav"])
    for wrong in ({"start": float("nan")}, {"start": 0.0, "seconds": -1.0}, {"seconds": float("inf")}):
        with pytest.raises(ValueError, match="must be"):
            reader.read(**wrong)
    with pytest.raises(ValueError, match="chunk must be at least one sample"):
        next(reader.stream(chunk=0.0))
    reader.close()
    reader.close()
    with pytest.raises(ValueError, match="the reader is closed"):
        reader.read()


# ---------------------------------------------------------------------------------------------------- clips and sharing


def test_clips_come_in_the_order_asked_for(files):
    starts = [1.5, 0.2, 1.5, 7.0, -0.1]
    audio = read_audio_clip(files["aac"], starts, 0.3, 16000)
    assert audio.rate == 16000
    assert audio.present_BN.tolist() == [[True, True, True, False, True]]
    with AudioReader(files["aac"], rate=16000, mono=True) as reader:
        for clip, start in enumerate(starts):
            assert torch.equal(audio.wave_BNCS[0, clip], reader.read(start=start, seconds=0.3).wave_CS)
    single = read_audio_clip(files["aac"], 0.2, 0.3, 16000)
    assert torch.equal(single.wave_BNCS[0, 0], audio.wave_BNCS[0, 1])


def test_a_file_inside_another_one(files, tmp_path):
    for name in ("aac", "wav", "mp3_avi", "flac"):
        data = files[name].read_bytes()
        (tmp_path / "shard.tar").write_bytes(b"\1" * 1000 + data + b"\2" * 700)
        path = range_path(tmp_path / "shard.tar", 1000, len(data), files[name].suffix)
        with AudioReader(path) as inside, AudioReader(files[name]) as outside:
            assert torch.equal(inside.read().wave_CS, outside.read().wave_CS)
            assert not inside.metadata.truncated


def test_pictures_inside_another_file(tmp_path):
    data = early_header(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "shard.tar").write_bytes(b"\1" * 1000 + data + b"\2" * 700)
    inside = VideoReader(range_path(tmp_path / "shard.tar", 1000, len(data)))
    outside = VideoReader(tmp_path / "a.mp4")
    assert inside.frame_count == outside.frame_count
    assert torch.equal(inside.read(indices=[40, 3]).pixels_TCHW, outside.read(indices=[40, 3]).pixels_TCHW)
    with pytest.raises(VideoError, match=r"none.tar#0\+10: no such file"):
        VideoReader(range_path(tmp_path / "none.tar", 0, 10))


def _read_in_child(reader, queue):
    queue.put(reader.read(start=1.0, seconds=0.5).wave_CS.numpy())


def test_readers_survive_forks_pickling_and_threads(files):
    reader = AudioReader(files["aac"], rate=16000, mono=True)
    expected = reader.read(start=1.0, seconds=0.5).wave_CS
    assert torch.equal(pickle.loads(pickle.dumps(reader)).read(start=1.0, seconds=0.5).wave_CS, expected)  # noqa: S301
    if hasattr(os, "fork"):
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=_read_in_child, args=(reader, queue))
        child.start()
        np.testing.assert_array_equal(queue.get(), expected.numpy())
        child.join()
    results: list[torch.Tensor] = []
    threads = [
        threading.Thread(target=lambda: results.append(reader.read(start=1.0, seconds=0.5).wave_CS)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, expected) for result in results)
    assert len(results) == 4
