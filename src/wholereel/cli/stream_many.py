"""`wholereel stream` of several sources: the same lines, each with the name of its source, from one batch."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from wholereel.cli.stream import LiveSettings, stopped_by_signals, write_line
from wholereel.cli.stream_lines import Row, Status
from wholereel.cli.stream_view import LiveView, Many, PlainView, View, memory_megabytes
from wholereel.inference.stream_batch import BatchStream
from wholereel.media.live_source import LiveSource, is_live
from wholereel.media.source_address import shown

if TYPE_CHECKING:
    from wholereel.inference.stream_sources import Source

__all__ = ["follow_many"]


def follow_many(
    batch: BatchStream,
    sources: tuple[str, ...],
    settings: LiveSettings,
    run: str,
    out: Path | None,
    state: Path | None,
    save_every: int,
    top: int,
    plain: bool,
) -> None:
    """Judge all sources to their ends; `out` gets a line for each clip, with `source` and its number."""
    import sys

    told = None
    if state is not None and state.exists():
        batch.load(state)
        told = f"{state}: going on after {batch.said} lines"
    if out is not None and out.exists():
        kept = out.read_text(encoding="utf-8").splitlines(keepends=True)[: batch.said]
        out.write_text("".join(kept), encoding="utf-8")
    names = [shown(source) for source in sources]
    opened: list[Source] = [settings.open(s, batch.short_side) if is_live(s) else s for s in sources]
    with ExitStack() as stack:
        live = not plain and sys.stdout.isatty()
        view: View = LiveView(_content(batch, opened, names, run)) if live else PlainView(top, names)
        stack.callback(view.close)
        for source in opened:
            if isinstance(source, LiveSource):
                source.log = view.log
        if told:
            view.log(told)
        lines = stack.enter_context(out.open("a", encoding="utf-8")) if out is not None else None
        stack.enter_context(stopped_by_signals(batch.stop))
        batch.log = view.log
        for number, clip in batch.run(opened, state=state, save_every=save_every):
            if lines is not None:
                write_line(lines, {"source": names[number], "number": number, **clip.to_dict(top)})
            view.show(clip, number)
        if batch.stopped:
            view.log("stopped" if state is None else f"stopped; the same command goes on, from {state}")


def _content(batch: BatchStream, opened: list[Source], names: list[str], run: str) -> Many:
    status = Status(run, f"{len(names)} sources", batch.mode)

    def refresh(status: Status, rows: list[Row]) -> None:
        status.memory = memory_megabytes()
        status.position = float(batch.steps)  # any measure of progress: sources have clocks of their own
        for number, (row, source) in enumerate(zip(rows, opened, strict=True)):
            row.state = batch.state_of(number)
            if isinstance(source, LiveSource):
                row.dropped = source.dropped
                row.lag = None if row.clip is None else max(0.0, source.newest - row.clip.end)

    return Many(status, [Row(name) for name in names], refresh)
