"""Exact and fast reading of video files: frame i is the i-th frame that decoding the whole file in order returns.

The file's header or packets predict the frames and where decoding may begin, so that reading a few clips decodes
little. Every decoded frame is checked against the prediction; at the first doubt the frames are counted by decoding the
file once, and read in order from then on. Difficult files are read slowly, not wrongly.

Not here: which frames to read (`clip_plans.py`), augmentation (`augment.py`), sound.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholereel.errors import VideoError
from wholereel.media._bitstream import FRAMES_IN_PACKET, TRUSTED_CODECS
from wholereel.media._container import VideoMetadata, frame_rate, read_metadata
from wholereel.media._convert import RgbConverter, target_size
from wholereel.media._decoder import Decoder, PredictionError
from wholereel.media._mp4_index import missing_samples, predict_from_mp4_header
from wholereel.media._packet_index import Timeline, counted_timeline, predict_from_packets
from wholereel.media.byte_ranges import byte_count, open_bytes
from wholereel.media.frames import Frames
from wholereel.media.remote_files import local_copy

__all__ = ["VideoReader", "VideoMetadata", "probe_video"]


class VideoReader:
    """Random access to the frames of one file by index or time.

    Times are seconds after the first frame (`metadata.begin` has the stored one). Files whose stored times do not
    increase (B-frames in AVI) or are missing get times `index / frame rate`. Of an MP4 or AVI file that is cut off, the
    frames that its header promised stay addressable: the last one that decodes stands in for them, and the result is
    marked `truncated`.

    A packet in the middle that does not decode at all gives no frame. This is noticed when decoding comes across it;
    the frames are then counted anew, and the numbers of those behind it move. Times do not.

    One reader may be used from several threads (calls wait for each other), after a fork, and can be pickled (the copy
    opens the file again).

    Args:
        path: the file; may be remote (`s3://...`), or lie in a tar file (`a.tar#OFFSET+SIZE.mp4`).
        size: of the frames returned: None for the stored size, an int for the length of the shorter side (the longer
            one is rounded down), or (height, width). Scaled while converting colours (bilinear, anti-aliased). Sizes
            are those after rotation by the file's display matrix. Non-square pixels are left as they are.
        threads: of the codec. 1 is deterministic in cost; more are slices of one frame, and change no pixel.
    Raises: VideoError: the file cannot be read as a video. ValueError: a size that cannot be.
    """

    def __init__(self, path: str | Path, *, size: int | tuple[int, int] | None = None, threads: int = 1) -> None:
        self.path, self.size, self.threads = str(local_copy(path)), size, threads
        for length in size if isinstance(size, tuple) else (size,):
            if length is not None and length < 1:
                raise ValueError(f"size must be positive, got {size}")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self._timeline: Timeline | None = None
        self._metadata: VideoMetadata | None = None
        self._converter: RgbConverter | None = None
        self._closed = False
        self._attach()
        self._decoder = Decoder(self.path, threads)

    def __reduce__(self) -> tuple[Callable[..., VideoReader], tuple[object, ...]]:
        return _open_again, (self.path, self.size, self.threads)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.frame_count

    def __repr__(self) -> str:
        return f"VideoReader({self.path!r}, size={self.size})"

    def close(self) -> None:
        """Give back the file; reading afterwards is an error. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._decoder.close()

    @property
    def metadata(self) -> VideoMetadata:
        """What the header says, with size and rotation of the first frame (the only one decoded for it)."""
        with self._open():
            return self._describe()

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        with self._open():
            return self._index().frames

    @property
    def seconds_T(self) -> Tensor:
        """float64 time of every frame, in seconds after the first one, strictly increasing."""
        with self._open():
            return torch.from_numpy(self._index().seconds_F.copy())

    def read(self, *, indices: Sequence[int] | None = None, seconds: Sequence[float] | Tensor | None = None) -> Frames:
        """Read frames in any order, with repeats; several clips are best asked for in one flat list.

        Args:
            indices: frame numbers, 0 <= index < frame_count; or
            seconds: times after the first frame. Taken is the last frame that has begun (within half a tick of the
                stored clock); before the first frame the first, after the end the last.
        Returns: frames in the order asked for, `seconds_T` being their own times.
        Raises: IndexError: an index out of range. ValueError: both or neither given, or a time that is no number.
            VideoError: nothing decodes.
        """
        if (indices is None) == (seconds is None):
            raise ValueError("read() takes either indices or seconds")
        with self._open():
            for _ in range(2):
                timeline = self._index()
                asked = self._asked(timeline, indices, seconds)
                try:
                    return self._read(timeline, asked)
                except PredictionError:
                    self._timeline = self._count()
            raise VideoError(
                self.path, "decoding it twice gave different frames", "", "Check the disk, or encode the file again."
            )

    def stream(self, *, start: float = 0.0, chunk: int = 16) -> Iterator[Frames]:
        """Read on to the end, `chunk` frames at a time (the last chunk may be shorter), with constant memory.

        Independent of other calls on this reader. The last chunk of a file that is cut off is marked `truncated`.

        Args:
            start: seconds after the first frame; the frame shown then is the first one returned.
        Raises: ValueError: chunk < 1. VideoError: nothing decodes.
        """
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        with self._open():
            converter = self._new_converter()  # not the shared one: chunks are converted without holding the lock
            timeline = self._index()
            position = int(self._asked(timeline, None, [start])[0])
        decoder = Decoder(self.path, self.threads)
        try:
            while True:
                try:
                    for frames in _chunks(decoder, converter, timeline, position, chunk):
                        yield frames
                        position += len(frames)
                    return
                except PredictionError:
                    with self._open():
                        timeline = self._timeline = self._count()
        finally:
            decoder.close()

    def _read(self, timeline: Timeline, asked: np.ndarray) -> Frames:
        self._describe()
        available = np.minimum(asked, timeline.decodable - 1)
        wanted, places = np.unique(available, return_inverse=True)
        pixels_TCHW = self._converting().empty(len(asked))
        order = np.argsort(places, kind="stable")
        firsts = np.searchsorted(places[order], np.arange(len(wanted)))
        slots = order[firsts]  # where each wanted frame is asked for first
        if len(wanted):
            for number, (_, frame) in enumerate(self._decoder.frames(timeline, wanted.tolist())):
                self._converting().write(frame, pixels_TCHW[slots[number]])
        for place, source in enumerate(slots[places]):
            if place != source:
                pixels_TCHW[place] = pixels_TCHW[source]
        return _frames(pixels_TCHW, timeline.seconds_F[asked], truncated=bool(np.any(asked != available)))

    def _asked(
        self, timeline: Timeline, indices: Sequence[int] | None, seconds: Sequence[float] | Tensor | None
    ) -> np.ndarray:
        """Frame numbers for either kind of question."""
        if indices is not None:
            asked = np.asarray(indices, dtype=np.int64).reshape(-1)
            wrong = asked[(asked < 0) | (asked >= timeline.frames)]
            if len(wrong):
                raise IndexError(f"{self.path}: frame {wrong[0]} of a video of {timeline.frames} frames")
            return asked
        times = np.asarray(seconds, dtype=np.float64).reshape(-1)
        if np.isnan(times).any():
            raise ValueError("seconds contain a value that is not a number")
        half_tick = float(self._decoder.stream.time_base or 0) / 2
        found = np.searchsorted(timeline.seconds_F, times + half_tick, side="right") - 1
        return np.clip(found, 0, timeline.frames - 1)

    def _index(self) -> Timeline:
        if self._timeline is None:
            self._timeline = self._predict() or self._count()
        return self._timeline

    def _predict(self) -> Timeline | None:
        self._decoder.rewind()
        container, stream = self._decoder.container, self._decoder.stream
        codec = stream.codec_context.codec.canonical_name
        by_header = codec in TRUSTED_CODECS and codec not in FRAMES_IN_PACKET
        if container.format.name.startswith("mov") and by_header and stream.time_base:
            try:
                timeline = predict_from_mp4_header(self.path, stream.id, stream.time_base)
            except (KeyError, IndexError, ValueError, struct.error):
                timeline = None  # boxes missing or cut: the demuxer may still read it
            if timeline is not None:
                return timeline
        if self._promised():
            return None
        return predict_from_packets(container, stream, self._decoder.packets(flush=False))

    def _count(self) -> Timeline:
        """Decode everything once to know what there is."""
        ticks = [frame.pts for frame in self._decoder.sequential()]
        if not ticks:
            raise VideoError(
                self.path, "no frame decodes", "at least one", "The file is damaged: copy it again or leave it out."
            )
        stream = self._decoder.stream
        return counted_timeline(ticks, frame_rate(stream), stream.time_base, self._promised())

    def _promised(self) -> int:
        """Frames that the header promises, if the file ends before it says it would; else 0."""
        container, stream = self._decoder.container, self._decoder.stream
        cut_off = False
        if container.format.name.startswith("mov"):
            try:
                cut_off = missing_samples(self.path, stream.id) > 0
            except (KeyError, IndexError, ValueError, struct.error):
                cut_off = False
        elif container.format.name == "avi":
            with open_bytes(self.path) as file:
                cut_off = int.from_bytes(file.read(8)[4:], "little") + 8 > byte_count(self.path)
        return stream.frames if cut_off else 0

    def _describe(self) -> VideoMetadata:
        if self._metadata is None:
            first = next(self._decoder.sequential(), None)
            if first is None:
                raise VideoError(
                    self.path, "no frame decodes", "at least one", "The file is damaged: copy it again or leave it out."
                )
            self._metadata = read_metadata(self.path, self._decoder.container, self._decoder.stream, first)
        return self._metadata

    def _converting(self) -> RgbConverter:
        if self._converter is None:
            self._converter = self._new_converter()
        return self._converter

    def _new_converter(self) -> RgbConverter:
        metadata = self._describe()
        height, width = target_size(metadata.height, metadata.width, self.size)
        turns = metadata.rotation // 90
        stored = (metadata.width, metadata.height) if turns % 2 else (metadata.height, metadata.width)
        return RgbConverter(stored, height, width, turns)

    def _attach(self) -> None:
        """Belong to this process: a lock of its own, and below a file position of its own."""
        self._process, self._lock = os.getpid(), threading.RLock()

    def _open(self) -> threading.RLock:
        if self._closed:
            raise ValueError(f"{self.path}: the reader is closed")
        if self._process != os.getpid():
            # After a fork the file position is shared with the parent, whose lock may be held by a thread not copied.
            self._attach()
            self._decoder = Decoder(self.path, self.threads)
        return self._lock


