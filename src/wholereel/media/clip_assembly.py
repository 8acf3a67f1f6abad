"""Cut frames that arrive one after the other into clips: the plan `contiguous`, without knowing the end.

Clip n begins after n spans of T * stride frames. What is left at the end becomes a last clip that ends with the video
and overlaps the one before, so that a stream that has ended has the clips of the plan `contiguous` of `clip_plans.py`.
With a common frame rate, frames are first put on a line of evenly spaced times: each time shows the frame that has
begun by then.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.media.clip_plans import SLACK
from wholereel.media.frames import Frames

__all__ = ["ClipAssembler", "TimedClip"]


@dataclass(frozen=True)
class TimedClip:
    """One clip.

    Args:
        number: n, counted from 0.
        pixels_TCHW: uint8. seconds_T: float64, the frames' own times.
        begin, end: seconds that it stands for.
    """

    number: int
    pixels_TCHW: Tensor
    seconds_T: Tensor
    begin: float
    end: float


class ClipAssembler:
    """Holds no more frames than one span.

    Args:
        clips: `frames`, `stride` and `frame_rate` count; the plan is `contiguous` in any case.
        frame_rate: of the source, frames per second, for files: lengths are then counted in frames as the offline plan
            counts them. `None` = unknown or not constant: lengths follow from the frames' times, and the newest frame
            is taken to last as long as the one before.
        half_tick: half a tick of the source's clock in seconds, as `VideoReader.read` uses it.
    """

    def __init__(self, clips: Clips, *, frame_rate: float | None, half_tick: float = 0.0) -> None:
        self.clips, self.frame_rate, self.half_tick = clips, frame_rate, half_tick
        self.span = clips.frames * clips.stride
        self._line: deque[tuple[Tensor, float]] = deque(maxlen=self.span)  # the newest frames of the time line
        self._placed = 0  # frames of the time line so far
        self._given = 0  # clips so far
        self._arrived = 0
        self._recent: deque[tuple[Tensor, float]] = deque()  # frames that a next place of the line may show
        self._last = -math.inf
        self._begin = self._gap = 0.0

    @property
    def frames_seen(self) -> int:
        """Frames pushed so far."""
        return self._arrived

    def push(self, frames: Frames) -> list[TimedClip]:
        """The clips that these frames complete; times must increase."""
        ready = []
        for pixels_CHW, second in zip(frames.pixels_TCHW, frames.seconds_T.tolist(), strict=True):
            if second <= self._last:
                raise ValueError(f"times of a stream must increase, got {second} s after {self._last} s")
            if self._arrived == 0:
                self._begin = second
            else:
                self._gap = second - self._last
            self._arrived, self._last = self._arrived + 1, second
            if self.clips.frame_rate is None:
                ready += self._place((pixels_CHW, second))
            else:
                self._recent.append((pixels_CHW, second))
                ready += self._fill_line(ended=False)
        return ready

    def finish(self) -> list[TimedClip]:
        """The clips that the end of the stream completes; nothing may be pushed afterwards."""
        ready = self._fill_line(ended=True) if self._recent else []
        if self._placed > self._given * self.span:
            ready.append(self._clip(max(0, self._placed - self.span)))
        return ready

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        held = [*self._line, *self._recent]
        seconds = [*(second for _, second in held), self._begin, self._gap, self._last]
        return {
            "pixels": torch.stack([pixels for pixels, _ in held]) if held else torch.zeros(0, dtype=torch.uint8),
            "seconds": torch.tensor(seconds, dtype=torch.float64),
            "numbers": torch.tensor([self._placed, self._given, self._arrived, len(self._line)]),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`, into an assembler of the same settings."""
        self._placed, self._given, self._arrived, line = state["numbers"].tolist()
        *seconds, self._begin, self._gap, self._last = state["seconds"].tolist()
        held = list(zip(state["pixels"].unbind(), seconds, strict=True)) if seconds else []
        self._line, self._recent = deque(held[:line], maxlen=self.span), deque(held[line:])

    def _fill_line(self, *, ended: bool) -> list[TimedClip]:
        """Fill the places whose whole length has passed, as far as it is known what they show."""
        length = self._arrived / self.frame_rate if self.frame_rate else self._last + self._gap - self._begin
        passed = math.floor(length * (self.clips.frame_rate or 0.0) + SLACK)
        ready = []
        while self._placed < (max(1, passed) if ended else passed):
            while len(self._recent) > 1 and self._recent[1][1] <= self._time(self._placed) + self.half_tick:
                self._recent.popleft()
            if len(self._recent) == 1 and not ended:
                break  # the next frame may have begun by then
            ready += self._place(self._recent[0])
        return ready

    @property
    def last_second(self) -> float:
        """Time of the newest frame; -inf before the first."""
        return self._last

    def _time(self, step: int) -> float:
        assert self.clips.frame_rate is not None
        return self._begin + step / self.clips.frame_rate

    def _place(self, frame: tuple[Tensor, float]) -> list[TimedClip]:
        self._line.append(frame)
        self._placed += 1
        # Not before the whole span has passed: what is left of a video that ends earlier is another clip.
        return [self._clip(self._given * self.span)] if self._placed == (self._given + 1) * self.span else []

    def _clip(self, start: int) -> TimedClip:
        oldest = self._placed - len(self._line)
        last = self._placed - 1 - oldest
        chosen = [self._line[min(start - oldest + i * self.clips.stride, last)] for i in range(self.clips.frames)]
        begin = chosen[0][1] if self.clips.frame_rate is None else self._time(start)
        newest = self._line[-1][1] + (1 / self.frame_rate if self.frame_rate else self._gap)
        rate = self.clips.frame_rate or self.frame_rate
        end = newest if rate is None else min(begin + self.span / rate, max(newest, begin))
        clip = TimedClip(
            number=self._given,
            pixels_TCHW=torch.stack([pixels for pixels, _ in chosen]),
            seconds_T=torch.tensor([second for _, second in chosen], dtype=torch.float64),
            begin=begin,
            end=end,
        )
        self._given += 1
        return clip
