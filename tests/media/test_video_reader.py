"""The reader returns what decoding in order returns, for well-behaved and for awkward files."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import threading
from multiprocessing import get_context
from pathlib import Path

import av
import av.error
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.media import nasty_files
from wholereel.errors import VideoError
from wholereel.media import Frames, VideoReader, probe_video, write_video
from wholereel.media._decoder import Decoder

CASES = [(name, suffix) for name, (_, suffixes) in nasty_files.EXACT.items() for suffix in suffixes]


def decode_in_order(path: Path) -> tuple[Tensor, list[int | None]]:
    """The definition of right: pixels THWC and stored times of every frame; packets that do not decode give none."""
    pictures, ticks = [], []
    with av.open(str(path)) as container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        codec = streams[0].codec_context
        codec.thread_count = 1
        for packet in container.demux(streams[0]):
            try:
                frames = codec.decode(packet if packet.size else None)
            except av.error.FFmpegError:
                continue
            for frame in frames:
                picture = frame.to_ndarray(format="rgb24")
                pictures.append(torch.from_numpy(np.rot90(picture, round(frame.rotation / 90) % 4).copy()))
                ticks.append(frame.pts)
    return torch.stack(pictures), ticks


def pixels_THWC(frames: Frames) -> Tensor:
    return frames.pixels_TCHW.permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[Path, Tensor]:
    path = folder / "plain.mp4"
    write_video(path, nasty_files.moving(60), frame_rate=25, gop=12)
    return path, decode_in_order(path)[0]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "".join(case))
def nasty(request: pytest.FixtureRequest, folder: Path) -> tuple[Path, Tensor, list[int | None]]:
    name, suffix = request.param
    path = nasty_files.EXACT[name][0](folder / f"{name}{suffix}")
    return path, *decode_in_order(path)


def test_random_access_equals_decoding_in_order(nasty: tuple[Path, Tensor, list[int | None]]) -> None:
    path, expected_THWC, _ = nasty
    count = len(expected_THWC)
    draw = random.Random(0)
    with VideoReader(path) as reader:
        assert reader.frame_count == count
        for index in draw.sample(range(count), min(count, 12)):
            assert torch.equal(pixels_THWC(reader.read(indices=[index]))[0], expected_THWC[index]), index
        several = [draw.randrange(count) for _ in range(10)]
        found = reader.read(indices=several)
        assert torch.equal(pixels_THWC(found), expected_THWC[several])
        assert torch.equal(found.seconds_T, reader.seconds_T[several])
        assert torch.equal(pixels_THWC(reader.read(seconds=found.seconds_T)), expected_THWC[several])
        streamed = list(reader.stream(chunk=7))
        assert torch.equal(torch.cat([pixels_THWC(f) for f in streamed]), expected_THWC)
        assert torch.equal(torch.cat([f.seconds_T for f in streamed]), reader.seconds_T)
        assert not found.truncated


def test_no_packet_more_than_needed_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, taken = nasty_files.b_frames(folder / "counted.mp4"), []
    decode = Decoder._decode

    def counting(self: Decoder, packet: av.Packet, *, strict: bool) -> list[av.VideoFrame]:
        taken.append(packet.pts)
        return decode(self, packet, strict=strict)

    with VideoReader(path) as reader, av.open(str(path)) as container:
        keys = [p.pts for p in container.demux(video=0) if p.is_keyframe]
        step = reader.metadata.time_base.denominator // 25
        reader.read(indices=[0])  # the header and the first frame are known now
        monkeypatch.setattr(Decoder, "_decode", counting)
        reader.read(indices=[key // step for key in keys])
    assert taken == keys  # though the decoder of such a file holds every picture back until two more have come


def test_an_interlaced_file_is_read_without_cutting_the_decoder_short(folder: Path) -> None:
    path = nasty_files.interlaced(folder / "fields.mp4")
    with VideoReader(path) as reader:
        reader.read(indices=[2])
        assert not reader._decoder._drains


def test_times_increase_from_zero(nasty: tuple[Path, Tensor, list[int | None]]) -> None:
    path, _, ticks = nasty
    with VideoReader(path) as reader:
        seconds_T, time_base = reader.seconds_T, reader.metadata.time_base
    assert seconds_T[0] == 0
    assert (seconds_T.diff() > 0).all()
    known = [t for t in ticks if t is not None]
    if len(known) == len(ticks) and all(b > a for a, b in itertools.pairwise(known)):
        expected = torch.tensor([float((t - known[0]) * time_base) for t in known], dtype=torch.float64)
        torch.testing.assert_close(seconds_T, expected, rtol=0, atol=1e-9)
    else:
        torch.testing.assert_close(seconds_T, torch.arange(len(ticks), dtype=torch.float64) / 25, rtol=0, atol=1e-9)


def test_damage_inside_a_file_is_noticed_and_then_counted(folder: Path) -> None:
    path = nasty_files.damaged(folder / "damaged.mp4")
    expected_THWC, _ = decode_in_order(path)
    with VideoReader(path) as reader:
        streamed = torch.cat([pixels_THWC(f) for f in reader.stream()])
        assert torch.equal(streamed, expected_THWC)
        assert reader.frame_count == len(expected_THWC)
        assert torch.equal(pixels_THWC(reader.read(indices=[48, 3, 24])), expected_THWC[[48, 3, 24]])


def test_time_picks_the_frame_that_has_begun(plain: tuple[Path, Tensor]) -> None:
    with VideoReader(plain[0]) as reader:
        tick = float(reader.metadata.time_base)
        asked = [-1.0, 0.0, 0.0399, 0.04 - 0.4 * tick, 0.04 - 0.6 * tick, 0.041, 1.0, 2.36, 1e9]
        found = reader.read(seconds=asked).seconds_T
        torch.testing.assert_close(
            found, torch.tensor([0, 0, 0, 0.04, 0, 0.04, 1.0, 2.36, 2.36], dtype=torch.float64), rtol=0, atol=1e-9
        )
        assert torch.equal(
            reader.read(seconds=torch.tensor([0.5])).seconds_T, torch.tensor([0.48], dtype=torch.float64)
        )


def test_order_and_repeats_are_kept(plain: tuple[Path, Tensor]) -> None:
    asked = [40, 3, 3, 59, 0, 40, 12, 11]
    with VideoReader(plain[0]) as reader:
        assert torch.equal(pixels_THWC(reader.read(indices=asked)), plain[1][asked])
        assert len(reader.read(indices=[])) == 0


def test_wrong_questions_are_answered_with_numbers(plain: tuple[Path, Tensor]) -> None:
    with VideoReader(plain[0]) as reader:
        with pytest.raises(IndexError, match=r"frame 60 of a video of 60 frames"):
            reader.read(indices=[0, 60])
        with pytest.raises(IndexError, match=r"frame -1 of a video of 60 frames"):
            reader.read(indices=[-1])
        with pytest.raises(ValueError, match="either indices or seconds"):
            reader.read()
        with pytest.raises(ValueError, match="not a number"):
            reader.read(seconds=[float("nan")])
        with pytest.raises(ValueError, match="chunk must be at least 1"):
            next(reader.stream(chunk=0))
    with pytest.raises(ValueError, match="closed"):
        reader.read(indices=[0])
    with pytest.raises(ValueError, match="size must be positive"):
        VideoReader(plain[0], size=0)


def test_metadata(plain: tuple[Path, Tensor], folder: Path) -> None:
    found = probe_video(plain[0])
    assert (found.width, found.height, found.rotation, found.frame_rate, found.frame_count) == (64, 48, 0, 25.0, 60)
    assert (found.codec, found.pixel_format, found.has_audio, found.begin) == ("h264", "yuv420p", False, 0.0)
    assert found.duration == pytest.approx(2.4)
    turned = probe_video(nasty_files.rotated(folder / "turned.mp4"))
    assert (turned.width, turned.height) == (48, 64)
    assert turned.rotation in (90, 270)
    assert probe_video(nasty_files.late_start(folder / "late.mkv")).begin == pytest.approx(20.0)
    assert probe_video(nasty_files.vp8(folder / "count.webm")).frame_count is None
    assert probe_video(nasty_files.cover_art(folder / "cover.mp4")).codec == "h264"


@pytest.mark.parametrize(("size", "expected"), [(24, (24, 32)), (37, (37, 49)), ((30, 20), (30, 20)), (48, (48, 64))])
def test_scaled_frames(plain: tuple[Path, Tensor], size: int | tuple[int, int], expected: tuple[int, int]) -> None:
    with VideoReader(plain[0], size=size) as reader:
        found = reader.read(indices=[5, 50]).pixels_TCHW
    assert tuple(found.shape[2:]) == expected
    native_TCHW = plain[1][[5, 50]].permute(0, 3, 1, 2)
    if expected == (48, 64):
        assert torch.equal(found, native_TCHW)
    resized = torch.nn.functional.interpolate(native_TCHW.float(), size=expected, mode="bilinear", antialias=True)
    # Another order of scaling and colour conversion: chroma differs at hard edges, the mean may not.
    assert (found.float() - resized).abs().mean() < 9
    assert (found.float() - resized).mean().abs() < 2.5


def test_rotated_and_scaled(folder: Path) -> None:
    path = nasty_files.rotated(folder / "turned_scaled.mp4")
    native = decode_in_order(path)[0][3].permute(2, 0, 1)[None].float()
    with VideoReader(path, size=24) as reader:
        found = reader.read(indices=[3]).pixels_TCHW
    assert tuple(found.shape[2:]) == (32, 24)
    resized = torch.nn.functional.interpolate(native, size=(32, 24), mode="bilinear", antialias=True)
    assert (found.float() - resized).abs().mean() < 9


@pytest.mark.parametrize(("primaries", "full"), [(1, False), (1, True), (5, True), (9, False)])
def test_colour_flags_are_obeyed(folder: Path, primaries: int, full: bool) -> None:
    """A plain colour, stored with each matrix and range, comes back."""
    kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[primaries]
    red, green, blue = 0.8, 0.3, 0.2
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    scale, offset, spread = (255, 0, 255) if full else (219, 16, 224)
    values = [round(luma * scale + offset), *(round(c * spread + 128) for c in chroma)]
    path = folder / f"colour_{primaries}_{full}.mp4"
    with av.open(str(path), "w") as container:
        flags = f"colormatrix={ {1: 'bt709', 5: 'bt470bg', 9: 'bt2020nc'}[primaries] }:range={'pc' if full else 'tv'}"
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "x264-params": flags})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.color_range, stream.codec_context.colorspace = (2 if full else 1), primaries
        frame = av.VideoFrame(32, 32, "yuv420p")
        frame.color_range, frame.colorspace = (2 if full else 1), primaries
        for plane, value in zip(frame.planes, values, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        for packet in stream.encode(frame) + stream.encode(None):
            container.mux(packet)
    expected = torch.tensor([red, green, blue]) * 255
    for size in (None, 16):
        with VideoReader(path, size=size) as reader:
            found = reader.read(indices=[0]).pixels_TCHW[0, :, 8, 8].float()
        assert (found - expected).abs().max() <= 3, (found, expected)


def test_a_cut_file_gives_what_decodes_and_says_so(folder: Path) -> None:
    path = nasty_files.cut_off(folder / "cut.mp4", 0.6, nasty_files.early_header)
    expected_THWC, _ = decode_in_order(path)
    count = len(expected_THWC)
    assert 0 < count < nasty_files.FRAMES
    with VideoReader(path) as reader:
        assert reader.frame_count == nasty_files.FRAMES
        whole, cut = reader.read(indices=[count - 1, 0]), reader.read(indices=[0, nasty_files.FRAMES - 1])
        assert torch.equal(pixels_THWC(whole), expected_THWC[[count - 1, 0]])
        assert torch.equal(pixels_THWC(cut), expected_THWC[[0, -1]])
        assert (whole.truncated, cut.truncated) == (False, True)
        streamed = list(reader.stream())
        assert torch.equal(torch.cat([pixels_THWC(f) for f in streamed]), expected_THWC)
        assert [f.truncated for f in streamed] == [False] * (len(streamed) - 1) + [True]


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".ts"])
def test_other_cut_files_read_exactly(folder: Path, suffix: str) -> None:
    path = nasty_files.cut_off(folder / f"cut{suffix}", 0.6, nasty_files.encode, pictures_THWC=nasty_files.moving())
    expected_THWC, _ = decode_in_order(path)
    count = len(expected_THWC)
    with VideoReader(path) as reader:
        assert torch.equal(pixels_THWC(reader.read(indices=range(count))), expected_THWC)
        assert reader.frame_count == (nasty_files.FRAMES if suffix == ".avi" else count)


def test_unreadable_files_are_named_with_a_remedy(folder: Path) -> None:
    empty, text, cut = folder / "empty.mp4", folder / "text.mp4", folder / "nohead.mp4"
    empty.touch()
    text.write_text("this is no video\n" * 50)
    nasty_files.cut_off(cut, 0.5, nasty_files.encode, pictures_THWC=nasty_files.moving())
    cases = {
        nasty_files.sound_only(folder / "sound.mp4"): "no video stream .streams: audio.*Leave the file out",
        empty: r"is empty \(0 bytes\).*again",
        text: "cannot be opened as a video.*damaged",
        cut: "cannot be opened as a video.*damaged",
        folder / "missing.mp4": "no such file.*Check the path",
        folder: "is a folder.*path of one file",
    }
    for path, message in cases.items():
        with pytest.raises(VideoError, match=message) as caught:
            VideoReader(path)
        assert str(caught.value).startswith(str(path))


def test_a_file_without_any_decodable_frame(folder: Path) -> None:
    path = folder / "noise.mp4"
    nasty_files.encode(path, nasty_files.moving(3), gop=3)
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    length = int.from_bytes(data[begin - 8 : begin - 4], "big") - 8
    data[begin : begin + length] = bytes(length)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"no frame decodes|cannot be opened"):
        VideoReader(path).read(indices=[0])


def test_pickled_reader_reads_again(plain: tuple[Path, Tensor]) -> None:
    with VideoReader(plain[0], size=24) as reader, pickle.loads(pickle.dumps(reader)) as copy:  # noqa: S301  our own bytes
        assert torch.equal(copy.read(indices=[7]).pixels_TCHW, reader.read(indices=[7]).pixels_TCHW)


def _read_in_child(reader: VideoReader, indices: list[int], results: object) -> None:
    results.put(reader.read(indices=indices).pixels_TCHW.numpy())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("method", "count"), [("fork", 3), ("spawn", 1)])
def test_reader_in_worker_processes(plain: tuple[Path, Tensor], method: str, count: int) -> None:
    """While the parent reads on: after a fork the file position would be shared."""
    context = get_context(method)
    results = context.SimpleQueue()
    with VideoReader(plain[0]) as reader:
        reader.read(indices=[30])
        children = [context.Process(target=_read_in_child, args=(reader, [50, 2, 33], results)) for _ in range(count)]
        for child in children:
            child.start()
        for index in (10, 45, 20):
            assert torch.equal(pixels_THWC(reader.read(indices=[index]))[0], plain[1][index])
        for _ in children:
            found = torch.from_numpy(results.get()).permute(0, 2, 3, 1)
            assert torch.equal(found, plain[1][[50, 2, 33]])
        for child in children:
            child.join()


def test_reader_in_threads(plain: tuple[Path, Tensor]) -> None:
    wrong: list[int] = []
    with VideoReader(plain[0]) as reader:

        def work(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(8):
                index = draw.randrange(60)
                if not torch.equal(pixels_THWC(reader.read(indices=[index]))[0], plain[1][index]):
                    wrong.append(index)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("size", [None, 24])
def test_streams_and_reads_in_threads_share_no_scaler(plain: tuple[Path, Tensor], size: int | None) -> None:
    expected = VideoReader(plain[0], size=size).read(indices=range(60)).pixels_TCHW
    wrong: list[object] = []
    with VideoReader(plain[0], size=size) as reader:

        def stream() -> None:
            for _ in range(6):
                streamed = torch.cat([frames.pixels_TCHW for frames in reader.stream(chunk=7)])
                if not torch.equal(streamed, expected):
                    wrong.append("stream")

        def read() -> None:
            for step in range(60):
                if not torch.equal(reader.read(indices=[step]).pixels_TCHW[0], expected[step]):
                    wrong.append(step)

        threads = [threading.Thread(target=work) for work in (stream, read, stream)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_interleaved_streams_and_reads(plain: tuple[Path, Tensor]) -> None:
    with VideoReader(plain[0]) as reader:
        first, second = reader.stream(chunk=5), reader.stream(start=1.0, chunk=5)
        for step in range(5):
            assert torch.equal(pixels_THWC(next(first)), plain[1][5 * step : 5 * step + 5])
            assert torch.equal(pixels_THWC(reader.read(indices=[59])), plain[1][59:])
            assert torch.equal(pixels_THWC(next(second)), plain[1][25 + 5 * step : 30 + 5 * step])


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_thousand_readers_leave_nothing_behind(plain: tuple[Path, Tensor]) -> None:
    def cycle(count: int, *, close: bool) -> None:
        for _ in range(count):
            reader = VideoReader(plain[0])
            reader.read(indices=[0])
            if close:
                reader.close()

    cycle(40, close=True)
    files, pages = len(os.listdir("/proc/self/fd")), _resident_pages()
    cycle(800, close=True)
    cycle(200, close=False)
    assert len(os.listdir("/proc/self/fd")) <= files
    assert (_resident_pages() - pages) * os.sysconf("SC_PAGE_SIZE") < 30 * 2**20


def test_frames_check_their_axes() -> None:
    pixels = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    assert repr(Frames(pixels, torch.zeros(2, dtype=torch.float64))) == "Frames(2x3x4x5 torch.uint8, 0.000..0.000 s)"
    with pytest.raises(ValueError, match="2 pictures but 3 times"):
        Frames(pixels, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="must be uint8"):
        Frames(pixels.float(), torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="must be float64"):
        Frames(pixels, torch.zeros(2))
