"""Write a video file such that no segment knows about another one, and equal input gives equal bytes.

Inter-frame coding and rate control carry information from one part of a video to others. The default settings (constant
quantiser, fixed key-frame distance, no B-frames, no look-ahead, one thread) cut every such path between groups of `gop`
frames: replacing one group changes decoded pixels of exactly that group. Axes: C of a wave is channels, S samples.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

__all__ = ["write_video"]


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray] | np.ndarray,
    *,
    frame_rate: Fraction | float,
    gop: int,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    qp: int = 20,
    pixel_format: str = "yuv420p",
    audio: tuple[np.ndarray, int] | None = None,
) -> None:
    """Encode frames (and sound) to a file; the file appears only when it is complete.

    Args:
        path: target; its suffix chooses the container (sound needs one that holds FLAC: .mp4, .mkv).
        frames: uint8 red, green, blue pictures `HWC`, all of one size; even sizes for `yuv420p`. May be a generator.
        frame_rate: frames per second; floats become the nearest fraction with a denominator up to 1001.
        gop: frames from key frame to key frame; 1 means every frame stands alone.
        codec: encoder name known to PyAV.
        options: encoder options instead of the independent-groups defaults of libx264 (other encoders: of nothing).
        qp: constant quantiser of those defaults, 0..51.
        pixel_format: stored pixel format.
        audio: `(wave_CS, rate)`, float32 in -1..1 (rounded to 16 bit) or int16; stored as FLAC, lossless.
    Raises: ValueError: a size, type or number that cannot be written.
    """
    path = Path(path)
    if gop < 1:
        raise ValueError(f"gop must be at least 1, got {gop}")
    if frame_rate <= 0:
        raise ValueError(f"frame_rate must be positive, got {frame_rate}")
    temporary = path.with_name(f".writing-{secrets.token_hex(4)}-{path.name}")
    try:
        # bitexact: no version text of the muxer; "experimental": FLAC in MP4 on older FFmpeg.
        with av.open(str(temporary), "w", options={"fflags": "+bitexact", "strict": "experimental"}) as container:
            _encode(container, frames, _as_fraction(frame_rate), codec, options, gop, qp, pixel_format, audio)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _encode(
    container: av.container.OutputContainer,
    frames: Iterable[np.ndarray],
    rate: Fraction,
    codec: str,
    options: dict[str, str] | None,
    gop: int,
    qp: int,
    pixel_format: str,
    audio: tuple[np.ndarray, int] | None,
) -> None:
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("no frames to write")
    size = _checked(first, first.shape, 0).shape
    if pixel_format == "yuv420p" and (size[0] % 2 or size[1] % 2):
        raise ValueError(f"yuv420p needs even sizes, got height {size[0]} and width {size[1]}")
    if options is None:
        options = independent_groups(gop, qp) if codec == "libx264" else {}
    stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
    stream.height, stream.width = size[0], size[1]
    stream.pix_fmt = pixel_format
    stream.codec_context.gop_size = gop
    stream.codec_context.thread_count = 1
    sound = _sound_packets(container, *audio) if audio is not None else iter(())
    pending = next(sound, None)
    count = 0
    for count, picture in enumerate(_chain(first, pictures)):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(_checked(picture, size, count)), format="rgb24")
        frame.pts, frame.time_base = count, 1 / rate
        container.mux(stream.encode(frame))
        # Sound is handed over as time passes: the muxer would otherwise hold the whole picture track back in memory.
        while pending is not None and pending[0] <= (count + 1) / rate:
            container.mux(pending[1])
            pending = next(sound, None)
    container.mux(stream.encode(None))
    while pending is not None:
        container.mux(pending[1])
        pending = next(sound, None)


def independent_groups(gop: int, qp: int) -> dict[str, str]:
    """Options of libx264 under which groups of `gop` frames share nothing."""
    fixed = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:rc-lookahead=0:mbtree=0:open-gop=0"
    return {"qp": str(qp), "preset": "veryfast", "threads": "1", "x264-params": fixed}


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _checked(picture: np.ndarray, size: tuple[int, ...], number: int) -> np.ndarray:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"frame {number} must be uint8 of shape (H, W, 3), got {picture.dtype} of shape {picture.shape}"
        )
    if picture.shape != size:
        raise ValueError(f"frame {number} has shape {picture.shape}, the first one has {tuple(size)}")
    return picture


def _sound_packets(
    container: av.container.OutputContainer, wave_CS: np.ndarray, rate: int
) -> Iterator[tuple[Fraction, list[Any]]]:
    """Yield (time of a block's start in seconds, its packets); the stream is added at once, before encoding begins."""
    if wave_CS.ndim != 2 or wave_CS.shape[0] not in LAYOUTS:
        raise ValueError(f"sound must have shape (channels, samples) with 1 or 2 channels, got {wave_CS.shape}")
    if wave_CS.dtype == np.float32:
        wave_CS = np.round(np.clip(wave_CS, -1.0, 1.0) * 32767).astype(np.int16)
    if wave_CS.dtype != np.int16:
        raise ValueError(f"sound must be float32 or int16, got {wave_CS.dtype}")
    layout = LAYOUTS[wave_CS.shape[0]]
    stream = container.add_stream("flac", rate=rate, format="s16", layout=layout)
    return _encode_sound(stream, wave_CS, rate, layout)


LAYOUTS = {1: "mono", 2: "stereo"}
SOUND_BLOCK = 4096


def _encode_sound(
    stream: av.AudioStream, wave_CS: np.ndarray, rate: int, layout: str
) -> Iterator[tuple[Fraction, list[Any]]]:
    for start in range(0, wave_CS.shape[1], SOUND_BLOCK):
        block_SC = wave_CS[:, start : start + SOUND_BLOCK].T
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block_SC).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield Fraction(start, rate), stream.encode(frame)
    yield Fraction(wave_CS.shape[1], rate), stream.encode(None)


def _as_fraction(frame_rate: Fraction | float) -> Fraction:
    return Fraction(frame_rate).limit_denominator(1001)
