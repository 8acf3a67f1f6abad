"""One video of a stream: frames not judged yet, memory, running scores; and the engine that judges clips of several.

Axes: R the videos of one step. Not here: where frames come from (`stream_sources.py`), modes (`stream_judges.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.errors import ConfigError
from wholereel.inference.clip_rows import Rows
from wholereel.inference.predictor import (
    Precision,
    choose_precision,
    find_package,
    package_views,
    precision_context,
)
from wholereel.inference.stream_judges import Judge, JudgeSettings, Mode, create_judge
from wholereel.inference.stream_scores import ClipScore, Scoring, VideoTotals, frame_seconds
from wholereel.media.augment import test_crops
from wholereel.media.clip_assembly import ClipAssembler, TimedClip
from wholereel.media.frames import Frames
from wholereel.media.model_input import to_model_input
from wholereel.models.package import Package, load_package

__all__ = ["Engine", "Track"]

EVERY_CLIP = 64  # late_read judges the video anew after each of so many clips, then whenever it has grown by 1/64


class Engine:
    """A model, a mode, and how clips become its input.

    Args: see `Stream`.
    Raises: CheckpointError: no package. ConfigError: a mode or settings that this model cannot serve.
    """

    def __init__(
        self,
        package: str | Path | Package,
        *,
        mode: Mode,
        clips: Clips | None,
        hop: int | None,
        longest_gap: float | None,
        window: int,
        decay: float,
        device: torch.device | str | None,
        precision: Precision,
        fold: bool,
    ) -> None:
        package = package if isinstance(package, Package) else load_package(find_package(package))
        package.check_reads_files_alone()
        self.package = package.folded() if fold else package
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = self.package.model.eval().to(self.device)
        self.mode, self.precision = mode, choose_precision(precision, self.device)
        views = package_views(self.package, clips)
        self.short_side, self.crop, self.clips = views.short_side, views.crop, views.clips
        self.judge: Judge[Any] = create_judge(
            mode, self.model, JudgeSettings(window, decay, (self.crop, self.crop), self.device)
        )
        self.scoring = Scoring(self.package.task, self.package.spaces, self.package.classes)
        trained = self.package.streams
        self.hop, self.longest_gap = hop, longest_gap
        # A model that was trained on streams is used at the distance of clips that it knows.
        self._hop_seconds = trained.hop if hop is None and trained is not None and trained.steps == "grid" else None
        self.assembler()  # refuses what cannot be
        self.settings: dict[str, Any] = {
            "mode": mode,
            "clips": dataclasses.asdict(views.clips),
            "hop": hop,
            "longest_gap": longest_gap,
            "window": window,
            "decay": decay,
            "model": self.package.spec.name,
            "classes": list(self.package.classes),
        }

    def assembler(
        self, frame_rate: float | None = None, half_tick: float = 0.0, *, file: bool = False
    ) -> ClipAssembler:
        """An assembler with these settings; in files no gap is too long."""
        hop, rate = self.hop, self.clips.frame_rate or frame_rate
        if self._hop_seconds is not None and rate is not None:
            hop = max(1, round(self._hop_seconds * rate))
        return ClipAssembler(
            self.clips,
            frame_rate=frame_rate,
            half_tick=half_tick,
            hop=hop,
            tail=self.judge.tail,
            longest_gap=None if file else self.longest_gap,
        )

    def track(self, frame_rate: float | None = None, half_tick: float = 0.0) -> Track:
        """A video of which nothing has been seen."""
        return Track(self, self.assembler(frame_rate, half_tick))

    @torch.no_grad()
    def judge_clips(self, tracks: Sequence[Track], clips: Sequence[TimedClip]) -> list[ClipScore | None]:
        """The next clip of each track, in one call of the network for all that are in the same sweep.

        Returns: what is said of each; `None` in a sweep that only fills the memory.
        """
        said: list[ClipScore | None] = [None] * len(tracks)
        by_phase: dict[Any, list[int]] = {}
        for row, track in enumerate(tracks):
            by_phase.setdefault(self.judge.phase(track.state), []).append(row)
        for rows in by_phase.values():
            clip_RCTHW = self._input([clips[row] for row in rows])
            with precision_context(self.precision, self.device):
                logits, states = self.judge.step(clip_RCTHW, [tracks[row].state for row in rows])
            for number, row in enumerate(rows):
                tracks[row].state = states[number]
                if logits is not None:
                    said[row] = tracks[row].say(clips[row], logits[number])
        return said

    @torch.no_grad()
    def last_logits(self, track: Track) -> Tensor | None:
        """Logits of all clips with everything known, where the mode says them again."""
        with precision_context(self.precision, self.device):
            return self.judge.last(track.state)

    def _input(self, clips: Sequence[TimedClip]) -> Tensor:
        sizes = {tuple(clip.pixels_TCHW.shape) for clip in clips}
        if len(sizes) == 1:
            pixels_RTCHW = torch.stack([clip.pixels_TCHW for clip in clips])
            views_RTCHW = test_crops(pixels_RTCHW, self.short_side, self.crop, 1)
        else:
            single = (test_crops(clip.pixels_TCHW[None], self.short_side, self.crop, 1) for clip in clips)
            views_RTCHW = torch.cat(list(single))
        return to_model_input(views_RTCHW.to(self.device), mean=self.package.mean, std=self.package.std)


class Track:
    """One video on its way through an engine.

    Attributes:
        state: of the judge. sweep: 0, 1, ... of `judge.sweeps`. judged: clips judged so far (in the last sweep).
        first: number of the clip where reading began, not 0 for parts of a file. stop: clip where it ends, `None` =
            the end.
        said: clips that were given away as they came; what is said again at the end is not counted.
        frames: of the file, 0 where unknown; so that a state is not taken on with another file.
    """

    def __init__(self, engine: Engine, assembler: ClipAssembler) -> None:
        self.engine, self.assembler = engine, assembler
        self.state: Any = engine.judge.begin()
        self.totals = VideoTotals(engine.scoring)
        self.sweep, self.first, self.frames, self.said = 0, 0, 0, 0
        self.stop: int | None = None
        self._times = Rows()  # of clips that are said again: number, begin, end
        self._refreshed_K, self._refreshed_at = self.totals.scores(), 0
        self.judged_until = -math.inf

    @property
    def judged(self) -> int:
        """Clips judged so far."""
        return self.totals.count

    @property
    def begun(self) -> bool:
        """Whether anything of the video has been seen."""
        return self.assembler.frames_seen > 0 or self.sweep > 0

    @property
    def partial(self) -> bool:
        """Whether only a part of a file is read."""
        return self.first > 0 or self.stop is not None

    @property
    def complete(self) -> bool:
        """Whether a part of a file has given all its clips."""
        return self.stop is not None and self.assembler.clips_given >= self.stop

    def feed(self, frames: Frames) -> Iterator[TimedClip]:
        """Clips that are to be judged, as these frames complete them."""
        for clip in self.assembler.feed(frames):
            yield clip
            if self.complete:
                return

    def next_sweep(self) -> bool:
        """Go on with the next sweep after the end of the video; False where this one was the last."""
        if self.sweep + 1 >= self.engine.judge.sweeps:
            return False
        self.state, self.sweep = self.engine.judge.next_sweep(self.state), self.sweep + 1
        self.restart()
        return True

    def restart(self) -> None:
        """Read the video from its begin."""
        before = self.assembler
        self.assembler = self.engine.assembler(before.frame_rate, before.half_tick, file=self.frames > 0)

    def say(self, clip: TimedClip, logits: Tensor) -> ClipScore:
        """What is said of a clip with these logits, `(K)` or of frames `(T, K)`."""
        scoring, final = self.engine.scoring, self.engine.judge.final
        frame_scores_TK = frame_seconds_T = None
        if logits.ndim == 2:
            frame_seconds_T = frame_seconds(clip, len(logits))
            logits = logits[: len(frame_seconds_T)]
            frame_scores_TK = scoring.probabilities(logits)
        self.totals.add(logits)
        self.judged_until = clip.end
        if not final:
            self._times.append(torch.tensor([clip.number, clip.begin, clip.end], dtype=torch.float64))
        said = self._score(clip.number, clip.begin, clip.end, scoring.clip(logits), self._running_scores(), final)
        return replace(said, frame_scores_TK=frame_scores_TK, frame_seconds_T=frame_seconds_T)

    def say_again(self) -> list[ClipScore]:
        """All clips once more with everything known, final; nothing where they were final at once."""
        logits_NK = self.engine.last_logits(self)
        if logits_NK is None:
            return []
        scores_NK, video_K = self.engine.scoring.probabilities(logits_NK), self.engine.scoring.aggregate(logits_NK)
        clips = zip(self._times.joined().tolist(), scores_NK, strict=True)
        return [
            self._score(int(number), begin, end, scores_K, video_K, True) for (number, begin, end), scores_K in clips
        ]

    def video_scores(self) -> Tensor:
        """Probabilities (K) of everything seen so far; NaN before the first clip."""
        logits_NK = None if self.engine.judge.final else self.engine.last_logits(self)
        return self.totals.scores() if logits_NK is None else self.engine.scoring.aggregate(logits_NK)

    def merge(self, other: Track) -> None:
        """Take in another stretch of the same video; which of the two is earlier follows from the clips' numbers.

        Raises: ConfigError: stretches that do not follow each other, or a mode without merging.
        """
        earlier, later = (self, other) if self.first <= other.first else (other, self)
        if earlier.assembler.clips_given != later.first or self.sweep != other.sweep or self.frames != other.frames:
            raise ConfigError(
                f"merging needs consecutive stretches of one video in the same sweep; these hold the clips "
                f"{earlier.first}..{earlier.assembler.clips_given - 1} and "
                f"{later.first}..{later.assembler.clips_given - 1}, in sweeps {earlier.sweep} and {later.sweep}, "
                f"of videos of {earlier.frames} and {later.frames} frames"
            )
        self.state = self.engine.judge.merge(earlier.state, later.state)
        self.totals.merge(other.totals)
        self.said += other.said
        self.first, self.stop, self.assembler = earlier.first, later.stop, later.assembler
        times = [*earlier._times.parts(), *later._times.parts()]
        self._times = Rows(torch.cat(times)) if times else Rows()
        self._refreshed_at = 0

    def tensors(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        named = {f"clip.{name}": tensor for name, tensor in self.assembler.state().items()}
        named |= {f"state.{name}": tensor for name, tensor in self.engine.judge.save(self.state).items()}
        named |= {f"totals.{name}": tensor for name, tensor in self.totals.as_dict().items()}
        stop = -1 if self.stop is None else self.stop
        named["place"] = torch.tensor([self.sweep, self.first, stop, self.frames, self._refreshed_at, self.said])
        named["refreshed"] = self._refreshed_K
        if self._times.count:
            named["times"] = self._times.joined()
        return named

    def load(self, named: dict[str, Tensor]) -> None:
        """The inverse of `tensors`, into a track of an engine with the same settings."""
        *_, rate, half_tick = named["clip.seconds"].tolist()  # a hop in seconds becomes frames by the rate
        known_rate, file = None if math.isnan(rate) else rate, int(named["place"][3]) > 0
        self.assembler = self.engine.assembler(known_rate, half_tick, file=file)
        self.assembler.load_state(_under("clip.", named))
        self.state = self.engine.judge.load(_under("state.", named))
        self.totals.load(_under("totals.", named))
        self.sweep, self.first, stop, self.frames, self._refreshed_at, self.said = named["place"].tolist()
        self.stop = None if stop < 0 else stop
        self._refreshed_K = named["refreshed"]
        self._times = Rows(named.get("times"))

    def _running_scores(self) -> Tensor:
        if self.engine.judge.final:
            return self.totals.scores()
        # Judging all clips after every clip would cost more with every clip.
        if self.judged - self._refreshed_at >= max(1, self._refreshed_at // EVERY_CLIP):
            self._refreshed_K, self._refreshed_at = self.video_scores(), self.judged
        return self._refreshed_K

    def _score(
        self, number: int, begin: float, end: float, scores_K: Tensor, video_K: Tensor, final: bool
    ) -> ClipScore:
        scoring = self.engine.scoring
        return ClipScore(number, begin, end, scores_K, video_K, scoring.classes, final, spaces=scoring.spaces)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
