"""Cut frames that arrive one after the other into clips, without knowing the end.

Clip n begins after n hops; a hop is the clip's span (T * stride frames) unless another is chosen. A stream that has
ended has the clips of the plan `contiguous` of `clip_plans.py`: what is left at the end becomes a last clip that ends
with the video, and overlaps the one before where hops are no longer than clips.
With a common frame rate, frames are first put on a line of evenly spaced times: each time shows the frame that has
begun by then. Where a live source was silent for long, the line ends and another one begins: a clip never holds frames
from both sides of a long gap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.errors import ConfigError
from wholereel.media.clip_plans import SLACK
from wholereel.media.frames import Frames

__all__ = ["ClipAssembler", "Tail", "TimedClip"]

Tail = Literal["align", "pad"]
TAILS = ("align", "pad")


@dataclass(frozen=True)
class TimedClip:
    """One clip.

    Args:
        number: n, counted from 0.
        pixels_TCHW: uint8. seconds_T: float64, the frames' own times.
        begin, end: seconds that it stands for.
        real: how many of its frames exist; behind them the last one is repeated.
        leftover: made of what was left at the end of the video.
    """

    number: int
    pixels_TCHW: Tensor
    seconds_T: Tensor
    begin: float
    end: float
    real: int
    leftover: bool = False


class ClipAssembler:
    """Holds no more frames than one span, and those of the chunks that they came in.

    Args:
        clips: `frames`, `stride` and `frame_rate` count; the plan does not.
        frame_rate: of the source, frames per second, for files: lengths are then counted in frames as the offline plan
            counts them. `None` = unknown or not constant: lengths follow from the frames' times, and the newest frame
            is taken to last as long as the one before.
        half_tick: half a tick of the source's clock in seconds, as `VideoReader.read` uses it.
        hop: frames of the line from the begin of a clip to that of the next; `None` = the span, without gap or overlap.
        tail: what is left at the end: `align`: a last clip that ends with the video; `pad`: the clip that has begun,
            its last frame repeated.
        longest_gap: seconds between two frames beyond which the line ends as if the video did, and a new one begins;
            `None` = never (files). A change of the picture's size ends it as well.
    Raises: ConfigError: settings that cannot be.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        frame_rate: float | None = None,
        half_tick: float = 0.0,
        hop: int | None = None,
        tail: Tail = "align",
        longest_gap: float | None = None,
    ) -> None:
        self.span = clips.frames * clips.stride
        self.hop = self.span if hop is None else hop
        if self.hop < 1 or tail not in TAILS or not (longest_gap is None or longest_gap > 0):
            raise ConfigError(
                f"needs hop >= 1, tail one of {', '.join(TAILS)} and longest_gap > 0; "
                f"got {hop}, {tail!r} and {longest_gap}"
            )
        self.clips, self.frame_rate, self.half_tick = clips, frame_rate, half_tick
        self.tail, self.longest_gap = tail, longest_gap
        self._line: deque[tuple[Tensor, float]] = deque(maxlen=self.span)  # the newest frames of the time line
        self._recent: deque[tuple[Tensor, float]] = deque()  # frames that a next place of the line may show
        self._placed = 0  # frames of the time line so far
        self._next = 0  # place where the next clip begins
        self._covered = 0  # places up to the end of the last clip
        self._given = 0  # clips so far, over all lines
        self._arrived = 0  # frames so far, over all lines
        self._arrived_before = 0  # of them, before this line
        self._last = -math.inf
        self._begin = self._gap = 0.0

    @property
    def frames_seen(self) -> int:
        """Frames pushed so far; those before the place where reading began (`start_at`) count as seen."""
        return self._arrived

    @property
    def clips_given(self) -> int:
        """Clips given so far, counted from the begin of the video."""
        return self._given

    @property
    def last_second(self) -> float:
        """Time of the newest frame; -inf before the first."""
        return self._last

    def clip_total(self, frames: int) -> int:
        """Clips of a file of `frames` frames at `frame_rate`, of which nothing is left out."""
        total = self._places(frames)
        complete = max(0, (total - self.span) // self.hop + 1)
        covered = (complete - 1) * self.hop + self.span if complete else 0
        return complete + self._leaves(total, complete * self.hop, covered)

    def start_at(self, clip: int, seconds_T: Tensor) -> int:
        """Begin in the midst of a file, at clip number `clip`; nothing may have been pushed.

        Args: seconds_T: times of all frames of the file.
        Returns: the number of the frame to push first; it lies up to a span before the clip, so that a last clip that
            overlaps its neighbour finds its frames.
        """
        assert self._arrived == 0, "start_at comes before the first frame"
        self._given, self._next = clip, clip * self.hop
        self._placed = max(0, min(self._next, self._places(len(seconds_T))) - self.span)
        self._covered = (clip - 1) * self.hop + self.span if clip else 0
        self._begin = float(seconds_T[0])
        first = self._placed
        if self.clips.frame_rate is not None:
            wanted = self._time(self._placed) + self.half_tick
            first = max(0, int(torch.searchsorted(seconds_T, torch.tensor(wanted).double(), right=True)) - 1)
        self._arrived = first
        if first > 0:
            self._last = float(seconds_T[first - 1])
        return first

    def feed(self, frames: Frames) -> Iterator[TimedClip]:
        """Take frames one by one, and give each clip as soon as it is complete; state may be saved in between.

        Raises: ValueError: times that do not increase.
        """
        for pixels_CHW, second in zip(frames.pixels_TCHW, frames.seconds_T.tolist(), strict=True):
            if second <= self._last:
                raise ValueError(f"times of a stream must increase, got {second} s after {self._last} s")
            if self._breaks(pixels_CHW, second):
                yield from (replace(clip, leftover=False) for clip in self.finish())
            if self._arrived == self._arrived_before:
                self._begin = second
            else:
                self._gap = second - self._last
            self._arrived, self._last = self._arrived + 1, second
            if self.clips.frame_rate is None:
                yield from self._place((pixels_CHW, second))
            else:
                self._recent.append((pixels_CHW, second))
                yield from self._fill_line(ended=False)

    def push(self, frames: Frames) -> list[TimedClip]:
        """The clips that these frames complete; times must increase."""
        return list(self.feed(frames))

    def finish(self) -> list[TimedClip]:
        """The clips that the end of the video completes; if something is pushed all the same, another line begins."""
        ready = list(self._fill_line(ended=True)) if self._recent else []
        if self._leaves(self._placed, self._next, self._covered):
            last = self._clip(self._next if self.tail == "pad" else max(0, self._placed - self.span))
            ready.append(replace(last, leftover=True))
        self._line.clear()
        self._recent.clear()
        self._placed = self._next = self._covered = 0
        self._arrived_before, self._gap = self._arrived, 0.0
        return ready

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        held = [*self._line, *self._recent]
        rate = math.nan if self.frame_rate is None else self.frame_rate
        seconds = [*(second for _, second in held), self._begin, self._gap, self._last, rate, self.half_tick]
        numbers = [self._placed, self._next, self._covered, self._given, self._arrived, self._arrived_before]
        return {
            "pixels": torch.stack([pixels for pixels, _ in held]) if held else torch.zeros(0, dtype=torch.uint8),
            "seconds": torch.tensor(seconds, dtype=torch.float64),
            "numbers": torch.tensor([*numbers, len(self._line)]),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`, into an assembler of the same settings."""
        *numbers, line = state["numbers"].tolist()
        self._placed, self._next, self._covered, self._given, self._arrived, self._arrived_before = numbers
        *seconds, self._begin, self._gap, self._last, rate, self.half_tick = state["seconds"].tolist()
        self.frame_rate = None if math.isnan(rate) else rate
        held = list(zip(state["pixels"].unbind(), seconds, strict=True)) if seconds else []
        self._line, self._recent = deque(held[:line], maxlen=self.span), deque(held[line:])

    def _places(self, frames: int) -> int:
        """Frames of the time line that a file of `frames` frames at `frame_rate` fills."""
        if self.clips.frame_rate is None or self.frame_rate is None:
            return frames
        return max(1, math.floor(frames / self.frame_rate * self.clips.frame_rate + SLACK))

    def _leaves(self, placed: int, following: int, covered: int) -> bool:
        """Whether the end of the video leaves something for a last clip.

        A clip that ends with the video shows whatever lies behind the last one; one that begins after a hop, as longer
        hops have it, shows nothing before its begin.
        """
        return placed > (covered if self.tail == "align" else max(following, covered))

    def _breaks(self, pixels_CHW: Tensor, second: float) -> bool:
        held = self._recent or self._line
        if not held:
            return False
        long = self.longest_gap is not None and second - self._last > self.longest_gap
        return long or held[-1][0].shape != pixels_CHW.shape

    def _fill_line(self, *, ended: bool) -> Iterator[TimedClip]:
        """Fill the places whose whole length has passed, as far as it is known what they show."""
        arrived = self._arrived - self._arrived_before
        length = arrived / self.frame_rate if self.frame_rate else self._last + self._gap - self._begin
        passed = math.floor(length * (self.clips.frame_rate or 0.0) + SLACK)
        while self._placed < (max(1, passed) if ended else passed):
            while len(self._recent) > 1 and self._recent[1][1] <= self._time(self._placed) + self.half_tick:
                self._recent.popleft()
            if len(self._recent) == 1 and not ended:
                break  # the next frame may have begun by then
            yield from self._place(self._recent[0])

    def _time(self, step: int) -> float:
        assert self.clips.frame_rate is not None
        return self._begin + step / self.clips.frame_rate

    def _place(self, frame: tuple[Tensor, float]) -> list[TimedClip]:
        self._line.append(frame)
        self._placed += 1
        # Not before the whole span has passed: what is left of a video that ends earlier is another clip.
        return [self._clip(self._next)] if self._placed == self._next + self.span else []

    def _clip(self, start: int) -> TimedClip:
        oldest = self._placed - len(self._line)
        last = self._placed - 1 - oldest
        places = [start - oldest + i * self.clips.stride for i in range(self.clips.frames)]
        chosen = [self._line[min(place, last)] for place in places]
        begin = chosen[0][1] if self.clips.frame_rate is None else self._time(start)
        # On a line of evenly spaced times the newest place may show a frame that has long begun.
        newest = self._line[-1][1] if self.clips.frame_rate is None else self._last
        stop = newest + (1 / self.frame_rate if self.frame_rate else self._gap)
        rate = self.clips.frame_rate or self.frame_rate
        end = stop if rate is None else min(begin + self.span / rate, max(stop, begin))
        clip = TimedClip(
            number=self._given,
            pixels_TCHW=torch.stack([pixels for pixels, _ in chosen]),
            seconds_T=torch.tensor([second for _, second in chosen], dtype=torch.float64),
            begin=begin,
            end=end,
            real=sum(place <= last for place in places),
        )
        self._given, self._next = self._given + 1, self._next + self.hop
        self._covered = start + self.span
        return clip