def probe_video(path: str | Path) -> VideoMetadata:
    """Metadata of a file.

    Raises: VideoError: the file cannot be read as a video.
    """
    with VideoReader(path) as reader:
        return reader.metadata


def _open_again(path: str, size: int | tuple[int, int] | None, threads: int) -> VideoReader:
    return VideoReader(path, size=size, threads=threads)


def _chunks(decoder: Decoder, converter: RgbConverter, timeline: Timeline, begin: int, chunk: int) -> Iterator[Frames]:
    pixels_TCHW, filled = converter.empty(min(chunk, timeline.decodable - begin)), 0
    for index, frame in decoder.forward(timeline, begin):
        converter.write(frame, pixels_TCHW[filled])
        filled += 1
        if filled == len(pixels_TCHW):
            last = index + 1 == timeline.decodable
            seconds_T = timeline.seconds_F[index + 1 - filled : index + 1]
            yield _frames(pixels_TCHW, seconds_T, truncated=last and timeline.decodable < timeline.frames)
            pixels_TCHW, filled = converter.empty(min(chunk, timeline.decodable - index - 1)), 0


def _frames(pixels_TCHW: np.ndarray, seconds_T: np.ndarray, *, truncated: bool) -> Frames:
    return Frames(torch.from_numpy(pixels_TCHW), torch.from_numpy(seconds_T.copy()), truncated)
