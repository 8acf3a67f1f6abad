"""A model over a data set, its findings in shards on disk: features for long-term banks, logits of teachers, scores.

Each shard is a function of the model, the settings and its samples; a killed extraction goes on with the shards that
are not there, and any process may make any shard. Videos of any length are read a few clips at a time, while the next
ones are being decoded. Samples that cannot be read are listed in their shard, never replaced.
Extra axes: K classes, M clips of a video.
Not here: the files (`datasets/feature_shards.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wholereel.config import Extract
from wholereel.datasets.clip_reader import part_of
from wholereel.datasets.feature_shards import ExtractedVideo, read_settings, shard_file, write_shard
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.errors import ConfigError, DataError
from wholereel.inference.predictor import combine_views, find_package, precision_context
from wholereel.inference.scoring import ClipChunk, score_clips
from wholereel.inference.views import VideoViews, check_views
from wholereel.media.model_input import to_model_input
from wholereel.models.package import Package, load_package
from wholereel.models.weights import PACKAGE_WEIGHTS

__all__ = ["Extracted", "check_extract", "extract"]

KINDS = ("features", "logits", "scores")


@dataclass(frozen=True)
class Extracted:
    """What one call did.

    Args:
        folder: of the shards.
        made, kept: numbers of shards that were written, and that were there.
        videos, clips, faults: in the shards that were written.
    """

    folder: Path
    made: tuple[int, ...]
    kept: tuple[int, ...]
    videos: int
    clips: int
    faults: int


def check_extract(settings: Extract) -> None:
    """Refuse settings that cannot be.

    Raises: ConfigError.
    """
    check_views(settings.views)
    unknown = sorted(set(settings.what) - set(KINDS))
    if unknown or not settings.what or len(set(settings.what)) != len(settings.what):
        raise ConfigError(f"what must be some of {', '.join(KINDS)}, each once; got {list(settings.what)}")
    if settings.views.crops != 1:
        raise ConfigError(f"extraction looks at one crop of a clip; views.crops={settings.views.crops}, use 1")
    if settings.shards < 1 or settings.chunk < 1:
        raise ConfigError(f"shards and chunk must be at least 1, got {settings.shards} and {settings.chunk}")


def extract(
    settings: Extract,
    manifest: Manifest,
    folder: str | Path,
    *,
    package: str | Path | None = None,
    only: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Extracted:
    """Make the shards that are not there.

    Args:
        settings: what is read, and what is kept of it; `model` where `package` is `None`.
        manifest: the samples.
        folder: of the shards; made if it is not there.
        package: folder of the model package or run.
        only: numbers of the shards to make; all where `None`.
        device: `None` = the first GPU where there is one, else the CPU.
        say: told one line a shard.
    Raises:
        ConfigError: settings that cannot be; a shard number outside; shards of other settings in the folder; features
            of a model whose clips exchange what they know.
        DataError: a sample's id occurs twice.
    """
    check_extract(settings)
    numbers = range(settings.shards) if only is None else only
    if any(not 0 <= number < settings.shards for number in numbers):
        raise ConfigError(f"shards are numbered from 0 to {settings.shards - 1}, got {list(numbers)}")
    source = find_package(settings.model if package is None else package)
    model = load_package(source)
    if "features" in settings.what and model.video_model.places:
        raise ConfigError(
            f"{source}: what clips of a model with memory look like depends on the others ({model.spec.memory}), so "
            "there are no features of a clip. Extract logits or scores, or a clip-level model's features."
        )
    samples = manifest.samples[: settings.data.limit]
    _check_ids(samples, manifest.root)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    described = _described(settings, source, model, samples)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.video_model.eval().to(device)
    made, kept = [], []
    videos = clips = unread = 0
    for number in numbers:
        file = shard_file(folder, number, settings.shards)
        if _is_there(file, described):
            kept.append(number)
            continue
        found: list[ExtractedVideo] = []
        faults: list[dict[str, str]] = []
        for sample in samples[number :: settings.shards]:
            try:
                found.append(_video(sample, settings, model, device))
            except DataError as error:
                faults.append({"id": sample.id, "path": str(sample.path), "reason": str(error)})
        write_shard(file, found, described, faults)
        made.append(number)
        videos, unread = videos + len(found), unread + len(faults)
        clips += sum(len(video.seconds_M2) for video in found)
        say(f"{file.name}: {len(found)} videos" + (f", {len(faults)} could not be read" if faults else ""))
    return Extracted(folder, tuple(made), tuple(kept), videos, clips, unread)


def _check_ids(samples: Sequence[Sample], root: Path) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise DataError(root, f"sample {sample.id!r} occurs twice", "one row a sample", "Choose one split.")
        seen.add(sample.id)


def _described(settings: Extract, source: Path, package: Package, samples: Sequence[Sample]) -> dict[str, Any]:
    """What determines the content of the shards, as JSON holds it; not where files lie."""
    digest = hashlib.sha256()
    with (source / PACKAGE_WEIGHTS).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    described = {
        "model": package.spec.name,
        "weights": digest.hexdigest()[:16],
        "what": list(settings.what),
        "views": dataclasses.asdict(settings.views),
        "precision": settings.precision,
        "samples": hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()[:16],
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def _is_there(file: Path, described: dict[str, Any]) -> bool:
    if not file.is_file():
        return False
    before = read_settings(file)
    differing = sorted(name for name in described if before.get(name) != described[name])
    if differing:
        raise ConfigError(
            f"{file} was made with other settings ({', '.join(differing)}). Choose another folder, or remove it."
        )
    return True


def _video(sample: Sample, settings: Extract, package: Package, device: torch.device) -> ExtractedVideo:
    part = part_of(sample)
    with VideoViews(
        sample.path,
        settings.views,
        start=part.start,
        end=part.end,
        key_seconds=part.key_seconds,
        left_pad=part.left_pad,
        frame_rate=sample.frame_rate,
    ) as video:
        seconds_M2, valid_M = video.seconds_N2, video.valid_N

        def chunks() -> Iterator[ClipChunk]:
            for begin, clips_MCTHW in _read_ahead(video, settings.chunk):
                clips_1MCTHW = to_model_input(clips_MCTHW.to(device)[None], mean=package.mean, std=package.std)
                order_1M = torch.arange(begin, begin + len(clips_MCTHW), device=device)[None]
                yield ClipChunk(clips_1MCTHW, valid_M[order_1M.cpu()].to(device), order_1M)

        clips: dict[str, Tensor] = {}
        whole: dict[str, Tensor] = {}
        with precision_context(settings.precision, device), torch.no_grad():
            if "features" in settings.what:
                clips["features"] = torch.cat([_features(package, chunk) for chunk in chunks()])
            if {"logits", "scores"} & set(settings.what):
                logits_1MK = score_clips(package.video_model, chunks).shared_RNK.float().cpu()
                scores_K = combine_views(logits_1MK, valid_M[None], settings.views, package)[0]
                clips |= {"logits": logits_1MK[0]} if "logits" in settings.what else {}
                whole |= {"scores": scores_K} if "scores" in settings.what else {}
    return ExtractedVideo(sample.id, seconds_M2, clips, whole)


def _features(package: Package, chunk: ClipChunk) -> Tensor:
    """Means over positions of what the last stage gives, (M, D)."""
    clip_model = package.video_model.clip_model
    x_MCTHW = clip_model.forward_features(chunk.clips_RNCTHW[0])
    return clip_model.forward_head(x_MCTHW, pre_logits=True).float().cpu()


def _read_ahead(video: VideoViews, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Clips of a video, some at a time, the next ones being decoded meanwhile (decoding lets other threads run)."""
    begins = range(0, len(video), chunk)
    with ThreadPoolExecutor(1) as reader:
        pending = [reader.submit(video.read, range(begins[0], min(chunk, len(video))))]
        for begin in begins:
            clips_MTCHW = pending.pop().result()
            following = begin + chunk
            if following < len(video):
                pending.append(reader.submit(video.read, range(following, min(following + chunk, len(video)))))
            yield begin, clips_MTCHW
