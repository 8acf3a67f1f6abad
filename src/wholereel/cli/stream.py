"""`wholereel stream`: classes of a video while it is running, or of one that lasts for hours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

from tyro.conf import arg

from wholereel.cli.launch import torch_device
from wholereel.errors import ConfigError

if TYPE_CHECKING:
    from wholereel.inference.stream import ClipScore, Stream
    from wholereel.media.frames import Frames

__all__ = ["stream"]


def stream(
    run: Annotated[Path, arg(metavar="RUN")],
    source: Annotated[str, arg(metavar="SOURCE")],
    /,
    mode: Literal["causal", "late_read", "window", "ema"] = "causal",
    out: Annotated[Path | None, arg(metavar="FILE.jsonl")] = None,
    state: Annotated[Path | None, arg(metavar="FILE")] = None,
    save_every: int = 20,
    window: int = 16,
    decay: float = 0.9,
    policy: Literal["drop", "block"] = "drop",
    give_up: float = 30.0,
    top: int = 3,
    device: Annotated[str, arg(metavar="auto|cpu|cuda")] = "auto",
) -> int:
    """Judge the clips of a file, URL, camera or growing folder as they come.

    Args:
        run: Run directory, one of its stages, or a model package.
        source: Video file, URL (rtsp, http, udp, tcp, HLS), camera (/dev/video0) or folder that files are written to.
        mode: What a clip may know: all before it (causal), the last few (window, ema), or everything (late_read: all
            clips are judged again at the end, exactly as the offline model does).
        out: JSON lines, one a clip, with "final" = whether this will still change.
        state: Keep memory and position in this file; where it exists, go on from there.
        save_every: Clips between two savings of the state.
        window: Clips that mode window remembers.
        decay: Weight of the past in mode ema, per clip.
        policy: When judging is slower than a live source: drop the oldest frames, or let the source wait.
        give_up: Seconds without a frame after which a live source counts as ended.
        top: Classes to print.
        device: Where the model runs.
    """
    from wholereel.inference.predictor import find_package
    from wholereel.inference.stream import Stream
    from wholereel.media.live_source import LiveSource, is_live
    from wholereel.media.video_reader import VideoReader
    from wholereel.models.package import load_package

    if save_every < 1 or top < 1:
        raise ConfigError(f"--save-every and --top must be at least 1, got {save_every} and {top}")
    package = load_package(find_package(run))
    settings = {"mode": mode, "window": window, "decay": decay, "device": torch_device(device)}
    if is_live(source):
        judge = Stream(package, **settings)  # type: ignore[arg-type]
        _resume(judge, state, out)
        after = judge.last_second if judge.frames_seen else None
        live = LiveSource(source, size=package.short_side, policy=policy, give_up=give_up, after=after, log=_log)
        _follow(judge, iter(live), out, state, save_every, top)
        return 0
    with VideoReader(source, size=package.short_side) as reader:
        metadata = reader.metadata
        judge = Stream(
            package,
            frame_rate=metadata.frame_rate,
            half_tick=float(metadata.time_base) / 2,
            **settings,  # type: ignore[arg-type]
        )
        _resume(judge, state, out)
        seconds_T = reader.seconds_T
        position = judge.frames_seen
        if position < len(seconds_T):
            frames = reader.stream(start=float(seconds_T[position]))
        else:
            frames = iter(())
        _follow(judge, frames, out, state, save_every, top)
    return 0


def _resume(judge: Stream, state: Path | None, out: Path | None) -> None:
    """Load the state where there is one, and cut lines that were written after it."""
    if state is not None and state.exists():
        judge.load(state)
        _log(f"{state}: going on after {judge.clips_seen} clips")
    if out is not None and out.exists():
        lines = out.read_text(encoding="utf-8").splitlines(keepends=True)[: judge.clips_seen]
        out.write_text("".join(lines), encoding="utf-8")


def _follow(
    judge: Stream, chunks: Iterator[Frames], out: Path | None, state: Path | None, save_every: int, top: int
) -> None:
    saved = judge.clips_seen
    lines = out.open("a", encoding="utf-8") if out is not None else None
    try:
        for frames in chunks:
            _show(judge.push(frames), lines, top)
            if state is not None and judge.clips_seen - saved >= save_every:
                judge.save(state)
                saved = judge.clips_seen
        _show(judge.finish(), lines, top)
    except KeyboardInterrupt:
        _log("stopped")
        if state is not None:
            judge.save(state)
    finally:
        if lines is not None:
            lines.close()


def _show(clips: list[ClipScore], lines: TextIO | None, top: int) -> None:
    for clip in clips:
        record = clip.to_dict(top)
        if lines is not None:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        best = "  ".join(f"{name} {score:.3f}" for name, score in record["top"])
        whole, score = record["video_top"][0]
        mark = "" if clip.final else "  (may change)"
        print(f"{clip.begin:9.2f} s  {best}   | so far: {whole} {score:.3f}{mark}", flush=True)
    if lines is not None and clips:
        lines.flush()


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
