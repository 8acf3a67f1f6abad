"""Many videos at once: files, cameras, or both, in the rows of one batch, with one call of the model per step.

    batch = BatchStream("runs/demo", rows=8)
    for number, clip in batch.run(["a.mp4", "b.mp4", "rtsp://camera/1"]):
        print(number, clip.begin, clip.label)

Rows are videos at different places, of different lengths: each has its own state, frames and position. When a video
ends, its row begins anew with the next source. What is said of a video does not depend on its neighbours.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.errors import CheckpointError, ConfigError, VideoError
from wholereel.inference.predictor import Precision
from wholereel.inference.stream_files import read_state, write_state
from wholereel.inference.stream_judges import Mode
from wholereel.inference.stream_scores import ClipScore
from wholereel.inference.stream_sources import Source, begin_file, file_clips, live_clips, open_source
from wholereel.inference.stream_track import Engine, Track
from wholereel.media.clip_assembly import TimedClip
from wholereel.media.live_source import LiveSource
from wholereel.media.source_address import shown
from wholereel.media.video_reader import VideoReader
from wholereel.models.package import Package

__all__ = ["BatchStream"]

PAUSE = 0.005  # seconds between two looks at live sources that all have nothing
logger = logging.getLogger(__name__)


class BatchStream:
    """Several streams that share a model; one thread at a time may use it, except for `stop`.

    Args:
        rows: videos at the same time. mode, clips, hop, longest_gap, window, decay, device, precision, fold, package:
            see `Stream`.
        patience: seconds that complete clips wait for those of live sources, to be judged together with them.
    Attributes:
        failed: errors of the sources that could not be read, by number; the others are not touched by them.
        log: called with a line about each of them.
        steps: how often clips were judged together. said: clips given by `run` so far.
    Raises: as `Stream`.
    """

    def __init__(
        self,
        package: str | Path | Package,
        *,
        rows: int = 4,
        mode: Mode = "causal",
        clips: Clips | None = None,
        hop: int | None = None,
        longest_gap: float | None = None,
        window: int = 16,
        decay: float = 0.9,
        patience: float = 0.1,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
        fold: bool = False,
    ) -> None:
        if rows < 1 or patience < 0:
            raise ConfigError(f"needs rows >= 1 and patience >= 0, got {rows} and {patience}")
        self._engine = Engine(
            package,
            mode=mode,
            clips=clips,
            hop=hop,
            longest_gap=longest_gap,
            window=window,
            decay=decay,
            device=device,
            precision=precision,
            fold=fold,
        )
        memory = self._engine.package.spec.memory
        if rows > 1 and memory is not None and memory.interaction.startswith("nl_"):
            raise ConfigError(
                f"the interaction {memory.interaction!r} keeps as many tokens as a video has clips, so that videos of "
                "different lengths are no rows of one batch: use rows=1 or Stream"
            )
        self.rows, self.patience, self.mode = rows, patience, mode
        self.package, self.short_side = self._engine.package, self._engine.short_side
        self.failed: dict[int, VideoError] = {}
        self.log: Callable[[str], None] = logger.warning
        self.steps = 0
        self.said = 0
        self._active: list[_Row] = []
        self._done: list[int] = []
        self._stored: dict[int, tuple[str, dict[str, Tensor]]] = {}
        self._stopping = threading.Event()

    def run(
        self, sources: Sequence[Source], *, state: str | Path | None = None, save_every: int = 20
    ) -> Iterator[tuple[int, ClipScore]]:
        """Judge all sources to their ends.

        Args:
            sources: as in `Stream.run`; the first `rows` begin, the others follow as rows become free.
            state: file to save to, as in `Stream.run`; every `save_every` steps.
        Returns: the number of the source, from 0, and a clip of it. Clips of one source come in order.
        Raises: ConfigError: a mode that a source cannot serve. CheckpointError: a loaded state of other sources.
        """
        if save_every < 1:
            raise ConfigError(f"save_every must be at least 1, got {save_every}")
        self._stopping.clear()
        waiting = [number for number in range(len(sources)) if number not in self._done]
        with ExitStack() as stack:
            stack.callback(self._close)
            while (waiting or self._active) and not self._stopping.is_set():
                while waiting and len(self._active) < self.rows:
                    number = waiting.pop(0)
                    self._begin(number, sources[number])
                yield from self._ended()
                step = self._ready()
                if not step:
                    if self._active:
                        time.sleep(PAUSE)
                    continue
                yield from self._judge(step)
                if state is not None and self.steps % save_every == 0:
                    self.save(state)
            if any(row.clip is not None for row in self._active):  # stopped while they waited for others
                yield from self._judge([row for row in self._active if row.clip is not None])
            if state is not None:
                self.save(state)

    def stop(self) -> None:
        """End `run` after the present step, from any thread; it can be saved and goes on later (which a loop over `run`
        that is left with `break` does not, as the other rows of the step are lost with it)."""
        self._stopping.set()

    @property
    def stopped(self) -> bool:
        """Whether the last `run` was ended by `stop`."""
        return self._stopping.is_set()

    def state_of(self, number: int) -> Literal["waiting", "reading", "ended", "failed"]:
        """Where a source is."""
        if number in self.failed:
            return "failed"
        if number in self._done:
            return "ended"
        return "reading" if any(row.number == number for row in list(self._active)) else "waiting"

    def save(self, path: str | Path) -> None:
        """Write the states of all rows, and which sources are done."""
        tensors = {"done": torch.tensor(self._done, dtype=torch.int64), "said": torch.tensor(self.said)}
        states = self._stored | {row.number: (row.fingerprint, row.track.tensors()) for row in self._active}
        for number, (fingerprint, own) in states.items():
            tensors[f"name.{number}"] = torch.tensor(list(fingerprint.encode()), dtype=torch.uint8)
            tensors |= {f"{number}.{name}": tensor for name, tensor in own.items()}
        write_state(path, {**self._engine.settings, "batch": True}, tensors)

    def load(self, path: str | Path) -> None:
        """Go on where `save` was called; `run` must be given the same sources in the same order.

        Raises: CheckpointError: not such a file, or of other settings.
        """
        tensors = read_state(path, {**self._engine.settings, "batch": True})
        self._done, self.said = tensors.pop("done").tolist(), int(tensors.pop("said"))
        self._stored = {}
        for key in [key for key in tensors if key.startswith("name.")]:
            number = key.removeprefix("name.")
            own = {n[len(number) + 1 :]: t for n, t in tensors.items() if n.startswith(f"{number}.")}
            self._stored[int(number)] = (bytes(tensors[key].tolist()).decode(), own)

    def _begin(self, number: int, source: Source) -> None:
        fingerprint, track = _fingerprint(source), self._engine.track()
        if number in self._stored:
            stored, tensors = self._stored.pop(number)
            if stored != fingerprint:
                raise CheckpointError(
                    f"source {number}", f"is {_name(source)}", "the source that the state was saved with"
                )
            track.load(tensors)
        try:
            after = track.assembler.last_second if track.begun else None
            opened, own = open_source(source, self.short_side, after)
            if isinstance(opened, VideoReader):
                begin_file(track, opened, None)
                clips: Iterator[TimedClip | None] = file_clips(track, opened)
            elif self._engine.judge.sweeps > 1:
                raise ConfigError(f"mode='two_sweep' reads every video twice; {_name(source)} is no file")
            else:
                clips = live_clips(track, opened, 0.0)
        except VideoError as error:
            self._fail(number, error)
            return
        self._active.append(_Row(number, fingerprint, track, clips, opened if own else None))

    def _ready(self) -> list[_Row]:
        """The rows to judge now; none where it is better to wait."""
        for row in self._active:
            if row.clip is None and not row.ended:
                try:
                    row.advance()
                except VideoError as error:
                    self._fail(row.number, error)
                    row.failed = True
        for row in [row for row in self._active if row.failed]:
            self._remove(row)
        ready = [row for row in self._active if row.clip is not None]
        late = any(row.clip is None and not row.ended for row in self._active)
        if ready and late and time.monotonic() - min(row.since for row in ready) < self.patience:
            return []
        return ready

    def _judge(self, rows: list[_Row]) -> Iterator[tuple[int, ClipScore]]:
        clips = [row.clip for row in rows if row.clip is not None]
        said = self._engine.judge_clips([row.track for row in rows], clips)
        self.steps += 1
        for row, clip, score in zip(rows, clips, said, strict=True):
            row.clip = None
            if score is not None and not (clip.leftover and not self._engine.judge.final):
                self.said += 1
                yield row.number, score

    def _ended(self) -> Iterator[tuple[int, ClipScore]]:
        for row in [row for row in self._active if row.ended and row.clip is None]:
            for score in row.track.say_again():
                self.said += 1
                yield row.number, score
            self._done.append(row.number)
            self._remove(row)

    def _remove(self, row: _Row) -> None:
        self._active.remove(row)
        row.close()

    def _fail(self, number: int, error: VideoError) -> None:
        self.failed[number] = error
        self._done.append(number)
        self.log(f"left out: {error}")

    def _close(self) -> None:
        """Give back the sources; what is known of those that have not ended can be saved, and `run` goes on."""
        for row in self._active:
            row.close()
            self._stored[row.number] = (row.fingerprint, row.track.tensors())
        self._active = []


class _Row:
    """One video that is being read."""

    def __init__(
        self, number: int, fingerprint: str, track: Track, clips: Iterator[TimedClip | None], opened: Any
    ) -> None:
        self.number, self.fingerprint, self.track = number, fingerprint, track
        self.clip: TimedClip | None = None
        self.since = 0.0
        self.ended = self.failed = False
        self._clips, self._opened = clips, opened

    def advance(self) -> None:
        """Look for the next clip."""
        try:
            self.clip = next(self._clips)
            self.since = time.monotonic()
        except StopIteration:
            self.ended = True

    def close(self) -> None:
        """Give back what was opened for it."""
        if self._opened is not None:
            self._opened.close()


def _name(source: Source) -> str:
    return shown(source) if isinstance(source, (str, Path)) else repr(source)


def _fingerprint(source: Source) -> str:
    """Says whether two sources are the same, without telling a password."""
    source = source.source if isinstance(source, LiveSource) else source
    named = str(source) if isinstance(source, (str, Path)) else type(source).__name__
    return hashlib.sha256(named.encode()).hexdigest()[:16]
