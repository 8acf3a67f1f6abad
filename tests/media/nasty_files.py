"""Makers of awkward video files, with PyAV alone: each is named after what is wrong with it.

`moving(T, H, W)` is the content of all: every frame differs from every other one, so that a wrong frame is noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAMES = 50
RATE = Fraction(25)


def moving(frames: int = FRAMES, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 THWC: a drifting texture with a block that jumps."""
    rng = np.random.default_rng(seed)
    texture_HWC = rng.integers(40, 200, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    pictures = []
    for t in range(frames):
        picture = np.roll(texture_HWC, (t, 2 * t), axis=(0, 1))[:height, :width].copy()
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        picture[y : y + 8, x : x + 8] = rng.integers(0, 255, 3)
        pictures.append(picture)
    return np.stack(pictures)


def encode(
    path: Path,
    pictures_THWC: np.ndarray,
    codec: str = "libx264",
    *,
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    times: list[int] | None = None,
    gop: int = 12,
    bframes: int = 0,
    muxer: dict[str, str] | None = None,
    setup: Callable[[av.VideoStream], None] | None = None,
    drop: Callable[[int], bool] = lambda packet: False,
) -> Path:
    """Write frames; `times` in units of 1/25 s; packets numbered in decoding order can be dropped."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.height, stream.width, stream.pix_fmt = pictures_THWC.shape[1], pictures_THWC.shape[2], pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        stream.codec_context.thread_count = 1
        if setup is not None:
            setup(stream)
        packets = []
        for t, picture in enumerate(pictures_THWC):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (times[t] if times else t), 1 / RATE
            packets += stream.encode(frame)
        for number, packet in enumerate(packets + stream.encode(None)):
            if not drop(number):
                container.mux(packet)
    return path


def b_frames(path: Path) -> Path:
    """H.264 with a pyramid of B-frames, closed groups."""
    params = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-pyramid=normal"
    return encode(path, moving(), options={"x264-params": params})


def interlaced(path: Path) -> Path:
    """H.264 of interlaced pictures with B-frames."""
    params = "keyint=12:min-keyint=12:scenecut=0:bframes=2:tff=1"
    return encode(path, moving(height=64), options={"x264-params": params})


def open_gop(path: Path) -> Path:
    """H.264 whose groups refer to the group before."""
    params = "keyint=10:min-keyint=10:scenecut=0:bframes=3:open-gop=1:b-adapt=0"
    return encode(path, moving(), options={"x264-params": params})


def gradual_refresh(path: Path) -> Path:
    """H.264 with key flags on frames that are no clean beginnings."""
    params = "keyint=10:min-keyint=10:scenecut=0:bframes=0:intra-refresh=1"
    return encode(path, moving(), options={"x264-params": params})


def variable_rate(path: Path) -> Path:
    steps = np.random.default_rng(1).integers(1, 6, FRAMES)
    return encode(path, moving(), times=np.cumsum(steps).tolist())


def late_start(path: Path) -> Path:
    return encode(path, moving(), times=list(range(500, 500 + FRAMES)))


def one_frame(path: Path) -> Path:
    return encode(path, moving(1))


def odd_size(path: Path) -> Path:
    return encode(path, moving(20, 47, 63), "libx264", pixel_format="yuv444p")


def ten_bit(path: Path) -> Path:
    return encode(path, moving(20), pixel_format="yuv420p10le")


def hevc_open(path: Path) -> Path:
    """HEVC with clean random access pictures and skipped leading ones."""
    params = "keyint=10:min-keyint=10:scenecut=0:bframes=3:open-gop=1:log-level=none:pools=1:frame-threads=1"
    return encode(path, moving(), "libx265", options={"x265-params": params, "preset": "ultrafast"})


def mpeg4_b_frames(path: Path) -> Path:
    """MPEG-4 part 2 with B-frames; in AVI there are no presentation times."""
    return encode(path, moving(), "mpeg4", bframes=2)


def mpeg2(path: Path) -> Path:
    """MPEG-2 with B-frames in open groups."""
    return encode(path, moving(), "mpeg2video", bframes=2, gop=9)


def vp9(path: Path) -> Path:
    options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16", "auto-alt-ref": "1"}
    return encode(path, moving(), "libvpx-vp9", options=options)


def vp8(path: Path) -> Path:
    """VP8 with hidden alternate reference frames, in WebM, which stores no frame count."""
    options = {"deadline": "good", "cpu-used": "4", "lag-in-frames": "16", "auto-alt-ref": "1", "arnr-maxframes": "5"}
    return encode(path, moving(), "libvpx", options=options)


def fragments(path: Path) -> Path:
    return encode(path, moving(), muxer={"movflags": "frag_keyframe+empty_moov"})


def hole(path: Path) -> Path:
    """Packets lost in the middle of a group."""
    return encode(path, moving(), drop=lambda packet: packet in (17, 18, 30))


def headless(path: Path) -> Path:
    """The first key packet is lost: the stream begins in the middle of a group."""
    return encode(path, moving(), drop=lambda packet: packet < 5)


def rotated(path: Path) -> Path:
    """A quarter turn in the display matrix (PyAV cannot write one before 17: the bytes of the header are changed)."""
    encode(path, moving(20))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one, minus = (0x10000).to_bytes(4, "big"), (-0x10000).to_bytes(4, "big", signed=True)
    zero, unit = bytes(4), (0x40000000).to_bytes(4, "big")
    data[at : at + 36] = b"".join([zero, one, zero, minus, zero, zero, zero, zero, unit])
    path.write_bytes(data)
    return path


def edited(path: Path) -> Path:
    """An MP4 whose edit list begins to show in the middle of a group: 7 frames are decoded and not shown."""
    encode(path, moving(), options={"x264-params": "bframes=0:keyint=12:scenecut=0"}, muxer={"use_editlist": "1"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 8
    step = 512  # ticks of a frame at the muxer's clock of 12800
    duration = int.from_bytes(data[at : at + 4], "big") * (FRAMES - 7) // FRAMES
    data[at : at + 8] = duration.to_bytes(4, "big") + (7 * step).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def cover_art(path: Path) -> Path:
    """A JPEG cover as first picture stream, marked as attached, and the video as second."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = int(av.stream.Disposition.attached_pic.value)
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(moving(1, 32, 32)[0], format="rgb24").reformat(format="yuvj420p")
        picture.pts, picture.time_base = 0, Fraction(1)
        packets = cover.encode(picture) + cover.encode(None)
        for t, rgb in enumerate(moving(20)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = t, 1 / RATE
            packets += stream.encode(frame)
        for packet in packets + stream.encode(None):
            container.mux(packet)
    return path


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in stream.encode(frame) + stream.encode(None):
            container.mux(packet)
    return path


def joined(path: Path) -> Path:
    """Two recordings one after the other in a transport stream: the clock jumps back."""
    first = encode(path.with_suffix(".a.ts"), moving(30, seed=1))
    second = encode(path.with_suffix(".b.ts"), moving(30, seed=2))
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def cut_off(path: Path, keep: float, make: Callable[[Path], Path], **settings: object) -> Path:
    """Keep the first part of a file."""
    make(path, **settings)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def early_header(path: Path) -> Path:
    """MP4 with its header before the data, so that a cut leaves it whole."""
    return encode(path, moving(), muxer={"movflags": "faststart"})


def damaged(path: Path) -> Path:
    """Bytes of one packet in the middle are overwritten."""
    encode(path, moving(), options={"x264-params": "bframes=0:keyint=10:scenecut=0"})
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    position, size = packets[23]
    data[position + 4 : position + size] = bytes([0xFF]) * (size - 4)
    path.write_bytes(data)
    return path


# Every file that must read exactly as decoding it in order does: name -> (maker, suffixes).
EXACT: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "b_frames": (b_frames, (".mp4", ".mkv", ".ts", ".avi", ".h264")),
    "interlaced": (interlaced, (".mp4", ".mkv", ".ts")),
    "open_gop": (open_gop, (".mp4", ".mkv", ".ts")),
    "gradual_refresh": (gradual_refresh, (".mp4", ".mkv", ".ts")),
    "variable_rate": (variable_rate, (".mp4", ".mkv")),
    "late_start": (late_start, (".mp4", ".mkv", ".ts")),
    "one_frame": (one_frame, (".mp4", ".avi", ".ts")),
    "odd_size": (odd_size, (".mp4",)),
    "ten_bit": (ten_bit, (".mp4",)),
    "hevc_open": (hevc_open, (".mp4", ".mkv", ".ts")),
    "mpeg4_b_frames": (mpeg4_b_frames, (".avi", ".mp4", ".mkv", ".m4v")),
    "mpeg2": (mpeg2, (".mpg", ".ts", ".mkv", ".avi")),
    "vp9": (vp9, (".webm",)),
    "vp8": (vp8, (".webm",)),
    "fragments": (fragments, (".mp4",)),
    "hole": (hole, (".mp4", ".avi", ".ts", ".mkv")),
    "headless": (headless, (".mp4", ".ts", ".mkv")),
    "rotated": (rotated, (".mp4",)),
    "edited": (edited, (".mp4",)),
    "cover_art": (cover_art, (".mp4", ".mkv")),
    "joined": (joined, (".ts",)),
}
