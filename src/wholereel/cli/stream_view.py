"""What `wholereel stream` shows: one block in the terminal that is kept up to date, or plain lines where there is none.

`block` is a pure function from what is known to lines of text; `LiveView` draws them over the old ones, from a thread
of its own, so that lag and memory go on while no clip comes.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from wholereel.inference.stream import ClipScore

__all__ = ["LiveView", "PlainView", "Status", "View", "block", "memory_megabytes"]

EIGHTHS = " ▏▎▍▌▋▊▉█"
BOLD, DIM, RED, CYAN, OFF = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[36m", "\x1b[0m"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PERIOD = 0.25  # seconds between two drawings
RATE_SPAN = 10.0  # seconds over which clips per second are counted
SILENT = 2.0  # seconds without a frame that are worth telling


@dataclass
class Status:
    """What is known besides the newest clip; all times are seconds.

    Args:
        title: of the run. source: as it may be shown. mode: of the stream.
        position: time of the newest frame that was taken. duration: of a file, 0 where there is no end.
        sweep, sweeps: from 1; in all but the last one nothing is judged.
        lag: how far the newest clip ends behind the newest frame of the source; `None` for files.
        silent: since the last frame. dropped: frames. connections: of a live source.
        clips: judged. memory: megabytes. rate: clips per second. speed: seconds of video per second.
    """

    title: str
    source: str
    mode: str
    position: float = 0.0
    duration: float = 0.0
    sweep: int = 1
    sweeps: int = 1
    lag: float | None = None
    dropped: int = 0
    connections: int | None = None
    clips: int = 0
    memory: float = 0.0
    rate: float = 0.0
    speed: float = 0.0
    silent: float = 0.0


def block(status: Status, clip: ClipScore | None, top: int, width: int, *, unicode: bool = True) -> list[str]:
    """The lines of the view, none wider than `width`; escapes for colours may be in them."""
    head = f"{BOLD}{status.title}{OFF}  {status.mode}  {CYAN}{status.source}{OFF}"
    lines = [head, _where(status, width, unicode), ""]
    if clip is None:
        filling = status.sweep < status.sweeps
        waiting = "filling the memory; the last sweep judges" if filling else "no clip yet"
        lines += [f"{DIM}{waiting}{OFF}"]
    else:
        mark = "" if clip.final else f"  {DIM}may change{OFF}"
        lines += [f"clip {clip.number}   {_clock(clip.begin)} to {_clock(clip.end)}{mark}"]
        lines += _bars(clip.best(clip.scores_K, top), width, unicode)
        lines += ["video so far", *_bars(clip.best(clip.video_scores_K, top), width, unicode)]
    return [_cut(line, width) for line in [*lines, "", *_counts(status, width)]]


class PlainView:
    """A line for each clip, for files, pipes and logs."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out

    def show(self, clip: ClipScore, top: int) -> None:
        """Print a clip."""
        best, whole = _words(clip.best(clip.scores_K, top)), _words(clip.best(clip.video_scores_K, 1))
        mark = "" if clip.final else "  (may change)"
        print(f"{clip.begin:9.2f} s  {best}   | so far: {whole}{mark}", file=self._out, flush=True)

    def log(self, line: str) -> None:
        """Print something about the source."""
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to clean up."""


class LiveView:
    """The block, drawn over itself.

    Args:
        status: of the view; `refresh` brings it up to date before each drawing.
        top: classes of a clip and of the video.
    """

    def __init__(self, status: Status, refresh: Callable[[Status], None], top: int, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._status, self._refresh, self._top = status, refresh, top
        self._clip: ClipScore | None = None
        self._past: deque[tuple[float, float, int]] = deque()  # of the last seconds: clock, position, clips
        self._drawn, self._moved = 0, time.monotonic()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._unicode = (getattr(self._out, "encoding", None) or "").lower().replace("-", "") == "utf8"
        self._out.write("\x1b[?25l")
        self._thread = threading.Thread(target=self._go_on, daemon=True, name="view of the stream")
        self._thread.start()

    def show(self, clip: ClipScore, top: int) -> None:
        """Take in a clip; it is drawn at the next moment for it."""
        with self._lock:
            self._clip, self._top = clip, top

    def log(self, line: str) -> None:
        """A line above the block, which stays."""
        with self._lock:
            self._erase()
            self._out.write(line + "\n")
            self._draw()

    def close(self) -> None:
        """Draw for the last time, and leave the block there."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            self._erase()
            self._draw()
            self._out.write("\x1b[?25h")
            self._out.flush()

    def _go_on(self) -> None:
        while not self._closed.wait(PERIOD):
            with self._lock:
                self._erase()
                self._draw()

    def _erase(self) -> None:
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}F\x1b[J")

    def _draw(self) -> None:
        self._refresh(self._status)
        self._count()
        size = shutil.get_terminal_size()
        room = max(1, (size.lines - 8) // 2)  # a block that scrolls away cannot be drawn over
        lines = block(self._status, self._clip, min(self._top, room), size.columns - 1, unicode=self._unicode)
        lines = [ESCAPE.sub("", line) for line in lines] if "NO_COLOR" in os.environ else lines
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._drawn = len(lines)

    def _count(self) -> None:
        status, now = self._status, time.monotonic()
        position = max(0.0, status.position)
        if not self._past or position != self._past[-1][1] or status.clips != self._past[-1][2]:
            self._moved = now
        self._past.append((now, position, status.clips))
        while now - self._past[0][0] > RATE_SPAN:
            self._past.popleft()
        then, before, clips = self._past[0]
        span = max(now - then, 1e-3)
        status.rate, status.speed = max(0, status.clips - clips) / span, max(0.0, position - before) / span
        status.silent = now - self._moved


View = PlainView | LiveView


def memory_megabytes() -> float:
    """Resident memory of this process; where the system does not tell, the largest it has been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _where(status: Status, width: int, unicode: bool) -> str:
    at = _clock(status.position)
    sweep = f"   sweep {status.sweep} of {status.sweeps}" if status.sweeps > 1 else ""
    if status.duration <= 0:
        state = f"{RED}silent for {status.silent:.0f} s{OFF}" if status.silent > SILENT else "live"
        times = "" if status.connections is None else f"   connections {status.connections}"
        return f"{state}   at {at}{times}"
    share = min(1.0, status.position / status.duration)
    text = f"{at} of {_clock(status.duration)} {share:4.0%}{sweep}"
    return f"{_bar(share, max(0, width - len(text) - 3), unicode)}  {text}"


def _counts(status: Status, width: int) -> list[str]:
    dropped = f"{RED if status.dropped else ''}dropped {status.dropped}{OFF if status.dropped else ''}"
    parts = [] if status.lag is None else [f"lag {status.lag:.1f} s", dropped]
    parts += [f"{status.clips} clips", f"{status.rate:.1f} clips/s"]
    parts += [f"{status.speed:.1f}x real time"] if status.lag is None else []
    lines = [""]
    for part in [*parts, f"memory {status.memory:,.0f} MB"]:
        longer = f"{lines[-1]}   {part}" if lines[-1] else part
        if lines[-1] and len(ESCAPE.sub("", longer)) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def _words(found: list[tuple[str, list[list[Any]]]]) -> str:
    spaces = ["  ".join(f"{name} {score:.3f}" for name, score in classes) for _, classes in found]
    return "  · ".join(spaces)


def _bars(found: list[tuple[str, list[list[Any]]]], width: int, unicode: bool) -> list[str]:
    rows = [(f"{space}: {name}" if space else str(name), score) for space, classes in found for name, score in classes]
    names = [name[: max(4, width // 3)] for name, _ in rows]
    column = max(map(len, names), default=0)
    room = min(40, max(4, width - column - 12))
    pairs = zip(names, rows, strict=True)
    return [f"  {name:<{column}}  {_bar(score, room, unicode)}  {score:.3f}" for name, (_, score) in pairs]


def _bar(share: float, room: int, unicode: bool) -> str:
    share = min(1.0, max(0.0, share)) if share == share else 0.0  # NaN: nothing is known
    if not unicode:
        full = round(share * room)
        return "#" * full + "." * (room - full)
    eighths = round(share * room * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(room, "░")


def _clock(seconds: float) -> str:
    if seconds == float("-inf"):
        return "0:00:00.0"
    tenths = round(max(0.0, seconds) * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def _cut(line: str, width: int) -> str:
    """The line, at most `width` characters of it that are seen."""
    kept, seen, place = [], 0, 0
    while place < len(line):
        escape = ESCAPE.match(line, place)
        if escape is not None:
            kept.append(escape[0])
            place = escape.end()
            continue
        if seen < width:
            kept.append(line[place])
        seen, place = seen + 1, place + 1
    return "".join(kept)
