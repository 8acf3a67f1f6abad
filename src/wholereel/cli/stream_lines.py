"""The lines of the live view of `wholereel stream`, as pure functions from what is known to text.

Not here: drawing them (`stream_view.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wholereel.inference.stream import ClipScore

__all__ = ["ESCAPE", "Row", "Status", "block", "table"]

EIGHTHS = " ▏▎▍▌▋▊▉█"
BOLD, DIM, RED, CYAN, OFF = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[36m", "\x1b[0m"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
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


@dataclass
class Row:
    """One of many sources.

    Args:
        name: as it may be shown. state: `waiting`, `reading`, `ended` or `failed`. clip: the newest one.
        lag, dropped: of live sources, else `None`.
    """

    name: str
    state: str = "waiting"
    clip: ClipScore | None = None
    lag: float | None = None
    dropped: int | None = None


def table(status: Status, rows: Sequence[Row], width: int, height: int, *, unicode: bool = True) -> list[str]:
    """A line for each source, those that are being read first where not all have room, none wider than `width`."""
    order = {"reading": 0, "failed": 1, "waiting": 2, "ended": 3}
    room = max(1, height - 5)
    chosen = list(rows) if len(rows) <= room else sorted(rows, key=lambda row: order[row.state])[:room]
    column = min(max((len(row.name) for row in chosen), default=0), max(8, width // 3))
    counts = {state: sum(row.state == state for row in rows) for state in order}
    told = "   ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines = [f"{BOLD}{status.title}{OFF}  {status.mode}  {CYAN}{len(rows)} sources{OFF}   {told}", ""]
    lines += [_row(row, column, width, unicode) for row in chosen]
    return [_cut(line, width) for line in [*lines, "", *_counts(status, width)]]


def _row(row: Row, column: int, width: int, unicode: bool) -> str:
    name = row.name if len(row.name) <= column else f"…{row.name[1 - column :]}" if unicode else row.name[-column:]
    state = f"{RED}failed{OFF} " if row.state == "failed" else f"{row.state:<7}"
    if row.clip is None:
        return f"  {name:<{column}}  {state}"
    best, score = row.clip.label, max(found[0][1] for _, found in row.clip.best(row.clip.scores_K, 1))
    lag = "" if row.lag is None or row.state != "reading" else f"  lag {row.lag:.1f} s"
    lost = "" if not row.dropped else f"  {RED}dropped {row.dropped}{OFF}"
    bar = _bar(score, max(4, min(20, width - column - 60)), unicode)
    return f"  {name:<{column}}  {state}  {_clock(row.clip.end)}  {bar} {score:.2f}  {best}{lag}{lost}"


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
    parts += [f"{status.speed:.1f}x real time"] if status.duration > 0 else []
    lines = [""]
    for part in [*parts, f"memory {status.memory:,.0f} MB"]:
        longer = f"{lines[-1]}   {part}" if lines[-1] else part
        if lines[-1] and len(ESCAPE.sub("", longer)) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


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
