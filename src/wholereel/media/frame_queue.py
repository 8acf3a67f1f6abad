"""Frames on their way from the thread that gets them to the one that uses them; and frames pushed from Python.

The way has room for a fixed number of chunks. When it is full, either the giver waits (`block`), or all that waits is
dropped at once and counted (`drop`): one hole in time instead of many small ones, and what comes next is new.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wholereel.errors import ConfigError
from wholereel.media.frames import Frames

__all__ = ["FrameQueue", "Policy", "PushedFrames"]

Policy = Literal["block", "drop"]
Log = Callable[[str], None]


class FrameQueue:
    """One giver, one taker, each in its own thread.

    Args:
        room: chunks. policy: what happens when they are full, see above; may be changed on the way.
        dropped_some: called with the number of frames that have just been dropped.
    Attributes:
        dropped: frames dropped so far. newest: time of the newest frame that was given, -inf before the first.
        waiting: frames that wait.
    """

    def __init__(self, room: int, policy: Policy, dropped_some: Callable[[int], None] = lambda count: None) -> None:
        self.room, self.policy = room, policy
        self.dropped, self.newest, self.waiting = 0, -np.inf, 0
        self._dropped_some = dropped_some
        self._chunks: deque[Frames] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    @property
    def ended(self) -> bool:
        """Nothing waits and nothing will come."""
        with self._changed:
            return self._ended and not self._chunks

    def give(self, frames: Frames) -> None:
        """Put a chunk at the end; may wait. After `end` it is thrown away."""
        lost = 0
        with self._changed:
            if self.policy == "drop" and len(self._chunks) >= self.room:
                lost = sum(len(chunk) for chunk in self._chunks)
                self._chunks.clear()
                self.dropped, self.waiting = self.dropped + lost, 0
            while len(self._chunks) >= self.room and not self._ended:
                self._changed.wait()
            if not self._ended:
                self._chunks.append(frames)
                self.waiting += len(frames)
                self.newest = float(frames.seconds_T[-1])
                self._changed.notify_all()
        if lost:
            self._dropped_some(lost)

    def end(self, error: BaseException | None = None, *, at_once: bool = False) -> None:
        """Nothing more comes; `error` is raised where frames are taken, behind the last one. `at_once` throws away what
        waits."""
        with self._changed:
            if at_once:
                self._chunks.clear()
                self.waiting = 0
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> Frames | None:
        """The oldest chunk; `None` when nothing came in `timeout` seconds, or when all has ended (`ended`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._ended, timeout)
            if self._chunks:
                frames = self._chunks.popleft()
                self.waiting -= len(frames)
                self._changed.notify_all()
                return frames
            if self._error is not None:
                raise self._error
            return None


class PushedFrames:
    """A source that a program fills: `put` from any one thread, while another one reads (`Stream.run`).

        source = PushedFrames(frame_rate=25)
        camera.on_picture(source.put)          # in the camera's thread
        for clip in stream.run(source): ...    # in this one

    Args:
        frame_rate: pictures without a time are that far apart; `None` = they get the time at which they come.
        policy: `drop` or `block`, what happens when the reader is slower: see the head of this file.
        room: calls of `put` that may wait.
    """

    def __init__(self, *, frame_rate: float | None = None, policy: Policy = "drop", room: int = 128) -> None:
        if policy not in ("block", "drop") or room < 1 or not (frame_rate is None or frame_rate > 0):
            raise ConfigError(
                f"needs policy 'block' or 'drop', room >= 1 and frame_rate > 0; got {policy!r}, {room}, {frame_rate}"
            )
        self.frame_rate = frame_rate
        self._queue = FrameQueue(room, policy)
        self._put = 0
        self._began: float | None = None

    @property
    def dropped(self) -> int:
        """Frames dropped so far."""
        return self._queue.dropped

    @property
    def newest(self) -> float:
        """Time of the newest frame; -inf before the first."""
        return self._queue.newest

    @property
    def ended(self) -> bool:
        """`end` was called and everything taken."""
        return self._queue.ended

    def put(self, pictures: Frames | Tensor | np.ndarray, second: float | None = None) -> None:
        """Give frames, or one picture.

        Args:
            pictures: `Frames` with times of their own; or one uint8 picture, a tensor `CHW` or an array `HWC` (red,
                green, blue), which is copied.
            second: its time; must increase. See `frame_rate` for what holds where it is `None`.
        Raises: ValueError: not such a picture.
        """
        if isinstance(pictures, Frames):
            if len(pictures):
                self._put += len(pictures)
                self._queue.give(pictures)
            return
        pixels_CHW = _picture(pictures)
        if second is None:
            second = self._clock() if self.frame_rate is None else self._put / self.frame_rate
        self._put += 1
        self._queue.give(Frames(pixels_CHW[None], torch.tensor([second], dtype=torch.float64)))

    def end(self) -> None:
        """No more frames; the reader finishes what is there."""
        self._queue.end()

    def take(self, timeout: float | None = None) -> Frames | None:
        """See `FrameQueue.take`."""
        return self._queue.take(timeout)

    def __iter__(self) -> Iterator[Frames]:
        while not self.ended:
            frames = self.take()
            if frames is not None:
                yield frames

    def _clock(self) -> float:
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        return now - self._began


def _picture(picture: Tensor | np.ndarray) -> Tensor:
    tensor = torch.as_tensor(picture)
    channels = 2 if isinstance(picture, np.ndarray) else 0
    if tensor.ndim != 3 or tensor.dtype != torch.uint8 or tensor.shape[channels] != 3:
        raise ValueError(
            "a picture is a uint8 array (H, W, 3) or tensor (3, H, W), "
            f"got {type(picture).__name__} {tuple(tensor.shape)} of {tensor.dtype}"
        )
    return (tensor.permute(2, 0, 1) if channels else tensor).clone(memory_format=torch.contiguous_format)
