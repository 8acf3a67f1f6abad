"""Frames of a source that has not ended: a network stream, a camera, a folder into which files are still written.

A live source is read in a thread of its own into a queue of bounded length (`frame_queue.py`, which says what happens
when the reader is too slow). A source that dies, or says nothing for `stall` seconds, is opened again, with growing
pauses, until nothing has come from it for `give_up` seconds. Times go on across connections, with the time that passed
in between. A source that has an end (a file behind a URL, a play list of a complete video) ends there, and goes on
where it was after a connection that broke.
Files on disk are read by `VideoReader.stream`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
import torch
from av.container import InputContainer
from av.video.stream import VideoStream

from wholereel.errors import ConfigError, VideoError
from wholereel.media._container import frame_rate
from wholereel.media._convert import RgbConverter, target_size
from wholereel.media.frame_queue import FrameQueue
from wholereel.media.frames import Frames
from wholereel.media.source_address import is_camera, is_live, open_options, shown, without_secrets
from wholereel.media.video_reader import VideoReader

__all__ = ["LiveSource", "is_live"]

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
SETTLED = 1.0  # seconds without growth after which the newest file of a folder counts as complete
END_SLACK = 1.0  # seconds that a source with an end may lack of what it announces and still be complete

Log = Callable[[str], None]
logger = logging.getLogger(__name__)


@dataclass
class LiveSource:
    """Iterate over it once to get chunks of frames, or `take` them; `close` from anywhere ends it.

    Args:
        source: URL (rtsp, http, udp, tcp, srt, HLS play lists ...), a camera (`/dev/video0`), or a folder of video
            files that are read one after the other in the order of their names, new ones as they appear.
        size: as in `VideoReader`.
        chunk: frames handed over together.
        policy: `block`, `drop` (see `frame_queue.py`), or `auto`: sources that can wait (folders, files behind a URL)
            wait, others drop. UDP senders and cameras cannot wait: with `block` the system loses frames uncounted.
        room: chunks that the queue holds.
        after: time of the last frame that an earlier reader of this source has seen; times go on behind it.
        give_up: seconds without any frame after which the source counts as ended.
        stall: seconds without any frame after which it is opened again.
        options: FFmpeg's, for demuxer and protocol, e.g. `{"video_size": "640x480"}` of a camera.
        log: called with a line about everything that is not a frame; passwords are left out.
    Attributes:
        connections: how often the source was opened with success.
        name: the source as it may be shown.
    Raises: ConfigError: settings that cannot be.
    """

    source: str | Path
    size: int | tuple[int, int] | None = None
    chunk: int = 8
    policy: Literal["auto", "block", "drop"] = "auto"
    room: int = 16
    give_up: float = 30.0
    stall: float = 10.0
    after: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    log: Log = logger.info
    connections: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.policy not in ("auto", "block", "drop"):
            raise ConfigError(f"policy={self.policy!r} is none of 'auto', 'block' and 'drop'")
        if self.chunk < 1 or self.room < 1 or not self.give_up > 0 or not self.stall > 0:
            raise ConfigError(
                f"chunk and room must be at least 1, give_up and stall positive, "
                f"got {self.chunk}, {self.room}, {self.give_up} and {self.stall}"
            )
        self.name = shown(self.source)
        policy: Literal["block", "drop"] = "drop" if self.policy == "auto" else self.policy
        self._queue = FrameQueue(self.room, policy, self._say_dropped)
        self._unordered = 0  # frames whose time did not increase
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin: float | None = None  # stored time of the first frame of this connection
        self._offset = 0.0  # where this connection begins on the stream's own line
        self._last = -1.0 if self.after is None else self.after
        self._last_clock = time.monotonic()
        self._position: float | None = None  # stored time of the newest frame, of a source with an end

    def __repr__(self) -> str:
        return f"LiveSource({self.name!r}, policy={self.policy!r})"

    @property
    def dropped(self) -> int:
        """Frames dropped so far, by policy or because their time did not increase."""
        return self._queue.dropped + self._unordered

    @property
    def newest(self) -> float:
        """Time of the newest frame that has come, taken or not; -inf before the first."""
        return self._queue.newest

    @property
    def waiting(self) -> int:
        """Frames that have come and were not taken yet."""
        return self._queue.waiting

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self._queue.ended

    def go_on_after(self, second: float | None) -> None:
        """Times go on behind this one, unless `after` says otherwise; before anything is read."""
        if self.after is None and second is not None:
            self.after = self._last = second

    def open(self) -> None:
        """Begin to read; `take` and iteration do so by themselves."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name=f"reading {self.name}")
            self._thread.start()

    def take(self, timeout: float | None = None) -> Frames | None:
        """The next chunk; `None` when nothing came in `timeout` seconds, or when all has ended (`ended`).

        Raises: VideoError: the source could never be opened, or has no picture stream.
        """
        self.open()
        return self._queue.take(timeout)

    def __iter__(self) -> Iterator[Frames]:
        try:
            while not self.ended:
                frames = self.take()
                if frames is not None:
                    yield frames
        finally:
            self.close()

    def close(self) -> None:
        """End the source; what waits is lost."""
        self._closed.set()
        self._queue.end(at_once=True)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    @property
    def _limit(self) -> float:
        """Seconds to wait for a connection or a frame, no longer than until it is time to give up."""
        left = self.give_up - (time.monotonic() - self._last_clock)
        return min(self.stall, max(left, 0.1))

    def _say_dropped(self, lost: int) -> None:
        self.log(f"{self.name}: judging is slower than the source, {lost} frames dropped ({self.dropped} in all)")

    def _say(self, line: str) -> None:
        self.log(f"{self.name}: {without_secrets(line)}")

    def _run(self) -> None:
        try:
            for frames in self._folder() if Path(self.source).is_dir() else self._network():
                self._queue.give(frames)
                if self._closed.is_set():
                    return
            self._queue.end()
        except BaseException as error:  # whatever it is, the taker must hear of it
            self._queue.end(error)

    def _network(self) -> Iterator[Frames]:
        pause, self._last_clock = FIRST_PAUSE, time.monotonic()
        while not self._closed.is_set():
            limit = self._limit
            try:
                for frames in self._connection(limit):
                    pause, since = FIRST_PAUSE, time.monotonic()
                    yield frames
                    self._discount(since)
                if self._closed.is_set():
                    return
                if self._position is not None:
                    self._say("end")
                    return
                reason = "it ended"
            except (av.error.FFmpegError, OSError) as error:
                timed_out = isinstance(error, av.error.ExitError)  # our own limit
                reason = f"nothing for {limit:.3g} s" if timed_out else without_secrets(error.strerror or str(error))
                self._refuse(error)
            silent = time.monotonic() - self._last_clock
            if silent + pause > self.give_up:
                self._say(f"nothing for {silent:.0f} s ({reason}), given up")
                if self.connections == 0:
                    raise VideoError(
                        self.name, f"cannot be opened ({reason})", "a live source", "Check address and network."
                    )
                return
            self._say(f"{reason}; opened again in {pause:.1f} s")
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _refuse(self, error: Exception) -> None:
        """Raise what no patience will mend, as long as the source was never open."""
        if self.connections:
            return
        if isinstance(error, (av.error.ProtocolNotFoundError, av.error.DemuxerNotFoundError)):
            raise VideoError(
                self.name, "this build of FFmpeg lacks the protocol or format", "", "Another build of PyAV may have it."
            ) from None
        if is_camera(self.source) and isinstance(error, FileNotFoundError):
            raise VideoError(
                self.name,
                "no such camera",
                "a Video4Linux device",
                "List them with `ls /dev/video*`; is it plugged in?",
            ) from None
        if is_camera(self.source) and isinstance(error, PermissionError):
            raise VideoError(
                self.name, "may not be read by this user", "", "Add the user to the group that owns it, often `video`."
            ) from None
        if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
            raise VideoError(
                self.name, "the server wants other credentials", "", "Check user and password in the address."
            ) from None

    def _connection(self, limit: float) -> Iterator[Frames]:
        opened = open_options(self.source, self.options)
        with av.open(
            opened.url, format=opened.format, options=opened.options, timeout=limit, metadata_errors="ignore"
        ) as container:
            if not container.streams.video:
                raise VideoError(self.name, "has no video stream", "moving pictures")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            self.connections += 1
            rate = float(frame_rate(stream))
            self._say(f"open ({stream.codec_context.name}, {rate:.4g} frames/s)")
            length = _length(container)
            if length is not None and self.policy == "auto":
                self._queue.policy = "block"
            if self._position is not None:
                container.seek(int(max(0.0, self._position - 1.0) * av.time_base), backward=True)
            yield from self._chunks(container.decode(stream), stream, rate, length)

    def _chunks(
        self, frames: Iterator[av.VideoFrame], stream: VideoStream, rate: float, length: float | None
    ) -> Iterator[Frames]:
        """Pictures of one connection in chunks, their times being those of the whole stream."""
        begin = float((stream.start_time or 0) * (stream.time_base or 0))
        goes_on = self._position is not None
        if not goes_on:
            self._begin = None
        pixels: list[np.ndarray] = []
        seconds: list[float] = []
        converter: RgbConverter | None = None
        native = (0, 0)
        try:
            for number, frame in enumerate(frames):
                stored = (
                    number / rate if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)
                )
                if goes_on and self._position is not None and stored <= self._position:
                    self._last_clock = time.monotonic()
                    continue
                second = self._second(stored, rate)
                if length is not None:
                    self._position = stored
                if second is None:
                    continue
                if converter is None or native != (frame.height, frame.width):
                    native = (frame.height, frame.width)
                    converter = RgbConverter(native, *target_size(*native, self.size), 0)
                    if pixels:  # pictures of another size cannot share a chunk
                        yield _frames(pixels, seconds)
                        pixels, seconds = [], []
                picture = converter.empty(1)
                converter.write(frame, picture[0])
                pixels.append(picture[0])
                seconds.append(second)
                if len(pixels) == self.chunk:
                    yield _frames(pixels, seconds)
                    pixels, seconds = [], []
                if self._closed.is_set():
                    return
        finally:
            if pixels and not self._closed.is_set():
                since = time.monotonic()
                self._queue.give(_frames(pixels, seconds))  # what had come before the connection broke
                self._discount(since)
        if length is not None and self._position is not None and self._position - begin < length - END_SLACK:
            raise OSError(None, f"broke off after {self._position - begin:.1f} of {length:.1f} s")

    def _discount(self, since: float) -> None:
        """The time for which a source with an end had to wait for the reader is no silence of its own."""
        if self._position is not None:
            self._last_clock += time.monotonic() - since

    def _second(self, stored: float, rate: float) -> float | None:
        """Time on the stream's line; None for a frame to drop, whose time does not increase."""
        now = time.monotonic()
        if self._begin is None:
            self._begin = stored
            gap = max(1 / rate, now - self._last_clock) if self._last >= 0 else 0.0
            self._offset = max(self._last, 0.0) + gap
        second = self._offset + stored - self._begin
        self._last_clock = now
        if second <= self._last:
            self._unordered += 1
            return None
        self._last = second
        return second

    def _folder(self) -> Iterator[Frames]:
        folder, done = Path(self.source), set[str]()
        if self.policy == "auto":
            self._queue.policy = "block"
        quiet = time.monotonic()
        while not self._closed.is_set():
            waiting = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and p.name not in done)
            # All but the newest are complete: something else is being written already.
            ready = waiting[:-1] if len(waiting) > 1 else [p for p in waiting if _is_settled(p)]
            if not ready:
                if time.monotonic() - quiet > self.give_up:
                    self._say(f"no new file for {self.give_up:.0f} s, given up")
                    return
                self._closed.wait(0.2)
                continue
            done.add(ready[0].name)
            yield from self._file(ready[0])
            quiet = time.monotonic()

    def _file(self, path: Path) -> Iterator[Frames]:
        try:
            with VideoReader(path, size=self.size) as reader:
                begin = self._last + 1 / reader.metadata.frame_rate if self._last >= 0 else 0.0
                self.connections += 1
                self.log(f"{path}: open")
                for frames in reader.stream(chunk=self.chunk):
                    moved = Frames(frames.pixels_TCHW, frames.seconds_T + begin, frames.truncated)
                    self._last = float(moved.seconds_T[-1])
                    yield moved
        except VideoError as error:
            self.log(f"left out: {error}")


def _length(container: InputContainer) -> float | None:
    """Seconds of a source that has an end; `None` of one that goes on."""
    if container.duration is None or not math.isfinite(container.duration) or container.duration <= 0:
        return None
    return container.duration / av.time_base


def _is_settled(path: Path) -> bool:
    status = path.stat()
    return status.st_size > 0 and time.time() - status.st_mtime > SETTLED


def _frames(pixels: list[np.ndarray], seconds: list[float]) -> Frames:
    return Frames(torch.from_numpy(np.stack(pixels)), torch.tensor(seconds, dtype=torch.float64))
