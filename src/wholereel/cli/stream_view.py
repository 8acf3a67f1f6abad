"""How `wholereel stream` shows what it finds: one block in a terminal that is kept up to date, or plain lines.

`LiveView` draws the block over itself from a thread of its own, so that lag and memory go on while no clip comes.
Not here: what the lines say (`stream_lines.py`).
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from wholereel.cli.stream_lines import ESCAPE, Row, Status, block, table

if TYPE_CHECKING:
    from wholereel.inference.stream import ClipScore

__all__ = ["Content", "LiveView", "Many", "One", "PlainView", "View", "memory_megabytes"]

PERIOD = 0.25  # seconds between two drawings
RATE_SPAN = 10.0  # seconds over which clips per second are counted


class Content(Protocol):
    """What a live view shows."""

    def show(self, clip: ClipScore, number: int) -> None:
        """Take in a clip of a source."""

    def lines(self, width: int, height: int, unicode: bool) -> list[str]:
        """The lines now."""


class Pace:
    """Fills in what follows from two looks at a status: clips per second, speed, silence."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, float, int]] = deque()  # of the last seconds: clock, position, clips
        self._moved = time.monotonic()

    def look(self, status: Status) -> None:
        """Once before each drawing."""
        now, position = time.monotonic(), max(0.0, status.position)
        if not self._past or (position, status.clips) != self._past[-1][1:]:
            self._moved = now
        self._past.append((now, position, status.clips))
        while now - self._past[0][0] > RATE_SPAN:
            self._past.popleft()
        then, before, clips = self._past[0]
        span = max(now - then, 1e-3)
        status.rate, status.speed = max(0, status.clips - clips) / span, max(0.0, position - before) / span
        status.silent = now - self._moved


class One:
    """A single source: its newest clip with bars.

    Args:
        refresh: brings the status up to date before each drawing. top: classes of a clip and of the video.
    """

    def __init__(self, status: Status, refresh: Callable[[Status], None], top: int) -> None:
        self._status, self._refresh, self._top = status, refresh, top
        self._clip: ClipScore | None = None
        self._pace = Pace()

    def show(self, clip: ClipScore, number: int) -> None:
        self._clip = clip

    def lines(self, width: int, height: int, unicode: bool) -> list[str]:
        self._refresh(self._status)
        self._pace.look(self._status)
        room = max(1, (height - 8) // 2)  # a block that scrolls away cannot be drawn over
        return block(self._status, self._clip, min(self._top, room), width, unicode=unicode)


class Many:
    """Many sources: a line for each."""

    def __init__(self, status: Status, rows: list[Row], refresh: Callable[[Status, list[Row]], None]) -> None:
        self._status, self._rows, self._refresh = status, rows, refresh
        self._pace = Pace()

    def show(self, clip: ClipScore, number: int) -> None:
        self._rows[number].clip = clip
        self._status.clips += 1

    def lines(self, width: int, height: int, unicode: bool) -> list[str]:
        self._refresh(self._status, self._rows)
        self._pace.look(self._status)
        return table(self._status, self._rows, width, height, unicode=unicode)


class PlainView:
    """A line for each clip, for files, pipes and logs."""

    def __init__(self, top: int, names: list[str] | None = None, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._top, self._names = top, names

    def show(self, clip: ClipScore, number: int = 0) -> None:
        """Print a clip; of several sources, with the name of its own."""
        name = "" if self._names is None else f"{self._names[number]}  "
        best, whole = _words(clip.best(clip.scores_K, self._top)), _words(clip.best(clip.video_scores_K, 1))
        mark = "" if clip.final else "  (may change)"
        print(f"{name}{clip.begin:9.2f} s  {best}   | so far: {whole}{mark}", file=self._out, flush=True)

    def log(self, line: str) -> None:
        """Print something about the source."""
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to clean up."""


class LiveView:
    """The block, drawn over itself."""

    def __init__(self, content: Content, out: TextIO | None = None) -> None:
        self._out, self._content = sys.stdout if out is None else out, content
        self._drawn = 0
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._unicode = (getattr(self._out, "encoding", None) or "").lower().replace("-", "") == "utf8"
        self._out.write("\x1b[?25l")
        self._thread = threading.Thread(target=self._go_on, daemon=True, name="view of the stream")
        self._thread.start()

    def show(self, clip: ClipScore, number: int = 0) -> None:
        """Take in a clip; it is drawn at the next moment for it."""
        with self._lock:
            self._content.show(clip, number)

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
        size = shutil.get_terminal_size()
        lines = self._content.lines(size.columns - 1, size.lines, self._unicode)
        lines = [ESCAPE.sub("", line) for line in lines] if "NO_COLOR" in os.environ else lines
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._drawn = len(lines)


View = PlainView | LiveView


def memory_megabytes() -> float:
    """Resident memory of this process; where the system does not tell, the largest it has been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _words(found: list[tuple[str, list[list[Any]]]]) -> str:
    spaces = ["  ".join(f"{name} {score:.3f}" for name, score in classes) for _, classes in found]
    return "  · ".join(spaces)
