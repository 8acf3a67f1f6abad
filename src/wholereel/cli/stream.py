"""`wholereel stream`: classes of a video while it is running, or of one that lasts for hours."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from tyro.conf import arg

from wholereel.cli.launch import torch_device
from wholereel.cli.stream_lines import Status
from wholereel.cli.stream_view import LiveView, One, PlainView, View, memory_megabytes
from wholereel.errors import ConfigError

if TYPE_CHECKING:
    from wholereel.inference.stream import Stream
    from wholereel.media.live_source import LiveSource
    from wholereel.media.video_reader import VideoReader

__all__ = ["LiveSettings", "stopped_by_signals", "stream", "write_line"]


@dataclass(frozen=True)
class LiveSettings:
    """How live sources are read; see the options of the same names."""

    policy: Literal["auto", "drop", "block"]
    stall: float
    give_up: float
    options: dict[str, str]

    def open(self, source: str, size: int, after: float | None = None) -> LiveSource:
        """A live source with these settings."""
        from wholereel.media.live_source import LiveSource

        settings: dict[str, Any] = {"policy": self.policy, "stall": self.stall, "give_up": self.give_up}
        return LiveSource(source, size=size, after=after, options=self.options, **settings)


def stream(
    run: Annotated[Path, arg(metavar="RUN")],
    sources: Annotated[tuple[str, ...], arg(metavar="SOURCE...")],
    /,
    mode: Literal["causal", "window", "ema", "late_read", "two_sweep"] = "causal",
    out: Annotated[Path | None, arg(metavar="FILE.jsonl")] = None,
    state: Annotated[Path | None, arg(metavar="FILE")] = None,
    save_every: int = 20,
    rows: int = 8,
    hop: Annotated[int | None, arg(metavar="FRAMES")] = None,
    window: Annotated[int | None, arg(metavar="CLIPS")] = None,
    decay: Annotated[float | None, arg(metavar="WEIGHT")] = None,
    part: Annotated[str | None, arg(metavar="I/N")] = None,
    merge: Annotated[tuple[Path, ...], arg(metavar="STATE...")] = (),
    policy: Literal["auto", "drop", "block"] = "auto",
    longest_gap: float = 2.0,
    stall: float = 10.0,
    give_up: float = 30.0,
    input: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE...")] = (),
    top: int = 3,
    plain: bool = False,
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
    fold: bool = False,
    device: Annotated[str, arg(metavar="auto|cpu|cuda")] = "auto",
) -> int:
    """Judge the clips of a file, URL, camera or growing folder as they come.

    Args:
        run: Run directory, one of its stages, or a model package.
        sources: Video file, URL (rtsp, http, udp, tcp, HLS), camera (/dev/video0) or folder that files are written to;
            several are judged at the same time.
        mode: What a clip may know: all before it (causal), the last few (window, ema), or everything: late_read judges
            all clips again at the end, two_sweep reads a file twice; both say what the offline model says.
        out: JSON lines, one a clip, with "final" = whether something else will be said of it.
        state: Keep memory and position in this file; where it exists, go on from there.
        save_every: Clips between two savings of the state.
        rows: Of several sources, so many at the same time.
        hop: Frames from the begin of a clip to that of the next, at the model's frame rate; if not given, as the model
            was trained on streams, or a clip's length.
        window: Clips that mode window remembers, 16 where not given.
        decay: Weight of the past in mode ema, per clip; 0.9 where not given.
        part: Read only the I-th of N parts of a file and keep it in --state, to be merged.
        merge: States of all parts of the file; what is left is said with all of them known.
        policy: When judging is slower than the source: drop what waits, or let the source wait. auto: drop if it cannot
            wait (network streams, cameras).
        longest_gap: Seconds without a frame in a live source beyond which no clip reaches.
        stall: Seconds without a frame after which a live source is opened again.
        give_up: Seconds without a frame after which a live source counts as ended.
        input: Options of FFmpeg for a live source, such as video_size=640x480 of a camera.
        top: Classes to show.
        plain: Lines instead of the live view.
        precision: bf16 computes the network under autocast; auto: on CPUs that multiply bfloat16 themselves.
        fold: Fold BatchNorm into the convolutions in front of it: a little quicker, scores differ by rounding.
        device: Where the model runs.
    """
    from wholereel.cli.stream_many import follow_many
    from wholereel.inference.predictor import find_package
    from wholereel.inference.stream import Stream
    from wholereel.inference.stream_batch import BatchStream
    from wholereel.media.live_source import is_live
    from wholereel.models.package import load_package

    if save_every < 1 or top < 1:
        raise ConfigError(f"--save-every and --top must be at least 1, got {save_every} and {top}")
    if not sources:
        raise ConfigError("name at least one SOURCE: a video file, a URL, a camera or a folder.")
    for name, value, its_mode in (("window", window, "window"), ("decay", decay, "ema")):
        if value is not None and mode != its_mode:
            raise ConfigError(f"--{name} is a setting of --mode {its_mode}, the mode here is {mode}; leave it out.")
    if part is not None and state is None:
        raise ConfigError("--part needs --state FILE: what is known of the part is kept there, to be merged.")
    live_settings = LiveSettings(policy, stall, give_up, _options(input))
    package = load_package(find_package(run))
    settings: dict[str, Any] = {"mode": mode, "hop": hop, "precision": precision, "fold": fold}
    settings |= {name: value for name, value in (("window", window), ("decay", decay)) if value is not None}
    live = any(is_live(source) for source in sources)
    settings |= {"longest_gap": longest_gap if live else None, "device": torch_device(device)}
    if len(sources) > 1:
        if part is not None or merge:
            raise ConfigError("--part and --merge are about one source")
        follow_many(
            BatchStream(package, rows=rows, **settings),
            sources,
            live_settings,
            str(run),
            out,
            state,
            save_every,
            top,
            plain,
        )
        return 0
    source = sources[0]
    judge = Stream(package, **settings)
    _merge(judge, merge, lambda: Stream(package, **settings))
    lines_kept = _resume(judge, state, out)
    with ExitStack() as stack:
        after = judge.last_second if judge.frames_seen else None
        if live:
            opened: LiveSource | VideoReader = live_settings.open(source, package.short_side, after)
        else:
            opened = _open_file(source, package.short_side)
        stack.callback(opened.close)
        view = _view(judge, opened, str(run), plain, top)
        stack.callback(view.close)
        if lines_kept:
            view.log(lines_kept)
        lines = stack.enter_context(out.open("a", encoding="utf-8")) if out is not None else None
        stack.enter_context(stopped_by_signals(judge.stop))
        for clip in judge.run(opened, part=_part(part), state=state, save_every=save_every):
            if lines is not None:
                write_line(lines, clip.to_dict(top))
            view.show(clip)
        if judge.stopped:
            view.log("stopped" if state is None else f"stopped; the same command goes on, from {state}")
    return 0


def _open_file(source: str, size: int) -> VideoReader:
    from wholereel.media.video_reader import VideoReader

    return VideoReader(source, size=size)


def _view(judge: Stream, opened: LiveSource | VideoReader, run: str, plain: bool, top: int) -> View:
    from wholereel.media.live_source import LiveSource

    live = isinstance(opened, LiveSource)
    if plain or not sys.stdout.isatty():
        view: View = PlainView(top)
    else:
        status = Status(run, opened.name if isinstance(opened, LiveSource) else str(opened.path), judge.mode)
        if not isinstance(opened, LiveSource):
            status.duration = float(opened.seconds_T[-1]) + 1 / opened.metadata.frame_rate

        def refresh(status: Status) -> None:
            status.position, status.clips = judge.last_second, judge.clips_seen
            status.sweep, status.sweeps = judge.sweep + 1, judge.sweeps
            status.memory = memory_megabytes()
            if isinstance(opened, LiveSource):
                status.lag = max(0.0, opened.newest - judge.judged_until) if judge.clips_seen else 0.0
                status.dropped, status.connections = opened.dropped, opened.connections

        view = LiveView(One(status, refresh, top))
    if live:
        opened.log = view.log  # type: ignore[union-attr]
    return view


def _merge(judge: Stream, states: tuple[Path, ...], another: Callable[[], Stream]) -> None:
    """Take in the states of all parts, in any order."""
    loaded = []
    for path in states:
        loaded.append(another())
        loaded[-1].load(path)
    judge.merge(*loaded)


def _resume(judge: Stream, state: Path | None, out: Path | None) -> str | None:
    """Load the state where there is one, and cut lines that were written after it."""
    told = None
    if state is not None and state.exists():
        judge.load(state)
        told = f"{state}: going on after {judge.clips_seen} clips"
    if out is not None and out.exists():
        lines = out.read_text(encoding="utf-8").splitlines(keepends=True)[: judge.clips_said]
        out.write_text("".join(lines), encoding="utf-8")
    return told


def _options(pairs: tuple[str, ...]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for name, mark, _ in split:
        if not name or not mark:
            raise ConfigError(f"--input {name}: expected KEY=VALUE, such as video_size=640x480.")
    return {name: value for name, _, value in split}


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal()):
        raise ConfigError(f"--part {text}: expected I/N, such as 1/2.")
    return int(number), int(parts)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the stream behind the present clip, so that its state is whole; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def once(number: int, frame: FrameType | None) -> None:
        stop()
        for each, handler in before.items():
            signal.signal(each, handler)

    try:
        for number in before:
            signal.signal(number, once)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_line(lines: TextIO, record: dict[str, Any]) -> None:
    """One line of JSON, on its way to the disk at once."""
    lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    lines.flush()
