"""Open a media file, choose its picture stream, say what it holds; every failure is a `VideoError` that names the file.

Not here: which packets become frames (`_packet_index.py`), decoding (`_decoder.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from wholereel.errors import VideoError
from wholereel.media.byte_ranges import av_url, byte_count, containing_file

__all__ = ["VideoMetadata", "open_problem", "open_video", "video_packets", "read_metadata"]

FALLBACK_RATE = Fraction(25)  # a stream without any rate (raw elementary streams); FFmpeg's own choice for them


@dataclass(frozen=True)
class VideoMetadata:
    """What a file says about its picture stream.

    Args:
        path: the file.
        width, height: of the frames as displayed, after `rotation`.
        rotation: degrees counter-clockwise that were applied to the stored picture: 0, 90, 180 or 270.
        frame_rate: average frames per second.
        frame_count: what the header claims, which need not be what decodes (AVI headers count dropped frames too);
            None if it says nothing. `VideoReader.frame_count` is the exact one.
        duration: seconds.
        begin: presentation time of the first frame in seconds, as stored; readers count time from there.
        codec, pixel_format, container: FFmpeg's names.
        time_base: seconds per tick of the stored times.
        has_audio: the file has a sound stream.
    """

    path: str
    width: int
    height: int
    rotation: int
    frame_rate: float
    frame_count: int | None
    duration: float
    begin: float
    codec: str
    pixel_format: str
    time_base: Fraction
    has_audio: bool
    container: str


def open_video(path: str, threads: int) -> tuple[InputContainer, VideoStream]:
    """Open a file for reading pictures only.

    Raises: VideoError: no such file, a folder, not a video, or no picture stream.
    """
    try:
        container = av.open(av_url(path), "r", metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(path, *open_problem(path, error)) from error
    stream = _picture_stream(container)
    if stream is None:
        kinds = sorted({s.type for s in container.streams})
        container.close()
        raise VideoError(
            path,
            f"no video stream (streams: {', '.join(kinds) or 'none'})",
            "a file with moving pictures",
            "Leave the file out: it may hold only sound.",
        )
    stream.codec_context.thread_count = threads
    stream.thread_type = "SLICE"  # frame threads delay errors and change what is returned around them
    if hasattr(stream, "discard"):  # PyAV >= 17: packets of other streams are not even read
        for other in container.streams:
            if other.index != stream.index:
                cast(Any, other).discard = cast(Any, av.stream).Discard.all
    return container, stream


def video_packets(
    container: InputContainer, stream: VideoStream, *, flush: bool = True
) -> Iterator[av.Packet[VideoStream]]:
    """Packets of one stream, then (if `flush`) the empty one that makes the decoder give up its last frames.

    Ends quietly where the file breaks off: what a file should have held is not the demuxer's business.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError):
            break
        if packet.size:
            yield packet
        elif packet.dts is None and packet.pts is None and flush:
            yield packet
            return
        # Other empty packets mean "same picture again" in some containers; to the decoder they would be the end.
    if flush:
        yield cast("av.Packet[VideoStream]", av.Packet(0))


def read_metadata(path: str, container: InputContainer, stream: VideoStream, first: av.VideoFrame) -> VideoMetadata:
    """Collect the header's claims; `first` is the first decoded frame, which alone knows the true size and rotation."""
    rate = frame_rate(stream)
    rotation = round(first.rotation / 90) % 4 * 90
    height, width = (first.width, first.height) if rotation % 180 else (first.height, first.width)
    time_base = stream.time_base or 1 / rate
    if stream.duration:
        duration = float(stream.duration * time_base)
    elif container.duration:
        duration = container.duration / av.time_base
    else:
        duration = float("nan")
    return VideoMetadata(
        path=path,
        width=width,
        height=height,
        rotation=rotation,
        frame_rate=float(rate),
        frame_count=stream.frames or None,
        duration=duration,
        begin=float((stream.start_time or 0) * time_base),
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=first.format.name,
        time_base=time_base,
        has_audio=len(container.streams.audio) > 0,
        container=container.format.name,
    )


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames per second, or the best guess."""
    return stream.average_rate or stream.guessed_rate or FALLBACK_RATE


def _picture_stream(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures; a cover picture is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def open_problem(path: str, error: Exception) -> tuple[str, str, str]:
    """What to say about a file that FFmpeg does not open: found, expected, remedy."""
    file = containing_file(path)
    if not file.exists():
        return "no such file", "", "Check the path, and whether the annotation file fits this copy of the data."
    if file.is_dir():
        return "is a folder", "a video file", "Give the path of one file."
    if byte_count(path) == 0:
        return "is empty (0 bytes)", "a video file", "Copy or download it again."
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"cannot be opened as a video ({reason})",
        "a container that FFmpeg reads",
        "The file is damaged, cut off before its header, or no video: copy or download it again, or leave it out.",
    )
