"""A trained model on a video that has not ended yet: frames in, scores of clips out, at constant memory.

    stream = Stream("runs/demo", mode="causal")
    for clip in stream.run("rtsp://camera/1"):
        print(clip.begin, clip.label)

Modes for models whose clips share a memory (arXiv 2104.01198): `causal` clips read what came before them, `window` and
`ema` the recent past, `late_read` keeps a few numbers of each clip and judges all of them with the memory of everything
at the end, `two_sweep` reads a file twice: both say what the offline model says. Models with a state of their own
(MeMViT) are read in order, which is `causal`.
Not here: several videos at once (`stream_batch.py`), what the modes compute (`stream_judges.py`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.errors import ConfigError
from wholereel.inference.predictor import Precision
from wholereel.inference.stream_files import read_state, write_state
from wholereel.inference.stream_judges import MODES, Mode
from wholereel.inference.stream_scores import ClipScore
from wholereel.inference.stream_sources import Source, begin_file, file_clips, live_clips, open_source
from wholereel.inference.stream_track import Engine
from wholereel.media.clip_assembly import TimedClip
from wholereel.media.frames import Frames
from wholereel.media.video_reader import VideoReader
from wholereel.models.package import Package

__all__ = ["MODES", "ClipScore", "Mode", "Stream"]

LISTEN = 0.2  # seconds between two looks at whether the stream shall stop


class Stream:
    """One video, one reader of it; one thread at a time may use it, except for `stop`.

    Args:
        package: folder of a model package or of a run that holds one, or a loaded package.
        mode: see above, and the table in `docs/streaming.md`.
        clips: other clips than the package's; they follow each other from the begin of the video, whatever the plan.
        hop: frames of the clips' time line from the begin of a clip to that of the next; `None` = a clip's span, so
            that clips neither overlap nor leave anything out.
        frame_rate, half_tick: for `push`, of a file: its `metadata.frame_rate`, and half of its `metadata.time_base`,
            so that frames are found as the offline model finds them; nothing for sources without constant rate. `run`
            finds them out.
        longest_gap: seconds without a frame beyond which no clip reaches; `None` = none is too long.
        window: clips that `window` remembers. decay: of `ema`.
        device: `None` = the first GPU where there is one, else the CPU.
        precision, fold: as of `Predictor`.
    Attributes:
        short_side: pixels that frames are scaled to; other sizes are scaled here.
    Raises: CheckpointError: no package. ConfigError: a mode or settings that this model cannot serve.
    """

    def __init__(
        self,
        package: str | Path | Package,
        *,
        mode: Mode = "causal",
        clips: Clips | None = None,
        hop: int | None = None,
        frame_rate: float | None = None,
        half_tick: float = 0.0,
        longest_gap: float | None = None,
        window: int = 16,
        decay: float = 0.9,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
        fold: bool = False,
    ) -> None:
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
        self._track = self._engine.track(frame_rate, half_tick)
        self._stopping = threading.Event()
        self.mode, self.package, self.device = mode, self._engine.package, self._engine.device
        self.short_side, self.crop, self.clips = self._engine.short_side, self._engine.crop, self._engine.clips

    def __repr__(self) -> str:
        return f"Stream({self.package.spec.name}, mode={self.mode!r}, {self.clips_seen} clips so far)"

    @property
    def clips_seen(self) -> int:
        """Clips judged so far."""
        return self._track.judged

    @property
    def clips_said(self) -> int:
        """Clips that `run` has given as they came; what `late_read` says again at the end is not counted."""
        return self._track.said

    @property
    def frames_seen(self) -> int:
        """Frames taken so far, in this sweep."""
        return self._track.assembler.frames_seen

    @property
    def last_second(self) -> float:
        """Time of the newest frame; -inf before the first."""
        return self._track.assembler.last_second

    @property
    def judged_until(self) -> float:
        """End of the newest judged clip in seconds; -inf before the first."""
        return self._track.judged_until

    @property
    def stopped(self) -> bool:
        """Whether the last `run` was ended by `stop`."""
        return self._stopping.is_set()

    @property
    def sweep(self) -> int:
        """Which sweep of the video this is, from 0; only `two_sweep` has more than one."""
        return self._track.sweep

    @property
    def sweeps(self) -> int:
        """How often a video is read."""
        return self._engine.judge.sweeps

    def run(
        self,
        source: Source,
        *,
        part: tuple[int, int] | None = None,
        state: str | Path | None = None,
        save_every: int = 20,
    ) -> Generator[ClipScore]:
        """Judge the clips of a source as they come, to its end; a stream that was loaded goes on where it was.

        Args:
            source: a video file, a URL, camera or folder (see `LiveSource`), a reader, a `LiveSource` with settings of
                its own (which is closed at the end), `PushedFrames`, or any iterable of `Frames`.
            part: (i, n): only the i-th of n parts of a file, for `merge`. Nothing is final then.
            state: file that the stream is saved to after every `save_every` clips and at the end. It is not loaded:
                that is `load`.
        Raises: VideoError: a source that cannot be read. ConfigError: a mode that this source cannot serve.
        """
        if save_every < 1:
            raise ConfigError(f"save_every must be at least 1, got {save_every}")
        self._stopping.clear()
        after = self.last_second if self._track.begun else None
        opened, own = open_source(source, self.short_side, after)
        saver = _Saver(self, state, save_every)
        with closing(opened) if own else nullcontext():  # type: ignore[type-var]
            if isinstance(opened, VideoReader):
                begin_file(self._track, opened, part)
                yield from self._run(file_clips(self._track, opened), saver)
            else:
                if part is not None:
                    raise ConfigError("part=... needs a file: a source that goes on has no parts")
                self._one_sweep("a source that is not a file")
                yield from self._run(live_clips(self._track, opened, LISTEN), saver)
        saver.save()

    async def watch(self, source: Source, **settings: object) -> AsyncIterator[ClipScore]:
        """`run` for asyncio: reading and judging happen in a thread, one at a time."""
        clips = self.run(source, **settings)  # type: ignore[arg-type]
        try:
            while (clip := await asyncio.to_thread(next, clips, None)) is not None:
                yield clip
        finally:
            clips.close()

    def stop(self) -> None:
        """End `run` behind the clip that is being judged, from any thread or a signal handler; it can be saved and goes
        on later."""
        self._stopping.set()

    def reset(self) -> None:
        """Forget everything: another video begins."""
        self._track = self._engine.track()

    def push(self, frames: Frames) -> list[ClipScore]:
        """Take the next frames, and judge the clips that they complete.

        Raises: ValueError: times that do not increase. ConfigError: `two_sweep`, which needs a file.
        """
        self._one_sweep("push")
        return [said for clip in self._track.feed(frames) if (said := self._judge(clip)) is not None]

    def finish(self) -> list[ClipScore]:
        """The stream has ended: judge what is left; with `late_read`, all clips again, now `final`."""
        last = [said for clip in self._track.assembler.finish() if (said := self._judge(clip)) is not None]
        return self._track.say_again() or last

    def video_scores(self) -> Tensor:
        """Probabilities (K) of everything seen so far; NaN before the first clip.

        With `late_read` those of the offline model on the clips so far; otherwise the clips' own scores put together
        by the rule of the model's task.
        """
        return self._track.video_scores()

    def merge(self, *others: Stream) -> None:
        """Take in what streams with the same settings know of other stretches of the same video, in any order.

        Each of them has read a `part` of the file; `run` then goes on with what is left, with everything known.
        `late_read` and `two_sweep` end as if one stream had read the whole; so does the memory of `causal`, `window`
        and `ema`, but their clips were judged when the other part was not known.
        Raises: ConfigError: other settings, stretches that do not follow each other, or a model that cannot.
        """
        for other in others:
            if other._engine.settings != self._engine.settings:
                raise ConfigError(
                    "streams of different settings cannot be merged: "
                    f"{self._engine.settings} and {other._engine.settings}"
                )
        own = [self._track] if self._track.begun else []
        tracks = sorted([*own, *(other._track for other in others)], key=lambda track: track.first)
        for track in tracks[1:]:
            tracks[0].merge(track)
        if tracks:
            self._track.load(tracks[0].tensors())

    def save(self, path: str | Path) -> None:
        """Write memory, frames not yet judged and position: `load` goes on with the next frame."""
        write_state(path, self._engine.settings, self._track.tensors())

    def load(self, path: str | Path) -> None:
        """Go on where `save` was called, with the same model and settings.

        Raises: CheckpointError: not such a file, or of other settings.
        """
        self._track.load(read_state(path, self._engine.settings))

    def _run(self, clips: Iterable[TimedClip | None], saver: _Saver) -> Iterator[ClipScore]:
        track = self._track
        said_again = not self._engine.judge.final and not track.partial
        for clip in clips:
            if clip is not None:
                said = self._judge(clip)
                # What is left at the end is said at once with everything known.
                if said is not None and not (clip.leftover and said_again):
                    track.said += 1
                    yield said
                saver.count()
            if self._stopping.is_set():
                return
        if not track.partial:  # the rest is said once the parts are merged
            yield from track.say_again()

    def _one_sweep(self, what: str) -> None:
        if self.sweeps > 1:
            raise ConfigError(
                f"mode='two_sweep' reads a video {self.sweeps} times, which {what} does not allow: give run() a file. "
                "'late_read' says the same in one sweep, for models with one memory block in front of the head."
            )

    def _judge(self, clip: TimedClip) -> ClipScore | None:
        return self._engine.judge_clips([self._track], [clip])[0]


class _Saver:
    """Writes a stream's state now and then."""

    def __init__(self, stream: Stream, path: str | Path | None, every: int) -> None:
        self._stream, self._path, self._every, self._clips = stream, path, every, 0

    def count(self) -> None:
        self._clips += 1
        if self._clips % self._every == 0:
            self.save()

    def save(self) -> None:
        if self._path is not None:
            self._stream.save(self._path)
