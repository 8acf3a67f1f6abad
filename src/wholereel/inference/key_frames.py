"""Boxes at key frames of films, judged with the clips around them; every clip of a film is encoded once.

Source: arXiv 2104.01198 for the memory; that summaries of clips are kept is derived. What a clip contributes does not
depend on who reads it, so key frames that share clips share their encoding: with clips on a grid of seconds, once per
second of film. The memory of a key frame is merged from what the clips of its window have pushed. Models whose
blocks stand elsewhere, or whose pushes know their place in the window, are run on each window as a whole.
R boxes, K classes, M clips of a part of a film.
Not here: whose boxes these are, metrics (`evaluation/key_frames.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wholereel.batches import map_tensors
from wholereel.config import Clips
from wholereel.datasets.frame_cache import FrameCache
from wholereel.errors import ConfigError, DataError, VideoError
from wholereel.inference.predictor import precision_context
from wholereel.media.augment import whole_pictures
from wholereel.media.clip_plans import check_clips
from wholereel.media.clip_reading import FrameSource, read_clips
from wholereel.media.frame_folder import open_frames
from wholereel.media.key_clips import key_clip, key_middles, plan_clips_at, plan_key_clips
from wholereel.media.model_input import to_model_input
from wholereel.memory.state import VideoState
from wholereel.models.detector import BoxSummary, Detector
from wholereel.models.package import Package
from wholereel.models.video_model import merge_clips

__all__ = ["Film", "Judged", "KeyFrame", "Unread", "judge_films", "shares_clips"]

KEYS_A_PART = 16  # key frames that are judged together
BROKEN = "a part of the film that its window reaches cannot be read"
CLIPS_TOGETHER = 16  # clips that go through the network together; neither changes results


@dataclass(frozen=True)
class KeyFrame:
    """A moment, and the boxes to be judged there: left, top, right, bottom as fractions of the picture."""

    seconds: float
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Film:
    """A file and its key frames.

    Args:
        path: the file, or a folder of pictures (then with a `frame_rate`).
        keys: in order of time.
        start, end: seconds that clips may not leave; `None` = beginning, end.
    """

    path: Path
    keys: tuple[KeyFrame, ...]
    start: float | None = None
    end: float | None = None
    frame_rate: float | None = None


@dataclass(frozen=True)
class Judged:
    """Scores `(R, K)` in [0, 1] of the boxes of key frame `key` of film `film`.

    Args:
        clips_read: clips of its window inside the film. clips_encoded: how many of them went through the network for
            it; the others had before.
        truncated: the film is cut off; its last frame stands in for the missing ones.
    """

    film: int
    key: int
    scores_RK: Tensor
    clips_read: int
    clips_encoded: int
    truncated: bool = False


@dataclass(frozen=True)
class Unread:
    """A key frame that could not be judged, and why."""

    film: int
    key: int
    reason: str


def shares_clips(model: Detector) -> bool:
    """Whether key frames can share what was made of a clip."""
    return model.summarises and (model.memory is None or model.memory.clip_pos == 0)


@torch.no_grad()
def judge_films(
    package: Package,
    films: Sequence[Film],
    clips: Clips,
    *,
    device: torch.device,
    short_side: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    workers: int = 0,
    cache: FrameCache | None = None,
    share: bool | None = None,
) -> Iterator[Judged | Unread]:
    """Judge all boxes of all key frames, each key frame once, film by film in order of time.

    Pictures are scaled to the short side, nothing is cut off.
    Args:
        package: a detector, in eval mode on `device`.
        clips: the windows; a model without memory reads the clip in the middle alone.
        short_side: pixels; the package's where `None`.
        precision: "bf16" runs the clip model under autocast.
        workers: decoding processes.
        cache: of decoded frames at that short side.
        share: encode each clip once; `None` = where the model allows it.
    Raises: ConfigError: windows that cannot be, a model that does not judge boxes, or `share` where it cannot be.
    """
    check_clips(clips)
    model = package.model
    if not isinstance(model, Detector):
        raise ConfigError("this model judges whole clips, not boxes: train one with task.kind='detect'")
    if share and not shares_clips(model):
        raise ConfigError(f"clips cannot be shared between key frames by a model with {model.memory}")
    if not model.places:
        clips = replace(clips, count=1, window=None, window_grid=None)
    shared = shares_clips(model) if share is None else share
    parts = _Parts(films, clips, short_side or package.short_side, cache, shared)
    loader = DataLoader(parts, batch_size=None, num_workers=workers, pin_memory=device.type == "cuda")
    judge = _Judge(package, model, key_clip(clips), device, precision)
    for part in loader:
        if isinstance(part, _Failed):
            yield from (Unread(part.film, key, part.reason) for key in part.keys)
        else:
            with precision_context(precision, device):
                yield from judge.shared(part, films[part.film]) if shared else judge.windows(part, films[part.film])


@dataclass(frozen=True)
class _Part:
    """Clips of consecutive key frames of a film.

    Args:
        keys: which key frames.
        middles_KN, inside_KN: of the clips of each; middles tell clips apart.
        clips_MTCHW: uint8; shared: those that no earlier part had, in order of time; else the N of each key frame.
        middles_M: of these. owners: shared: the key frames (of the whole film) whose own clip each of them is.
    """

    film: int
    keys: range
    middles_KN: Tensor
    inside_KN: Tensor
    clips_MTCHW: Tensor
    middles_M: Tensor
    owners: tuple[tuple[int, ...], ...]
    truncated: bool

    def pin_memory(self) -> _Part:
        """Called by the data loader."""
        return replace(self, clips_MTCHW=self.clips_MTCHW.pin_memory())


@dataclass(frozen=True)
class _Failed:
    film: int
    keys: range
    reason: str


class _Parts(Dataset[_Part | _Failed]):
    """Key frames of films, some at a time, with the clips that they need and earlier ones did not."""

    def __init__(
        self, films: Sequence[Film], clips: Clips, short_side: int, cache: FrameCache | None, shared: bool
    ) -> None:
        self.films, self.clips, self.short_side, self.cache, self.shared = films, clips, short_side, cache, shared
        step = KEYS_A_PART if shared else 1
        self.parts = [
            (number, range(begin, min(begin + step, len(film.keys))))
            for number, film in enumerate(films)
            for begin in range(0, len(film.keys), step)
        ]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> _Part | _Failed:
        number, keys = self.parts[index]
        film = self.films[number]
        try:
            if self.cache is not None:
                kept = self.cache.open(film.path, frame_rate=film.frame_rate)
                return self._read(number, keys, kept, kept.frame_count, kept.frame_rate)
            with open_frames(film.path, frame_rate=film.frame_rate, size=self.short_side) as reader:
                return self._read(number, keys, reader, reader.frame_count, float(reader.metadata.frame_rate))
        except DataError as error:
            return _Failed(number, keys, str(error))

    def _read(self, number: int, keys: range, source: FrameSource, count: int, rate: float) -> _Part:
        film, clips = self.films[number], self.clips
        for key in keys:
            try:  # refuses key frames outside
                plan_key_clips(count, rate, clips, film.keys[key].seconds, start=film.start, end=film.end)
            except ValueError as error:
                raise VideoError(film.path, str(error), "key frames inside the film") from error
        seconds_K = torch.tensor([key.seconds for key in film.keys], dtype=torch.float64)
        all_KN = key_middles(seconds_K, clips, clips.frame_rate or rate)
        times = plan_clips_at(count, rate, clips, all_KN.flatten(), start=film.start, end=film.end)
        open_KN = times.inside_N.view_as(all_KN)
        middles_KN, inside_KN = all_KN[keys.start : keys.stop], open_KN[keys.start : keys.stop]
        middles_M, owners = middles_KN.flatten(), {}
        if self.shared:
            done = set(all_KN[: keys.start][open_KN[: keys.start]].tolist())
            middles_M = torch.tensor(sorted(set(middles_KN[inside_KN].tolist()) - done), dtype=torch.int64)
            owners = _places(all_KN[:, key_clip(clips)].tolist())
        times = plan_clips_at(count, rate, clips, middles_M, start=film.start, end=film.end)
        if not len(middles_M):  # all known
            nothing = torch.zeros(0, clips.frames, 3, 1, 1, dtype=torch.uint8)
            return _Part(number, keys, middles_KN, inside_KN, nothing, middles_M, (), False)
        read = read_clips(source, times)
        pixels_MTCHW = whole_pictures(read.clips_NTCHW, self.short_side)
        own = tuple(tuple(owners.get(middle, ())) for middle in middles_M.tolist())
        return _Part(number, keys, middles_KN, inside_KN, pixels_MTCHW, middles_M, own, read.truncated)


def _places(values: Sequence[int]) -> dict[int, list[int]]:
    """Where each value stands."""
    places: dict[int, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value, []).append(place)
    return places


class _Judge:
    """Runs the model on parts, and keeps what the clips of the present film have contributed while a window may still
    reach it."""

    def __init__(self, package: Package, model: Detector, clip: int, device: torch.device, precision: str) -> None:
        self.package, self.model, self.clip, self.device = package, model, clip, device
        self.film = -1
        self.pushes: dict[int, VideoState] = {}  # by the clip's middle; one row each
        self.boxes: dict[int, BoxSummary] = {}  # by key frame

    def windows(self, part: _Part, film: Film) -> Iterator[Judged | Unread]:
        """Each window as a whole."""
        keys, count = len(part.keys), part.middles_KN.shape[1]
        clips_KNCTHW = self._input(part.clips_MTCHW).unflatten(0, (keys, count))
        rows = [(place * count + self.clip, film.keys[key]) for place, key in enumerate(part.keys)]
        boxes_R5 = self._pixel_boxes(rows, part.clips_MTCHW)
        logits_RK, _ = self.model(clips_KNCTHW, None, part.inside_KN.to(self.device), boxes_R5=boxes_R5)
        read_K = part.inside_KN.sum(1).tolist()
        yield from self._judged(part, film, list(part.keys), logits_RK, read_K, read_K)

    def shared(self, part: _Part, film: Film) -> Iterator[Judged | Unread]:
        """Encode the new clips, then judge the part's key frames from what is kept."""
        if part.film != self.film:
            self.film, self.pushes, self.boxes = part.film, {}, {}
        for begin in range(0, len(part.middles_M), CLIPS_TOGETHER):
            self._encode(part, film, slice(begin, begin + CLIPS_TOGETHER))
        chosen_KN = [
            [middle for middle, there in zip(*row, strict=True) if there]
            for row in zip(part.middles_KN.tolist(), part.inside_KN.tolist(), strict=True)
        ]
        whole = [all(middle in self.pushes for middle in middles) for middles in chosen_KN]
        yield from (Unread(part.film, key, BROKEN) for key, good in zip(part.keys, whole, strict=True) if not good)
        part, chosen_KN = _kept(part, whole), [row for row, good in zip(chosen_KN, whole, strict=True) if good]
        keys = [key for key, good in zip(part.keys, whole, strict=True) if good]
        if not keys:
            return
        summaries = [self.boxes.pop(key) for key in keys]
        rows = torch.arange(len(summaries), device=self.device)
        counts = torch.tensor([len(summary.rois_RD) for summary in summaries], device=self.device)
        summary = BoxSummary(
            VideoState(),
            torch.cat([summary.query_RP for summary in summaries]),
            torch.cat([summary.rois_RD for summary in summaries]),
            rows.repeat_interleave(counts),
        )
        logits_RK = self.model.read_boxes(summary, self._memory(part))
        new, encoded_K = set(part.middles_M.tolist()), []
        for middles in chosen_KN:
            encoded_K.append(len(new.intersection(middles)))
            new.difference_update(middles)
        yield from self._judged(part, film, keys, logits_RK, [len(middles) for middles in chosen_KN], encoded_K)
        least = int(part.middles_KN[-1].min())  # windows of later key frames begin later
        self.pushes = {middle: push for middle, push in self.pushes.items() if middle >= least}

    def _encode(self, part: _Part, film: Film, chosen: slice) -> None:
        clips_MTCHW, middles, owners = part.clips_MTCHW[chosen], part.middles_M[chosen].tolist(), part.owners[chosen]
        keys = [(row, key) for row, own in enumerate(owners) for key in own]
        boxes_R5 = self._pixel_boxes([(row, film.keys[key]) for row, key in keys], clips_MTCHW)
        summary = self.model.summarise_boxes(self._input(clips_MTCHW)[:, None], boxes_R5)
        for row, middle in enumerate(middles):
            # A copy: a view would keep the pushes of all clips that were encoded together.
            self.pushes[middle] = _row(summary.push, row)
        begin = 0
        for _, key in keys:
            place = slice(begin, begin + len(film.keys[key].boxes))
            self.boxes[key] = replace(
                summary, push=VideoState(), query_RP=summary.query_RP[place], rois_RD=summary.rois_RD[place]
            )
            begin = place.stop

    def _memory(self, part: _Part) -> VideoState:
        """The memory of each key frame of the part."""
        if not self.model.places:
            return VideoState()
        empty = self.model.init_state(1, device=self.device)
        clips = [
            _joined(
                [
                    self.pushes[middle] if inside else empty
                    for middle, inside in zip(
                        part.middles_KN[:, n].tolist(), part.inside_KN[:, n].tolist(), strict=True
                    )
                ]
            )
            for n in range(part.middles_KN.shape[1])
        ]
        return merge_clips(clips)

    def _judged(
        self,
        part: _Part,
        film: Film,
        keys: Sequence[int],
        logits_RK: Tensor,
        read_K: Sequence[int],
        encoded_K: Sequence[int],
    ) -> Iterator[Judged]:
        scores_RK, begin = logits_RK.float().sigmoid().cpu(), 0
        for place, key in enumerate(keys):
            end = begin + len(film.keys[key].boxes)
            yield Judged(part.film, key, scores_RK[begin:end], read_K[place], encoded_K[place], part.truncated)
            begin = end

    def _input(self, clips_MTCHW: Tensor) -> Tensor:
        pixels = clips_MTCHW.to(self.device, non_blocking=True)
        return to_model_input(pixels, mean=self.package.mean, std=self.package.std)

    def _pixel_boxes(self, rows: Sequence[tuple[int, KeyFrame]], clips_MTCHW: Tensor) -> Tensor:
        height, width = clips_MTCHW.shape[-2:]
        found = [
            (float(row), x1 * width, y1 * height, x2 * width, y2 * height)
            for row, key in rows
            for x1, y1, x2, y2 in key.boxes
        ]
        return torch.tensor(found, dtype=torch.float32, device=self.device).reshape(-1, 5)


def _kept(part: _Part, whole: Sequence[bool]) -> _Part:
    """Windows of the key frames that can be judged."""
    keep_K = torch.tensor(whole)
    return replace(part, middles_KN=part.middles_KN[keep_K], inside_KN=part.inside_KN[keep_K])


def _row(state: VideoState, row: int) -> VideoState:
    # A copy: a view would keep the pushes of all clips that were encoded together.
    return map_tensors(state, lambda tensor: tensor[row : row + 1].clone())


def _joined(states: Sequence[VideoState]) -> VideoState:
    """One state with all rows."""
    names = list(states[0].as_dict())
    return VideoState.from_dict({name: torch.cat([state.as_dict()[name] for state in states]) for name in names})
